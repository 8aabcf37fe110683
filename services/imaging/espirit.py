"""ESPIRiT with an L1-wavelet penalty: an independent second opinion on a scan, never a candidate of ``auto``.

Coil maps come from the calibration lines (Uecker et al., MRM 2014, 71:990), two sets of them where the data
ask for it: a field of view smaller than the head folds the object onto itself, and one map cannot say so.
sigpy solves ``min |M F S x - y|^2 / 2 + lambda |W x|_1``; the answer is expanded to coil k-space by its own
maps and the acquired samples are put back, so that what follows treats it like any other interpolation.

A 3-D volume becomes a set of 2-D problems by the transform along its readout, where every line is whole.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..contract.codes import Code, PermanentError
from ..contract.progress import Progress, silent
from ..kspace.acs import require_acs
from ..kspace.sampling import SamplingPattern
from .fourier import resize_centred, to_image, to_kspace

KERNEL = 6
"""Side of the calibration kernel [samples], as in the paper; smaller where the calibration is."""
MINIMUM = 6
"""Calibration samples needed along each axis."""
CALIBRATION = 40
"""At most so many calibration samples along each axis: more cost time and change little."""
THRESHOLD = 0.02
"""Singular values below this share of the largest are noise and leave the signal space."""
CROP = 0.9
"""Eigenvalue from which a voxel holds signal that a map set explains (1 is exact)."""
SECOND_MAP_SHARE = 0.05
"""A second map set is used where it explains at least this share of the voxels that hold signal."""
LAMBDA = 5e-3
"""Weight of the wavelet penalty, the image being scaled to a maximum of one."""
ITERATIONS = 40
_SIGNAL = 0.1
_EIGEN_ITERATIONS = 30
_PIXELS = 8192

ComplexArray = NDArray[np.complex64]


@dataclass(frozen=True)
class EspiritResult:
    """Filled k-space and what was found on the way.

    Attributes
    ----------
    kspace
        complex64 ``(slice, coil, kz, ky, kx)``, acquired samples bit for bit.
    two_map_planes, planes
        How many of the 2-D problems took two map sets, of how many.
    residual
        Relative misfit of the acquired samples before they were put back: large where the maps do not
        explain the data.
    """

    kspace: Tensor
    two_map_planes: int
    planes: int
    residual: float


def reconstruct(
    kspace: Tensor, pattern: SamplingPattern, *, acs: Tensor | None = None, progress: Progress = silent
) -> EspiritResult:
    """Fill the lines inside the pattern's extent.

    Parameters
    ----------
    kspace
        complex64 ``(slice, coil, kz, ky, kx)``, zero where not acquired.
    pattern
        What was acquired.
    acs
        complex64 ``(slice, coil, kz, ky, kx)``: calibration acquired apart, used instead of the block that
        ``pattern`` names.
    progress
        Told after every plane.

    Raises
    ------
    PermanentError
        ``too_few_acs`` where the calibration is smaller than the kernel.
    """
    whole = _block(kspace, pattern) if acs is None else _filled(acs)
    require_acs(pattern, None if acs is None else (whole.shape[2], whole.shape[3]))
    flat = kspace.shape[2] == 1
    calibration = _centre(whole, flat)
    if min(calibration.shape[-2:]) < MINIMUM:
        raise PermanentError(
            Code.TOO_FEW_ACS,
            f"ESPIRiT needs at least {MINIMUM} calibration lines along each accelerated direction, "
            f"{calibration.shape[-2]} x {calibration.shape[-1]} samples were found: use grappa.",
        )
    data = _planes(kspace, flat)
    acquired = torch.from_numpy(pattern.acquired)
    extent = torch.from_numpy(pattern.extent)
    # in a plane (ky, kx) of a 2-D scan lines are whole; the planes (kz, ky) of a volume are sampled in points
    mask = (acquired[0, :, None] if flat else acquired).to(torch.float32).expand(data.shape[-2:]).numpy()
    filled = torch.empty_like(data)
    misfit = energy = 0.0
    two = 0
    for n, plane in enumerate(data):
        maps = coil_maps(calibration[n], (int(plane.shape[-2]), int(plane.shape[-1])))
        two += maps.shape[0] == 2
        expanded = _expand(maps, solve(plane.numpy(), maps, mask))
        misfit += float(np.sum(np.abs((expanded - plane.numpy()) * mask) ** 2))
        energy += float(np.sum(np.abs(plane.numpy()) ** 2))
        filled[n] = torch.from_numpy(expanded)
        progress("interpolate", (n + 1) / len(data), f"espirit, plane {n + 1} of {len(data)}")
    answer = _unplanes(filled, flat).to(kspace.device) * extent[:, :, None].to(kspace.device)
    answer = torch.where(acquired[:, :, None].to(kspace.device), kspace, answer)
    return EspiritResult(answer, two, len(data), float(np.sqrt(misfit / max(energy, 1e-30))))


def coil_maps(calibration: Tensor, shape: tuple[int, int]) -> ComplexArray:
    """Return one or two sets of coil maps from a fully sampled centre of k-space.

    Parameters
    ----------
    calibration
        complex64 ``(coil, a, b)``.
    shape
        Matrix of the image.

    Returns
    -------
    complex64 ``(set, coil, *shape)``: orthonormal over the coils in every voxel that holds signal, zero in
    the others. The signal space is the paper's; its eigenvectors come from orthogonal iteration that starts
    from the calibration's two principal coils in every voxel, which makes their phase, and the mixture of
    the two where both eigenvalues are one, smooth over the image.
    """
    n_coil = calibration.shape[0]
    kernels, start = _signal_space(calibration)
    bases = [_harmonics(n, kernels.shape[0]) for n in shape]
    maps = torch.zeros((2, n_coil, shape[0] * shape[1]), dtype=torch.complex64)
    values = torch.zeros((2, shape[0] * shape[1]))
    rows = torch.tensordot(bases[0], kernels, dims=([1], [0]))  # (a, side, coil, coil)
    step = max(1, _PIXELS // shape[1])
    for first in range(0, shape[0], step):
        gram = torch.einsum("aqij,bq->abij", rows[first : first + step], bases[1]).reshape(-1, n_coil, n_coil)
        vectors = _orthonormal(start.expand(gram.shape[0], -1, -1))
        for _ in range(_EIGEN_ITERATIONS):
            vectors = _orthonormal(gram @ vectors)
        found = torch.einsum("pcs,pcd,pds->ps", vectors.conj(), gram, vectors).real
        at = slice(first * shape[1], first * shape[1] + gram.shape[0])
        maps[:, :, at] = vectors.permute(2, 1, 0)
        values[:, at] = found.T
    kept = values > CROP
    there = _has_signal(calibration, shape).flatten()
    folded = float((kept[1] & there).sum()) > SECOND_MAP_SHARE * float((kept[0] & there).sum())
    n_sets = 2 if n_coil > 1 and folded else 1
    answer: ComplexArray = (maps * kept[:, None])[:n_sets].reshape(n_sets, n_coil, *shape).numpy()
    return answer


def solve(plane: ComplexArray, maps: ComplexArray, mask: NDArray[np.float32]) -> ComplexArray:
    """Return the images ``(set, a, b)`` that sigpy finds for ``plane`` (complex64 ``(coil, a, b)``)."""
    sp = _sigpy()
    sensing = _sensing(sp, maps, mask)
    zero_filled = sensing.H(plane)
    scale = float(np.abs(zero_filled).max()) or 1.0
    wavelet = sp.linop.Wavelet(sensing.ishape, axes=(-2, -1))
    penalty = sp.prox.UnitaryTransform(sp.prox.L1Reg(wavelet.oshape, LAMBDA), wavelet)
    app = sp.app.LinearLeastSquares(
        sensing,
        plane / scale,
        x=zero_filled / scale,
        proxg=penalty,
        alpha=1.0,
        max_iter=ITERATIONS,
        show_pbar=False,
    )  # the maps are orthonormal and so is the transform: a step of one is safe
    images: ComplexArray = (app.run() * scale)[:, 0].astype(np.complex64)
    return images


def _sensing(sp: ModuleType, maps: ComplexArray, mask: NDArray[np.float32]) -> Any:
    """Return sigpy's operator from images ``(set, 1, a, b)`` to the acquired samples ``(coil, a, b)``."""
    n_sets, _, *shape = maps.shape
    spread = sp.linop.Multiply((n_sets, 1, *shape), maps)
    collect = sp.linop.Sum(maps.shape, axes=(0,))
    transform = sp.linop.FFT(maps.shape[1:], axes=(-2, -1))
    return sp.linop.Multiply(maps.shape[1:], mask) * transform * collect * spread


