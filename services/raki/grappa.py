"""GRAPPA (Griswold et al., MRM 2002;47:1202) in closed form, for acceleration along one axis."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from .equations import Region, normal_equations, solve
from .lines import Lines, pad_readout, patches

_CHUNK_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True)
class Kernel:
    """A kernel's shape and its ridge, relative to the mean diagonal of the normal equations.

    ``by`` lattice lines (even) by ``bx`` readout samples (odd).
    """

    by: int
    bx: int
    ridge: float

    def __str__(self) -> str:
        return f"{self.by}x{self.bx}, ridge {self.ridge:g}"


class Predictor(Protocol):
    """GRAPPA's or a network's weights."""

    @property
    def by(self) -> int:
        """Lattice lines wanted as sources."""

    @property
    def half(self) -> int:
        """Readout samples lost on either side."""

    def predict(self, sources: Tensor, /) -> Tensor:
        """Predict ``(slice, (r - 1) * coil, row, kx - 2 half)`` from ``(slice, coil * by, row, kx)``."""


SHAPES = ((2, 5), (2, 9), (4, 7))
RIDGES = (1e-3, 1e-2, 3e-2, 1e-1, 3e-1)


@dataclass(frozen=True)
class GrappaWeights:
    """Weights complex64 ``(slice, (r - 1) * coil, coil * by * bx)`` of one kernel."""

    kernel: Kernel
    weights: Tensor

    @property
    def by(self) -> int:
        """Lattice lines that :meth:`predict` wants as sources."""
        return self.kernel.by

    @property
    def half(self) -> int:
        """Readout samples lost on either side by :meth:`predict`."""
        return self.kernel.bx // 2

    def predict(self, sources: Tensor) -> Tensor:
        """Predict from sources ``(slice, coil * by, row, kx)``.

        Returns ``(slice, (r - 1) * coil, row, kx - 2 half)``.
        """
        n_slice, _, n_row, n_kx = sources.shape
        flat = self.weights @ patches(sources, self.kernel.bx)
        return flat.reshape(n_slice, -1, n_row, n_kx - 2 * self.half)


def fit(region: Region, kernel: Kernel) -> GrappaWeights:
    """Solve the weighted, ridge-penalised normal equations of a calibration region."""
    return GrappaWeights(kernel, solve(*normal_equations(region, kernel.by, kernel.bx), kernel.ridge))


def fill(kspace: Tensor, lines: Lines, wanted: Tensor, weights: Predictor) -> Tensor:
    """Return a copy of ``kspace`` with the wanted lines predicted; all other samples are the same bits.

    Gaps go through in chunks, so memory
    beyond the copy is bounded.
    """
    out = kspace.clone()
    sources = pad_readout(lines.sources(kspace, weights.by), weights.half)
    per_row = sources.shape[0] * sources.shape[1] * (2 * weights.half + 1) * sources.shape[3] * 8
    rows = max(1, _CHUNK_BYTES // per_row)
    predicted = torch.cat(
        [weights.predict(sources[:, :, start : start + rows]) for start in range(0, lines.gaps, rows)], dim=2
    )
    lines.place(out, predicted, wanted)
    return out
