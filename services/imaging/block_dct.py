"""Shrinkage of an image in the cosine transform of small overlapping blocks.

Blocks overlap by half in both directions, so each pixel is the mean of four estimates. The image is first
rotated by a smooth phase: what is left of it in the imaginary part is mostly noise and residual aliasing, and
is shrunk without sparing its mean. Axes are periodic, as the Fourier transform has them.
"""

from __future__ import annotations

import math
from functools import cache

import torch
from torch import Tensor

POWER = 1.5
"""Exponent of the shrinkage ``1 - (threshold / |c|) ** POWER``: between soft (1) and garrote (2)."""
IMAGINARY = 0.9
"""Threshold of the imaginary part over that of the real one."""


@cache
def _transform(side: int, device: torch.device) -> Tensor:
    """Return the orthonormal two-dimensional DCT-II of a flattened block, float32 ``(side^2, side^2)``."""
    n = torch.arange(side, dtype=torch.float64)
    rows = torch.cos(math.pi / side * (n[None] + 0.5) * n[:, None]) * math.sqrt(2 / side)
    rows[0] /= math.sqrt(2)
    return torch.kron(rows, rows).to(torch.float32).to(device)


def shrink(image: Tensor, phase: Tensor, threshold: Tensor, side: int, shift: tuple[int, int]) -> Tensor:
    """Return ``image`` with the small coefficients of its blocks shrunk.

    Parameters
    ----------
    image
        complex64 ``(plane, set, a, b)``.
    phase
        complex64 of the same shape and modulus 1: the smooth phase.
    threshold
        float32 ``(plane,)``, in units of ``image``.
    side
        Edge of a block, even; blocks start every ``side / 2`` pixels.
    shift
        Where the grid of blocks starts, in pixels.
    """
    n_a, n_b = image.shape[-2:]
    rotated = torch.roll(image * phase.conj(), (-shift[0], -shift[1]), (-2, -1))
    parts = torch.stack([rotated.real, rotated.imag], dim=1)  # (plane, part, set, a, b)
    parts = _wrapped(_wrapped(parts, -2, side), -1, side)
    mean = torch.zeros_like(parts)
    levels = threshold[:, None] * threshold.new_tensor([1.0, IMAGINARY])
    half = side // 2
    for move in ((0, 0), (0, half), (half, 0), (half, half)):
        moved = torch.roll(parts, (-move[0], -move[1]), (-2, -1)) if any(move) else parts
        mean += torch.roll(_tiles(moved, levels, side), move, (-2, -1))
    mean = mean[..., :n_a, :n_b] * 0.25
    back = torch.complex(mean[:, 0].contiguous(), mean[:, 1].contiguous())
    return torch.roll(back, shift, (-2, -1)) * phase


def _tiles(parts: Tensor, levels: Tensor, side: int) -> Tensor:
    """Shrink the blocks of one tiling of ``(plane, part, set, a, b)``; ``side`` divides a and b."""
    n_plane, n_part, n_set, n_a, n_b = parts.shape
    transform = _transform(side, parts.device)
    grid = (n_plane, n_part, n_set, n_a // side, side, n_b // side, side)
    blocks = parts.reshape(grid).transpose(4, 5).reshape(n_plane, n_part, -1, side * side)
    found = blocks @ transform.T
    ratio = levels[:, :, None, None] / found.abs().clamp_min(torch.finfo(torch.float32).tiny)
    kept = 1 - ratio.clamp_max_(1.0).pow_(POWER)
    kept[:, 0, :, 0] = 1.0  # the mean of the real part
    blocks = (found * kept) @ transform
    shape = (n_plane, n_part, n_set, n_a // side, n_b // side, side, side)
    return blocks.reshape(shape).transpose(4, 5).reshape(parts.shape)


def _wrapped(parts: Tensor, dim: int, side: int) -> Tensor:
    """Continue an axis periodically to a multiple of ``side``."""
    n = parts.shape[dim]
    extra = -n % side
    if not extra:
        return parts
    index = torch.arange(n + extra, device=parts.device) % n
    return parts.index_select(parts.ndim + dim, index)
