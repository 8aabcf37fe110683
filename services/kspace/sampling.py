"""Sampling pattern: which phase-encoding lines of one slice were acquired, and what that means.

A Cartesian parallel-imaging pattern is a lattice in the ``(kz, ky)`` plane, densely sampled around the
centre for calibration (ACS, Griswold et al., MRM 2002), cut off on one side by partial Fourier, in 3-D
perhaps by an elliptical shutter.  :mod:`.detection` finds that description from the data, :mod:`.acs` says
what calibration it needs.

The k-space centre is at ``n // 2`` on every axis.  A 2-D slice has ``n_kz == 1``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.bool_]
Range = tuple[int, int]


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
        return _one_sided(along(self.extent, 0), self.r_y)

    @property
    def partial_fourier_z(self) -> float | None:
        """Share of kz covered where the coverage is one-sided, else ``None``."""
        return _one_sided(along(self.extent, 1), self.r_z)

    def describe(self, separate_acs: int = 0) -> str:
        """Return the pattern in one short phrase for records and pages.

        ``separate_acs`` is the number of calibration lines that were acquired apart, 0 where none were.
        """
        if self.fully_sampled:
            text = "fully sampled"
        else:
            text = f"R={self.r_y}" if self.r_z == 1 else f"R={self.r_y}x{self.r_z} (ky x kz"
            text += f", CAIPI shift {self.caipi_shift}" if self.caipi_shift else ""
            text += ")" if self.r_z > 1 else ""
            text += f", {self.describe_acs(separate_acs)}"
        for axis, share in (("ky", self.partial_fourier_y), ("kz", self.partial_fourier_z)):
            text += f", partial Fourier {share:.2f} along {axis}" if share is not None else ""
        return text

    def describe_acs(self, separate: int = 0) -> str:
        """Return the calibration in a few words; ``separate`` as in :meth:`describe`."""
        if separate:
            return f"{separate} calibration lines acquired apart"
        if self.two_dimensional and self.acs_y is not None and self.acs_z is not None:
            (y0, y1), (z0, z1) = self.acs_y, self.acs_z
            return f"{y1 - y0} x {z1 - z0} calibration lines (ky x kz)"
        return f"{self.acs_lines or 'no'} calibration lines"


def along(mask: Mask, axis: int) -> Mask:
    """Return which rows (axis 1) or columns (axis 0) hold any line."""
    line: Mask = np.any(mask, axis=axis)
    return line


def span(line: Mask) -> Range:
    """Return the half-open range from the first to the last set place."""
    where = np.flatnonzero(line)
    return int(where[0]), int(where[-1]) + 1


def _one_sided(covered: Mask, r: int) -> float | None:
    n = covered.size
    first, stop = span(covered)
    low, high = n // 2 - first, stop - n // 2
    if n == 1 or abs(low - high) <= max(2, r):
        return None
    return (low + high) / (2 * max(low, high))
