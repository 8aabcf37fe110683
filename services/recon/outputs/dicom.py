"""Classic MR Image Storage, one series an image index, built from a whitelist. ``docs/dicom.md`` says why.

Nothing is copied from the raw header: every attribute is set below from :class:`.facts.Facts`.
UIDs derive from scan and reconstruction id, so a rerun writes the same bytes and a second delivery to a PACS
adds nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmwrite
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import UID, ExplicitVRLittleEndian, MRImageStorage
from pydicom.valuerep import format_number_as_ds

from ...contract.ids import uid
from .display import View, views
from .facts import Facts, patient_position
from .volume import stack

BITS_STORED = 12
MAXIMUM = (1 << BITS_STORED) - 1
_IMPLEMENTATION = uid("implementation", ["mrirecon"])
_WINDOW_PERCENTILE = 99.5
NOT_KNOWN = "POSITION AND ORIENTATION NOT KNOWN"


def write_series(
    folder: Path, facts: Facts, image: int, volume: NDArray[np.float32], warnings: Iterable[str] = ()
) -> int:
    """Write one image index as a series of single-frame files and return their number.

    Parameters
    ----------
    folder
        Existing folder; files are named ``<image>_<plane>.dcm``, both counted from 1, planes as they
        are shown (:mod:`.display`).
    facts
        What may be said of the scan.
    image
        Index into ``facts.images``.
    volume
        float32 ``(z, y, x)`` magnitude. One factor for the whole series brings its maximum to 4095.
    warnings
        Sentences that go into the image comments.
    """
    peak = float(volume.max(initial=0.0))
    scale = MAXIMUM / peak if peak > 0 else 1.0
    head = _series(facts, image, list(warnings))
    window = max(1.0, float(np.percentile(volume, _WINDOW_PERCENTILE)) * scale)
    head.WindowCenter, head.WindowWidth = _ds(window / 2), _ds(window)
    for number, view in enumerate(views(facts.geometry), 1):
        pixels = np.clip(np.rint(view.of(volume).astype(np.float64) * scale), 0, MAXIMUM).astype("<u2")
        _write(
            folder / f"{image + 1:03d}_{number:04d}.dcm", _instance(head, facts, image, number, view, pixels)
        )
    return int(volume.shape[0])


def _series(facts: Facts, image: int, warnings: list[str]) -> Dataset:
    """Return the attributes all instances of a series share."""
    geometry, index, how = facts.geometry, facts.images[image], facts.acquisition
    data = Dataset()
    # Patient: a pseudonym a scan, because one constant patient would merge all scans of a PACS into one.
    data.PatientName = f"MRIRECON^{facts.scan_id.upper()}"
    data.PatientID = f"mrirecon-{facts.scan_id}"
    data.PatientBirthDate = data.PatientSex = ""
    data.PatientIdentityRemoved = "YES"
    data.DeidentificationMethod = "Built from a whitelist; nothing copied from the raw header"
    data.DeidentificationMethodCodeSequence = Sequence(
        [_code("113100", "DCM", "Basic Application Confidentiality Profile")]
    )
    data.LongitudinalTemporalInformationModified = "REMOVED"
    # Study and series
    data.StudyInstanceUID = uid("study", [facts.scan_id])
    data.StudyID = facts.scan_id[:16]
    data.StudyDate = data.StudyTime = data.AccessionNumber = data.ReferringPhysicianName = ""
    data.Modality = "MR"
    data.SeriesInstanceUID = uid("series", [facts.scan_id, facts.recon_id, image])
    data.SeriesNumber = image + 1
    data.SeriesDescription = _description(facts, image)
    data.Laterality = ""
    data.PatientPosition = patient_position(geometry)
    data.FrameOfReferenceUID = uid("frame", [facts.scan_id])
    data.PositionReferenceIndicator = ""
    # Equipment: the scanner's vendor from a closed list; what made these images as contributing equipment
    data.Manufacturer = how.vendor
    data.ContributingEquipmentSequence = Sequence([_equipment(facts)])
    # MR image
    data.ImageType = ["ORIGINAL", "PRIMARY", "M"]
    data.DerivationDescription = (
        f"Reconstructed from raw k-space by mrirecon {facts.version}: {facts.summary}"[:1024]
    )
    comments = ([NOT_KNOWN] if not geometry.known else []) + warnings
    data.ImageComments = ("Not for diagnosis. " + " ".join(comments)).strip()[:10240]
    data.AcquisitionNumber = image + 1
    # Neither the raw header nor its inversion time (written for sequences without one) says how the signal
    # was prepared: research mode where the sequence is not known, and no InversionTime.
    data.ScanningSequence, data.SequenceVariant, data.ScanOptions = how.sequence or "RM", "NONE", ""
    data.MRAcquisitionType = "3D" if geometry.is_3d else "2D"
    data.RepetitionTime = _ds(how.repetition_time_s, 1e3)
    data.EchoTime = _ds(index.echo_time_s, 1e3)
    data.EchoTrainLength = "" if how.echo_train_length is None else how.echo_train_length
    data.EchoNumbers = index.contrast + 1
    if how.flip_angle_deg is not None:
        data.FlipAngle = _ds(how.flip_angle_deg)
    if how.field_strength_t is not None:
        data.MagneticFieldStrength = _ds(round(how.field_strength_t, 4))
    # Image plane and pixels
    data.SliceThickness = _ds(geometry.voxel_mm[0])
    spacing = stack(geometry).spacing_mm
    if spacing is not None:
        data.SpacingBetweenSlices = _ds(spacing)
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated, data.BitsStored, data.HighBit = 16, BITS_STORED, BITS_STORED - 1
    data.PixelRepresentation = 0
    data.BurnedInAnnotation, data.LossyImageCompression = "NO", "00"
    return data


def _instance(
    head: Dataset, facts: Facts, image: int, number: int, view: View, pixels: NDArray[np.uint16]
) -> Dataset:
    data = Dataset()
    data.update(head)
    data.SOPClassUID = MRImageStorage
    data.SOPInstanceUID = uid("instance", [facts.scan_id, facts.recon_id, image, number])
    data.InstanceNumber = number
    data.InPlanePhaseEncodingDirection = "ROW" if view.transposed else "COL"
    # DICOM gives the centre of the first voxel; the raw header gives the centre of the field of view.
    data.ImagePositionPatient = [_ds(value) for value in view.first_voxel_mm]
    data.ImageOrientationPatient = [_ds(value) for value in (*view.right, *view.down)]
    data.PixelSpacing = [_ds(value) for value in view.spacing_mm]
    data.Rows, data.Columns = pixels.shape
    data.SmallestImagePixelValue, data.LargestImagePixelValue = int(pixels.min()), int(pixels.max())
    data.PixelData = pixels.tobytes()
    return data


def _write(path: Path, data: Dataset) -> None:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = data.SOPClassUID
    meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = UID(_IMPLEMENTATION)
    meta.ImplementationVersionName = "MRIRECON"
    file = FileDataset(str(path), data, file_meta=meta, preamble=b"\0" * 128)
    dcmwrite(path, file, enforce_file_format=True, overwrite=False)


def _description(facts: Facts, image: int) -> str:
    index = facts.images[image]
    parts = [f"mrirecon {facts.method}"]
    for name in ("contrast", "repetition", "phase", "set"):
        if len({getattr(other, name) for other in facts.images}) > 1:
            parts.append(f"{name} {getattr(index, name) + 1}")
    if not facts.geometry.known:
        parts.insert(0, "ORIENTATION NOT KNOWN")
    return " ".join(parts)[:64]


def _equipment(facts: Facts) -> Dataset:
    item = Dataset()
    item.PurposeOfReferenceCodeSequence = Sequence([_code("109102", "DCM", "Processing Equipment")])
    item.Manufacturer = "mrirecon"
    item.ManufacturerModelName = f"mrirecon {facts.method}"
    item.SoftwareVersions = facts.version
    item.ContributionDescription = facts.summary[:1024]
    return item


def _code(value: str, scheme: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


def _ds(value: float | None, factor: float = 1.0) -> str:
    """Return a decimal string of at most 16 characters, empty where nothing is known."""
    if value is None or not math.isfinite(value):
        return ""
    return format_number_as_ds(float(value) * factor + 0.0)
