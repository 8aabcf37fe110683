"""Lines, kernels and equations of an acceleration along one axis.

A :class:`Lines` says which lines of an axis were acquired on the lattice. Kernels take ``by`` lattice lines
around a gap (``by`` even, as many on either side) and ``bx`` samples along the readout, and predict all
``r - 1`` missing lines of that gap in all coils at once.

Axis order everywhere: k-space ``(slice, coil, line, kx)``; sources ``(slice, coil * by, gap, kx)`` with the
coil running slowest; targets ``((r - 1) * coil)`` with the missing line running slowest.

Edges of k-space: beyond the matrix, and beyond the extent of partial Fourier, sources are zero, along ky
and along kx. Calibration uses only equations that lie wholly inside the calibration region.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class Lines:
    """Lattice lines ``offset, offset + r, ...`` of an axis of ``n`` lines."""

    n: int
    r: int
    offset: int

    @property
    def gaps(self) -> int:
        """Gaps to fill, the ones before the first and after the last lattice line included."""
        return len(range(self.offset, self.n, self.r)) + 1

    def sources(self, kspace: Tensor, by: int) -> Tensor:
        """Return the lattice lines around every gap: ``(slice, coil * by, gap, kx)``.

        Parameters
        ----------
        kspace
            ``(slice, coil, line, kx)``; lines off the lattice are not looked at.
        by
            Lattice lines of the kernel, even.
        """
        lattice = functional.pad(kspace[:, :, self.offset :: self.r], (0, 0, by // 2, by // 2))
        return _windows(lattice.unfold(2, by, 1))

    def place(self, kspace: Tensor, predicted: Tensor, wanted: Tensor) -> None:
        """Write predicted lines into ``kspace``, in place.

        Parameters
        ----------
        kspace
            ``(slice, coil, line, kx)``.
        predicted
            ``(slice, (r - 1) * coil, gap, kx)``.
        wanted
            bool ``(line,)``: the lines to write; all others keep their samples bit for bit.
        """
        n_slice, n_coil, _, n_kx = kspace.shape
        predicted = predicted.reshape(n_slice, self.r - 1, n_coil, self.gaps, n_kx)
        for step in range(1, self.r):
            lines = torch.arange(self.gaps) * self.r + (self.offset - self.r + step)
            use = (lines >= 0) & (lines < self.n)
            use[use.clone()] = wanted.cpu()[lines[use]]
            kspace[:, :, lines[use].to(kspace.device)] = predicted[:, step - 1][:, :, use.to(kspace.device)]


def calibration(acs: Tensor, r: int, by: int) -> tuple[Tensor, Tensor]:
    """Return sources and targets of every kernel position inside a calibration region.

    Parameters
    ----------
    acs
        ``(slice, coil, line, kx)``, all lines filled.
    r
        Lines from one source to the next.
    by
        Lattice lines of the kernel, even.

    Returns
    -------
    sources
        ``(slice, coil * by, position, kx)``; a view where it can be.
    targets
        ``(slice, (r - 1) * coil, position, kx)``. Position ``p`` has its upper source line
        ``(by // 2 - 1) * r`` lines after line ``p``.
    """
    span = (by - 1) * r + 1
    windows = acs.unfold(2, span, 1)
    sources = _windows(windows[..., ::r])
    first = (by // 2 - 1) * r
    targets = windows[..., first + 1 : first + r].permute(0, 4, 1, 2, 3)
    return sources, targets.reshape(acs.shape[0], -1, *targets.shape[3:])


def positions(lines: int, r: int, by: int) -> int:
    """Return how many kernel positions a region of ``lines`` has (0 where the kernel does not fit)."""
    return max(0, lines - (by - 1) * r)


def patches(values: Tensor, bx: int) -> Tensor:
    """Unfold along kx: ``(slice, channel, row, kx)`` to ``(slice, channel * bx, row * (kx - bx + 1))``."""
    unfolded = values.unfold(3, bx, 1).permute(0, 1, 4, 2, 3)
    return unfolded.reshape(values.shape[0], values.shape[1] * bx, -1)


def pad_readout(values: Tensor, half: int) -> Tensor:
    """Pad kx with ``half`` zeros on both sides."""
    return functional.pad(values, (half, half)) if half else values


def _windows(windows: Tensor) -> Tensor:
    """``(slice, coil, position, kx, by)`` to ``(slice, coil * by, position, kx)``."""
    n_slice, n_coil, n_position, n_kx, by = windows.shape
    return windows.permute(0, 1, 4, 2, 3).reshape(n_slice, n_coil * by, n_position, n_kx)
