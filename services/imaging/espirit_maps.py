"""Two sets of coil maps from the calibration lines: ESPIRiT (Uecker et al., MRM 2014;71:990).

Two sets, because a field of view smaller than the head folds the object onto itself, which one map cannot
say; and soft weights in place of a cut, so that a voxel the calibration explains half counts half.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

KERNEL = 6
"""Side of the calibration kernel [samples], as in the paper; smaller where the calibration is."""
RELATIVE_CUT = 0.01
"""Singular values below this share of the largest leave the signal space."""
NOISE_CUT = 1.3
"""... and those below this multiple of the largest that noise alone gives (Marchenko-Pastur edge)."""
TRUSTED_FROM = 0.7
"""Eigenvalue up to which a map counts nothing; 1 is a voxel that is explained wholly."""
SETS = 2
_SQUARINGS = 4
_PIXELS = 4096


def coil_maps(calibration: Tensor, shape: tuple[int, int], sigma: float) -> Tensor:
    """Return weighted coil maps of one plane.

    Parameters
    ----------
    calibration
        complex64 ``(coil, a, b)``: a fully sampled centre of k-space.
    shape
        Matrix of the image.
    sigma
        Standard deviation of the noise of a complex sample, the same in all coils.

    Returns
    -------
    complex64 ``(set, coil, *shape)``: orthogonal over the coils in every voxel, their norm the weight (0 to
    1) of the set there. The phase is that of the calibration's first principal coil, so it is smooth.
    """
    n_coil = calibration.shape[0]
    sets = min(SETS, n_coil)
    terms, principal = _signal_space(calibration, sigma)
    basis_a, basis_b = (_harmonics(n, terms.shape[0], terms.device) for n in shape)
    generator = torch.Generator().manual_seed(0)
    start = torch.randn((n_coil, sets), dtype=torch.complex64, generator=generator).to(terms.device)
    maps = torch.empty((sets, n_coil, shape[0] * shape[1]), dtype=torch.complex64, device=terms.device)
    rows = torch.tensordot(basis_a, terms, dims=([1], [0]))  # (a, side, coil, coil)
    step = max(1, _PIXELS // shape[1])
    for first in range(0, shape[0], step):
        some = rows[first : first + step].flatten(2)
        covariance = torch.matmul(basis_b, some).reshape(-1, n_coil, n_coil)
        vectors, values = _dominant(covariance, start)
        along = (principal.conj()[None, :, None] * vectors).sum(dim=1, keepdim=True)
        vectors = vectors * torch.exp(-1j * torch.angle(along)) * _weight(values)[:, None]
        maps[:, :, first * shape[1] : first * shape[1] + vectors.shape[0]] = vectors.permute(2, 1, 0)
    return maps.reshape(sets, n_coil, *shape)


def _weight(values: Tensor) -> Tensor:
    trust = ((values - TRUSTED_FROM) / (1 - TRUSTED_FROM)).clamp_min(0)
    weight: Tensor = (2 * trust.sqrt()).sqrt().clamp_max(1)
    return weight


def _signal_space(calibration: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
    """Return the covariance image as harmonics ``(2k-1, 2k-1, coil, coil)``, and the first principal coil.

    The paper's operator in every voxel is the Fourier sum of these few terms, so no kernel is ever padded to
    the size of the image.
    """
    n_coil, n_a, n_b = calibration.shape
    kernel = max(2, min(KERNEL, n_a // 2, n_b // 2))
    patches = calibration.unfold(1, kernel, 1).unfold(2, kernel, 1)  # (coil, a, b, k, k)
    rows = patches.permute(1, 2, 0, 3, 4).reshape(-1, n_coil * kernel * kernel).to(torch.complex128)
    values, vectors = torch.linalg.eigh(rows.mH @ rows)
    edge = sigma * (math.sqrt(rows.shape[0]) + math.sqrt(rows.shape[1]))
    cut = max(RELATIVE_CUT**2 * float(values[-1]), (NOISE_CUT * edge) ** 2)
    signal = vectors[:, values > cut]
    projection = (signal @ signal.mH).conj().reshape(n_coil, kernel, kernel, n_coil, kernel, kernel)
    side = 2 * kernel - 1
    terms = torch.zeros((side, side, n_coil, n_coil), dtype=torch.complex128, device=rows.device)
    for a in range(kernel):
        for b in range(kernel):
            block = projection[:, a, b].permute(2, 3, 0, 1)  # (k', k', coil, coil')
            low_a, low_b = kernel - 1 - a, kernel - 1 - b
            terms[low_a : low_a + kernel, low_b : low_b + kernel] += block
    coils = calibration.reshape(n_coil, -1).to(torch.complex128)
    principal = torch.linalg.eigh(coils @ coils.mH)[1][:, -1]
    # an eigenvector's own phase is arbitrary and may differ between machines: tie it to the data
    total = (principal.conj() @ coils).sum()
    principal = principal * torch.exp(1j * torch.angle(total))
    return (terms / kernel**2).to(torch.complex64), principal.to(torch.complex64)


def _harmonics(n: int, side: int, device: torch.device) -> Tensor:
    """Return complex64 ``(n, side)``: ``exp(-2 pi i x d / n)`` at voxels x about ``n // 2``, offsets d."""
    x = torch.arange(n, dtype=torch.float64, device=device)[:, None] - n // 2
    d = torch.arange(side, dtype=torch.float64, device=device)[None] - side // 2
    waves: Tensor = torch.exp(-2j * torch.pi * x * d / n).to(torch.complex64)
    return waves


