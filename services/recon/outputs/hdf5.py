"""``image.h5``: the result for scripts, float and complex, with maps and facts beside it.

====================  =================================================================================
``image``             float32 ``(image, z, y, x)``: magnitude as the profile combines it; z the slices in
                      order of position or the partitions, y phase, x readout, no flips
``complex``           complex64 ``(image, z, y, x)``: adaptive coil combination with phase
``maps/g_factor``     float32 ``(z, y, x)``: noise amplification of the interpolation, of image 0
``maps/noise_sd``     float32 ``(z, y, x)``: standard deviation of image 0 in units of ``image``
``geometry/*``        per plane, LPS [mm]: ``first_voxel_mm``, ``read_dir``, ``phase_dir``, ``slice_dir``;
                      ``affine_lps`` and ``affine_ras`` from voxel ``(x, y, z, 1)``
====================  =================================================================================

Attributes: ``scan_id``, ``recon_id``, ``voxel_mm`` (z, y, x), ``geometry_known``, ``images`` (JSON: what each
image index is), ``record`` (JSON: the facts of the record that do not change from run to run). Maps are
there where they were asked for. No times, so a rerun writes the same data.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from ...kspace.geometry import Geometry
from .facts import Facts
from .nifti import affine_ras
from .volume import affine_lps, n_planes, shape

_CACHED = 6 * 1024**2
"""Bytes that an open file may hold back: the chunk cache of four data sets, and their metadata."""


class ImageFile:
    """The open ``image.h5``, written plane by plane and read image by image."""

    def __init__(self, file: h5py.File, volume: tuple[int, int, int], n_images: int) -> None:
        self._file = file
        self.n_images = n_images
        chunks = (1, 1, *volume[1:])
        full = (n_images, *volume)
        self._image = file.create_dataset("image", full, np.float32, chunks=chunks)
        self._complex = file.create_dataset("complex", full, np.complex64, chunks=chunks)

    def put(
        self, image: int, slice_: int, magnitude: NDArray[np.float32], combined: NDArray[np.complex64]
    ) -> None:
        """Store what one slice became: ``(z, y, x)``, a plane of a 2-D scan, all of a 3-D one."""
        planes = slice(slice_, slice_ + magnitude.shape[0])
        self._image[image, planes] = magnitude
        self._complex[image, planes] = combined

    def put_map(self, name: str, slice_: int, values: NDArray[np.float32]) -> None:
        """Store a quality map of one slice, ``(z, y, x)``."""
        path = f"maps/{name}"
        if path not in self._file:
            volume = self._image.shape[1:]
            self._file.create_dataset(path, volume, np.float32, chunks=(1, *volume[1:]), fillvalue=np.nan)
        self._file[path][slice_ : slice_ + values.shape[0]] = values

    def volume(self, image: int) -> NDArray[np.float32]:
        """Return the magnitude ``(z, y, x)`` of one image."""
        values: NDArray[np.float32] = self._image[image]
        return values

    def combined(self, image: int) -> NDArray[np.complex64]:
        """Return the complex combination ``(z, y, x)`` of one image."""
        values: NDArray[np.complex64] = self._complex[image]
        return values

    def map(self, name: str) -> NDArray[np.float32] | None:
        """Return a quality map ``(z, y, x)``, or None where there is none."""
        path = f"maps/{name}"
        if path not in self._file:
            return None
        values: NDArray[np.float32] = self._file[path][()]
        return values

    def describe(self, facts: Facts, record: dict[str, Any]) -> None:
        """Store geometry and facts. ``record`` must hold nothing that changes from run to run."""
        geometry = facts.geometry
        planes = n_planes(geometry)
        rows = np.zeros(planes, int) if geometry.is_3d else np.arange(planes)
        group = self._file.create_group("geometry")
        group["first_voxel_mm"] = np.stack([geometry.first_voxel_mm(plane) for plane in range(planes)])
        for name in ("read_dir", "phase_dir", "slice_dir"):
            group[name] = getattr(geometry, name)[rows]
        group["affine_lps"], group["affine_ras"] = affine_lps(geometry), affine_ras(geometry)
        self._file.attrs.update(
            scan_id=facts.scan_id,
            recon_id=facts.recon_id,
            voxel_mm=geometry.voxel_mm,
            geometry_known=geometry.known,
            images=json.dumps([asdict(index) for index in facts.images]),
            record=json.dumps(record, allow_nan=False),
        )


@contextmanager
def create(path: Path, geometry: Geometry, n_images: int) -> Iterator[ImageFile]:
    """Open a new ``image.h5`` for images of ``geometry``."""
    with h5py.File(path, "w-", libver="v110", track_order=False) as file, _room(path.with_name(".room")):
        yield ImageFile(file, shape(geometry), n_images)


@contextmanager
def _room(path: Path) -> Iterator[None]:
    """Keep some of the disk until the block ends, for the closing of a file after it.

    libhdf5 does not survive a close that cannot write: where the disk fills up within the block, what it
    still holds in its caches must have a place to go.
    """
    try:
        path.write_bytes(bytes(_CACHED))
        yield
    finally:
        path.unlink(missing_ok=True)
