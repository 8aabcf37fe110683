"""g-factor and noise maps of the first image, on the grid of the images.

The replicas go through the interpolation alone (``raki.gfactor``): what partial Fourier adds or takes is not
in the maps. Each costs as much as filling all lines anew, so on a CPU they are made for the slices of the
first batch alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..contract.progress import Progress
from ..kspace.sampling import SamplingPattern
from ..raki.fft import kspace_to_image
from ..raki.interpolate import Interpolation
from ..raki.noise import white_variance
from . import gfactor
from .coil_combination import adaptive
from .image_grid import ImageGrid

_OUTER = 0.1
"""Share of the readout, on both sides, from which noise is estimated where it was not measured."""


@dataclass(frozen=True)
class NoiseMaps:
    """Maps ``(slice, z, y, x)`` on the image grid, not a number beyond the acquired field of view.

    Attributes
    ----------
    g_factor
        Noise amplification against a fully sampled scan of as many lines; 1 is none.
    noise_sd
        Standard deviation of the image; ``None`` where the noise was not measured.
    """

    g_factor: NDArray[np.float32]
    noise_sd: NDArray[np.float32] | None


def measure(
    interpolation: Interpolation,
    kspace: Tensor,
    pattern: SamplingPattern,
    grid: ImageGrid,
    *,
    whitened: bool,
    replicas: int,
    seed: int,
    progress: Progress,
) -> NoiseMaps:
    """Measure the noise of a batch of slices by pseudo-replica.

    Parameters
    ----------
    interpolation
        Made from ``kspace``.
    kspace
        complex64 ``(slice, coil, kz, ky, kx)`` as acquired.
    pattern
        Its sampling.
    grid
        Brings the maps to the image grid.
    whitened
        Whether a sample's noise has unit variance; else it is estimated and taken as white.
    replicas, seed
        How many, and of which random numbers.
    progress
        Told after every replica.
    """
    filled = interpolation.kspace
    assert isinstance(filled, Tensor)
    csm = adaptive(kspace_to_image(filled, (-3, -2, -1))).csm
    maps = gfactor.pseudo_replicas(
        interpolation,
        kspace,
        pattern,
        csm,
        noise_std=1.0 if whitened else estimated_noise(kspace, pattern),
        replicas=max(replicas, gfactor.MIN_REPLICAS),
        seed=seed,
        progress=progress,
    )
    # Along the signal's phase lies half the variance of a complex sample.
    noise = grid.resample(maps.noise.cpu().numpy()) * math.sqrt(0.5)
    return NoiseMaps(
        grid.resample(maps.gfactor.cpu().numpy()), noise.astype(np.float32) if whitened else None
    )


def estimated_noise(kspace: Tensor, pattern: SamplingPattern) -> float:
    """Return the standard deviation of a complex sample, from the ends of the acquired lines.

    Signal that is left there makes it larger; the median keeps single spikes out.
    """
    lines = kspace[:, :, torch.from_numpy(pattern.acquired).to(kspace.device)]
    n = lines.shape[-1]
    outer = max(1, round(_OUTER * n))
    power = torch.cat([lines[..., :outer], lines[..., -outer:]], dim=-1).abs().square()
    return math.sqrt(white_variance(power) or 1.0)
