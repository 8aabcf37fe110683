"""Classic MR Image Storage, single-frame, built from a whitelist. ``docs/dicom.md`` says why.

Nothing is copied from the raw header: every attribute is set from :class:`.facts.Facts`. UIDs derive from
scan and reconstruction id, so a rerun writes the same bytes and a second delivery to a PACS adds nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import MRImageStorage

from ...contract.ids import uid
from ...contract.progress import Progress, silent
from .dicom_common import decimal, study, write
from .display import View, views
from .facts import Facts, patient_position
from .series import Series, echoes, plan, protocol_class
from .volume import stack

BITS_STORED = 12
MAXIMUM = (1 << BITS_STORED) - 1
_WINDOW_PERCENTILE = 99.5
NOT_KNOWN = "POSITION AND ORIENTATION NOT KNOWN"

VolumeOf = Callable[[int], NDArray[np.float32]]
"""Returns the magnitude ``(z, y, x)`` of an image by its index; called twice for each."""


def write_all(
    folder: Path,
    facts: Facts,
    volume_of: VolumeOf,
    warnings: Iterable[str] = (),
    progress: Progress = silent,
) -> int:
    """Write all series (:mod:`.series`) as single-frame files and return the number of files.

    Parameters
    ----------
    folder
        Existing folder; files are named ``<series>_<instance>.dcm``, both counted from 1.
    facts
        What may be said of the scan.
    volume_of
        The images. One factor for a whole series brings its maximum to 4095.
    warnings
        Sentences that go into the image comments.
    progress
        Told as it goes on.
    """
    files, all_series = 0, plan(facts)
    for n, series in enumerate(all_series):
        progress("write", 0.4 + 0.4 * n / len(all_series), f"DICOM, series {n + 1}")
        files += _write_series(folder, facts, series, volume_of, list(warnings))
    return files


def _write_series(
    folder: Path, facts: Facts, series: Series, volume_of: VolumeOf, warnings: list[str]
) -> int:
    peak = bright = 0.0
    for image in series.images:
        volume = volume_of(image)
        peak = max(peak, float(volume.max(initial=0.0)))
        bright = max(bright, float(np.percentile(volume, _WINDOW_PERCENTILE)))
    scale = MAXIMUM / peak if peak > 0 else 1.0
    window = max(1.0, bright * scale)
    head = _head(facts, series, warnings)
    head.WindowCenter, head.WindowWidth = decimal(window / 2), decimal(window)
    number = 0
    for position, image in enumerate(series.images, 1):
        volume = volume_of(image)
        for view in views(facts.geometry):
            number += 1
            pixels = np.clip(np.rint(view.of(volume).astype(np.float64) * scale), 0, MAXIMUM).astype("<u2")
            data = _instance(head, facts, series, position, number, view, pixels)
            write(folder / f"{series.index:03d}_{number:04d}.dcm", data)
    return number


def _head(facts: Facts, series: Series, warnings: list[str]) -> Dataset:
    """Return the attributes all instances of a series share."""
    geometry, how = facts.geometry, facts.acquisition
    index = facts.images[series.images[0]]
    data = study(facts)
    data.Modality = "MR"
    data.SeriesInstanceUID = uid("series", [facts.scan_id, facts.recon_id, series.index])
    data.SeriesNumber = series.number
    data.SeriesDescription = series.description
    data.ProtocolName = protocol_class(facts)
    data.Laterality = ""
    data.PatientPosition = patient_position(geometry)
    data.FrameOfReferenceUID = uid("frame", [facts.scan_id])
    data.PositionReferenceIndicator = ""
    # MR image
    data.ImageType = ["ORIGINAL", "PRIMARY", "M"]
    data.DerivationDescription = (
        f"Reconstructed from raw k-space by mrirecon {facts.version}: {facts.summary}"[:1024]
    )
    comments = ([NOT_KNOWN] if not geometry.known else []) + warnings
    data.ImageComments = ("Not for diagnosis. " + " ".join(comments)).strip()[:10240]
    # Neither the raw header nor its inversion time (written for sequences without one) says how the signal
    # was prepared: research mode where the sequence is not known, and no InversionTime.
    data.ScanningSequence, data.SequenceVariant, data.ScanOptions = how.sequence or "RM", "NONE", ""
    data.MRAcquisitionType = "3D" if geometry.is_3d else "2D"
    data.RepetitionTime = decimal(how.repetition_time_s, 1e3)
    data.EchoTime = decimal(index.echo_time_s, 1e3)
    data.EchoTrainLength = "" if how.echo_train_length is None else how.echo_train_length
    data.EchoNumbers = index.contrast + 1 if echoes(facts) else 1
    if how.flip_angle_deg is not None:
        data.FlipAngle = decimal(how.flip_angle_deg)
    if how.field_strength_t is not None:
        data.MagneticFieldStrength = decimal(round(how.field_strength_t, 4))
    if len(series.images) > 1:
        data.NumberOfTemporalPositions = len(series.images)
    # Image plane and pixels
    data.SliceThickness = decimal(geometry.voxel_mm[0])
    spacing = stack(geometry).spacing_mm
    if spacing is not None:
        data.SpacingBetweenSlices = decimal(spacing)
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated, data.BitsStored, data.HighBit = 16, BITS_STORED, BITS_STORED - 1
    data.PixelRepresentation = 0
    return data


def _instance(
    head: Dataset,
    facts: Facts,
    series: Series,
    position: int,
    number: int,
    view: View,
    pixels: NDArray[np.uint16],
) -> Dataset:
    """Return one plane's file; ``position`` is temporal, ``number`` that of the instance, both from 1."""
    data = Dataset()
    data.update(head)
    data.SOPClassUID = MRImageStorage
    data.SOPInstanceUID = uid("instance", [facts.scan_id, facts.recon_id, series.index, number])
    data.InstanceNumber = number
    data.AcquisitionNumber = position
    if len(series.images) > 1:
        data.TemporalPositionIdentifier = position
    data.InPlanePhaseEncodingDirection = "ROW" if view.transposed else "COL"
    # DICOM gives the centre of the first voxel; the raw header gives the centre of the field of view.
    data.ImagePositionPatient = [decimal(value) for value in view.first_voxel_mm]
    data.ImageOrientationPatient = [decimal(value) for value in (*view.right, *view.down)]
    data.PixelSpacing = [decimal(value) for value in view.spacing_mm]
    data.Rows, data.Columns = pixels.shape
    data.SmallestImagePixelValue, data.LargestImagePixelValue = int(pixels.min()), int(pixels.max())
    data.PixelData = pixels.tobytes()
    return data
