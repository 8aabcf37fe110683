"""The seam: from undersampled k-space to filled k-space, by the method asked for or the one the data favour.

Acceleration along one axis is solved slice by slice; of a volume the other phase-encoding axis is brought
to image space first (hybrid space), where each partition is such a slice. Lattices thinned in two
directions are solved in the (kz, ky) plane, by GRAPPA. Batches of slices bound the memory.

A scan too large for the memory goes through in parts: :func:`choose` once on a few of its slices, then
:func:`interpolate` with that choice on part after part gives what one call on all of them gives.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..contract.codes import Code, PermanentError
from ..contract.profiles import Method
from ..contract.progress import Progress, silent
from ..kspace.acs import require_acs
from ..kspace.sampling import SamplingPattern
from . import grappa, grappa2d
from .choice import Choice, choose_along_one_axis, choose_in_the_plane
from .device import choose_device
from .equations import weigh
from .hybrid import Batch, Given, Slices, filled_block
from .network import FEATURES
from .train import Training, mean_curve, train

DEFAULT_BUDGET = 1024 * 1024 * 1024
_METHODS = (Method.AUTO, Method.ZERO_FILLED, Method.GRAPPA, Method.RAKI)

KSpace = NDArray[np.complex64] | Tensor


@dataclass(frozen=True)
class Interpolation:
    """What :func:`interpolate` returns.

    Attributes
    ----------
    kspace
        Filled, of the kind and shape that came in; acquired samples are the same bits, lines outside the
        sampled extent stay zero.
    choice
        The method and kernel that filled it, and why.
    network
        Proof of the training, or ``None``.
    """

    kspace: KSpace
    choice: Choice
    network: dict[str, Any] | None = None
    _fill: Callable[[Tensor], Tensor] | None = None

    @property
    def method(self) -> Method:
        """The method that filled it."""
        return self.choice.method

    def refill(self, kspace: KSpace) -> KSpace:
        """Fill other data of the same pattern and slices with the same, fixed weights.

        For pseudo-replicas, and for repetitions that share a calibration.
        """
        if self._fill is None:
            return kspace
        if isinstance(kspace, Tensor):
            return self._fill(kspace)
        return self._fill(torch.from_numpy(kspace)).numpy()


def choose(
    kspace: KSpace,
    pattern: SamplingPattern,
    *,
    acs: KSpace | None = None,
    method: Method = Method.AUTO,
    seed: int = 0,
    device: str = "auto",
    progress: Progress = silent,
    noise_variance: float | None = 1.0,
) -> Choice:
    """Choose method and kernel on ``kspace``: all of a scan's slices, or a few spread over them.

    Parameters and errors as of :func:`interpolate`.
    """
    _refuse_other(method)
    if pattern.fully_sampled:
        return Choice(Method.ZERO_FILLED, "Fully sampled: nothing to interpolate.")
    if method is Method.ZERO_FILLED:
        return Choice(method, "Zero filling was asked for.")
    given = _given(kspace, pattern, acs, (), device, DEFAULT_BUDGET)
    return _chosen(given, method, seed, noise_variance, progress)


def interpolate(
    kspace: KSpace,
    pattern: SamplingPattern,
    *,
    acs: KSpace | None = None,
    method: Method = Method.AUTO,
    choice: Choice | None = None,
    numbers: Sequence[int] | None = None,
    seed: int = 0,
    device: str = "auto",
    progress: Progress = silent,
    noise_variance: float | None = 1.0,
    budget_bytes: int = DEFAULT_BUDGET,
) -> Interpolation:
    """Fill the lines that ``pattern`` misses.

    Parameters
    ----------
    kspace
        complex64 ``(slice, coil, kz, ky, kx)``, zero where not acquired; images and slices flattened into
        the first axis, all of the one pattern.
    pattern
        From :func:`mrirecon.kspace.detection.detect`.
    acs
        Calibration acquired apart: the same axes, its own matrix, first axis as long as ``kspace``'s or 1.
        ``None`` takes the lines embedded in ``kspace``.
    method
        ``auto``, ``zero-filled``, ``grappa`` or ``raki``.
    choice
        Made before by :func:`choose` for this pattern; then ``method`` is not looked at.
    numbers
        Which of the scan's slices the first axis holds (0, 1, …): with ``seed`` they give each network its
        first weights, however the scan is parted.
    seed
        Of the networks' first weights.
    progress
        Told of the choice and of every batch.
    device
        ``auto`` (CUDA where there is one), or what torch calls a device.
    noise_variance
        Of a complex sample: 1 after prewhitening, ``None`` to estimate it. The choice looks at it.
    budget_bytes
        Working memory beside the k-space arrays; sets how many slices go at once.

    Raises
    ------
    PermanentError
        ``too_few_acs``; ``bad_settings`` for a method that is not one of the four.
    """
    _refuse_other(method if choice is None else choice.method)
    if choice is None and (pattern.fully_sampled or method is Method.ZERO_FILLED):
        choice = choose(kspace, pattern, method=method)
    if choice is not None and choice.method is Method.ZERO_FILLED:
        return Interpolation(kspace, choice)
    given = _given(kspace, pattern, acs, numbers, device, budget_bytes)
    choice = choice or _chosen(given, method, seed, noise_variance, progress)
    fill = _in_the_plane if pattern.two_dimensional else _along_one_axis
    done = fill(given, choice, seed, progress)
    if isinstance(done.kspace, Tensor) and not isinstance(kspace, Tensor):
        return replace(done, kspace=done.kspace.numpy())
    return done


# ------------------------------------------------------------------------------------------------ pieces


def _refuse_other(method: Method) -> None:
    if method not in _METHODS:
        raise PermanentError(Code.BAD_SETTINGS, f"This method does not interpolate k-space: {method.value}.")


def _given(
    kspace: KSpace,
    pattern: SamplingPattern,
    acs: KSpace | None,
    numbers: Sequence[int] | None,
    device: str,
    budget: int,
) -> Given:
    data = _tensor(kspace)
    if data.ndim != 5 or data.dtype != torch.complex64 or tuple(data.shape[2:4]) != pattern.shape:
        raise ValueError(
            f"expected complex64 (slice, coil, {pattern.shape[0]}, {pattern.shape[1]}, kx), "
            f"got {data.dtype} {tuple(data.shape)}"
        )
    if acs is None:
        require_acs(pattern)
        calibration, block = data, (pattern.acs_z or (0, 0), pattern.acs_y or (0, 0))
    else:
        calibration = _tensor(acs)
        block = filled_block(calibration)
        require_acs(pattern, (block[0][1] - block[0][0], block[1][1] - block[1][0]))
    if numbers is None:
        numbers = range(data.shape[0])
    return Given(data, pattern, calibration, block, acs is None, numbers, choose_device(device), budget)


def _tensor(kspace: KSpace) -> Tensor:
    return kspace if isinstance(kspace, Tensor) else torch.from_numpy(np.ascontiguousarray(kspace))


def _chosen(
    given: Given, method: Method, seed: int, noise_variance: float | None, progress: Progress
) -> Choice:
    if given.pattern.two_dimensional:
        return choose_in_the_plane(given, method, progress)
    return choose_along_one_axis(given, method, seed, noise_variance, progress)


def _in_the_plane(given: Given, choice: Choice, _seed: int, progress: Progress) -> Interpolation:
    """Two-dimensional lattices, volume by volume."""
    kernel = choice.kernel
    assert isinstance(kernel, grappa2d.PlaneKernel)
    cosets = grappa2d.cosets(given.pattern, kernel.neighbours)
    weights: list[list[grappa2d.CosetWeights]] = []
    n_volume = given.kspace.shape[0]
    for volume in range(n_volume):
        acs = given.acs(slice(volume, volume + 1)).to(given.device)
        weights.append([grappa2d.fit(acs, coset, (kernel.ridge,))[0] for coset in cosets])
        progress("interpolate", (volume + 1) / n_volume, f"volume {volume + 1} of {n_volume}")

    def refill(kspace: Tensor) -> Tensor:
        out = torch.empty_like(kspace)
        for volume, own in enumerate(weights):
            one = kspace[volume : volume + 1].to(given.device)
            out[volume : volume + 1] = grappa2d.fill(one, given.pattern, own).to(out.device)
        return out

    return Interpolation(refill(given.kspace), choice, None, refill)


def _along_one_axis(given: Given, choice: Choice, seed: int, progress: Progress) -> Interpolation:
    """One accelerated axis: slices, or the partitions of a volume in hybrid space."""
    kernel = choice.kernel
    assert isinstance(kernel, grappa.Kernel)
    slices = Slices(given)
    batches = list(slices.batches())
    stage = "train" if choice.method is Method.RAKI else "interpolate"
    fits: list[tuple[Batch, grappa.Predictor]] = []
    trainings: list[Training] = []
    digest = hashlib.sha256()
    out = torch.empty_like(given.kspace)
    for done, batch in enumerate(batches):
        problem = slices.problem(batch)
        weights: grappa.Predictor
        if choice.method is Method.RAKI:
            assert choice.grown_ridge is not None
            seeds = [seed + number for number in batch.numbers]
            network, training = train(problem, kernel, seeds, grown_ridge=choice.grown_ridge)
            trainings.append(training)
            digest.update(network.digest().encode())
            weights = network
        else:
            weights = grappa.fit(weigh(problem.acs, problem.lines.r), kernel)
        fits.append((batch, weights))
        slices.store(out, batch, problem.kspace, weights)
        progress(stage, (done + 1) / len(batches), f"{batch.last} of {slices.total} slices")
    slices.finish(out, given.kspace)

    def refill(kspace: Tensor) -> Tensor:
        filled = torch.empty_like(kspace)
        for batch, weights in fits:
            slices.store(filled, batch, slices.slices(kspace, batch), weights)
        slices.finish(filled, kspace)
        return filled

    record = None
    if trainings:
        record = {
            **_network_record(trainings, digest.hexdigest(), slices.total),
            "grown_ridge": choice.grown_ridge,
        }
    return Interpolation(out, choice, record, refill)


def _network_record(trainings: list[Training], digest: str, slices: int) -> dict[str, Any]:
    merged = Training(steps=trainings[0].steps, equations=trainings[0].equations)
    merged.loss = mean_curve([one.loss for one in trainings], [len(one.share) for one in trainings])
    for training in trainings:
        merged.seconds += training.seconds
        merged.share += training.share
        merged.kept_step += training.kept_step
    return {**merged.record(), "networks": slices, "features": list(FEATURES), "weights_sha256": digest}