def _dominant(covariance: Tensor, start: Tensor) -> tuple[Tensor, Tensor]:
    """Return the dominant eigenvectors ``(pixel, coil, set)`` and eigenvalues ``(pixel, set)``.

    Squaring the matrix a few times does the work of many power iterations.
    """
    power = covariance
    for _ in range(_SQUARINGS):
        trace = power.diagonal(dim1=1, dim2=2).real.sum(dim=1).clamp_min(1e-20)
        power = power / trace[:, None, None]
        power = power @ power
    vectors = _orthonormal(power @ start)
    image = covariance @ vectors
    vectors = _orthonormal(image)
    if vectors.shape[2] == 1:
        return vectors, (vectors.mH @ covariance @ vectors).real[:, 0]
    small = vectors.mH @ (covariance @ vectors)
    p, q, cross = small[:, 0, 0].real, small[:, 1, 1].real, small[:, 0, 1]
    mean, half = (p + q) / 2, (p - q) / 2
    radius = (half.square() + cross.abs().square()).sqrt()
    # rotation that makes the 2 x 2 matrix diagonal, the larger eigenvalue first
    angle = torch.atan2(cross.abs(), half) / 2
    turn = torch.exp(-1j * torch.angle(cross))
    c, s = torch.cos(angle).to(turn.dtype), torch.sin(angle).to(turn.dtype)
    rotation = torch.stack([torch.stack([c, -s], -1), torch.stack([s * turn, c * turn], -1)], -2)
    turned: Tensor = vectors @ rotation
    return turned, torch.stack([mean + radius, mean - radius], dim=1)


def _orthonormal(vectors: Tensor) -> Tensor:
    """Return Gram-Schmidt of one or two columns ``(pixel, coil, set)``; a vanishing column stays zero."""
    first: Tensor = vectors[..., :1]
    first = first / torch.linalg.vector_norm(first, dim=-2, keepdim=True).clamp_min(1e-30)
    if vectors.shape[2] == 1:
        return first
    second = vectors[..., 1:]
    for _ in range(2):
        second = second / torch.linalg.vector_norm(second, dim=-2, keepdim=True).clamp_min(1e-30)
        second = second - first * (first.conj() * second).sum(-2, keepdim=True)
    second = second / torch.linalg.vector_norm(second, dim=-2, keepdim=True).clamp_min(1e-30)
    return torch.cat([first, second], dim=-1)
