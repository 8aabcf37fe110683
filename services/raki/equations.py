"""Calibration equations: their weights, their normal equations, and what is held back of them.

The energy of k-space falls by orders of magnitude from its centre, so plain least squares over the
calibration lines fits the few equations at the centre and leaves the rest to chance. Here every equation is
weighted by the inverse of its residual's variance (feasible generalised least squares): a pilot fit gives
residuals, the variance is read off them as a function of the local signal power, and the fit that counts
uses it. Where noise alone limits the fit the variance is flat and this is ordinary GRAPPA.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from .lines import calibration, patches, positions

PILOT_KERNEL = (2, 9)
PILOT_RIDGE = 1e-2
FOLDS = 4
_VARIANCE_BINS = 16
_COLUMNS = 2048


@dataclass(frozen=True)
class Region:
    """Filled lines to calibrate on.

    Attributes
    ----------
    kspace
        complex64 ``(slice, coil, line, kx)``.
    r
        Lines from one source to the next.
    weights
        float32 ``(slice, line - r, kx)``: the weight of the equation whose upper source line is that line
        and whose centre is that kx sample. Zero takes it out of the fit.
    """

    kspace: Tensor
    r: int
    weights: Tensor

    def only(self, keep: Tensor) -> Region:
        """Return the region with the equations outside ``keep`` (bool, broadcast to weights) taken out."""
        return Region(self.kspace, self.r, self.weights * keep)

    def slices(self, which: Tensor | slice) -> Region:
        """Return some of the slices."""
        return Region(self.kspace[which], self.r, self.weights[which])

    def blocks(self, by: int, bx: int, rows: int | None = None) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Yield ``(patches, targets, weights)`` some kernel positions at a time.

        Shapes ``(slice, coil * by * bx, equation)``, ``(slice, (r - 1) * coil, equation)`` and
        ``(slice, 1, equation)``.
        """
        sources, targets = calibration(self.kspace, self.r, by)
        half, n_kx = bx // 2, self.kspace.shape[3]
        first = (by // 2 - 1) * self.r
        count = positions(self.kspace.shape[2], self.r, by)
        rows = rows or max(1, _COLUMNS // n_kx)
        for start in range(0, count, rows):
            stop = min(count, start + rows)
            weights = self.weights[:, first + start : first + stop, half : n_kx - half]
            yield (
                patches(sources[:, :, start:stop], bx),
                targets[:, :, start:stop, half : n_kx - half].flatten(2),
                weights.flatten(1)[:, None],
            )


def local_power(sources: Tensor, bx: int = PILOT_KERNEL[1]) -> Tensor:
    """Return the mean power of the samples a kernel of two lines sees: ``(slice, row, kx)``, float32."""
    power = (sources.real.square() + sources.imag.square()).mean(dim=1)
    return functional.avg_pool1d(power, bx, 1, bx // 2, count_include_pad=False)


def normal_equations(region: Region, by: int, bx: int) -> tuple[Tensor, Tensor]:
    """Return ``A Aᴴ`` and ``B Aᴴ`` of the weighted equations, complex128.

    Shapes ``(slice, n, n)`` and ``(slice, m, n)``. The products of at most a few thousand equations are
    formed in complex64 and summed in complex128, so rounding stays near 1e-6 of the diagonal, far below any
    ridge in use.
    """
    n_slice, n_coil = region.kspace.shape[:2]
    n, m = n_coil * by * bx, n_coil * (region.r - 1)
    gram = torch.zeros(n_slice, n, n, dtype=torch.complex128, device=region.kspace.device)
    cross = torch.zeros(n_slice, m, n, dtype=torch.complex128, device=region.kspace.device)
    for sources, targets, weights in region.blocks(by, bx):
        weighted = sources * weights
        gram += weighted @ weighted.mH
        cross += (targets * weights) @ weighted.mH
    return gram, cross


def solve(gram: Tensor, cross: Tensor, ridge: float) -> Tensor:
    """Return the weights ``(slice, m, n)`` complex64 that minimise the ridge-penalised weighted residual.

    ``ridge`` is relative to the mean of the Gram matrix' diagonal, so no scale of the data enters.
    """
    n = gram.shape[-1]
    scale = gram.diagonal(dim1=1, dim2=2).real.mean(dim=1).clamp_min(1e-300)
    loaded = gram / scale[:, None, None] + ridge * torch.eye(n, dtype=gram.dtype, device=gram.device)
    weights: Tensor = torch.linalg.solve(loaded, (cross / scale[:, None, None]).mH).mH
    return weights.to(torch.complex64).contiguous()


def weigh(kspace: Tensor, r: int, keep: Tensor | None = None) -> Region:
    """Return a calibration region with its equations weighted as the module says.

    Parameters
    ----------
    kspace
        complex64 ``(slice, coil, line, kx)``.
    r
        Lines from one source to the next.
    keep
        bool, broadcast to ``(slice, line - r, kx)``: equations to fit (held-back ones are ``False``).
    """
    by, bx = PILOT_KERNEL
    sources, _ = calibration(kspace, r, by)
    power = local_power(sources)
    middle = power.flatten(1).median(dim=1).values.clamp_min(torch.finfo(power.dtype).tiny)
    region = Region(kspace, r, torch.rsqrt(power + middle[:, None, None]))
    fitted = region if keep is None else region.only(keep)
    weights = solve(*normal_equations(fitted, by, bx), PILOT_RIDGE)
    residual = torch.cat(
        [
            (targets - weights @ patch).abs().square().mean(dim=1)
            for patch, targets, _ in region.blocks(by, bx)
        ],
        dim=1,
    ).reshape(power.shape[0], power.shape[1], -1)
    half = bx // 2
    inner = power[..., half : power.shape[2] - half]
    use = torch.ones_like(inner, dtype=torch.bool)
    if keep is not None:
        use = keep.expand_as(power)[..., half : power.shape[2] - half]
    variance = torch.stack(
        [
            _variance(all_power, some_power[mask], values[mask])
            for all_power, some_power, values, mask in zip(power, inner, residual, use, strict=True)
        ]
    )
    return Region(kspace, r, torch.rsqrt(variance) if keep is None else torch.rsqrt(variance) * keep)


def rows_variance(power: Tensor, residual: Tensor) -> Tensor:
    """Return the residual's variance at every equation's power; both ``(slice, equation)``."""
    return torch.stack([_variance(one, one, error) for one, error in zip(power, residual, strict=True)])


def _variance(at: Tensor, power: Tensor, residual: Tensor) -> Tensor:
    """Read the residual's variance off as a function of power: bin means, straight in log-log between."""
    if power.numel() < _VARIANCE_BINS:
        return torch.ones_like(at)
    order = torch.argsort(power, stable=True)
    tiny = torch.finfo(torch.float32).tiny
    x = torch.stack([part.mean() for part in power[order].tensor_split(_VARIANCE_BINS)]).clamp_min(tiny).log()
    y = torch.stack([part.mean() for part in residual[order].tensor_split(_VARIANCE_BINS)])
    # Weights may span no more than this, or single equations without signal would rule the fit.
    y = y.clamp_min(max(1e-8 * float(y.max()), tiny)).log()
    where = at.clamp_min(tiny).log().clamp(float(x[0]), float(x[-1]))
    index = torch.searchsorted(x, where.contiguous()).clamp(1, len(x) - 1)
    x0, x1, y0, y1 = x[index - 1], x[index], y[index - 1], y[index]
    return (y0 + (y1 - y0) * (where - x0) / (x1 - x0).clamp_min(1e-12)).exp()


def held_back(n_kx: int, fold: int, device: torch.device | str = "cpu") -> Tensor:
    """Return bool ``(kx,)``: the readout blocks that one of the ``FOLDS`` folds holds back.

    Whole lines would leave too few at R = 6 with 24 calibration lines; blocks along the readout take a
    quarter of every line.
    """
    block = max(1, n_kx // (4 * FOLDS))
    return (torch.arange(n_kx, device=device) // block) % FOLDS == fold
