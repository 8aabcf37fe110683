"""Choosing by hold-out: which kernel and ridge, and whether the network is worth having.

Part of the calibration equations (blocks along the readout) is held back; each candidate, fitted without
them, predicts them. Errors count by how often gaps of that signal power are to be filled
(:mod:`.importance`); gaps weaker than any calibration equation count with the candidate's noise gain.
Between GRAPPA and the network the acquired lines outside the calibration are heard as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from . import growth
from .equations import held_back, local_power, normal_equations, solve, weigh
from .grappa import RIDGES, SHAPES, GrappaWeights, Kernel, Predictor, fill
from .importance import importance
from .lines import Lines, calibration, pad_readout, positions
from .network import middle_lines
from .noise import white_variance
from .problem import Problem
from .train import train

KERNEL_FOLDS = (0, 2)
NETWORK_FOLD = 0
MAX_SLICES = 4
_WIDE_POSITIONS = 17
_WIDE_EQUATIONS = 10
"""A kernel of four lines is a candidate from so many positions along ky and equations for each unknown on.

Chosen by hand, without a sweep, on the two scans of ``bench/results/raki_holdout.md``: the first admits four
lines up to R=7 with 40 calibration lines and at R=2 alone with 24.
"""
MARGIN = 0.03
"""``auto`` takes the network only where its predicted error energy is lower by this share: 0.13 dB."""
VETO = 0.25
"""... and on the calibration equations, which are the independent test, is not higher by this share."""

WEAKER = 0.2
"""A weaker ridge on the grown region is taken only where its error is lower by this share (docs)."""

FUTILE = 0.9
"""Error energy over signal energy from which a prediction is hardly better than zeros (docs: measured)."""


@dataclass(frozen=True)
class Judge:
    """Measures predictors on the held-back equations of one fold.

    Attributes
    ----------
    problem
        The slices to measure on.
    fold
        Which readout blocks were held back.
    noise_variance
        Variance of a complex k-space sample; 1 after prewhitening.
    widest
        Lattice lines of the largest kernel that is compared.
    """

    problem: Problem
    fold: int
    noise_variance: float
    widest: int = 2

    def error(self, predictor: Predictor) -> float:
        """Return the predicted error energy of the filled lines over their signal energy."""
        acs, r = self.problem.acs, self.problem.lines.r
        # Kernels of all sizes are judged on the same equations.
        cut = (max(self.widest, predictor.by) - predictor.by) // 2 * r
        sources, targets = calibration(acs[:, :, cut : acs.shape[2] - cut], r, predictor.by)
        half = max(predictor.half, 4)
        n_kx = acs.shape[3]
        side = half - predictor.half
        power = local_power(middle_lines(sources, predictor.by))[..., half : n_kx - half]
        held = held_back(n_kx, self.fold, acs.device)[half : n_kx - half].expand_as(power)
        missing = self.problem.missing_power()
        # Half way between counting gaps and counting their signal energy: chosen on real scans (docs).
        weights = importance(power, held, missing) * power.sqrt()
        weights = weights / weights.sum().clamp_min(torch.finfo(torch.float32).tiny)
        targets = targets[..., half : n_kx - half]
        predicted = predictor.predict(sources[..., side : n_kx - side])
        error = float(((predicted - targets).abs().square().mean(dim=1) * weights).sum())
        signal = float((targets.abs().square().mean(dim=1) * weights).sum())
        if bool(held.any()):
            weakest = power[held].min()
            below = float((missing < weakest).float().mean())
            noise = self.noise_variance * (1 + self.noise_gain(predictor, sources))
            error = (1 - below) * error + below * min(noise, error)
            signal = (1 - below) * signal + below * min(self.noise_variance + float(weakest), signal)
        return error / max(signal, 1e-300)

    def inconsistency(self, predictor: Predictor) -> float | None:
        """Return how badly acquired lines outside the calibration are predicted from filled ones.

        The held-back calibration lies at the centre of k-space; these lines do not. Each step between lattice
        and filled lines is a lattice of its own, and what it predicts at an acquired line was measured. The
        error energy in the held-back readout blocks over the signal's; ``None`` where no such line is.
        """
        problem, r, n = self.problem, self.problem.lines.r, self.problem.lines.n
        filled = fill(problem.kspace, problem.lines, problem.wanted, predictor)
        held = held_back(filled.shape[3], self.fold, filled.device)
        known = (problem.acquired | problem.wanted).cpu()
        low, high = problem.acs_range or (0, 0)
        error = signal = 0.0
        for step in range(1, r):
            lines = Lines(n, r, (problem.lines.offset + step) % r)
            at = torch.arange(lines.gaps) * r + lines.offset - r + (problem.lines.offset - lines.offset) % r
            use = (at >= r) & (at < n - r) & ((at < low) | (at >= high))
            use[use.clone()] = known[at[use] - r] & known[at[use] + r] & problem.acquired.cpu()[at[use]]
            if not bool(use.any()):
                continue
            gaps = use.to(filled.device)
            sources = pad_readout(lines.sources(filled, predictor.by), predictor.half)[:, :, gaps]
            row = (problem.lines.offset - lines.offset) % r - 1
            n_coil = filled.shape[1]
            predicted = predictor.predict(sources)[:, row * n_coil : (row + 1) * n_coil]
            truth = filled[:, :, at[use].to(filled.device)]
            error += float((predicted - truth)[..., held].abs().square().sum())
            signal += float(truth[..., held].abs().square().sum())
        return error / signal if signal > 0 else None

    def noise_gain(self, predictor: Predictor, sources: Tensor) -> float:
        """Return the mean noise variance of a predicted sample over that of an acquired one.

        For a network it is that of small noise on the weakest row of calibration lines.
        """
        if isinstance(predictor, GrappaWeights):
            return float(predictor.weights.abs().square().sum(dim=2).mean())
        row = sources[:, :, :1]
        generator = torch.Generator().manual_seed(0)
        scale = self.noise_variance**0.5 or 1.0
        noise = torch.randn(*row.shape, generator=generator, dtype=torch.complex64).to(row.device) * scale
        moved = predictor.predict(row + noise) - predictor.predict(row)
        return float(moved.abs().square().mean()) / scale**2


def choose_kernel(problem: Problem, noise_variance: float) -> tuple[Kernel, dict[str, float]]:
    """Return the kernel with the least hold-out error, and the errors of all.

    Kernels of four lines are candidates only where the calibration lines are many: blocks along the readout
    do not show what a kernel does beyond the lines it was fitted on.
    """
    some = problem.slices(spread(problem.kspace.shape[0], MAX_SLICES))
    shapes = [shape for shape in SHAPES if _fits(some, *shape)] or [SHAPES[0]]
    widest = max(by for by, _ in shapes)
    errors: dict[Kernel, float] = {}
    for fold in KERNEL_FOLDS:
        judge = Judge(some, fold, noise_variance, widest)
        keep = ~held_back(some.acs.shape[3], fold, some.acs.device)[None, None]
        region = weigh(some.acs, some.lines.r, keep)
        for by, bx in shapes:
            gram, cross = normal_equations(region, by, bx)
            for ridge in RIDGES:
                kernel = Kernel(by, bx, ridge)
                error = judge.error(GrappaWeights(kernel, solve(gram, cross, ridge)))
                errors[kernel] = errors.get(kernel, 0.0) + error / len(KERNEL_FOLDS)
    best = min(errors, key=lambda kernel: errors[kernel])
    return best, {str(kernel): error for kernel, error in errors.items()}


def choose_grown_ridge(problem: Problem, kernel: Kernel, noise_variance: float) -> float:
    """Return the ridge of RAKI's linear path on its grown region: the strongest that is hardly worse.

    The error on the calibration lines understates what a weak ridge does to the noise of weaker ones, so the
    least error alone would choose too weak a ridge. One pass of growth tells; all ridges share its equations.
    """
    some = problem.slices(spread(problem.kspace.shape[0], MAX_SLICES))
    candidates = growth.ridges(kernel, some.lines.r)
    region = growth.first_pass(some, kernel, fold=NETWORK_FOLD) if len(candidates) > 1 else None
    if region is None:
        return candidates[0]
    judge = Judge(some, NETWORK_FOLD, noise_variance)
    gram, cross = normal_equations(region, kernel.by, kernel.bx)
    errors = [
        judge.error(GrappaWeights(replace(kernel, ridge=ridge), solve(gram, cross, ridge)))
        for ridge in candidates
    ]
    bearable = (1 + WEAKER) * min(errors)
    return next(ridge for ridge, error in zip(candidates, errors, strict=True) if error <= bearable)


def _fits(problem: Problem, by: int, bx: int) -> bool:
    _, n_coil, n_line, n_kx = problem.acs.shape
    count = positions(n_line, problem.lines.r, by)
    if by == 2:
        return n_kx >= 4 * bx
    return count >= _WIDE_POSITIONS and count * (n_kx - bx + 1) >= _WIDE_EQUATIONS * n_coil * by * bx


@dataclass(frozen=True)
class Comparison:
    """Hold-out errors of one candidate: on calibration equations, and on acquired lines outside them."""

    calibration: float
    outside: float | None

    @property
    def error(self) -> float:
        """Mean of both."""
        return self.calibration if self.outside is None else (self.calibration + self.outside) / 2


def compare(
    problem: Problem, kernel: Kernel, seed: int, noise_variance: float, *, grown_ridge: float | None
) -> dict[str, Comparison]:
    """Return the hold-out errors of GRAPPA with ``kernel`` and, where it has a ridge, of the network."""
    some = problem.slices(spread(problem.kspace.shape[0], MAX_SLICES))
    judge = Judge(some, NETWORK_FOLD, noise_variance)
    keep = ~held_back(some.acs.shape[3], NETWORK_FOLD, some.acs.device)[None, None]
    region = weigh(some.acs, some.lines.r, keep)
    grappa = GrappaWeights(kernel, solve(*normal_equations(region, kernel.by, kernel.bx), kernel.ridge))
    candidates: dict[str, Predictor] = {"grappa": grappa}
    if grown_ridge is not None:
        seeds = [seed + index for index in range(some.kspace.shape[0])]
        candidates["raki"], _ = train(some, kernel, seeds, grown_ridge=grown_ridge, fold=NETWORK_FOLD)
    return {
        name: Comparison(judge.error(candidate), judge.inconsistency(candidate))
        for name, candidate in candidates.items()
    }


def network_wins(errors: dict[str, Comparison]) -> bool:
    """Whether the network is clearly better in all and not clearly worse on the calibration equations."""
    grappa, network = errors["grappa"], errors["raki"]
    return (
        network.error < (1 - MARGIN) * grappa.error and network.calibration < (1 + VETO) * grappa.calibration
    )


def futile(errors: dict[str, Comparison]) -> float | None:
    """Return the share of held-back energy that is missed where the calibration tells next to nothing.

    So it is where the best candidate is hardly better than leaving lines empty, or where GRAPPA, which is not
    made consistent with them, misses the acquired lines outside the calibration: lines that belong to
    another scan predict themselves well. ``None`` where the calibration tells something.
    """
    best = min(one.error for one in errors.values())
    outside = errors["grappa"].outside
    if best >= FUTILE:
        return best
    return outside if outside is not None and outside >= FUTILE else None


def spread(n: int, most: int) -> Sequence[int]:
    """Return at most ``most`` of ``n`` indices, evenly spread over the middle."""
    if n <= most:
        return range(n)
    return [(2 * index + 1) * n // (2 * most) for index in range(most)]


def noise_variance(problem: Problem) -> float:
    """Estimate the variance of a complex sample where the data were not whitened.

    The median power over the outermost tenth of the acquired lattice lines and of the readout: what signal
    is left there only makes the estimate larger.
    """
    lattice = problem.kspace[:, :, problem.lines.offset :: problem.lines.r]
    power = lattice.abs().square()
    edge_x, edge_y = max(1, power.shape[3] // 20), max(1, power.shape[2] // 20)
    corners = torch.cat(
        [
            power[:, :, rows][..., columns].flatten()
            for rows in (slice(0, edge_y), slice(-edge_y, None))
            for columns in (slice(0, edge_x), slice(-edge_x, None))
        ]
    )
    return white_variance(corners) or 0.0
