"""Where samples and lines lie on the k-space grid: readout centre, asymmetric echo, partial Fourier.

Where header and data contradict each other the data decide, and a warning says so.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...contract.codes import Code, PermanentError
from ..acquisitions import Flag, Part
from ..header import Encoding, Limit
from .notes import Notes

Ints = NDArray[np.int64]

_FEWEST = 8
"""A readout has at least one in so many of the matrix' points."""
_SLACK = 2
"""Samples that may fall off the grid by rounding (even and odd counts, reversed readouts)."""


@dataclass(frozen=True)
class ReadoutGrid:
    """The readout axis.

    Attributes
    ----------
    n
        Points with oversampling, k-space centre at ``n // 2``.
    n_out
        Points once oversampling is removed (``n_out <= n``).
    fov_mm
        Field of view [mm] of the ``n_out`` points.
    first
        For each readout asked about, the grid point of its first kept sample (after turning a reversed one);
        may be negative.
    kept
        For each readout, its samples without the discarded ones.
    kx_range
        First and past-last of the ``n_out`` points that every readout covers.
    """

    n: int
    n_out: int
    fov_mm: float
    first: Ints
    kept: Ints
    kx_range: tuple[int, int]


def readout_grid(
    part: Part, rows: Ints, encoding: Encoding, wanted_fov_mm: float, notes: Notes, *, short: bool = False
) -> ReadoutGrid:
    """Place the samples of the readouts ``rows`` of ``part`` on one grid.

    Parameters
    ----------
    part, rows
        Readouts, as indices into ``part.table``.
    encoding
        What the header says of them.
    wanted_fov_mm
        Field of view to which oversampling is removed; a larger one than was encoded removes nothing.
    notes
        Where contradictions are reported.
    short
        Readouts may be of lower resolution (calibration): half the samples then do not mean that oversampling
        was removed before.

    Raises
    ------
    PermanentError
        ``length_mismatch`` where the header discards all samples.
    """
    table = part.table[rows]
    kept = table["samples"].astype(np.int64) - table["pre"] - table["post"]
    if (kept < 1).any() or (table["pre"] < 0).any() or (table["post"] < 0).any():
        raise PermanentError(
            Code.LENGTH_MISMATCH,
            "A readout is marked to discard as many samples as it has: the raw file is damaged; export it "
            "again.",
        )
    n, fov = _encoded_grid(encoding, kept, table["centre"] - table["pre"], notes, short)
    ratio = fov / wanted_fov_mm
    n_out = max(1, round(n / ratio)) if ratio > 1.001 else n
    centre = _centres(part, rows, kept, n, notes)
    first = n // 2 - centre
    low = max(int(first.max()), 0)
    high = min(int((first + kept).min()), n)
    return ReadoutGrid(n, n_out, fov * n_out / n, first, kept, _kx_range(low, high, n, n_out))


