"""Where a scan lies in the patient, in the patient coordinate system LPS (DICOM PS3.3 C.7.6.2).

Convention, held by the geometry tests: voxel ``N // 2`` of each axis of the FFT grid lies at the MRD
``position``; rows run along ``phase_dir``, columns along ``read_dir``; nothing is flipped.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ..contract.codes import Code, PermanentError

_TOLERANCE = 1e-3
"""Allowed departure of direction cosines from unit length and from right angles (float32 headers)."""


PATIENT_POSITIONS = frozenset(
    {"HFP", "HFS", "HFDR", "HFDL", "FFP", "FFS", "FFDR", "FFDL"}
    | {"LFP", "LFS", "RFP", "RFS", "AFDR", "AFDL", "PFDR", "PFDL"}
)
"""Defined terms of DICOM Patient Position (PS3.3 C.7.3.1.1.2); MRD's header has the first eight."""


@dataclass(frozen=True)
class Geometry:
    """Positions, directions and sizes of the slices of one scan.

    Attributes
    ----------
    known
        False where the file says nothing (all zero): images are made, DICOM says the position is not known.
    position
        ``(slice, 3)`` float64 [mm], LPS: the centre of each slice's (or the slab's) field of view.
    read_dir, phase_dir, slice_dir
        ``(slice, 3)`` float64 unit vectors, LPS. Left-handed triads are normal: none is derived from
        the other two.
    matrix
        ``(nz, ny, nx)`` of the k-space grid, readout oversampling removed.
    fov_mm
        ``(z, y, x)`` [mm] that the k-space grid spans; ``z`` is the slice thickness of 2-D scans and the
        slab of 3-D ones.
    recon_matrix, recon_fov_mm
        ``(nz, ny, nx)`` and ``(z, y, x)`` [mm] of the images wanted: phase oversampling is cropped and
        lower phase resolution interpolated (zero-filled) to it.
    patient_position
        ``HFS``, ``FFS``, … or empty.
    """

    position: NDArray[np.float64]
    read_dir: NDArray[np.float64]
    phase_dir: NDArray[np.float64]
    slice_dir: NDArray[np.float64]
    matrix: tuple[int, int, int]
    fov_mm: tuple[float, float, float]
    recon_matrix: tuple[int, int, int]
    recon_fov_mm: tuple[float, float, float]
    known: bool = True
    patient_position: str = ""

    def __post_init__(self) -> None:
        shapes = {np.shape(a) for a in (self.position, self.read_dir, self.phase_dir, self.slice_dir)}
        if len(shapes) != 1 or len(next(iter(shapes))) != 2 or next(iter(shapes))[1] != 3:
            raise ValueError(f"positions and directions must all be (slice, 3), got {sorted(shapes)}")

    @property
    def n_slices(self) -> int:
        """Number of slices (1 for 3-D)."""
        return int(self.position.shape[0])

    @property
    def voxel_mm(self) -> tuple[float, float, float]:
        """``(z, y, x)`` [mm] of an image voxel; ``z`` of a 2-D scan is the slice thickness."""
        (fz, fy, fx), (nz, ny, nx) = self.recon_fov_mm, self.recon_matrix
        return fz / nz, fy / ny, fx / nx

    @property
    def is_3d(self) -> bool:
        """Whether the slice direction is phase-encoded."""
        return self.matrix[0] > 1

    def slice_step_mm(self) -> NDArray[np.float64]:
        """Return the vector [mm] from one image plane to the next, measured from the positions.

        Field of view and slice gap are different things: for several 2-D slices the step is taken from
        the first to the last position, never from the slice thickness.
        """
        if self.is_3d or self.n_slices == 1:
            return np.asarray(self.slice_dir[0] * self.voxel_mm[0])
        return np.asarray((self.position[-1] - self.position[0]) / (self.n_slices - 1))

    def first_voxel_mm(self, plane: int) -> NDArray[np.float64]:
        """Return the centre [mm] of voxel ``(y, x) = (0, 0)`` of a plane (a slice or a partition)."""
        dz, dy, dx = self.voxel_mm
        nz, ny, nx = self.recon_matrix
        s = 0 if self.is_3d else plane
        corner = self.position[s] - self.read_dir[s] * dx * (nx // 2) - self.phase_dir[s] * dy * (ny // 2)
        along = dz * (plane - nz // 2) if self.is_3d else 0.0
        return np.asarray(corner + self.slice_dir[s] * along)


def unknown(n_slices: int, matrix: tuple[int, int, int], fov_mm: tuple[float, float, float]) -> Geometry:
    """Return the geometry of a file that tells none: axial, at the isocentre, slices stacked by thickness."""
    position = np.zeros((n_slices, 3))
    position[:, 2] = (np.arange(n_slices) - n_slices // 2) * fov_mm[0] if matrix[0] == 1 else 0.0
    x, y, z = (np.tile(axis, (n_slices, 1)) for axis in np.eye(3))
    return Geometry(position, x, y, z, matrix, fov_mm, matrix, fov_mm, known=False)


def check_directions(
    read_dir: NDArray[np.float64], phase_dir: NDArray[np.float64], slice_dir: NDArray[np.float64]
) -> bool:
    """Return whether any direction is given; each argument is ``(..., 3)``.

    Raises
    ------
    PermanentError
        ``geometry`` when directions are given but are not finite, not of unit length or not at right
        angles. All zero means *not known*, which is no error.
    """
    stack = np.stack([read_dir, phase_dir, slice_dir], axis=-2).reshape(-1, 3, 3)
    if not np.isfinite(stack).all():
        raise PermanentError(Code.GEOMETRY, "The slice directions are not finite numbers.")
    if not stack.any():
        return False
    gram = stack @ stack.transpose(0, 2, 1)
    worst = float(np.abs(gram - np.eye(3)).max())
    if worst > _TOLERANCE:
        raise PermanentError(
            Code.GEOMETRY,
            "The slice directions must be orthonormal unit vectors; the worst departs by "
            f"{worst:.3g} (allowed {_TOLERANCE:g}). Export the scan again from the scanner.",
        )
    return True


@dataclass(frozen=True)
class ImageIndex:
    """What one entry of the k-space file's first axis is, in the scanner's counters."""

    contrast: int = 0
    repetition: int = 0
    phase: int = 0
    set: int = 0
    echo_time_s: float | None = None
    inversion_time_s: float | None = None
    extra: dict[str, float] = field(default_factory=dict)
