"""Coil combination: root of the sum of squares, and adaptive (Walsh et al.) in bounded time.

The adaptive combination looks at the covariance of every pair of coils around every voxel. Many coils are
first brought to a few virtual ones that hold nearly all the signal (Buehrer et al., MRM 2007, 57:1131), which
makes 32 coils ten times faster; the maps are expanded again, their norm over the coils staying one.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

VIRTUAL_COILS = 10
_BLOCK_BYTES = 256 * 1024 * 1024


def rss(images: Tensor, coil_dim: int = 1) -> Tensor:
    """Return the root of the sum of squares over the coils, float32, without ``coil_dim``."""
    norm: Tensor = torch.linalg.vector_norm(images, dim=coil_dim)
    return norm.to(torch.float32)


class Combined(NamedTuple):
    """What :func:`walsh` and :func:`adaptive` return.

    ``image`` complex64 ``(slice, z, y, x)``, ``csm`` complex64 ``(slice, coil, z, y, x)`` with unit norm
    over the coils, so that unit white noise in the coils has unit variance in the image.
    """

    image: Tensor
    csm: Tensor


def walsh(images: Tensor, window: int = 7, iterations: int = 8) -> Combined:
    """Combine coil images with maps estimated from the images themselves.

    Walsh et al., MRM 2000;43:682: the map at a voxel is the dominant eigenvector of the coil covariance
    summed over a box around it, found by power iteration. Its free phase is fixed against one virtual coil
    for the whole slice (the dominant eigenvector of the slice's covariance), which leaves the object's own
    phase in the image and puts no singularity where one real coil sees nothing.

    Parameters
    ----------
    images
        complex64 ``(slice, coil, z, y, x)`` (``z == 1`` for 2-D), noise prewhitened for best SNR.
    window
        Edge of the box in voxels, cut to the matrix where that is smaller.
    iterations
        Power iterations, started from the virtual coil.
    """
    if images.ndim != 5:
        raise ValueError(f"expected images (slice, coil, z, y, x), got {tuple(images.shape)}")
    slices = [_slice_maps(one, window, iterations) for one in images]
    csm = torch.stack(slices)
    return Combined((csm.conj() * images).sum(dim=1), csm)


def adaptive(images: Tensor) -> Combined:
    """Return the adaptive combination of ``(slice, coil, z, y, x)`` and its maps, slice by slice."""
    if images.shape[1] <= VIRTUAL_COILS:
        return walsh(images)
    parts = []
    for one in images:
        basis, found = _virtual(one)
        csm = (basis @ found.csm[0].flatten(1)).reshape(one.shape)
        parts.append(Combined(found.image[0], csm))
    return Combined(torch.stack([p.image for p in parts]), torch.stack([p.csm for p in parts]))


def adaptive_image(images: Tensor) -> Tensor:
    """Return the combined image ``(slice, z, y, x)`` of :func:`adaptive` without holding the maps."""
    if images.shape[1] <= VIRTUAL_COILS:
        return torch.stack([walsh(one[None]).image[0] for one in images])
    return torch.stack([_virtual(one)[1].image[0] for one in images])


def _virtual(images: Tensor) -> tuple[Tensor, Combined]:
    """Return the virtual coils' basis ``(coil, virtual)`` and their combination, of one slice."""
    coils = images.flatten(1)
    energy = (coils @ coils.mH).to(torch.complex128)
    # whatever the phase of an eigenvector, it leaves with the maps what it brought to the virtual coils
    basis = torch.linalg.eigh(energy)[1][:, -VIRTUAL_COILS:].to(images.dtype)
    virtual = (basis.mH @ coils).reshape(VIRTUAL_COILS, *images.shape[1:])
    return basis, walsh(virtual[None])


def _slice_maps(images: Tensor, window: int, iterations: int) -> Tensor:
    """Return the maps ``(coil, z, y, x)`` of one slice, in bands along y so that memory stays bounded."""
    n_coil, n_z, n_y, n_x = images.shape
    flat = images.reshape(n_coil, -1).to(torch.complex128)
    virtual = torch.linalg.eigh(flat @ flat.mH).eigenvectors[:, -1].to(images.dtype)
    # An eigenvector's own phase is arbitrary and may differ between machines: tie it to the data.
    total = (virtual.conj() @ images.reshape(n_coil, -1)).sum()
    virtual = virtual * torch.exp(1j * torch.angle(total))
    half = window // 2
    band = max(window, _BLOCK_BYTES // max(1, 8 * n_coil * n_coil * n_z * n_x))
    out = torch.empty_like(images)
    for start in range(0, n_y, band):
        stop = min(n_y, start + band)
        low, high = max(0, start - half), min(n_y, stop + half)
        out[:, :, start:stop] = _maps(images[:, :, low:high], virtual, window, iterations)[
            :, :, start - low : stop - low
        ]
    return out


def _maps(images: Tensor, virtual: Tensor, window: int, iterations: int) -> Tensor:
    n_coil, n_z, n_y, n_x = images.shape
    outer = images[:, None] * images[None].conj()
    outer = _box(outer.reshape(n_coil * n_coil, n_z, n_y, n_x), window)
    covariance = outer.reshape(n_coil, n_coil, -1).permute(2, 0, 1)
    scale = covariance.diagonal(dim1=1, dim2=2).real.sum(dim=1).clamp_min(torch.finfo(torch.float32).tiny)
    covariance = covariance / scale[:, None, None]
    vector = virtual.expand(covariance.shape[0], n_coil)[..., None]
    for _ in range(iterations):
        vector = covariance @ vector
        norm = torch.linalg.vector_norm(vector, dim=1, keepdim=True)
        vector = torch.where(norm > 0, vector / norm.clamp_min(1e-30), virtual[None, :, None])
    vector = vector[..., 0]
    reference = (vector * virtual.conj()).sum(dim=1, keepdim=True)
    vector = vector * torch.exp(-1j * torch.angle(reference))
    return vector.T.reshape(n_coil, n_z, n_y, n_x)


def _box(values: Tensor, window: int) -> Tensor:
    """Return box means ``(n, z, y, x)``, the box cut off at the edges of the matrix."""
    sizes = [min(window, n if n % 2 else n - 1) if n > 1 else 1 for n in values.shape[1:]]
    parts = [
        functional.avg_pool3d(part[None], sizes, 1, [n // 2 for n in sizes], count_include_pad=False)[0]
        for part in (values.real.contiguous(), values.imag.contiguous())
    ]
    return torch.complex(*parts)
