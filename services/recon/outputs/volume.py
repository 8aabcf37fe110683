"""The image volume in the patient: voxel to LPS millimetres, and whether one matrix can say it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...kspace.geometry import Geometry

_STACK_MM = 0.01
"""Departure of a slice's voxels from a regular stack that is still called one (headers are float32)."""
_LETTERS = (("L", "R"), ("P", "A"), ("H", "F"))
"""Toward plus and minus of the LPS axes (DICOM Patient Orientation letters)."""
SAGITTAL, CORONAL, AXIAL = 0, 1, 2
"""The three planes by the LPS axis that stands on them."""
_NAMES = ("sagittal", "coronal", "axial")


def n_planes(geometry: Geometry) -> int:
    """Return the number of image planes: slices of a 2-D scan, partitions of a 3-D one."""
    return geometry.recon_matrix[0] if geometry.is_3d else geometry.n_slices


def shape(geometry: Geometry) -> tuple[int, int, int]:
    """Return ``(z, y, x)`` of the image volume."""
    return (n_planes(geometry), *geometry.recon_matrix[1:])


def affine_lps(geometry: Geometry) -> NDArray[np.float64]:
    """Return the 4x4 matrix from voxel ``(x, y, z, 1)`` to LPS [mm], exact for a regular stack."""
    _, dy, dx = geometry.voxel_mm
    affine = np.eye(4)
    affine[:3, 0] = geometry.read_dir[0] * dx
    affine[:3, 1] = geometry.phase_dir[0] * dy
    affine[:3, 2] = geometry.slice_step_mm()
    affine[:3, 3] = geometry.first_voxel_mm(0)
    return affine


@dataclass(frozen=True)
class Stack:
    """Whether the planes are parallel and equidistant, and how far apart."""

    regular: bool
    spacing_mm: float | None


def stack(geometry: Geometry) -> Stack:
    """Measure the stack from the positions: the worst corner voxel against one matrix for all planes."""
    planes = n_planes(geometry)
    spacing = float(np.linalg.norm(geometry.slice_step_mm()))
    if geometry.is_3d or planes == 1:
        return Stack(True, spacing)
    affine = affine_lps(geometry)
    _, dy, dx = geometry.voxel_mm
    _, ny, nx = geometry.recon_matrix
    worst = 0.0
    for plane in range(planes):
        for x, y in ((0, 0), (nx - 1, 0), (0, ny - 1)):
            true = geometry.first_voxel_mm(plane)
            true = true + geometry.read_dir[plane] * dx * x + geometry.phase_dir[plane] * dy * y
            worst = max(worst, float(np.abs((affine @ [x, y, plane, 1])[:3] - true).max()))
    regular = worst <= _STACK_MM and spacing > _STACK_MM
    return Stack(regular, spacing if regular else None)


def orientation_letters(direction: NDArray[np.float64]) -> tuple[str, str]:
    """Return the patient letters a unit vector points to and away from, e.g. ``("LA", "RP")``.

    A second letter is added where the direction is oblique by more than about 15 degrees.
    """
    to, away = "", ""
    for axis in np.argsort(-np.abs(direction))[:2]:
        if abs(direction[axis]) > 0.26:
            plus, minus = _LETTERS[int(axis)]
            to += plus if direction[axis] > 0 else minus
            away += minus if direction[axis] > 0 else plus
    return to, away


def nearest_plane(read: NDArray[np.float64], phase: NDArray[np.float64]) -> int:
    """Return which of the three planes lies nearest to the one that two unit vectors span.

    Halfway between two planes, to a thousandth, axial goes before coronal before sagittal.
    """
    steep = np.round(np.abs(np.cross(read, phase)), 3)
    return max((AXIAL, CORONAL, SAGITTAL), key=lambda axis: float(steep[axis]))


def plane_name(geometry: Geometry) -> str:
    """Return ``axial``, ``coronal`` or ``sagittal``, ``oblique …`` beyond 5 degrees, or ``unknown``."""
    if not geometry.known:
        return "unknown"
    normal = np.cross(geometry.read_dir[0], geometry.phase_dir[0])
    axis = nearest_plane(geometry.read_dir[0], geometry.phase_dir[0])
    straight = abs(normal[axis]) > np.cos(np.radians(5)) * np.linalg.norm(normal)
    return _NAMES[axis] if straight else f"oblique {_NAMES[axis]}"
