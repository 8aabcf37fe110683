"""Receive coils: circular loops around the object, their fields by the law of Biot and Savart."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_SEGMENTS = 48
_DISTANCE = 1.2
"""From the axis to the loops' centres, in units of half a field of view."""
_CONDUCTOR = 0.3
"""Radius of the conductors: the field stays finite where a corner of the grid meets one."""


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
    complex128 ``(coil, *x.shape)``: the transverse field ``Bx - i By``, scaled so that the root sum of
    squares at the very centre is 1.
    """
    points = np.stack(np.broadcast_arrays(x, y, np.full_like(x, z)), axis=-1)
    centre = np.zeros((1, 3))
    fields, at_centre = [], []
    for coil in range(n_coils):
        wire, step = _loop(coil, n_coils, rings if n_coils >= 8 else 1)
        fields.append(_transverse(points, wire, step))
        at_centre.append(_transverse(centre, wire, step))
    return np.asarray(np.stack(fields) / np.linalg.norm(np.stack(at_centre)))


def _loop(coil: int, n_coils: int, rings: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the segments ``(segment, 3)`` of one loop and their directions."""
    phi = np.linspace(0, 2 * np.pi, _SEGMENTS, endpoint=False)
    ring, at = coil % rings, coil // rings
    per_ring = -(-n_coils // rings)
    angle = 2 * np.pi * (at + 0.5 * (ring % 2)) / per_ring
    outward = np.array([np.cos(angle), np.sin(angle), 0.0])
    along = np.array([-np.sin(angle), np.cos(angle), 0.0])
    up = np.array([0.0, 0.0, 1.0])
    radius = 1.2 * _DISTANCE * np.sin(np.pi / max(per_ring, 3))
    middle = _DISTANCE * outward + up * (ring - (rings - 1) / 2) * 0.7
    wire = middle + radius * (np.cos(phi)[:, None] * along + np.sin(phi)[:, None] * up)
    step = radius * (-np.sin(phi)[:, None] * along + np.cos(phi)[:, None] * up)
    return wire, step


def _transverse(
    points: NDArray[np.float64], wire: NDArray[np.float64], step: NDArray[np.float64]
) -> NDArray[np.complex128]:
    away = points[..., None, :] - wire
    distance = np.sqrt((away**2).sum(-1, keepdims=True) + _CONDUCTOR**2)
    field = (np.cross(step, away) / distance**3).sum(-2)
    return np.asarray(field[..., 0] - 1j * field[..., 1])
