"""Sampling pattern: which phase-encoding lines of one slice were acquired, and what that means.

A Cartesian parallel-imaging pattern is a lattice in the ``(kz, ky)`` plane, densely sampled around the
centre for calibration (ACS, Griswold et al., MRM 2002), cut off on one side by partial Fourier, in 3-D
perhaps by an elliptical shutter.  :func:`detect` finds that description from the data's mask alone, whatever
the header says, and refuses what is no such pattern.

The k-space centre is at ``n // 2`` on every axis.  A 2-D slice has ``n_kz == 1``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ..contract.codes import Code, PermanentError

Mask = npt.NDArray[np.bool_]
Range = tuple[int, int]

MAX_ACCELERATION = 12
"""Highest acceleration along one axis that is believed; beyond it a mask is called incomplete."""
MAX_TOTAL_ACCELERATION = 24


@dataclass(frozen=True)
class SamplingPattern:
    """What was acquired of one slice (or one 3-D volume).

    A line ``(z, y)`` is on the lattice where ``(z - offset_z) % r_z == 0`` and
    ``(y - offset_y - caipi_shift * ((z - offset_z) // r_z)) % r_y == 0`` (Hermite normal form, so every
    lattice has one description: regular 2-D acceleration has ``caipi_shift == 0``, CAIPIRINHA not;
    Breuer et al., MRM 2006).

    Attributes
    ----------
    shape
        ``(n_kz, n_ky)``.
    r_z, r_y
        Period of the lattice along kz, and along ky within a row.
    caipi_shift
        Lines by which the lattice moves along ky from one sampled kz row to the next.
    offset_z, offset_y
        First lattice row, and first lattice line in it (both below the period).
    acs_z, acs_y
        Half-open ranges of the fully sampled calibration block around the centre, lattice lines that
        adjoin it included; ``None`` where no line was acquired beyond the lattice.
    sampled_z, sampled_y
        Half-open range from the first to the last acquired line.
    extent
        bool ``(n_kz, n_ky)``: the region the lattice stands for. It reaches the matrix edge where less
        than one period is left over, and ends at the last acquired line where more is missing.
    acquired
        bool ``(n_kz, n_ky)``: the mask itself.
    """

    shape: tuple[int, int]
    r_z: int
    r_y: int
    caipi_shift: int
    offset_z: int
    offset_y: int
    acs_z: Range | None
    acs_y: Range | None
    sampled_z: Range
    sampled_y: Range
    extent: Mask
    acquired: Mask

    @property
    def acceleration(self) -> int:
        """Total acceleration of the lattice, without the calibration lines."""
        return self.r_z * self.r_y

    @property
    def fully_sampled(self) -> bool:
        """Whether there is nothing to interpolate (partial Fourier may still be missing)."""
        return not self.missing.any()

    @property
    def two_dimensional(self) -> bool:
        """Whether the lattice is thinned in a way no single axis describes (2-D or CAIPI acceleration)."""
        return self.r_y > 1 and (self.r_z > 1 or self.caipi_shift > 0)

    @property
    def missing(self) -> Mask:
        """Bool ``(n_kz, n_ky)``: lines to interpolate, those inside the extent that were not acquired."""
        return self.extent & ~self.acquired

    @property
    def outside(self) -> Mask:
        """Bool ``(n_kz, n_ky)``: lines never sampled (partial Fourier, zero filling, shutter)."""
        return ~(self.extent | self.acquired)

    @property
    def lattice(self) -> Mask:
        """Bool ``(n_kz, n_ky)``: every line of the lattice, acquired or not."""
        numbers = Lattice(self.r_z, self.r_y, self.caipi_shift, self.offset_z, self.offset_y)
        return numbers.mask(self.shape)

    @property
    def acs_lines(self) -> int:
        """Calibration lines along ky (along kz where only kz is accelerated); 0 without a block."""
        if self.acs_y is None or self.acs_z is None:
            return 0
        low, high = self.acs_z if self.r_y == 1 and self.r_z > 1 else self.acs_y
        return high - low

    @property
    def partial_fourier_y(self) -> float | None:
        """Share of ky covered where the coverage is one-sided (e.g. 0.75 for 6/8), else ``None``."""
        return _one_sided(_along(self.extent, 0), self.r_y)

    @property
    def partial_fourier_z(self) -> float | None:
        """Share of kz covered where the coverage is one-sided, else ``None``."""
        return _one_sided(_along(self.extent, 1), self.r_z)

    def describe(self, separate_acs: int = 0) -> str:
        """Return the pattern in one short phrase for records and pages.

        ``separate_acs`` is the number of calibration lines that were acquired apart, 0 where none were.
        """
        if self.fully_sampled:
            text = "fully sampled"
        else:
            text = f"R={self.r_y}" if self.r_z == 1 else f"R={self.r_y}x{self.r_z}"
            text += f" (CAIPI shift {self.caipi_shift})" if self.caipi_shift else ""
            if separate_acs:
                text += f", {separate_acs} calibration lines acquired apart"
            else:
                text += f", {self.acs_lines or 'no'} calibration lines"
        for axis, share in (("ky", self.partial_fourier_y), ("kz", self.partial_fourier_z)):
            text += f", partial Fourier {share:.2f} along {axis}" if share is not None else ""
        return text


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
    sampled_z, sampled_y = _span(_along(acquired, 1)), _span(_along(acquired, 0))
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


def acs_needed(pattern: SamplingPattern) -> tuple[int, int]:
    """Return how many calibration lines ``(kz, ky)`` interpolating ``pattern`` takes at least.

    Along one axis the smallest kernel spans ``R + 1`` lines; four positions of it keep the equations well
    above the unknowns. A two-dimensional lattice takes a kernel of three rows and three lines.
    """
    if pattern.fully_sampled:
        return 0, 0
    if pattern.two_dimensional:
        return 2 * pattern.r_z + 4, 2 * pattern.r_y + 4
    if pattern.r_z > 1:
        return pattern.r_z + 4, 1
    return 1, pattern.r_y + 4


def require_acs(pattern: SamplingPattern, separate: tuple[int, int] | None = None) -> None:
    """Refuse a pattern whose missing lines cannot be calibrated.

    Parameters
    ----------
    pattern
        What :func:`detect` found.
    separate
        ``(n_kz, n_ky)`` of a calibration acquired apart, ``None`` where there is none.

    Raises
    ------
    PermanentError
        ``too_few_acs``, with what was found, what is needed and the acceleration.
    """
    need_z, need_y = acs_needed(pattern)
    if separate is not None:
        have_z, have_y = separate
    elif pattern.acs_z is None or pattern.acs_y is None:
        have_z = have_y = 0
    else:
        have_z, have_y = (high - low for low, high in (pattern.acs_z, pattern.acs_y))
    if have_y >= need_y and have_z >= need_z:
        return
    found, needed = f"{have_y}", f"{need_y}"
    if pattern.two_dimensional:
        found, needed = f"{have_y} x {have_z} (ky x kz)", f"{need_y} x {need_z}"
    elif pattern.r_z > 1:
        found, needed = f"{have_z}", f"{need_z}"
    raise PermanentError(
        Code.TOO_FEW_ACS,
        f"Found {found} calibration lines at the centre of k-space, at least {needed} are needed for an "
        f"acceleration of R={pattern.acceleration}: send the scan with its calibration lines, or with its "
        "separate calibration measurement in the same archive.",
    )


def require_declared(pattern: SamplingPattern, *, declared: bool, separate_acs: bool = False) -> None:
    """Refuse a regular gap that nothing but a fault explains.

    Every second line missing looks like R=2; without calibration lines, without a separate calibration and
    without parallel imaging in the header it is a scan with lines lost.

    Parameters
    ----------
    pattern
        What :func:`detect` found.
    declared
        Whether the header names an acceleration above 1.
    separate_acs
        Whether a calibration was acquired apart.

    Raises
    ------
    PermanentError
        ``incomplete_kspace``.
    """
    if pattern.fully_sampled or declared or separate_acs or pattern.acs_lines >= max(acs_needed(pattern)):
        return
    raise PermanentError(
        Code.INCOMPLETE_KSPACE,
        f"{int(pattern.missing.sum())} of {int(pattern.extent.sum())} lines are missing, no calibration "
        "lines were acquired and the header names no parallel imaging: the scan is not whole. Send it again.",
    )


# ------------------------------------------------------------------------------------------------ pieces


class Lattice(NamedTuple):
    """Hermite normal form of a lattice and the coset that was acquired."""

    r_z: int
    r_y: int
    shift: int
    offset_z: int
    offset_y: int

    def mask(self, shape: tuple[int, int]) -> Mask:
        """Return bool ``(n_kz, n_ky)``: every line of the lattice."""
        z, y = np.arange(shape[0])[:, None] - self.offset_z, np.arange(shape[1])[None, :] - self.offset_y
        on: Mask = (z % self.r_z == 0) & ((y - self.shift * (z // self.r_z)) % self.r_y == 0)
        return on


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


def _along(mask: Mask, axis: int) -> Mask:
    line: Mask = np.any(mask, axis=axis)
    return line


def _span(line: Mask) -> Range:
    where = np.flatnonzero(line)
    return int(where[0]), int(where[-1]) + 1


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
        acs = (_span(_along(acquired, 1)), _span(_along(acquired, 0)))
    sampled_z, sampled_y = _span(_along(acquired, 1)), _span(_along(acquired, 0))
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
        shape=(acquired.shape[0], acquired.shape[1]), r_z=r_z, r_y=r_y, caipi_shift=shift, offset_z=offset_z,
        offset_y=offset_y, acs_z=acs_z, acs_y=acs_y, sampled_z=sampled_z, sampled_y=sampled_y, extent=extent,
        acquired=acquired,
    )  # fmt: skip


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
    z, y = _span(_along(extra, 1)), _span(_along(extra, 0))
    n_z, n_y = acquired.shape
    if acquired[slice(*z), slice(*y)].mean() < 0.7:
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


def _one_sided(covered: Mask, r: int) -> float | None:
    n = covered.size
    first, stop = _span(covered)
    low, high = n // 2 - first, stop - n // 2
    if n == 1 or abs(low - high) <= max(2, r):
        return None
    return (low + high) / (2 * max(low, high))
