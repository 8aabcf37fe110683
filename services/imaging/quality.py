"""Quality figures: numbers that say what they are, of the object and not of the air around it.

=========================  ==========================================================================
``object_fraction``        share of the voxels that hold signal
``background_ratio``       median magnitude outside the object over the median inside: noise, ghosts
``sampled_fraction``       acquired lines over lines of k-space that were to be filled
``interpolated_energy``    share of k-space energy that was interpolated, not measured
``g_factor_mean``, ``_p95``  noise amplification of the interpolation over the object (1 is none)
``g_factor_replicas``, ``_planes``  noise realisations, and planes they were made for
``snr_median``             median over the object of magnitude over its standard deviation in replicas
``noise``                  what the replicas' noise was: ``measured`` (whitened data) or ``assumed white``
=========================  ==========================================================================

Where no replicas were made, figures that need them are absent. None of them says whether an image is good
enough.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

_THRESHOLD = 0.08
"""Share of the bright end of the smoothed image from which a voxel belongs to the object."""
_BRIGHT, _DARK = 99.0, 5.0
_FLOOR, _MOST = 2.0, 0.3
"""Noise lifts the air: the threshold is at least twice the dark end, at most this share of the bright one."""


def object_mask(volume: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Return where the object is in ``volume`` (``(z, y, x)``): bool of the same shape."""
    smooth = gaussian_filter(volume, sigma=(0, 1.5, 1.5))
    bright, dark = (float(np.percentile(smooth, share)) for share in (_BRIGHT, _DARK))
    threshold = max(_THRESHOLD * bright, min(_FLOOR * dark, _MOST * bright))
    mask: NDArray[np.bool_] = smooth > threshold
    return mask


def figures(
    volume: NDArray[np.float32],
    g_factor: NDArray[np.float32] | None = None,
    noise_sd: NDArray[np.float32] | None = None,
) -> dict[str, float]:
    """Return the figures that images and maps ``(z, y, x)`` tell, rounded to what they mean."""
    mask = object_mask(volume)
    if not mask.any():
        return {"object_fraction": 0.0}
    told = {"object_fraction": round(float(mask.mean()), 4)}
    inside = float(np.median(volume[mask]))
    if not mask.all() and inside > 0:
        told["background_ratio"] = round(float(np.median(volume[~mask])) / inside, 5)
    if g_factor is not None:
        values = g_factor[mask & np.isfinite(g_factor)]
        if values.size:
            told["g_factor_mean"] = round(float(values.mean()), 3)
            told["g_factor_p95"] = round(float(np.percentile(values, 95)), 3)
    if noise_sd is not None:
        known = mask & np.isfinite(noise_sd) & (noise_sd > 0)
        if known.any():
            told["snr_median"] = round(float(np.median(volume[known] / noise_sd[known])), 1)
    return told
