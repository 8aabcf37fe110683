"""Centred cropping, padding and reflection of tensors, beside the centred transforms of ``raki.fft``.

Position ``n // 2`` of an axis is its origin, in k-space and in the image, for even and odd ``n``.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..raki.fft import image_to_kspace as to_kspace
from ..raki.fft import kspace_to_image as to_image

__all__ = ["mirror", "resize_centred", "to_image", "to_kspace"]


def resize_centred(data: Tensor, dim: int, size: int) -> Tensor:
    """Crop or zero-pad ``data`` along ``dim`` to ``size``, the origin ``n // 2`` staying the origin."""
    n = data.shape[dim]
    if n == size:
        return data
    start = n // 2 - size // 2
    if size < n:
        return data.narrow(dim, start, size)
    shape = list(data.shape)
    shape[dim] = size
    padded = data.new_zeros(shape)
    padded.narrow(dim, -start, n).copy_(data)
    return padded


def mirror(weights: Tensor) -> Tensor:
    """Return real or bool ``weights`` reflected about the origin of every axis.

    Index 0 of an even axis has no counterpart and becomes zero.
    """
    reflected = weights
    for dim, n in enumerate(weights.shape):
        index = 2 * (n // 2) - torch.arange(n, device=weights.device)
        shape = [1] * weights.ndim
        shape[dim] = n
        inside = ((index >= 0) & (index < n)).reshape(shape)
        reflected = reflected.index_select(dim, index.clamp(0, n - 1)) * inside
    return reflected