def _expand(maps: ComplexArray, images: ComplexArray) -> ComplexArray:
    coils = torch.from_numpy((maps * images[:, None]).sum(0))
    kspace: ComplexArray = to_kspace(coils, (-2, -1)).numpy()
    return kspace


def _signal_space(calibration: Tensor) -> tuple[Tensor, Tensor]:
    """Return the projection onto the signal space as harmonics of the image, and a start for its vectors.

    The first is complex64 ``(2k-1, 2k-1, coil, coil)``: the paper's operator in every voxel is the Fourier
    sum of these few terms, so no kernel is ever padded to the size of the image.
    """
    n_coil, n_a, n_b = calibration.shape
    kernel = max(3, min(KERNEL, n_a // 3, n_b // 3))
    data = calibration.to(torch.complex64) / calibration.abs().max().clamp(min=1e-30)
    patches = data.unfold(1, kernel, 1).unfold(2, kernel, 1)  # (coil, a, b, k, k)
    rows = patches.permute(1, 2, 0, 3, 4).reshape(-1, n_coil * kernel * kernel)
    gram = (rows.mH @ rows).to(torch.complex128)
    values, vectors = torch.linalg.eigh(gram)
    signal = vectors[:, values > THRESHOLD**2 * values[-1]]
    projection = (signal @ signal.mH).conj().reshape(n_coil, kernel, kernel, n_coil, kernel, kernel)
    side = 2 * kernel - 1
    terms = torch.zeros((side, side, n_coil, n_coil), dtype=torch.complex128)
    for a in range(kernel):
        for b in range(kernel):
            block = projection[:, a, b].permute(2, 3, 0, 1)  # (k', k', coil, coil')
            low_a, low_b = kernel - 1 - a, kernel - 1 - b
            terms[low_a : low_a + kernel, low_b : low_b + kernel] += block
    terms = terms / kernel**2
    coils = data.reshape(n_coil, n_a * n_b).to(torch.complex128)
    start = torch.linalg.eigh(coils @ coils.mH)[1].flip(-1)[:, : min(2, n_coil)]
    if n_coil == 1:
        start = torch.cat([start, torch.zeros_like(start)], dim=1)
    return terms.to(torch.complex64), start.to(torch.complex64)


def _has_signal(calibration: Tensor, shape: tuple[int, int]) -> Tensor:
    """Return where the low-resolution image of the calibration is more than noise and ringing."""
    window = calibration
    for dim in (-2, -1):
        n = calibration.shape[dim]
        hann = torch.hann_window(n + 2, periodic=False)[1:-1]
        window = window * (hann[:, None] if dim == -2 else hann)
    padded = resize_centred(resize_centred(window, -2, shape[0]), -1, shape[1])
    image = torch.linalg.vector_norm(to_image(padded, (-2, -1)), dim=0)
    there: Tensor = image > _SIGNAL * image.max()
    return there


def _harmonics(n: int, side: int) -> Tensor:
    """Return complex64 ``(n, side)``: ``exp(-2 pi i x d / n)`` at voxels x about ``n // 2``, offsets d."""
    x = torch.arange(n, dtype=torch.float64)[:, None] - n // 2
    d = torch.arange(side, dtype=torch.float64)[None] - side // 2
    return torch.exp(-2j * torch.pi * x * d / n).to(torch.complex64)


def _orthonormal(vectors: Tensor) -> Tensor:
    """Return Gram-Schmidt of the two columns ``(pixel, coil, 2)``; a vanishing second column stays zero."""
    first = vectors[..., :1]
    first = first / torch.linalg.vector_norm(first, dim=-2, keepdim=True).clamp(min=1e-20)
    second = vectors[..., 1:]
    second = second - first * (first.conj() * second).sum(-2, keepdim=True)
    second = second / torch.linalg.vector_norm(second, dim=-2, keepdim=True).clamp(min=1e-20)
    return torch.cat([first, second], dim=-1)


def _block(kspace: Tensor, pattern: SamplingPattern) -> Tensor:
    """Return the calibration block of the data."""
    if pattern.acs_z is None or pattern.acs_y is None:
        return kspace
    return kspace[:, :, slice(*pattern.acs_z), slice(*pattern.acs_y)]


def _filled(acs: Tensor) -> Tensor:
    """Return the lines of a separate calibration that hold anything; the rest of its matrix is padding."""
    lines = (acs != 0).any(dim=4).any(dim=1).any(dim=0)
    z, y = (torch.nonzero(lines.any(dim=dim)).flatten() for dim in (1, 0))
    return acs[:, :, int(z[0]) : int(z[-1]) + 1, int(y[0]) : int(y[-1]) + 1] if len(y) else acs


def _centre(block: Tensor, flat: bool) -> Tensor:
    """Return the calibration of every plane ``(plane, coil, a, b)``, cut to :data:`CALIBRATION`."""
    planes = _planes(block, flat)
    if flat:
        planes = resize_centred(planes, -1, min(CALIBRATION, planes.shape[-1]))
    for dim in (-2, -1):
        extra = planes.shape[dim] - CALIBRATION
        if extra > 0:
            planes = planes.narrow(dim, extra // 2, CALIBRATION)
    return planes


def _planes(kspace: Tensor, flat: bool) -> Tensor:
    """Return ``(plane, coil, a, b)`` on the CPU: ``(ky, kx)`` a slice, or ``(kz, ky)`` a readout position."""
    if flat:
        return kspace[:, :, 0].cpu()
    n_slice, n_coil, n_z, n_y, n_x = kspace.shape
    hybrid = to_image(kspace, (-1,)).permute(0, 4, 1, 2, 3)
    return hybrid.reshape(n_slice * n_x, n_coil, n_z, n_y).cpu()


def _unplanes(planes: Tensor, flat: bool) -> Tensor:
    if flat:
        return planes[:, :, None]
    return to_kspace(planes.permute(1, 2, 3, 0)[None], (-1,))


def _sigpy() -> ModuleType:
    """Import sigpy, its numba cache in a folder of this process: nothing is left in a home or a package."""
    if "NUMBA_CACHE_DIR" not in os.environ:
        cache = tempfile.mkdtemp(prefix="mrirecon-numba-")
        os.environ["NUMBA_CACHE_DIR"] = cache
        atexit.register(shutil.rmtree, cache, ignore_errors=True)
    import sigpy
    import sigpy.app
    import sigpy.linop
    import sigpy.prox

    module: ModuleType = sigpy
    return module
