"""Training of the joint complex RAKI, with its calibration region grown from the data (iRAKI).

RAKI: Akcakaya et al., MRM 2019;81:439. One complex network for all coils and lines, calibration lines taken
from the current reconstruction: Dawood et al., MRM 2023 (arXiv 2201.03560). Linear path beside the network:
Zhang et al., NeuroImage 2022;256:119248. What is ours, and why, is in ``docs/methods.md``.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from . import growth, lbfgs
from .equations import FOLDS, Region, held_back, local_power
from .grappa import Kernel
from .importance import importance
from .lines import calibration, patches
from .network import NONLINEAR_HALF, WIDTHS, NetworkWeights, initial, middle_lines, nonlinear
from .problem import Problem

STEPS = 20
DECAY = 1e-3
CHECK_EVERY = 5


@dataclass
class Training:
    """Proof of a training: steps, loss curve (mean over slices), seconds, and what the validation kept."""

    steps: int = 0
    loss: list[float] = field(default_factory=list)
    seconds: float = 0.0
    share: list[float] = field(default_factory=list)
    kept_step: list[int] = field(default_factory=list)
    equations: int = 0

    def record(self) -> dict[str, Any]:
        """Return the training as JSON-ready numbers."""
        return {
            "steps": self.steps,
            "loss": [round(value, 6) for value in self.loss],
            "seconds": round(self.seconds, 3),
            "equations_per_slice": self.equations,
            "nonlinear_share": [round(value, 4) for value in self.share],
            "kept_step": self.kept_step,
        }


def mean_curve(curves: Sequence[Sequence[float]], networks: Sequence[int]) -> list[float]:
    """Return the mean loss, step by step, of several trainings of so many ``networks`` each."""
    total = sum(networks)
    return [
        sum(loss * n for loss, n in zip(step, networks, strict=True)) / total
        for step in zip(*curves, strict=True)
    ]


def train(
    problem: Problem,
    kernel: Kernel,
    seeds: list[int],
    *,
    grown_ridge: float,
    fold: int | None = None,
    steps: int = STEPS,
) -> tuple[NetworkWeights, Training]:
    """Train one network a slice.

    The linear path is GRAPPA on a calibration region grown out of the reconstruction (:mod:`.growth`). The
    nonlinear path learns, by L-BFGS, what the linear one leaves. Part of the equations validates: the best
    step is kept, and the share of the nonlinear path that serves them best.

    Parameters
    ----------
    problem
        Some slices.
    kernel
        Of the linear path.
    seeds
        One number a slice.
    grown_ridge
        Of the linear path on the grown region: from :func:`.holdout.choose_grown_ridge`.
    fold
        Hold-out fold whose readout blocks are not to be learned from, in any line, ``None`` for none.
    steps
        L-BFGS iterations.
    """
    begun = time.perf_counter()
    region, linear = growth.grow(problem, kernel, grown_ridge, fold=fold)
    weights, training = _train_nonlinear(problem, region, linear, seeds, steps)
    training.seconds = time.perf_counter() - begun
    return weights, training


def _train_nonlinear(
    problem: Problem, region: Region, linear: Any, seeds: list[int], steps: int
) -> tuple[NetworkWeights, Training]:
    r, by = region.r, linear.by
    n_slice, n_coil, _, n_kx = region.kspace.shape
    sources, targets = calibration(region.kspace, r, by)
    half = max(linear.half, NONLINEAR_HALF)
    first = (by // 2 - 1) * r
    rows = sources.shape[2]

    def inner(values: Tensor) -> Tensor:
        return values[..., half : n_kx - half]

    side = half - linear.half
    residual = inner(targets) - linear.predict(sources[..., side : n_kx - side])
    middle = middle_lines(sources, by)
    side = half - NONLINEAR_HALF
    inputs = patches(middle[..., side : n_kx - side], WIDTHS[0])
    validating = inner(held_back(n_kx, FOLDS - 1, region.kspace.device))
    weights = inner(region.weights[:, first : first + rows])
    fitting = torch.where(validating, torch.zeros_like(weights), weights)
    norm = (fitting[:, None] * inner(targets)).abs().square().sum(dim=(1, 2, 3)).clamp_min(1e-30)
    fitting = (fitting / norm.sqrt()[:, None, None])[:, None]
    checking = importance(inner(local_power(middle)), (weights > 0) & validating, problem.missing_power())[
        :, None
    ]
    start = [layer.to(region.kspace.device) for layer in initial(n_coil, r, seeds)]
    sizes = [layer[0].numel() * 2 for layer in start]

    def unpack(flat: Tensor) -> tuple[Tensor, ...]:
        return tuple(
            torch.view_as_complex(part.reshape(n_slice, *layer.shape[1:], 2))
            for part, layer in zip(torch.split(flat, sizes, dim=1), start, strict=True)
        )

    def objective(flat: Tensor) -> Tensor:
        error = (residual - nonlinear(inputs, unpack(flat), rows)) * fitting
        return torch.view_as_real(error).square().flatten(1).sum(dim=1) + DECAY * flat.square().mean(dim=1)

    training = Training(steps=steps, equations=int((fitting[0] > 0).sum()))
    first_weights = torch.cat([torch.view_as_real(layer).reshape(n_slice, -1) for layer in start], dim=1)
    zero = torch.zeros(n_slice, device=inputs.device)
    best = [first_weights.clone(), zero.clone(), zero.clone(), zero.clone()]

    def watch(step: int, flat: Tensor, loss: Tensor) -> None:
        training.loss.append(float(loss.mean()))
        if step == 0 or (step % CHECK_EVERY and step != steps):
            return
        with torch.no_grad():
            curved = nonlinear(inputs, unpack(flat), rows)
            along = (curved.conj() * residual).real.mul(checking).flatten(1).sum(dim=1)
            power = curved.abs().square().mul(checking).flatten(1).sum(dim=1)
            share = (along / power.clamp_min(1e-30)).clamp(0, 1)
            gain = 2 * share * along - share.square() * power
            better = gain > best[1]
            best[0] = torch.where(better[:, None], flat, best[0])
            best[1] = torch.where(better, gain, best[1])
            best[2] = torch.where(better, share, best[2])
            best[3] = torch.where(better, torch.full_like(share, step), best[3])

    lbfgs.minimise(objective, first_weights, steps, watch=watch)
    training.share = [float(value) for value in best[2]]
    training.kept_step = [int(value) for value in best[3]]
    one, two, three = (layer.contiguous() for layer in unpack(best[0].contiguous()))
    return NetworkWeights(linear, (one, two, three), best[2].contiguous()), training
