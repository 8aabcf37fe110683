"""BART ``.cfl``/``.hdr``: complex64 in Fortran order, 16 dimensions (Uecker et al., ISMRM 2015; bart
``src/misc/mri.h``).

A line of zeros was not acquired.  The pair tells no sizes, positions or timing: voxels of 1 mm are assumed
and the geometry is unknown.
"""

from __future__ import annotations

import math
import re

import numpy as np
from numpy.typing import NDArray

from ...contract.codes import Code, PermanentError
from ...contract.progress import Progress
from ..acquisitions import Part
from ..archive.members import Member, RawKind
from ..header import Encoding, Limit, ScanHeader, Space
from ..limits import Limits
from .gridded import gridded_part
from .mrd import no_acquisitions

_DIMS = 16
_READ, _PHS1, _PHS2, _COIL, _TE, _TIME, _TIME2, _SLICE, _AVG = 0, 1, 2, 3, 5, 10, 11, 13, 14
_USED = {_READ, _PHS1, _PHS2, _COIL, _TE, _TIME, _TIME2, _SLICE, _AVG}
_MAX_HEADER = 64 * 1024
_MAX_DIGITS = 10


def read(members: list[Member], limits: Limits, progress: Progress) -> list[Part]:
    """Read the one pair among ``members``.

    Raises
    ------
    PermanentError
        ``length_mismatch`` where data and header do not fit or one of them is missing, ``mixed_scans`` for
        several pairs, ``too_large``, ``unsupported``, ``non_finite``, ``no_acquisitions``.
    """
    headers = {m.stem: m for m in members if m.kind is RawKind.HDR}
    data = {m.stem: m for m in members if m.kind is RawKind.CFL}
    dims = {stem: dimensions(member) for stem, member in headers.items()}
    for stem, shape in dims.items():
        size = data[stem].size if stem in data else 0
        if math.prod(shape) * 8 != size:
            raise PermanentError(
                Code.LENGTH_MISMATCH,
                f"A BART header describes {math.prod(shape) * 8} bytes of data, {size} were found: send "
                ".hdr and .cfl together, whole.",
            )
    if set(data) - set(dims):
        raise PermanentError(
            Code.LENGTH_MISMATCH, "BART data came without their header: send the .hdr as well."
        )
    if len(dims) != 1:
        raise PermanentError(
            Code.MIXED_SCANS, f"The archive holds {len(dims)} BART data sets; send each in its own archive."
        )
    ((stem, shape),) = dims.items()
    _check(shape, data[stem].size, limits)
    part = _part(data[stem], shape)
    progress("read", 1.0, "")
    return [part]


def dimensions(member: Member) -> tuple[int, ...]:
    """Return the 16 dimensions that a ``.hdr`` gives.

    Raises
    ------
    PermanentError
        ``length_mismatch`` where it gives none.
    """
    with member.open() as stream:
        text = stream.read(_MAX_HEADER).decode("ascii", "replace")
    found = re.search(r"^# Dimensions[^\n]*\n([0-9 \t]*)", text, re.MULTILINE)
    words = found.group(1).split() if found else []
    numbers = [int(word) if len(word) <= _MAX_DIGITS else 0 for word in words]
    if not numbers or len(numbers) > _DIMS or any(not 1 <= n <= 2**31 for n in numbers):
        raise PermanentError(
            Code.LENGTH_MISMATCH, "The BART header gives no dimensions of 1 or more: write it again."
        )
    return tuple(numbers + [1] * (_DIMS - len(numbers)))


def _check(shape: tuple[int, ...], size: int, limits: Limits) -> None:
    if size > limits.memory_bytes // 3:
        raise PermanentError(Code.TOO_LARGE, f"The data take {size // 2**20} MiB, more than is allowed here.")
    other = [axis for axis, n in enumerate(shape) if n > 1 and axis not in _USED]
    if other:
        raise PermanentError(
            Code.UNSUPPORTED,
            f"The BART data use dimension {other[0]}; read are readout, phases, coil, echo, time, slice and "
            "average.",
        )
    if shape[_READ] == 1:
        raise PermanentError(
            Code.UNSUPPORTED,
            "The BART data have no Cartesian readout (first dimension 1), as data along a trajectory have; "
            "Cartesian k-space is read.",
        )


def _part(member: Member, shape: tuple[int, ...]) -> Part:
    raw = np.empty(member.size // 8, np.dtype("<c8"))
    with member.open() as stream:
        view, at = memoryview(raw.view(np.uint8).data), 0
        while at < len(view) and (got := stream.readinto(view[at:])):  # type: ignore[attr-defined]
            at += got
    array: NDArray[np.complex64] = raw.reshape(shape[::-1])
    n_x, n_y, n_z, n_coil = (shape[axis] for axis in (_READ, _PHS1, _PHS2, _COIL))
    stores, counters = [], []
    for place in np.ndindex(*(shape[axis] for axis in (_AVG, _SLICE, _TIME2, _TIME, _TE))):
        average, slice_, time2, time, echo = place
        where = [0] * _DIMS
        for axis, index in zip((_AVG, _SLICE, _TIME2, _TIME, _TE), place, strict=True):
            where[axis] = index
        block = array[tuple(where[:_COIL:-1])]  # (coil, kz, ky, kx)
        stores.append(block.reshape(n_coil, n_z * n_y, n_x).transpose(1, 0, 2))
        counters.append(
            {"average": average, "slice": slice_, "phase": time2, "repetition": time, "contrast": echo}
        )
    limits = {
        "kspace_encoding_step_1": Limit(0, n_y - 1, n_y // 2),
        "kspace_encoding_step_2": Limit(0, n_z - 1, n_z // 2),
    }
    space = Space((n_z, n_y, n_x), (float(n_z), float(n_y), float(n_x)))
    part = gridded_part(ScanHeader((Encoding(space, space, limits=limits),)), stores, counters, n_y)
    if not part.table.size:
        raise no_acquisitions()
    part.warnings.append("BART files tell no sizes: voxels of 1 mm were assumed.")
    return part
