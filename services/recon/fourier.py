"""Centred, orthonormal Fourier transforms and centred cropping and padding of tensors.

Position ``n // 2`` of an axis is its origin, in k-space and in the image, for even and odd ``n``.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def to_image(kspace: Tensor, dim: Sequence[int]) -> Tensor:
    """Return the orthonormal inverse transform of complex ``kspace`` along ``dim``."""
    shifted = torch.fft.ifftshift(kspace, dim=tuple(dim))
    image: Tensor = torch.fft.fftshift(torch.fft.ifftn(shifted, dim=tuple(dim), norm="ortho"), dim=tuple(dim))
    return image


def to_kspace(image: Tensor, dim: Sequence[int]) -> Tensor:
    """Return the orthonormal transform of ``image`` along ``dim``, the inverse of :func:`to_image`."""
    shifted = torch.fft.ifftshift(image, dim=tuple(dim))
    kspace: Tensor = torch.fft.fftshift(torch.fft.fftn(shifted, dim=tuple(dim), norm="ortho"), dim=tuple(dim))
    return kspace


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
