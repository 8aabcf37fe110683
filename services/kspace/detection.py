"""From the mask of acquired lines to the pattern behind it, whatever the header says.

What is no lattice with at most one calibration block around the centre is refused.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from ..contract.codes import Code, PermanentError
from .sampling import Lattice, Mask, Range, SamplingPattern, along, span

MAX_ACCELERATION = 12
"""Highest acceleration along one axis that is believed; beyond it a mask is called incomplete."""
MAX_TOTAL_ACCELERATION = 24

_FILLED = 0.7
"""Share of a calibration block's bounding box that is sampled at least: an ellipse fills pi / 4 = 0.79 of its
box, the rest allows for its coarse outline on few lines. Chosen by hand."""


def detect(mask: npt.ArrayLike) -> SamplingPattern:
    """Describe the pattern of the acquired lines of one slice, or refuse it.

    Parameters
    ----------
    mask
        bool ``(n_kz, n_ky)``; a one-dimensional mask is taken as ``(1, n_ky)``.

    Raises
    ------
    PermanentError
        ``incomplete_kspace`` where the lines are no lattice with at most one calibration block (holes, a
        random pattern, the centre never sampled, nothing acquired).
    """
    acquired = np.atleast_2d(np.asarray(mask, dtype=bool)).copy()
    n_z, n_y = acquired.shape
    if not acquired.any():
        raise PermanentError(
            Code.INCOMPLETE_KSPACE, f"None of the {n_z * n_y} lines of a slice was acquired."
        )
    sampled_z, sampled_y = span(along(acquired, 1)), span(along(acquired, 0))
    if not (sampled_z[0] <= n_z // 2 < sampled_z[1] and sampled_y[0] <= n_y // 2 < sampled_y[1]):
        raise PermanentError(
            Code.INCOMPLETE_KSPACE,
            f"The centre of k-space was not acquired: lines {sampled_y[0]} to {sampled_y[1] - 1} of {n_y} "
            f"along ky, {sampled_z[0]} to {sampled_z[1] - 1} of {n_z} along kz were found; a scan that was "
            "cut short must be repeated or sent whole.",
        )
    hull = _hull(acquired)
    for r_z, r_y, shift in _lattices(acquired.shape):
        for offset_z, offset_y in _whole_cosets(acquired, hull, r_z, r_y, shift):
            found = _complete(acquired, hull, Lattice(r_z, r_y, shift, offset_z, offset_y))
            if found is not None:
                return found
    raise PermanentError(
        Code.INCOMPLETE_KSPACE,
        f"{int(acquired.sum())} of {int(hull.sum())} lines inside the sampled region were acquired, and they "
        "follow no regular pattern with a calibration block at its centre: lines are missing. Send the whole "
        "scan; random (compressed sensing) sampling is not read.",
    )


# ------------------------------------------------------------------------------------------------ pieces


def _whole_cosets(acquired: Mask, hull: Mask, r_z: int, r_y: int, shift: int) -> list[tuple[int, int]]:
    """Return the offsets whose lattice lines inside the hull were all acquired."""
    z, y = np.arange(acquired.shape[0])[:, None], np.arange(acquired.shape[1])[None, :]
    coset = (z % r_z) * r_y + (y - shift * (z // r_z)) % r_y
    holes = np.bincount(coset[hull & ~acquired], minlength=r_z * r_y)
    there = np.bincount(coset[acquired], minlength=r_z * r_y)
    return [divmod(int(index), r_y) for index in np.flatnonzero((holes == 0) & (there > 0))]


def _lattices(shape: tuple[int, int]) -> Iterator[tuple[int, int, int]]:
    """Yield ``(r_z, r_y, shift)``, the densest first: a sparser sublattice would fit as well."""
    n_z, n_y = shape
    pairs = [
        (r_z, r_y)
        for r_z in range(1, min(MAX_ACCELERATION, n_z) + 1)
        for r_y in range(1, min(MAX_ACCELERATION, n_y) + 1)
        if r_z * r_y <= MAX_TOTAL_ACCELERATION
    ]
    for r_z, r_y in sorted(pairs, key=lambda pair: (pair[0] * pair[1], pair[0])):
        for shift in range(r_y if n_z > 1 else 1):
            yield r_z, r_y, shift


def _hull(mask: Mask) -> Mask:
    """Return the convex hull of the acquired lines as a mask (a rectangle, or what a shutter left)."""
    rows = np.flatnonzero(mask.any(axis=1))
    first = mask[rows].argmax(axis=1)
    last = mask.shape[1] - 1 - mask[rows][:, ::-1].argmax(axis=1)
    z = np.arange(rows[0], rows[-1] + 1)
    low = np.interp(z, *_envelope(rows, first, -1))
    high = np.interp(z, *_envelope(rows, last, 1))
    y = np.arange(mask.shape[1])
    hull = np.zeros_like(mask)
    hull[z] = (y >= np.ceil(low - 1e-9)[:, None]) & (y <= np.floor(high + 1e-9)[:, None])
    return hull


def _envelope(x: npt.NDArray[np.intp], y: npt.NDArray[np.intp], sign: int) -> tuple[list[int], list[int]]:
    """Return the corners of the concave (sign 1) or convex (-1) envelope of points sorted along x."""
    corners: list[tuple[int, int]] = []
    for px, py in zip(x.tolist(), y.tolist(), strict=True):
        while len(corners) > 1:
            (ax, ay), (bx, by) = corners[-2:]
            if sign * ((bx - ax) * (py - ay) - (by - ay) * (px - ax)) < 0:
                break
            corners.pop()
        corners.append((px, py))
    return [corner[0] for corner in corners], [corner[1] for corner in corners]


def _complete(acquired: Mask, hull: Mask, numbers: Lattice) -> SamplingPattern | None:
    """Fill in calibration block and extent for a lattice that fits, or ``None`` if the rest is no block."""
    r_z, r_y, shift, offset_z, offset_y = numbers
    lattice = numbers.mask((acquired.shape[0], acquired.shape[1]))
    extra = acquired & ~lattice
    acs: tuple[Range, Range] | None = None
    if extra.any():
        acs = _block(acquired, extra)
        if acs is None:
            return None
    elif r_z * r_y == 1:
        acs = (span(along(acquired, 1)), span(along(acquired, 0)))
    sampled_z, sampled_y = span(along(acquired, 1)), span(along(acquired, 0))
    box = np.zeros_like(acquired)
    box[slice(*sampled_z), slice(*sampled_y)] = True
    extent = hull
    if not (lattice & box & ~acquired).any():
        z, y = _reach(sampled_z, acquired.shape[0], r_z), _reach(sampled_y, acquired.shape[1], r_y)
        whole = np.zeros_like(acquired)
        whole[slice(*z), slice(*y)] = True
        extent = box if (lattice & whole & ~acquired).any() else whole
    missing = extent & ~acquired
    if missing.any() and _gaps(missing) < 2:
        return None  # one gap is a hole, whatever lattice could be laid around it
    acs_z, acs_y = acs if acs is not None else (None, None)
    return SamplingPattern(
        shape=(acquired.shape[0], acquired.shape[1]),
        r_z=r_z,
        r_y=r_y,
        caipi_shift=shift,
        offset_z=offset_z,
        offset_y=offset_y,
        acs_z=acs_z,
        acs_y=acs_y,
        sampled_z=sampled_z,
        sampled_y=sampled_y,
        extent=extent,
        acquired=acquired,
    )


def _reach(sampled: Range, n: int, r: int) -> Range:
    """Extend a range to the matrix edges where less than one period is left over."""
    first, stop = sampled
    return (0 if first < r else first), (n if n - stop < r else stop)


def _gaps(missing: Mask) -> int:
    """Count the runs of missing lines, in the row or column that has most of them."""
    rows = missing[:, 0] + (missing[:, 1:] & ~missing[:, :-1]).sum(axis=1)
    columns = missing[0] + (missing[1:] & ~missing[:-1]).sum(axis=0)
    return max(int(rows.max()), int(columns.max()))


def _block(acquired: Mask, extra: Mask) -> tuple[Range, Range] | None:
    """Return the fully sampled block that holds the lines beyond the lattice, ``None`` where there is none.

    A calibration region with its corners cut (an ellipse) is taken too, its block being the largest
    rectangle that shrinking from the sides finds; lines scattered elsewhere are no block.
    """
    z, y = span(along(extra, 1)), span(along(extra, 0))
    n_z, n_y = acquired.shape
    if acquired[slice(*z), slice(*y)].mean() < _FILLED:
        return None
    (z0, z1), (y0, y1) = z, y
    while not acquired[z0:z1, y0:y1].all():
        inner = acquired[z0:z1, y0:y1]
        sides = {
            "z0": inner[0].mean(),
            "z1": inner[-1].mean(),
            "y0": inner[:, 0].mean(),
            "y1": inner[:, -1].mean(),
        }
        worst = min(sides, key=lambda side: sides[side])
        z0, z1 = z0 + (worst == "z0"), z1 - (worst == "z1")
        y0, y1 = y0 + (worst == "y0"), y1 - (worst == "y1")
        if z0 >= z1 or y0 >= y1:
            return None
    while y0 > 0 and acquired[z0:z1, y0 - 1].all():
        y0 -= 1
    while y1 < n_y and acquired[z0:z1, y1].all():
        y1 += 1
    while z0 > 0 and acquired[z0 - 1, y0:y1].all():
        z0 -= 1
    while z1 < n_z and acquired[z1, y0:y1].all():
        z1 += 1
    # A calibration that leaves the centre out would calibrate on noise.
    if not (z0 <= n_z // 2 < z1 and y0 <= n_y // 2 < y1):
        return None
    return (z0, z1), (y0, y1)
