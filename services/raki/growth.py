"""A calibration region grown out of the reconstruction itself (iRAKI; Dawood et al., MRM 2023).

GRAPPA from the calibration lines fills the gaps; the region grows to the centre ``LINES`` lines of that
result (the acquired ones as they are), GRAPPA is solved anew on it, and once more on what that gives. The
grown lines carry the first pass's errors, which a ridge keeps from being learned: how strong, the data say
(``docs/methods.md``).
"""

from __future__ import annotations

from torch import Tensor, nonzero

from .equations import Region, held_back, weigh
from .grappa import GrappaWeights, Kernel, fill, fit
from .problem import Problem

LINES = 64
MARGIN = 24
PASSES = 2


def window(problem: Problem) -> tuple[int, int] | None:
    """Return the centre lines the calibration grows to, ``None`` where it is as large already."""
    known = problem.acquired | problem.wanted
    inside = nonzero(known.cpu()).flatten()
    first, stop = int(inside[0]), int(inside[-1]) + 1
    own = 0 if problem.acs_range is None else problem.acs_range[1] - problem.acs_range[0]
    size = max(LINES, own + MARGIN)
    centre = problem.lines.n // 2
    low, high = max(first, centre - size // 2), min(stop, centre + size // 2)
    if problem.acs_range is not None and (low >= problem.acs_range[0] and high <= problem.acs_range[1]):
        return None
    return low, high


def ridges(kernel: Kernel, r: int) -> tuple[float, ...]:
    """Return the ridges that are considered for the grown region, the strongest first.

    The strongest is 0.01 at R=2, 0.04 at R=3 and 0.1 from R=4: what noisy scans ask for. A tenth and a
    hundredth of it serve scans of little noise. None is weaker than the kernel's own.
    """
    strongest = min(0.1, 0.01 * 4.0 ** (r - 2))
    return tuple(dict.fromkeys(max(kernel.ridge, strongest / part) for part in (1, 10, 100)))


def first_pass(problem: Problem, kernel: Kernel, *, fold: int | None = None) -> Region | None:
    """Return the region grown once, ``None`` where the calibration lines are as many already."""
    where = window(problem)
    if where is None:
        return None
    return _grown(
        problem, fit(weigh(problem.acs, problem.lines.r, _learned(problem.acs, fold)), kernel), where, fold
    )


def grow(
    problem: Problem, kernel: Kernel, ridge: float, *, fold: int | None = None
) -> tuple[Region, GrappaWeights]:
    """Return the grown region and the weights solved on it.

    Parameters
    ----------
    problem
        Some slices.
    kernel
        Of the fit on the calibration lines, and with ``ridge`` of those on the grown region.
    ridge
        One of :func:`ridges`.
    fold
        Hold-out fold whose readout blocks are not to be learned from, ``None`` for none.
    """
    region = weigh(problem.acs, problem.lines.r, _learned(problem.acs, fold))
    weights = fit(region, kernel)
    where = window(problem)
    if where is None:
        return region, weights
    for _ in range(PASSES):
        region = _grown(problem, weights, where, fold)
        weights = fit(region, Kernel(kernel.by, kernel.bx, ridge))
    return region, weights


def _grown(problem: Problem, weights: GrappaWeights, where: tuple[int, int], fold: int | None) -> Region:
    filled = fill(problem.kspace, problem.lines, problem.wanted, weights)
    return weigh(filled[:, :, slice(*where)], problem.lines.r, _learned(problem.kspace, fold))


def _learned(lines: Tensor, fold: int | None) -> Tensor | None:
    return None if fold is None else ~held_back(lines.shape[3], fold, lines.device)[None, None]
