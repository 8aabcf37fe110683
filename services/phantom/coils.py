"""Receive coils: circular loops around the object, their fields by the law of Biot and Savart."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_SEGMENTS = 48


def loop_array(
    n_coils: int, y: NDArray[np.float64], x: NDArray[np.float64], z: float = 0.0, rings: int = 2
) -> NDArray[np.complex128]:
    """Return the complex receive sensitivities of loops on a cylinder about the z axis.

    Parameters
    ----------
    n_coils
        Loops, dealt out over ``rings`` rings along z.
    y, x, z
        Where, in units of half a field of view; ``y`` and ``x`` of any one shape, ``z`` one plane.
    rings
        Rings of loops; one ring when there are fewer than eight loops.

    Returns
    -------
    complex128 ``(coil, *x.shape)``: the transverse field ``Bx - i By`` of unit current, largest value 1.
    """
    rings = rings if n_coils >= 8 else 1
    points = np.stack(np.broadcast_arrays(x, y, np.full_like(x, z)), axis=-1)[..., None, :]
    phi = np.linspace(0, 2 * np.pi, _SEGMENTS, endpoint=False)
    fields = []
    for coil in range(n_coils):
        ring, at = coil % rings, coil // rings
        per_ring = -(-n_coils // rings)
        angle = 2 * np.pi * (at + 0.5 * (ring % 2)) / per_ring
        outward = np.array([np.cos(angle), np.sin(angle), 0.0])
        along = np.array([-np.sin(angle), np.cos(angle), 0.0])
        up = np.array([0.0, 0.0, 1.0])
        radius = 1.15 * np.sin(np.pi / max(per_ring, 3)) * 1.2
        centre = 1.15 * outward + up * (ring - (rings - 1) / 2) * 0.7
        wire = centre + radius * (np.cos(phi)[:, None] * along + np.sin(phi)[:, None] * up)
        step = radius * (-np.sin(phi)[:, None] * along + np.cos(phi)[:, None] * up)
        away = points - wire
        field = (np.cross(step, away) / np.linalg.norm(away, axis=-1, keepdims=True) ** 3).sum(-2)
        fields.append(field[..., 0] - 1j * field[..., 1])
    maps = np.stack(fields)
    return np.asarray(maps / np.abs(maps).max())
