"""How a plane is laid out for a person: the standard radiological view, by flips and transposes alone.

=========  ============================  ================  ==================================
plane      left edge, right edge         top edge          planes are numbered
=========  ============================  ================  ==================================
axial      patient's right, left         anterior          from feet to head
coronal    patient's right, left         head              from anterior to posterior
sagittal   anterior, posterior           head              from the patient's left to right
=========  ============================  ================  ==================================

An oblique plane is laid out as the nearest of the three. Values and their places in the patient stay: only
the order of a plane's rows and columns changes, and :class:`View` says where its first voxel then lies.
Planes are numbered along the normal that the picture's rows and columns span: every stack is right-handed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from ...kspace.geometry import Geometry
from .volume import AXIAL, CORONAL, SAGITTAL, n_planes, nearest_plane

T = TypeVar("T", bound=np.generic)

_WANTED = {
    AXIAL: (np.array([1.0, 0.0, 0.0]), np.array([0.0, 1.0, 0.0])),
    CORONAL: (np.array([1.0, 0.0, 0.0]), np.array([0.0, 0.0, -1.0])),
    SAGITTAL: (np.array([0.0, 1.0, 0.0]), np.array([0.0, 0.0, -1.0])),
}
"""LPS directions of a picture's growing columns and growing rows."""
_ALIKE = 1e-3
"""Planes whose directions differ by no more are laid out alike, whatever the rounding of the header did."""


@dataclass(frozen=True)
class View:
    """One plane as it is shown.

    Attributes
    ----------
    plane
        Its number in the volume as stored.
    transposed, flip_rows, flip_columns
        What is done to the stored plane ``(y, x)``, in this order.
    first_voxel_mm
        ``(3,)`` LPS [mm]: centre of the voxel at the top left.
    right, down
        ``(3,)`` LPS unit vectors: toward growing columns and growing rows.
    spacing_mm
        Distance [mm] of rows and of columns.
    shape
        Number of rows and of columns.
    """

    plane: int
    transposed: bool
    flip_rows: bool
    flip_columns: bool
    first_voxel_mm: NDArray[np.float64]
    right: NDArray[np.float64]
    down: NDArray[np.float64]
    spacing_mm: tuple[float, float]
    shape: tuple[int, int]

    @property
    def size_mm(self) -> tuple[float, float]:
        """Height and width [mm] of the picture."""
        (dy, dx), (rows, columns) = self.spacing_mm, self.shape
        return dy * rows, dx * columns

    def of(self, volume: NDArray[T]) -> NDArray[T]:
        """Return this plane of ``volume`` ``(z, y, x)`` as it is shown, ``(rows, columns)``."""
        return self.turned(volume[self.plane])

    def turned(self, plane: NDArray[T]) -> NDArray[T]:
        """Return a stored plane ``(y, x)`` as it is shown, ``(rows, columns)``."""
        shown = plane.T if self.transposed else plane
        return shown[:: -1 if self.flip_rows else 1, :: -1 if self.flip_columns else 1]

    def alike(self, other: View) -> bool:
        """Whether both are laid out in the same directions, so that one set of letters fits both."""
        return _alike((self.right, self.down), (other.right, other.down))


def views(geometry: Geometry) -> list[View]:
    """Return all planes in the order in which they are shown.

    Nothing is turned where the position in the patient is not known. Planes of different directions (a
    localizer) keep their order.
    """
    layouts: list[tuple[_Directions, _Layout]] = []
    shown = []
    for plane in range(n_planes(geometry)):
        row = 0 if geometry.is_3d else plane
        directions = geometry.read_dir[row], geometry.phase_dir[row]
        layout = next((known for made, known in layouts if _alike(made, directions)), None)
        if layout is None:
            layout = _layout(*directions) if geometry.known else (False, False, False)
            layouts.append((directions, layout))
        shown.append(_view(geometry, plane, row, layout))
    normal = np.cross(shown[0].right, shown[0].down)
    if geometry.known and len(layouts) == 1 and float(geometry.slice_step_mm() @ normal) < 0:
        shown.reverse()
    return shown


def stored_middle(geometry: Geometry) -> View:
    """Return the view of the plane in the middle of the volume as stored."""
    middle = n_planes(geometry) // 2
    return next(view for view in views(geometry) if view.plane == middle)


_Directions = tuple[NDArray[np.float64], NDArray[np.float64]]
_Layout = tuple[bool, bool, bool]


def _alike(one: Sequence[NDArray[np.float64]], other: Sequence[NDArray[np.float64]]) -> bool:
    return all(float(np.abs(a - b).max()) <= _ALIKE for a, b in zip(one, other, strict=True))


def _layout(read: NDArray[np.float64], phase: NDArray[np.float64]) -> _Layout:
    """Return the transpose and the flips that bring a plane nearest to its standard view."""
    right, down = _WANTED[nearest_plane(read, phase)]
    as_stored = abs(float(read @ right)) + abs(float(phase @ down))
    transposed = abs(float(phase @ right)) + abs(float(read @ down)) > as_stored + _ALIKE
    columns, rows = (phase, read) if transposed else (read, phase)
    return transposed, float(rows @ down) < 0, float(columns @ right) < 0


def _view(geometry: Geometry, plane: int, row: int, layout: _Layout) -> View:
    transposed, flip_rows, flip_columns = layout
    _, dy, dx = geometry.voxel_mm
    _, ny, nx = geometry.recon_matrix
    right, down = geometry.read_dir[row], geometry.phase_dir[row]
    if transposed:
        right, down, (dy, dx), (ny, nx) = down, right, (dx, dy), (nx, ny)
    first = geometry.first_voxel_mm(plane)
    if flip_rows:
        first, down = first + down * dy * (ny - 1), -down
    if flip_columns:
        first, right = first + right * dx * (nx - 1), -right
    return View(plane, transposed, flip_rows, flip_columns, first, right, down, (dy, dx), (ny, nx))
