"""L-BFGS for many small, independent problems at once."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Objective = Callable[[Tensor], Tensor]
"""Parameters ``(problem, parameter)`` to losses ``(problem,)``; differentiable."""


def minimise(
    objective: Objective,
    start: Tensor,
    steps: int,
    *,
    memory: int = 10,
    watch: Callable[[int, Tensor, Tensor], None] | None = None,
) -> Tensor:
    """Minimise every problem's own loss with its own curvature pairs and line search.

    Nocedal & Wright, Numerical Optimization, algorithm 7.4 with backtracking (Armijo). All problems are
    evaluated together; one whose step did not lower its loss shortens it while the others wait. A problem
    for which no step helps stays where it is, so no loss ever rises.

    Parameters
    ----------
    objective
        Losses of all problems; a problem's loss depends on its own row of the parameters only.
    start
        float32 ``(problem, parameter)``.
    steps
        Iterations.
    memory
        Curvature pairs kept.
    watch
        Called as ``watch(step, parameters, losses)`` before the first and after every step.
    """
    x = start.detach().clone()
    loss, gradient = _evaluate(objective, x)
    pairs: list[tuple[Tensor, Tensor, Tensor]] = []
    if watch is not None:
        watch(0, x, loss)
    for step in range(1, steps + 1):
        direction = _direction(gradient, pairs)
        slope = (gradient * direction).sum(dim=1)
        uphill = slope >= 0
        direction = torch.where(uphill[:, None], -gradient, direction)
        slope = torch.where(uphill, -gradient.square().sum(dim=1), slope)
        length = torch.ones_like(loss)
        for _ in range(12):
            new_loss, new_gradient = _evaluate(objective, x + length[:, None] * direction)
            worse = ~(new_loss <= loss + 1e-4 * length * slope)
            if not bool(worse.any()):
                break
            length = torch.where(worse, 0.4 * length, length)
        else:
            length = torch.where(worse, torch.zeros_like(length), length)
            new_loss, new_gradient = _evaluate(objective, x + length[:, None] * direction)
        move, change = length[:, None] * direction, new_gradient - gradient
        curvature = (move * change).sum(dim=1)
        good = curvature > 1e-10 * change.square().sum(dim=1)
        # A pair of zeros with rho = 0 leaves a problem's direction as it was.
        rho = torch.where(good, 1 / curvature.where(good, torch.ones_like(curvature)), torch.zeros_like(loss))
        pairs = [*pairs[-memory + 1 :], (move, change, rho)]
        x, loss, gradient = x + move, new_loss, new_gradient
        if watch is not None:
            watch(step, x, loss)
    return x


def _evaluate(objective: Objective, x: Tensor) -> tuple[Tensor, Tensor]:
    x = x.detach().requires_grad_(True)
    loss = objective(x)
    (gradient,) = torch.autograd.grad(loss.sum(), x)
    return loss.detach(), gradient


def _direction(gradient: Tensor, pairs: list[tuple[Tensor, Tensor, Tensor]]) -> Tensor:
    if not pairs:
        return -gradient / gradient.abs().sum(dim=1, keepdim=True).clamp_min(1.0)
    q = gradient.clone()
    alphas: list[Tensor] = []
    for move, change, rho in reversed(pairs):
        alpha = rho * (move * q).sum(dim=1)
        alphas.append(alpha)
        q = q - alpha[:, None] * change
    _, change, rho = pairs[-1]
    scale = torch.where(
        rho > 0, 1 / (rho * change.square().sum(dim=1)).clamp_min(1e-30), torch.ones_like(rho)
    )
    q = q * scale[:, None]
    for (move, change, rho), alpha in zip(pairs, reversed(alphas), strict=True):
        beta = rho * (change * q).sum(dim=1)
        q = q + (alpha - beta)[:, None] * move
    return -q
