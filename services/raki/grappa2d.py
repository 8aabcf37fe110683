"""GRAPPA for two-dimensional lattices in the (kz, ky) plane, regular or CAIPI-shifted, in closed form.

Griswold et al., MRM 2002;47:1202; lattices as in Breuer et al., MRM 2006;55:549. Missing lines fall into
``R - 1`` cosets of the lattice. Each coset has its own kernel: the acquired lines nearest to it in the
(kz, ky) plane, with ``bx`` samples along the readout. Beyond the matrix sources are zero.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..contract.codes import Code, PermanentError
from ..kspace.sampling import SamplingPattern
from .equations import PILOT_RIDGE, held_back, rows_variance, solve
from .lines import pad_readout, patches

NEIGHBOURS = (4, 6, 9)
READOUT = 5
RIDGES = (1e-3, 1e-2, 1e-1)
_CHUNK_BYTES = 128 * 1024 * 1024


@dataclass(frozen=True)
class Coset:
    """Where one class of missing lines lies, and its sources.

    Attributes
    ----------
    target
        ``(dz, dy)`` from a lattice line to the missing line.
    sources
        ``(dz, dy)`` from the missing line to each source line.
    """

    target: tuple[int, int]
    sources: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class PlaneKernel:
    """How many lattice lines each missing line is predicted from, and the ridge."""

    neighbours: int
    ridge: float

    def __str__(self) -> str:
        return f"{self.neighbours} lines x {READOUT}, ridge {self.ridge:g}"


@dataclass(frozen=True)
class CosetWeights:
    """Weights complex64 ``(image, coil, coil * neighbour * bx)`` of one coset."""

    coset: Coset
    weights: Tensor


def cosets(pattern: SamplingPattern, neighbours: int) -> list[Coset]:
    """Return the cosets of missing lines with their ``neighbours`` nearest lattice lines.

    Distance ties are settled by order along kz, then ky, so that kernels are the same on every machine.
    """
    r_z, r_y, shift = pattern.r_z, pattern.r_y, pattern.caipi_shift
    reach = range(-3 * max(r_z, r_y), 3 * max(r_z, r_y) + 1)
    out = []
    for dz in range(r_z):
        for dy in range(r_y):
            if dz == dy == 0:
                continue
            near = []
            for sz in reach:
                row, off = divmod(dz + sz, r_z)
                if off:
                    continue
                near += [(sz * sz + sy * sy, sz, sy) for sy in reach if (dy + sy - shift * row) % r_y == 0]
            out.append(Coset((dz, dy), tuple((sz, sy) for _, sz, sy in sorted(near)[:neighbours])))
    return out


def fits(coset: Coset, block: tuple[int, int]) -> bool:
    """Whether at least two by two positions of the kernel lie inside a block of ``(n_kz, n_ky)`` lines."""
    return all(
        n - (max(0, *(source[axis] for source in coset.sources)) - min(0, *(s[axis] for s in coset.sources)))
        >= min(2, n)
        for axis, n in enumerate(block)
    )


def fit(acs: Tensor, coset: Coset, ridges: tuple[float, ...], fold: int | None = None) -> list[CosetWeights]:
    """Solve one coset on a calibration block for several ridges.

    Parameters
    ----------
    acs
        complex64 ``(image, coil, kz, ky, kx)``, filled.
    coset
        From :func:`cosets`.
    ridges
        Relative to the mean diagonal of the normal equations.
    fold
        Readout blocks to leave out, ``None`` for none.
    """
    sources, targets, power = _equations(acs, coset)
    if fold is not None:
        keep = ~held_back(acs.shape[4], fold, acs.device)[READOUT // 2 : acs.shape[4] - READOUT // 2]
        keep = keep.expand(power.shape[1] // keep.numel(), -1).reshape(-1)
        sources, targets, power = sources[..., keep], targets[..., keep], power[..., keep]
    middle = power.median(dim=1, keepdim=True).values.clamp_min(torch.finfo(power.dtype).tiny)
    pilot = solve(*_normal(sources, targets, torch.rsqrt(power + middle)), PILOT_RIDGE)
    residual = (targets - pilot @ sources).abs().square().mean(dim=1)
    gram, cross = _normal(sources, targets, torch.rsqrt(rows_variance(power, residual)))
    return [CosetWeights(coset, solve(gram, cross, ridge)) for ridge in ridges]


def error(acs: Tensor, weights: CosetWeights, fold: int) -> float:
    """Return the residual over the signal on the held-back equations, each scaled by its local power.

    Relative errors stand in for importance weights here: gaps mostly lie where signal is weak.
    """
    sources, targets, power = _equations(acs, weights.coset)
    held = held_back(acs.shape[4], fold, acs.device)[READOUT // 2 : acs.shape[4] - READOUT // 2]
    held = held.expand(power.shape[1] // held.numel(), -1).reshape(-1)
    scale = 1 / (power + power.median(dim=1, keepdim=True).values)
    residual = (targets - weights.weights @ sources).abs().square().mean(dim=1) * scale
    signal = targets.abs().square().mean(dim=1) * scale
    return float(residual[:, held].sum() / signal[:, held].sum().clamp_min(1e-30))


def choose(acs: Tensor, pattern: SamplingPattern, fold: int = 0) -> tuple[PlaneKernel, dict[str, float]]:
    """Return the kernel with the least hold-out error, and the errors of all (mean over the cosets).

    Raises
    ------
    PermanentError
        ``too_few_acs`` where not even the smallest kernel fits the calibration lines.
    """
    one = acs[:1]
    block = (acs.shape[2], acs.shape[3])
    errors: dict[PlaneKernel, float] = {}
    for neighbours in NEIGHBOURS:
        these = cosets(pattern, neighbours)
        if not all(fits(coset, block) for coset in these):
            continue
        for coset in these:
            for ridge, weights in zip(RIDGES, fit(one, coset, RIDGES, fold), strict=True):
                kernel = PlaneKernel(neighbours, ridge)
                errors[kernel] = errors.get(kernel, 0.0) + error(one, weights, fold) / len(these)
    if not errors:
        raise PermanentError(
            Code.TOO_FEW_ACS,
            f"Found {block[1]} x {block[0]} (ky x kz) calibration lines; the smallest kernel for an "
            f"acceleration of R={pattern.acceleration} along both axes does not fit them: send the scan "
            "with more.",
        )
    best = min(errors, key=lambda kernel: errors[kernel])
    return best, {str(kernel): value for kernel, value in errors.items()}


def fill(kspace: Tensor, pattern: SamplingPattern, weights: list[CosetWeights]) -> Tensor:
    """Return a copy of ``(image, coil, kz, ky, kx)`` with the pattern's missing lines predicted."""
    out = kspace.clone()
    n_image, n_coil, n_z, n_y, n_kx = kspace.shape
    lattice = torch.from_numpy(pattern.lattice & pattern.acquired).to(kspace.device)
    masked = pad_readout(kspace * lattice[None, None, :, :, None], READOUT // 2)
    missing = torch.from_numpy(pattern.missing).to(kspace.device)
    z, y = torch.meshgrid(torch.arange(n_z), torch.arange(n_y), indexing="ij")
    row, off = (
        torch.div(z - pattern.offset_z, pattern.r_z, rounding_mode="floor"),
        (z - pattern.offset_z) % pattern.r_z,
    )
    step = (y - pattern.offset_y - pattern.caipi_shift * row) % pattern.r_y
    for one in weights:
        here = missing & ((off == one.coset.target[0]) & (step == one.coset.target[1])).to(kspace.device)
        points = torch.nonzero(here)
        per_point = n_image * n_coil * len(one.coset.sources) * (n_kx + READOUT) * 8 * (READOUT + 1)
        for part in torch.split(points, max(1, _CHUNK_BYTES // per_point)):
            gathered = torch.stack([_take(masked, part, offset) for offset in one.coset.sources], dim=2)
            flat = patches(gathered.flatten(1, 2), READOUT)
            predicted = (one.weights @ flat).reshape(n_image, n_coil, len(part), n_kx)
            out[:, :, part[:, 0], part[:, 1]] = predicted
    return out


def _take(masked: Tensor, points: Tensor, offset: tuple[int, int]) -> Tensor:
    """Return the lines at ``points + offset``, zero beyond the matrix: ``(image, coil, point, kx)``."""
    z, y = points[:, 0] + offset[0], points[:, 1] + offset[1]
    inside = (z >= 0) & (z < masked.shape[2]) & (y >= 0) & (y < masked.shape[3])
    lines = masked[:, :, z.clamp(0, masked.shape[2] - 1), y.clamp(0, masked.shape[3] - 1)]
    return lines * inside[None, None, :, None]


def _equations(acs: Tensor, coset: Coset) -> tuple[Tensor, Tensor, Tensor]:
    """Return patches ``(image, n, equation)``, targets ``(image, coil, equation)`` and local power."""
    n_z, n_y, n_kx = acs.shape[2:]
    low = [min(0, *(source[axis] for source in coset.sources)) for axis in (0, 1)]
    high = [max(0, *(source[axis] for source in coset.sources)) for axis in (0, 1)]
    z0, z1, y0, y1 = -low[0], n_z - high[0], -low[1], n_y - high[1]
    if z1 <= z0 or y1 <= y0:
        raise ValueError(
            f"a kernel of {high[0] - low[0] + 1} x {high[1] - low[1] + 1} does not fit {n_z} x {n_y}"
        )
    lines = torch.stack(
        [acs[:, :, z0 + dz : z1 + dz, y0 + dy : y1 + dy].flatten(2, 3) for dz, dy in coset.sources], dim=2
    )
    half = READOUT // 2
    sources = patches(lines.flatten(1, 2), READOUT)
    targets = acs[:, :, z0:z1, y0:y1, half : n_kx - half].flatten(2)
    return sources, targets, sources.abs().square().mean(dim=1)


def _normal(sources: Tensor, targets: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    gram = torch.zeros(1, dtype=torch.complex128, device=sources.device)
    cross = torch.zeros(1, dtype=torch.complex128, device=sources.device)
    weighted, aims = sources * weights[:, None], targets * weights[:, None]
    for part, aim in zip(torch.split(weighted, 2048, dim=2), torch.split(aims, 2048, dim=2), strict=True):
        gram = gram + part @ part.mH
        cross = cross + aim @ part.mH
    return gram, cross
