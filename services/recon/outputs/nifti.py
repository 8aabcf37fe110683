"""NIfTI-1 output: one float32 volume, ``(x, y, z)`` or ``(x, y, z, image)``, byte-identical on a rerun."""

from __future__ import annotations

import gzip
from collections.abc import Iterable
from pathlib import Path

import nibabel
import numpy as np
from numpy.typing import NDArray

from ...kspace.geometry import Geometry
from .volume import affine_lps, shape, stack

_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_SCANNER = 1
_UNKNOWN = 0
_GZIP_LEVEL = 4
"""float32 noise does not shrink further; level 9 takes five times as long for one per cent."""


def affine_ras(geometry: Geometry) -> NDArray[np.float64]:
    """Return NIfTI's 4x4 matrix from voxel ``(x, y, z, 1)`` to RAS [mm]."""
    return _LPS_TO_RAS @ affine_lps(geometry)


def header(geometry: Geometry, n_images: int) -> nibabel.Nifti1Header:
    """Return the header: sform as the positions say, qform where there is no shear to lose.

    An unknown geometry, or slices that are no regular stack, get both codes 0 (no position known) and
    voxel sizes only: a matrix that is wrong for some slice would be worse than none.
    """
    z, y, x = shape(geometry)
    head = nibabel.Nifti1Header()
    head.set_data_dtype(np.float32)
    head.set_data_shape((x, y, z) if n_images == 1 else (x, y, z, n_images))
    dz, dy, dx = geometry.voxel_mm
    measured = stack(geometry)
    zooms = (dx, dy, measured.spacing_mm or dz)
    head.set_zooms(zooms if n_images == 1 else (*zooms, 1.0))
    affine = affine_ras(geometry)
    if geometry.known and measured.regular:
        head.set_sform(affine, code=_SCANNER)
        head.set_qform(affine, code=_UNKNOWN if _sheared(affine) else _SCANNER, strip_shears=True)
    else:
        head.set_sform(None, code=_UNKNOWN)
        head.set_qform(None, code=_UNKNOWN)
    head.set_xyzt_units("mm", "sec")
    head["descrip"] = b"mrirecon"
    head["vox_offset"] = head.single_vox_offset
    head["magic"] = head.single_magic
    return head


def write(path: Path, geometry: Geometry, volumes: Iterable[NDArray[np.float32]], n_images: int) -> None:
    """Write ``n_images`` volumes ``(z, y, x)`` as they come; only one need be in memory.

    A C-ordered ``(image, z, y, x)`` array is byte for byte NIfTI's Fortran-ordered ``(x, y, z, image)``.
    The gzip header holds neither a time nor a name.
    """
    with path.open("wb") as raw, gzip.GzipFile("", "wb", _GZIP_LEVEL, raw, mtime=0) as file:
        header(geometry, n_images).write_to(file)
        for volume in volumes:
            file.write(np.ascontiguousarray(volume, dtype="<f4").tobytes())


def _sheared(affine: NDArray[np.float64]) -> bool:
    axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    return bool(np.abs(axes.T @ axes - np.eye(3)).max() > 1e-4)