def _encoded_grid(
    encoding: Encoding, kept: Ints, centre: Ints, notes: Notes, short: bool
) -> tuple[int, float]:
    """Return points and field of view [mm] of the readout as acquired, oversampling included."""
    n, fov = encoding.encoded.matrix[2], encoding.encoded.fov_mm[2]
    wanted, wanted_fov = encoding.recon.matrix[2], encoding.recon.fov_mm[2]
    most = int(kept.max())
    if most > n + _SLACK:
        # Either the field of view or the resolution is larger than the header says: the one wanted decides.
        larger = fov * most / n
        resolution = wanted / wanted_fov
        if abs(math.log(most / larger / resolution)) <= abs(math.log(most / fov / resolution)):
            fov = larger
        notes.warn(
            f"The header gives {n} points along the readout, the readouts have {most} samples: the readouts "
            f"were believed (field of view {fov:.1f} mm with oversampling)."
        )
        return most, fov
    if not short and most * _FEWEST < n:
        raise PermanentError(
            Code.LENGTH_MISMATCH,
            f"The header gives {n} points along the readout, the readouts have {most} samples: the raw file "
            "is damaged; export it again.",
        )
    symmetric = not short and bool((np.abs(centre - kept // 2) <= 1).all()) and int(kept.min()) == most
    if symmetric and most == wanted < n and abs(n * wanted_fov / fov - most) <= 1 and fov > 1.01 * wanted_fov:
        notes.warn(
            f"The header gives {n} points along the readout with oversampling, the readouts have {most} "
            "samples, as many as without: the oversampling had been removed before; none was removed again."
        )
        return most, fov * most / n
    if symmetric and most < n - _SLACK:
        notes.warn(
            f"The header gives {n} points along the readout, the readouts have {most} samples about the "
            "centre: the outer points were left zero."
        )
    return n, fov


def _centres(part: Part, rows: Ints, kept: Ints, n: int, notes: Notes) -> Ints:
    """Return for each readout the kept sample at the k-space centre, in the order of rising kx."""
    table = part.table[rows]
    table_centre = table["centre"].astype(np.int64) - table["pre"]
    reverse = (table["flags"] & Flag.REVERSE) != 0
    centre: Ints = np.where(reverse, kept - 1 - table_centre, table_centre)
    first = n // 2 - centre
    outside = np.maximum(-first, 0) + np.maximum(first + kept - n, 0)
    impossible = (centre < 0) | (centre >= kept)
    doubtful = impossible | (outside > _SLACK)
    if not doubtful.any():
        return centre
    middle = kept // 2
    if bool(impossible[doubtful].all()) or _middle_is_brighter(part, rows[doubtful], centre[doubtful]):
        notes.warn(
            f"{int(doubtful.sum())} readouts name a centre sample that does not fit the matrix; their "
            "signal is strongest in the middle, which was taken as the centre."
        )
        return np.where(doubtful, middle, centre)
    notes.warn(
        f"{int(doubtful.sum())} readouts reach up to {int(outside.max())} samples beyond the matrix that "
        "the header gives, seen from their centre sample; those samples were left out."
    )
    return np.where(impossible, middle, centre)


def _middle_is_brighter(part: Part, rows: Ints, centre: Ints) -> bool:
    """Return whether the signal peaks nearer the middle of the readout than at the sample named as its
    centre.
    """
    at_centre = at_middle = 0.0
    pick = np.linspace(0, rows.size - 1, min(rows.size, 64)).astype(int)
    for row, c in zip(rows[pick], centre[pick], strict=True):
        entry = part.table[row]
        samples = part.samples(int(row))[:, entry["pre"] : entry["samples"] - entry["post"]]
        if entry["flags"] & Flag.REVERSE:
            samples = samples[:, ::-1]
        power = (np.abs(samples.astype(np.complex128)) ** 2).sum(axis=0)
        middle = power.size // 2
        at_middle += float(power[max(middle - 2, 0) : middle + 3].sum())
        inside = min(max(int(c), 0), power.size - 1)
        at_centre += float(power[max(inside - 2, 0) : inside + 3].sum())
    return at_middle > at_centre


def _kx_range(low: int, high: int, n: int, n_out: int) -> tuple[int, int]:
    """Return the stretch of the grid without oversampling that the samples ``low`` to ``high - 1`` of ``n``
    cover.
    """
    ratio = n / n_out
    low, high = (0 if low <= 1 else low), (n if high >= n - 1 else high)
    first = n_out // 2 + math.ceil((low - n // 2) / ratio - 1e-9)
    stop = n_out // 2 + math.floor((high - 1 - n // 2) / ratio + 1e-9) + 1
    return (0 if low == 0 else max(first, 0)), (n_out if high == n else min(stop, n_out))


def line_positions(part: Part, rows: Ints, axis: str, n: int, limit: Limit | None, notes: Notes) -> Ints:
    """Return where lines lie on an axis of ``n`` points whose centre is ``n // 2``.

    The header's centre of the counter places them, and with it partial Fourier.  The Siemens converter is
    known to give a wrong one in places and to leave the right one in a user counter; where the two differ,
    the one whose lines carry more signal is believed.

    Parameters
    ----------
    part, rows
        Readouts, as indices into ``part.table``.
    axis
        ``ky`` or ``kz``.
    n, limit
        Points of the axis, and what the header says of the counter.
    notes
        Where contradictions are reported.

    Raises
    ------
    PermanentError
        ``index_range`` where the lines do not fit on the axis.
    """
    steps = part.table[axis][rows].astype(np.int64)
    user = part.table[f"user_{axis}"][rows]
    low, high = int(steps.min()), int(steps.max())

    def fits(centre: int) -> bool:
        return low - centre + n // 2 >= 0 and high - centre + n // 2 < n

    centre = limit.center if limit is not None else n // 2
    told = int(user[0]) if user[0] > 0 and (user == user[0]).all() else centre
    if (
        told != centre
        and fits(told)
        and (not fits(centre) or line_power(part, rows, steps, told) > line_power(part, rows, steps, centre))
    ):
        notes.warn(
            f"The header puts the k-space centre at step {centre} along {axis}, the readouts at step {told}, "
            "where there is more signal: the readouts were believed."
        )
        centre = told
    if not fits(centre):
        if not fits(n // 2):
            raise PermanentError(
                Code.INDEX_RANGE,
                f"The lines along {axis} count from {low} to {high} with the centre at {centre}, which does "
                f"not fit in a matrix of {n}: the raw file is damaged; export the scan again.",
            )
        notes.warn(
            f"With the k-space centre at step {centre} along {axis}, as the header has it, lines would lie "
            f"outside the matrix of {n}: the middle of the matrix was taken."
        )
        centre = n // 2
    return steps - centre + n // 2


def line_power(part: Part, rows: Ints, steps: Ints, at: int) -> float:
    """Return the mean power of some of the lines at a step and beside it."""
    near = rows[np.abs(steps - at) <= 1]
    if not near.size:
        return 0.0
    pick = near[np.linspace(0, near.size - 1, min(near.size, 64)).astype(int)]
    return float(np.mean([np.vdot(s, s).real for s in (part.samples(int(row)) for row in pick)]))
