"""Which calibration equations resemble the gaps that are to be filled.

Calibration lines lie at the centre of k-space, gaps mostly outside, where the signal is orders of magnitude
weaker. An error measured on the former says little about the image unless each equation counts as often as
gaps of its local signal power occur (importance weighting under covariate shift).
"""

from __future__ import annotations

import torch
from torch import Tensor

_BINS = 24
_ENOUGH = 32
"""Bins of the logarithm of power, and equations that make a bin count.

Chosen by hand, without a sweep: of 32 equations the count itself is known to about a sixth.
"""


def importance(power: Tensor, keep: Tensor, missing: Tensor) -> Tensor:
    """Return float32 weights of ``power``'s shape, zero where ``keep`` is false.

    Parameters
    ----------
    power
        ``(slice, row, kx)``: local power of the equations.
    keep
        bool, the same shape: equations that count.
    missing
        ``(slice, gap, kx)``: local power at the gaps.

    Notes
    -----
    Powers are binned in equal steps of the logarithm over all slices together. Gaps in a bin that holds
    hardly any equation count for the nearest bin that does. The weights sum to one.
    """
    tiny = torch.finfo(torch.float32).tiny
    values, gaps = power.clamp_min(tiny).log(), missing[missing > 0].clamp_min(tiny).log()
    if not bool(keep.any()):
        return torch.zeros_like(power)
    if gaps.numel() == 0:
        flat = keep.to(torch.float32)
        return flat / flat.sum()
    low, high = float(values[keep].min()), float(values[keep].max())
    width = max((high - low) / _BINS, 1e-6)

    def bins(of: Tensor) -> Tensor:
        return ((of - low) / width).floor().clamp(0, _BINS - 1).long()

    have = torch.bincount(bins(values[keep]), minlength=_BINS)
    want = torch.bincount(bins(gaps), minlength=_BINS).to(torch.float32)
    full = torch.nonzero(have >= min(_ENOUGH, int(have.max()))).flatten()
    nearest = full[(torch.arange(_BINS, device=have.device)[:, None] - full[None]).abs().argmin(dim=1)]
    moved = torch.zeros_like(want).index_add_(0, nearest, want)
    ratio = torch.where(have > 0, moved / have.clamp_min(1), torch.zeros_like(moved))
    weights = torch.where(keep, ratio[bins(values)], torch.zeros_like(power))
    return weights / weights.sum().clamp_min(tiny)
