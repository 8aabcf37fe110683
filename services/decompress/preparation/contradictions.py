"""Where header and readouts disagree about what was acquired: the readouts decide, and a warning says so.

Protocols go stale (a Pulseq sequence runs under the protocol of another scan), writers leave defaults, scans
are stopped early.  Each sentence names both numbers.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from ...contract.codes import Code, PermanentError
from ..acquisitions import Part, Table
from ..header import Encoding, Limit, ScanHeader, Space
from .notes import Notes
from .placement import Ints, line_power

if TYPE_CHECKING:
    from .sorter import Block

_MORE = 1.25
"""So many times the lines of the matrix are another matrix; fewer beyond it are stray counters: refused."""
_MOST = 8
_DENSE = 0.75
"""Share of the lines between the first and the last that another matrix has; strays leave gaps."""
_SAME = 0.05
_NEAR = 2
_STRONG = 0.5
_ABOVE = 30.0
"""Power of a line far from the centre over that at the centre, and over the median of all lines: no object
exceeds both.  The first stayed below 0.04 in real scans that were placed right."""
_GROUPS = 8
_COUNTED = {
    "slice": "slices",
    "repetition": "repetitions",
    "contrast": "contrasts",
    "phase": "cardiac phases",
    "set": "sets",
}


def believe_lines(part: Part, rows: Ints, encoding: Encoding, notes: Notes) -> Encoding:
    """Return the encoding with a matrix that has room for all lines and partitions, where they fill one.

    The field of view along these axes is kept, so the voxels become smaller.  Where the readouts have more
    samples than the header says too, and by as much, their field of view is kept as well; by twice as much,
    they are oversampled.
    """
    grown = encoding
    for axis, number, words in (("ky", 1, "lines"), ("kz", 0, "partitions")):
        grown = _grow(part, rows, grown, axis, number, words, notes)
    lines = grown.encoded.matrix[1] / encoding.encoded.matrix[1]
    table = part.table[rows]
    most = int((table["samples"].astype(np.int64) - table["pre"] - table["post"]).max())
    samples = most / encoding.encoded.matrix[2]
    for oversampled in (1, 2):
        if lines > 1 and abs(samples / lines / oversampled - 1) < _SAME:
            return _with_samples(grown, most, oversampled, notes)
    return grown


def _grow(
    part: Part, rows: Ints, encoding: Encoding, axis: str, number: int, words: str, notes: Notes
) -> Encoding:
    n, fov = encoding.encoded.matrix[number], encoding.encoded.fov_mm[number]
    steps = part.table[axis][rows].astype(np.int64)
    low, high = int(steps.min()), int(steps.max())
    count = high - low + 1
    dense = np.unique(steps).size >= _DENSE * count
    if not (_MORE * n < count <= _MOST * n and dense) or (number == 0 and n == 1):
        return encoding
    limit = encoding.limits.get(f"kspace_encoding_step_{2 - number}")
    user = int(part.table[f"user_{axis}"][rows[0]])
    candidates = {c for c in (user, limit.center if limit else 0, low + count // 2) if low < c <= high}
    centre = max(sorted(candidates), key=lambda c: line_power(part, rows, steps, c))
    larger = max(2 * (centre - low), 2 * (high - centre + 1))
    larger = min(larger, 2 * count)
    notes.warn(
        f"The header gives {n} {words}, the readouts count {count} along {axis}: the readouts were believed "
        f"(matrix of {larger}, field of view {fov:.1f} mm as the header has it)."
    )
    limits = encoding.limits | {f"kspace_encoding_step_{2 - number}": Limit(low, high, centre)}
    ratio = larger / n
    return replace(
        encoding,
        encoded=_resized(encoding.encoded, number, larger, fov),
        recon=_resized(
            encoding.recon,
            number,
            round(encoding.recon.matrix[number] * ratio),
            encoding.recon.fov_mm[number],
        ),
        limits=limits,
    )


def _with_samples(encoding: Encoding, most: int, oversampled: int, notes: Notes) -> Encoding:
    n, fov = encoding.encoded.matrix[2], encoding.encoded.fov_mm[2]
    wide = fov * oversampled
    wanted = encoding.recon.fov_mm[2]
    notes.warn(
        f"The header gives {n} points along the readout, the readouts have {most} samples: the readouts were "
        f"believed (field of view {wide:.1f} mm with oversampling, header {fov:.1f} mm)."
    )
    return replace(
        encoding,
        encoded=_resized(encoding.encoded, 2, most, wide),
        recon=_resized(encoding.recon, 2, max(1, round(most * min(wanted / wide, 1.0))), wanted),
    )


def _resized(space: Space, number: int, n: int, fov_mm: float) -> Space:
    matrix, fov = list(space.matrix), list(space.fov_mm)
    matrix[number], fov[number] = n, fov_mm
    return Space((matrix[0], matrix[1], matrix[2]), (fov[0], fov[1], fov[2]))


def warn_of_counts(header: ScanHeader, encoding: Encoding, table: Table, notes: Notes) -> None:
    """Compare what the header announces (channels, slices, repetitions and the like) with the readouts."""
    channels = int(table["channels"][0])
    if header.channels and header.channels != channels:
        notes.warn(
            f"The header gives {header.channels} receiver channels, the readouts have {channels}: the "
            "readouts were believed."
        )
    for counter, words in _COUNTED.items():
        limit = encoding.limits.get(counter)
        found = np.unique(table[counter]).size
        announced = found if limit is None else limit.maximum - limit.minimum + 1
        if announced != found:
            notes.warn(
                f"The header announces {announced} {words}, the readouts hold {found}: the readouts were "
                "believed."
            )


def warn_of_lines(axis: str, limit: Limit | None, low: int, high: int, notes: Notes) -> None:
    """Warn of lines that the header does not count."""
    if limit is not None and limit.maximum > 0 and (low < limit.minimum or high > limit.maximum):
        notes.warn(
            f"The header counts from {limit.minimum} to {limit.maximum} along {axis}, the readouts from "
            f"{low} to {high}: the readouts were believed."
        )


def refuse_lost_centre(block: Block) -> None:
    """Refuse lines whose counters cannot be their places: far from the centre, signal is as strong as there.

    Noise alone is equally strong everywhere and is no reason to refuse.

    Raises
    ------
    PermanentError
        ``unsupported``, naming where the signal is.
    """
    for axis, number in (("ky", 3), ("kz", 2)):
        n = block.shape[number]
        power, seen = _power_along(block, number)
        centre = n // 2
        near = slice(max(0, centre - _NEAR), centre + _NEAR + 1)
        far = seen & (np.abs(np.arange(n) - centre) > max(4, n // 8))
        if not (seen[near].any() and far.any()):
            continue
        strongest = int(np.where(far, power, 0).argmax())
        usual = float(np.median(power[seen]))
        if power[strongest] > max(_STRONG * float(power[near].max()), _ABOVE * usual):
            raise PermanentError(
                Code.UNSUPPORTED,
                f"Line {strongest} of {n} along {axis} is as strong as the centre of k-space, which lies at "
                f"line {centre} by header and counters: the counters do not say where the lines lie. Export "
                "the scan with lines counted by their place in k-space.",
            )


def _power_along(block: Block, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Return mean power of the lines at each step of an axis, and which steps were acquired."""
    first = block.rows[block.start[:-1]]
    places = block.lines[:, number]
    groups = np.unique(block.lines[:, :2], axis=0)
    picked = groups[np.linspace(0, len(groups) - 1, min(len(groups), _GROUPS)).astype(int)]
    total, count = np.zeros(block.shape[number]), np.zeros(block.shape[number])
    for image, slice_ in picked:
        mine = (block.lines[:, 0] == image) & (block.lines[:, 1] == slice_)
        for row, place in zip(first[mine], places[mine], strict=True):
            samples = block.part.samples(int(row))
            total[place] += float(np.vdot(samples, samples).real)
            count[place] += 1
    return total / np.maximum(count, 1), count > 0
