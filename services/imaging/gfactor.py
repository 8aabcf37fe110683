"""Noise and g-factor maps by pseudo-replica, the weights held fixed.

Robson et al., MRM 2008;60:895: noise of known variance is added to the acquired samples, everything is
reconstructed again, and the spread of the images is measured voxel by voxel. A network is no linear map, so
the replicas carry the data (its noise propagation depends on the signal); the weights are never retrained.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..contract.progress import Progress, silent
from ..kspace.sampling import SamplingPattern
from ..raki.fft import kspace_to_image
from ..raki.interpolate import Interpolation

MIN_REPLICAS = 50


@dataclass(frozen=True)
class NoiseMaps:
    """What :func:`pseudo_replicas` returns.

    Attributes
    ----------
    noise
        float32 ``(slice, z, y, x)``: standard deviation of the combined image's real part along the
        signal's phase, in units of that of a fully sampled scan with the same noise.
    gfactor
        float32, the same shape: ``noise / sqrt(acceleration)``.
    acceleration
        Lines of the sampled extent over lines acquired, calibration lines included.
    replicas
        How many were made; the maps' relative standard error is ``1 / sqrt(2 * replicas)``.
    noise_scale
        Standard deviation of the added complex noise, in units of the data's own.
    """

    noise: Tensor
    gfactor: Tensor
    acceleration: float
    replicas: int
    noise_scale: float


def pseudo_replicas(
    interpolation: Interpolation,
    kspace: Tensor,
    pattern: SamplingPattern,
    csm: Tensor,
    *,
    noise_std: float = 1.0,
    noise_scale: float = 1.0,
    replicas: int = MIN_REPLICAS,
    seed: int = 0,
    progress: Progress = silent,
) -> NoiseMaps:
    """Measure noise amplification of an interpolation with its weights fixed.

    One replica is in memory at a time; the variance is accumulated (Welford). The noise of a replica is
    drawn on the CPU slice by slice, so the maps do not depend on the device.

    Parameters
    ----------
    interpolation
        Made from ``kspace``.
    kspace
        complex64 ``(slice, coil, kz, ky, kx)`` as acquired, before interpolation.
    pattern
        Of ``kspace``.
    csm
        complex64 ``(slice, coil, z, y, x)`` of unit norm over the coils (:func:`.coil_combination.walsh`).
    noise_std
        Standard deviation of a complex sample of ``kspace``: 1 where prewhitened.
    noise_scale
        Replica noise in units of ``noise_std``.
    replicas
        At least ``MIN_REPLICAS``.
    seed
        Of the noise.
    progress
        Told of every replica.
    """
    if replicas < MIN_REPLICAS:
        raise ValueError(f"expected at least {MIN_REPLICAS} replicas, got {replicas}")
    dims = (-3, -2, -1)
    acquired = torch.from_numpy(pattern.acquired)[None, :, :, None]
    filled = interpolation.refill(kspace)
    assert isinstance(filled, Tensor)
    base = (csm.conj() * kspace_to_image(filled, dims)).sum(dim=1)
    phase = torch.exp(-1j * torch.angle(base))
    mean = torch.zeros(base.shape, dtype=torch.float32, device=base.device)
    spread = torch.zeros_like(mean)
    generator = torch.Generator().manual_seed(seed)
    for replica in range(1, replicas + 1):
        noisy = kspace.clone()
        for index in range(noisy.shape[0]):
            noise = torch.randn(noisy.shape[1:], dtype=torch.complex64, generator=generator)
            noisy[index] += (noise * (noise_std * noise_scale) * acquired).to(noisy.device)
        again = interpolation.refill(noisy)
        assert isinstance(again, Tensor)
        image = (csm.conj() * kspace_to_image(again, dims)).sum(dim=1)
        value = ((image - base) * phase).real
        delta = value - mean
        mean += delta / replica
        spread += delta * (value - mean)
        progress("noise", replica / replicas, f"replica {replica} of {replicas}")
    # The real part of unit complex noise has variance one half; a fully sampled image keeps it.
    std = torch.sqrt(spread / (replicas - 1) * 2) / (noise_std * noise_scale)
    acceleration = float(np.sum(pattern.extent | pattern.acquired) / np.sum(pattern.acquired))
    return NoiseMaps(std, std / acceleration**0.5, acceleration, replicas, noise_scale)
