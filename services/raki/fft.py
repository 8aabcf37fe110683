"""Centred orthonormal Fourier transforms (2-D and 3-D).

The centre is at ``n // 2`` on every axis, in k-space and in the image, so that white noise of unit variance
stays white with unit variance.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def kspace_to_image(kspace: Tensor, dims: Sequence[int] = (-2, -1)) -> Tensor:
    """Return the inverse centred orthonormal FFT over ``dims``."""
    dims = tuple(dims)
    shifted = torch.fft.ifftshift(kspace, dim=dims)
    image: Tensor = torch.fft.fftshift(torch.fft.ifftn(shifted, dim=dims, norm="ortho"), dim=dims)
    return image


def image_to_kspace(image: Tensor, dims: Sequence[int] = (-2, -1)) -> Tensor:
    """Return the centred orthonormal FFT over ``dims``."""
    dims = tuple(dims)
    shifted = torch.fft.ifftshift(image, dim=dims)
    kspace: Tensor = torch.fft.fftshift(torch.fft.fftn(shifted, dim=dims, norm="ortho"), dim=dims)
    return kspace
