"""From the k-space grid to the image grid that was asked for.

Per axis the k-space grid spans ``fov`` with ``n`` samples; the image wanted spans ``recon_fov`` with
``recon_matrix`` voxels.  Phase oversampling is cropped in the image, a finer voxel is interpolated by zero
filling k-space, a coarser one keeps the centre of k-space.  Voxel ``N // 2`` stays at the centre of the
field of view whatever is cropped or filled.  Values keep their scale: a voxel of the finer grid that falls
on one of the coarser has its value.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..kspace.geometry import Geometry
from .fourier import resize_centred, to_image

_WHOLE = 0.01
"""A zero-filled size this close to an integer is that integer: edge voxels move by less than 0.01 voxel."""


@dataclass(frozen=True)
class AxisGrid:
    """One axis: ``n`` k-space samples over ``fov`` mm to ``n_out`` voxels over ``fov_out`` mm."""

    n: int
    n_out: int
    fov: float
    fov_out: float

    @property
    def filled(self) -> float:
        """Number of k-space samples at which the transform has the wanted voxel size; rarely not whole."""
        return self.fov * self.n_out / self.fov_out

    @property
    def unchanged(self) -> bool:
        """Whether the image is the plain transform of k-space."""
        return self.n == self.n_out and abs(self.filled - self.n) < _WHOLE


@dataclass(frozen=True)
class ImageGrid:
    """The three axes ``(z, y, x)``; ``z`` of a 2-D scan has one sample and stays as it is."""

    axes: tuple[AxisGrid, AxisGrid, AxisGrid]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Return ``(z, y, x)`` of the image."""
        z, y, x = (axis.n_out for axis in self.axes)
        return z, y, x

    def image(self, kspace: Tensor) -> Tensor:
        """Return the images ``(..., z, y, x)`` of k-space ``(..., kz, ky, kx)``, both complex64.

        Orthonormal on the k-space grid, so white noise of unit variance in k-space has unit variance in
        the image (correlated between voxels where it was interpolated).
        """
        image = kspace
        for dim, axis in zip((-3, -2, -1), self.axes, strict=True):
            if axis.n > 1 or axis.n_out > 1:
                image = _transform(image, dim, axis)
        return image

    def resample(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return a real map ``(..., z, y, x)`` of the k-space grid on the image grid, linearly interpolated.

        Not a number where the image reaches beyond the acquired field of view.
        """
        for dim, axis in zip((-3, -2, -1), self.axes, strict=True):
            if not axis.unchanged:
                values = _interpolate(values, dim, axis)
        return values

    def describe(self) -> list[dict[str, object]]:
        """Return what was done to each axis, for the record; empty where nothing was."""
        steps: list[dict[str, object]] = []
        for name, axis in zip(("kz", "ky", "kx"), self.axes, strict=True):
            if axis.n == 1 or axis.unchanged:
                continue
            if axis.filled > axis.n + _WHOLE:
                steps.append(
                    {
                        "step": "zero-fill interpolation",
                        "axis": name,
                        "from": axis.n,
                        "to": round(axis.filled, 2),
                    }
                )
            elif axis.filled < axis.n - _WHOLE:
                steps.append(
                    {"step": "k-space cropped", "axis": name, "from": axis.n, "to": round(axis.filled, 2)}
                )
            if axis.filled > axis.n_out + _WHOLE:
                steps.append(
                    {
                        "step": "field of view cropped",
                        "axis": name,
                        "from_mm": round(axis.fov, 3),
                        "to_mm": round(axis.fov_out, 3),
                    }
                )
        return steps


def image_grid(kspace_shape: tuple[int, int, int], geometry: Geometry) -> ImageGrid:
    """Return the grid from k-space ``(kz, ky, kx)`` to the image that ``geometry`` asks for."""
    axes = []
    for n, n_out, fov, fov_out in zip(
        kspace_shape, geometry.recon_matrix, geometry.fov_mm, geometry.recon_fov_mm, strict=True
    ):
        axes.append(AxisGrid(n, n_out, fov, fov_out))
    if kspace_shape[0] == 1:
        axes[0] = AxisGrid(1, 1, geometry.fov_mm[0], geometry.fov_mm[0])
    return ImageGrid((axes[0], axes[1], axes[2]))


def _transform(kspace: Tensor, dim: int, axis: AxisGrid) -> Tensor:
    size = round(axis.filled)
    if abs(axis.filled - size) > _WHOLE:
        return _by_matrix(kspace, dim, axis)
    padded = resize_centred(kspace, dim, size)
    image = to_image(padded, (dim,)) * math.sqrt(size / axis.n)
    return resize_centred(image, dim, axis.n_out)


def _interpolate(values: NDArray[np.float32], dim: int, axis: AxisGrid) -> NDArray[np.float32]:
    at = (np.arange(axis.n_out) - axis.n_out // 2) * (axis.n / axis.filled) + axis.n // 2
    inside = (at > -0.5) & (at < axis.n - 0.5)
    low = np.clip(np.floor(at).astype(int), 0, axis.n - 1)
    high = np.minimum(low + 1, axis.n - 1)
    part = np.clip(at - low, 0, 1).astype(np.float32)
    last = np.moveaxis(values, dim, -1)
    made = last[..., low] * (1 - part) + last[..., high] * part
    made[..., ~inside] = np.nan
    return np.moveaxis(made, -1, dim)


def _by_matrix(kspace: Tensor, dim: int, axis: AxisGrid) -> Tensor:
    """Evaluate the Fourier sum at voxels no padded transform falls on, exactly."""
    step = axis.n / axis.filled  # voxel wanted over voxel of the k-space grid
    k = torch.arange(axis.n, dtype=torch.float64) - axis.n // 2
    x = (torch.arange(axis.n_out, dtype=torch.float64) - axis.n_out // 2) * step
    matrix = torch.exp(2j * math.pi / axis.n * x[:, None] * k[None, :]) / math.sqrt(axis.n)
    matrix[:, 2 * k.abs() > axis.filled] = 0  # a coarser voxel holds no higher frequencies
    matrix[(x < -axis.n / 2) | (x >= axis.n / 2)] = 0  # beyond the field of view lie only its repetitions
    matrix = matrix.to(device=kspace.device, dtype=kspace.dtype)
    return torch.movedim(torch.movedim(kspace, dim, -1) @ matrix.T, -1, dim)
