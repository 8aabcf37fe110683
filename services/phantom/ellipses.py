"""Ellipses whose k-space is known in closed form (Koay et al., MRM 2007, 58:430).

An independent truth: nothing is gridded, so what a reconstruction does to these samples is its own doing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import j1


@dataclass(frozen=True)
class Ellipse:
    """A homogeneous ellipse.

    ``value`` is added inside; ``x``, ``y`` its centre, ``a``, ``b`` its half axes, all in units of half a
    field of view; ``angle`` [rad] turns ``a`` from the x axis.
    """

    value: float
    a: float
    b: float
    x: float = 0.0
    y: float = 0.0
    angle: float = 0.0


def _toft(value: float, a: float, b: float, x: float, y: float, degrees: float) -> Ellipse:
    return Ellipse(value, a, b, x, y, float(np.deg2rad(degrees)))


SHEPP_LOGAN = (
    _toft(1.0, 0.69, 0.92, 0, 0, 0),
    _toft(-0.8, 0.6624, 0.874, 0, -0.0184, 0),
    _toft(-0.2, 0.11, 0.31, 0.22, 0, -18),
    _toft(-0.2, 0.16, 0.41, -0.22, 0, 18),
    _toft(0.1, 0.21, 0.25, 0, 0.35, 0),
    _toft(0.1, 0.046, 0.046, 0, 0.1, 0),
    _toft(0.1, 0.046, 0.046, 0, -0.1, 0),
    _toft(0.1, 0.046, 0.023, -0.08, -0.605, 0),
    _toft(0.1, 0.023, 0.023, 0, -0.606, 0),
    _toft(0.1, 0.023, 0.046, 0.06, -0.605, 0),
)
"""The modified Shepp-Logan head (Toft 1996), contrasts fit to be seen."""


def kspace(
    ellipses: tuple[Ellipse, ...], ky: NDArray[np.float64], kx: NDArray[np.float64]
) -> NDArray[np.complex128]:
    """Return the Fourier transform of ``ellipses`` at spatial frequencies ``ky``, ``kx``.

    Frequencies are in cycles per field of view, of any one shape (broadcast); scaled so that a centred
    orthonormal inverse FFT over an ``(n, n)`` grid times ``n`` gives the object's values.
    """
    ky, kx = np.broadcast_arrays(ky, kx)
    total = np.zeros(ky.shape, np.complex128)
    for e in ellipses:
        turned_x = kx * np.cos(e.angle) + ky * np.sin(e.angle)
        turned_y = -kx * np.sin(e.angle) + ky * np.cos(e.angle)
        rho = np.hypot(e.a * turned_x, e.b * turned_y) / 2
        argument = 2 * np.pi * rho
        safe = np.where(argument == 0, 1.0, argument)
        disc = np.where(argument == 0, 0.5, j1(safe) / safe)
        area = np.pi * e.a * e.b / 2
        total += e.value * area * disc * np.exp(-1j * np.pi * (kx * e.x + ky * e.y))
    return total


def image(ellipses: tuple[Ellipse, ...], n: int) -> NDArray[np.float64]:
    """Return the object sampled at the centres of an ``(n, n)`` grid; voxel ``n // 2`` at the origin."""
    axis = (np.arange(n) - n // 2) * 2 / n
    y, x = np.meshgrid(axis, axis, indexing="ij")
    total = np.zeros((n, n))
    for e in ellipses:
        u = (x - e.x) * np.cos(e.angle) + (y - e.y) * np.sin(e.angle)
        v = -(x - e.x) * np.sin(e.angle) + (y - e.y) * np.cos(e.angle)
        total += e.value * ((u / e.a) ** 2 + (v / e.b) ** 2 <= 1)
    return total
