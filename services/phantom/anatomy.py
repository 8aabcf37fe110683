"""A head, drawn procedurally: scalp, skull, folded cortex, white matter, ventricles, deep nuclei.

No scan of anybody is behind it. It is for the demo and for tests that want edges, texture and fine
structure at every scale, which ellipses lack.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

# Relative signal of a T1-weighted gradient echo.
FAT, SKULL, CSF, GREY, WHITE = 0.92, 0.06, 0.14, 0.5, 0.76


def head_slice(height: float, n: int, seed: int = 7) -> Array:
    """Return an axial slice of the head, float64 ``(n, n)`` over a square field of view.

    Parameters
    ----------
    height
        From -1 (skull base) to 1 (vertex).
    n
        Samples along each side; draw at two or three times the resolution that is acquired.
    seed
        Of the folding; the same seed and neighbouring heights give neighbouring slices of one head.
    """
    axis = (np.arange(n) - n // 2) * 2 / n
    y, x = np.meshgrid(axis, axis, indexing="ij")
    size = np.sqrt(max(0.05, 1 - (0.86 * height) ** 2))
    wide, long = 0.66 * size, 0.84 * size
    # narrower at the forehead than at the back of the head
    radius = np.hypot(x / (wide * (1 + 0.09 * y / long)), (y + 0.02) / long)
    radius = radius * (1 + 0.006 * _noise(n, height, 4, seed + 1))
    soft = 3.0 / n / wide

    def inside(limit: float) -> Array:
        return _step(limit - radius, soft)

    brain = _brain(x / wide, (y + 0.02) / long, radius / 0.86, height, n, seed)
    picture = FAT * (inside(1.0) - inside(0.955)) * (1 + 0.1 * _noise(n, height, 30, seed + 2))
    picture += SKULL * (inside(0.955) - inside(0.9)) + CSF * (inside(0.9) - inside(0.86))
    picture += brain * inside(0.86)
    diploe = np.exp(-(((radius - 0.928) / 0.008) ** 2))
    picture += 0.22 * diploe * inside(0.955)
    return np.clip(picture, 0.0, None)


def _brain(x: Array, y: Array, radius: Array, height: float, n: int, seed: int) -> Array:
    soft = 0.02
    # Sulci run where a smooth random field crosses zero; they are deep at the surface and vanish inside.
    folds = _noise(n, height, 7, seed + 3) + 0.35 * _noise(n, height, 15, seed + 4)
    depth = np.clip((radius - 0.52) / 0.48, 0.0, 1.0)
    # between the hemispheres, closing towards the middle of the head but above the corpus callosum
    reach = 1.0 if height > 0.45 else np.clip((np.abs(y) - 0.36) / 0.12, 1e-3, 1.0)
    fissure = np.abs(x) / ((0.014 + 0.022 * depth) * reach) + 4 * (1 - reach)
    crossing = np.minimum(np.abs(folds) / (0.02 + 0.16 * depth**1.4), fissure)
    sulcus = _step(1.0 - crossing, 0.35) * _step(depth - 0.12, 0.1)
    ribbon = _step(0.5 + 0.4 * depth - np.abs(folds), 0.12) * _step(depth - 0.02, 0.12)
    cortex = np.maximum(np.maximum(ribbon, _step(radius - 0.94, 0.03)), _step(2.6 - fissure, 0.5))

    tissue = WHITE + (GREY - WHITE) * cortex
    side = np.abs(x)
    middle = np.exp(-((height / 0.55) ** 2))

    def nucleus(cx: float, cy: float, rx: float, ry: float) -> Array:
        return np.asarray(_step(1 - np.hypot((side - cx) / rx, (y - cy) / ry), 0.12) * middle)

    deep = np.maximum(nucleus(0.2, 0.06, 0.13, 0.13), nucleus(0.36, -0.06, 0.1, 0.2))
    deep = np.maximum(deep, nucleus(0.17, -0.2, 0.07, 0.1))
    tissue = tissue + (GREY + 0.03 - tissue) * deep

    grow = max(0.0, 1 - abs(height - 0.12) / 0.5)
    front = np.hypot((side - 0.1 - 0.14 * (y + 0.1) ** 2) / 0.07, (y + 0.12) / (0.26 * grow + 0.02))
    back = np.hypot((side - 0.2 - 0.12 * (y - 0.2)) / 0.08, (y - 0.3) / (0.2 * grow + 0.02))
    third = np.hypot(side / 0.025, (y - 0.04) / 0.14)
    ventricle = np.maximum(_step(1 - front, 0.12), _step(1 - back, 0.12)) * (grow > 0.05)
    ventricle = np.maximum(ventricle, _step(1 - third, 0.2) * (grow > 0.3))
    tissue = tissue + (CSF - tissue) * np.maximum(ventricle, sulcus * (1 - soft))
    return np.asarray(tissue * (1 + 0.02 * _noise(n, height, 60, seed + 5)))


def _step(value: Array, width: float) -> Array:
    """Return 0 below, 1 above zero, smooth over ``width``: a voxel at an edge holds both tissues."""
    return np.asarray(np.clip(value / width + 0.5, 0.0, 1.0))


def _noise(n: int, height: float, cycles: float, seed: int) -> Array:
    """Return a band-limited random field of unit variance that changes smoothly with ``height``."""
    side = int(2 ** np.ceil(np.log2(3 * cycles)))
    turn = height * cycles / 3
    fields = [
        np.random.default_rng([seed, 1000 + k]).normal(size=(side, side))
        for k in (int(np.floor(turn)), int(np.floor(turn)) + 1)
    ]
    part = turn - np.floor(turn)
    field = np.sqrt(1 - part) * fields[0] + np.sqrt(part) * fields[1]
    f = np.fft.fftfreq(side, 1 / side)
    band = np.exp(-((np.hypot(f[:, None], f) - cycles) ** 2) / (2 * (0.25 * cycles) ** 2))
    spectrum = np.fft.fftshift(np.fft.fft2(field) * band)
    padded = np.zeros((n, n), np.complex128)
    low = n // 2 - side // 2
    if low < 0:
        spectrum, side, low = spectrum[-low : -low + n, -low : -low + n], n, 0
    padded[low : low + side, low : low + side] = spectrum
    smooth = np.fft.ifft2(np.fft.ifftshift(padded)).real
    return np.asarray(smooth / smooth.std())
