"""fastMRI HDF5 (Zbontar et al., arXiv:1811.08839; prostate: Tibrewala et al., Sci Data 2024).

``kspace`` complex64 ``(slice, coil, readout, phase)`` with twice-oversampled readout, phase width zero-padded
to the encoded matrix; prostate T2 has averages in front. Sorted already, no noise scan, no positions.
"""

from __future__ import annotations

from dataclasses import replace

import h5py
import numpy as np

from ...contract.codes import Code, PermanentError
from ...contract.progress import Progress
from ..acquisitions import Part
from ..archive.members import Member
from ..gates import xml as xmlgate
from ..header import Encoding, Limit, Space, parse
from ..limits import Limits
from .gridded import gridded_part
from .mrd import corrupt_on_error, no_acquisitions, open_h5, xml_text


def read(member: Member, limits: Limits, progress: Progress) -> list[Part]:
    """Read one fastMRI file.

    Raises
    ------
    PermanentError
        ``h5_schema``, ``h5_corrupt``, ``xml_*``, ``no_acquisitions``, ``too_large``, ``non_finite``,
        ``unsupported``.
    """
    with open_h5(member) as file, corrupt_on_error():
        data = _kspace(file)
        header = parse(xmlgate.parse(xml_text(file["ismrmrd_header"], member, limits), limits))
        if "trace_b50" in file or "trace_b1000" in file:
            raise PermanentError(
                Code.UNSUPPORTED,
                "This is the diffusion (echo-planar) layout of fastMRI prostate; Cartesian scans are read.",
            )
        if data.size * 8 > limits.memory_bytes // 3:
            raise PermanentError(
                Code.TOO_LARGE, f"The k-space takes {data.size // 2**17} MiB, more than is allowed here."
            )
        averages = data.shape[0] if data.ndim == 5 else 1
        n_slices, _, n_x, n_y = data.shape[-4:]
        stores, counters = [], []
        for average in range(averages):
            for slice_ in range(n_slices):
                block = data[average, slice_] if data.ndim == 5 else data[slice_]
                with np.errstate(over="ignore"):  # what does not fit becomes infinite and is refused
                    block = block.astype(np.complex64, copy=False)
                stores.append(np.ascontiguousarray(block.transpose(2, 0, 1)))
                counters.append({"average": average, "slice": slice_})
                progress("read", len(stores) / (averages * n_slices), "")
    encoding, warnings = _encoding(header.encodings[0], n_x, n_y)
    part = gridded_part(replace(header, encodings=(encoding,)), stores, counters, n_y)
    if not part.table.size:
        raise no_acquisitions()
    limit = header.encodings[0].limits.get("kspace_encoding_step_1")
    if limit is not None:
        first = header.encodings[0].encoded.matrix[1] // 2 - limit.center
        last = first + limit.maximum
        beyond = np.unique(part.table["ky"])
        if beyond.min() < first or beyond.max() > last:
            warnings.append(
                f"The header says that columns {first} to {last} were acquired, columns {beyond.min()} to "
                f"{beyond.max()} hold data: the data were believed."
            )
    part.warnings.extend(warnings)
    return [part]


def _kspace(file: h5py.File) -> h5py.Dataset:
    data = file.get("kspace")
    good = (
        isinstance(data, h5py.Dataset)
        and data.ndim in (4, 5)
        and data.dtype.kind == "c"
        and isinstance(file.get("ismrmrd_header"), h5py.Dataset)
    )
    if not good:
        raise PermanentError(
            Code.H5_SCHEMA,
            "The fastMRI file must hold kspace, complex with axes (slice, coil, readout, phase) or averages "
            "in front, and ismrmrd_header: export it again.",
        )
    if data.size == 0:
        raise no_acquisitions()
    return data


def _encoding(encoding: Encoding, n_x: int, n_y: int) -> tuple[Encoding, list[str]]:
    """Return the encoding of the array itself: its width is the phase axis, its centre at ``n // 2``."""
    warnings = []
    encoded = encoding.encoded
    fov_y, fov_x = encoded.fov_mm[1:]
    if n_x != encoded.matrix[2]:
        warnings.append(
            f"The header gives {encoded.matrix[2]} points along the readout, the array has {n_x}: the array "
            "was believed."
        )
    if n_y != encoded.matrix[1]:
        warnings.append(
            f"The header gives {encoded.matrix[1]} lines, the array has {n_y}: the array was believed, its "
            "voxel taken from the header."
        )
        # Zero padding makes voxels smaller, not the field of view; the array spans the same field of view.
    space = Space((1, n_y, n_x), (encoded.fov_mm[0], fov_y, fov_x))
    limits = {"kspace_encoding_step_1": Limit(0, n_y - 1, n_y // 2)}
    recon = encoding.recon
    recon = Space((1, *recon.matrix[1:]), recon.fov_mm)
    return replace(encoding, encoded=space, recon=recon, limits=limits), warnings
