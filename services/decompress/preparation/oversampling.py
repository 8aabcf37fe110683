"""Readout oversampling removed: the image is cropped along the readout to the field of view wanted.

Orthonormal transforms, so white noise keeps its variance; centre at ``n // 2`` before and after, even or odd.
"""

from __future__ import annotations

import os

import numpy as np
import scipy.fft
from numpy.typing import NDArray

Complex = NDArray[np.complex64]


def workers() -> int:
    """Return how many threads a transform may use."""
    named = os.environ.get("OMP_NUM_THREADS", "")
    available = len(os.sched_getaffinity(0))
    return max(1, min(int(named), available)) if named.isdigit() else available


def crop(lines: Complex, n_out: int) -> Complex:
    """Remove oversampling from ``lines``.

    Parameters
    ----------
    lines
        complex64 ``(..., n)`` in FFT order: k-space centre first (``ifftshift`` of the usual order).
        Overwritten.
    n_out
        Points wanted, at most ``n``.

    Returns
    -------
    complex64 ``(..., n_out)``, k-space centre at ``n_out // 2``, of the same noise variance.
    """
    n = lines.shape[-1]
    if n_out > n:
        raise ValueError(f"cannot crop {n} points to {n_out}")
    after, before = n_out - n_out // 2, n_out // 2
    if n_out == n:
        return np.concatenate([lines[..., after:], lines[..., :after]], axis=-1)
    image = scipy.fft.ifft(lines, axis=-1, norm="ortho", overwrite_x=True, workers=workers())
    kept = np.empty((*lines.shape[:-1], n_out), np.complex64)
    kept[..., :after] = image[..., :after]
    kept[..., after:] = image[..., n - before :]
    found = scipy.fft.fft(kept, axis=-1, norm="ortho", overwrite_x=True, workers=workers())
    kept = np.empty_like(found)
    kept[..., :before] = found[..., after:]
    kept[..., before:] = found[..., :after]
    return kept
