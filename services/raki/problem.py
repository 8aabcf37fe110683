"""One interpolation problem: some slices, their lattice, and their calibration lines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .equations import local_power
from .lines import Lines


@dataclass(frozen=True)
class Problem:
    """What is to be interpolated.

    Attributes
    ----------
    kspace
        complex64 ``(slice, coil, line, kx)``, zero where not acquired.
    lines
        The lattice.
    acquired, wanted
        bool ``(line,)``: what was acquired, what is to be predicted.
    acs
        complex64 ``(slice, coil, acs line, acs kx)``: filled calibration lines.
    acs_range
        Where they lie in ``kspace``; ``None`` for a calibration acquired apart.
    """

    kspace: Tensor
    lines: Lines
    acquired: Tensor
    wanted: Tensor
    acs: Tensor
    acs_range: tuple[int, int] | None

    def slices(self, which: Sequence[int]) -> Problem:
        """Return the problem of some slices."""
        index = torch.as_tensor(list(which), device=self.kspace.device)
        acs = self.acs[index]
        return Problem(self.kspace[index], self.lines, self.acquired, self.wanted, acs, self.acs_range)

    def missing_power(self) -> Tensor:
        """Return the local power at every gap that is to be filled: ``(slice, gap, kx)``."""
        power = local_power(self.lines.sources(self.kspace, 2))
        first = torch.arange(self.lines.gaps) * self.lines.r + self.lines.offset - self.lines.r
        gap_lines = first[:, None] + torch.arange(1, self.lines.r)
        inside = (gap_lines >= 0) & (gap_lines < self.lines.n)
        wanted = (self.wanted.cpu()[gap_lines.clamp(0, self.lines.n - 1)] & inside).any(dim=1)
        return power[:, wanted.to(power.device)]
