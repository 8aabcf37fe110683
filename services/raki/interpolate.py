"""The seam: from undersampled k-space to filled k-space, by the method asked for or the one the data favour.

Acceleration along one axis is solved slice by slice; of a volume the other phase-encoding axis is brought
to image space first (hybrid space), where each partition is such a slice. Lattices thinned in two
directions are solved in the (kz, ky) plane, by GRAPPA. Batches of slices bound the memory.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..contract.codes import Code, PermanentError
from ..contract.profiles import Method
from ..contract.progress import Progress, silent
from ..kspace.acs import require_acs
from ..kspace.detection import detect
from ..kspace.sampling import SamplingPattern
from . import grappa, grappa2d, holdout
from .combine import image_to_kspace, kspace_to_image
from .equations import weigh
from .lines import Lines
from .network import FEATURES
from .train import Problem, Training, train

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
    method
        The method that filled it.
    reason
        Why, in one sentence.
    holdout_errors
        Error energy over signal energy on held-back data, by candidate method.
    kernel
        GRAPPA kernel in words; also the network's linear path. ``None`` where nothing was interpolated.
    kernel_errors
        Hold-out errors on the calibration equations for every kernel tried.
    holdout_parts
        Of ``auto``: each candidate's error on calibration equations and on acquired lines outside them.
    network
        Proof of the training, or ``None``.
    """

    kspace: KSpace
    method: Method
    reason: str
    holdout_errors: dict[str, float]
    kernel: str | None = None
    kernel_errors: dict[str, float] = field(default_factory=dict)
    holdout_parts: dict[str, dict[str, float | None]] = field(default_factory=dict)
    network: dict[str, Any] | None = None
    _fill: Callable[[Tensor], Tensor] | None = None

    def refill(self, kspace: KSpace) -> KSpace:
        """Fill other data of the same pattern and slices with the same, fixed weights.

        For pseudo-replicas, and for repetitions that share a calibration.
        """
        if self._fill is None:
            return kspace
        if isinstance(kspace, Tensor):
            return self._fill(kspace)
        return self._fill(torch.from_numpy(kspace)).numpy()


def interpolate(
    kspace: KSpace,
    pattern: SamplingPattern,
    *,
    acs: KSpace | None = None,
    method: Method = Method.AUTO,
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
    seed
        Of the networks' first weights.
    progress
        Told of the choice and of every batch.
    device
        ``auto`` (CUDA where there is one), or what torch calls a device.
    noise_variance
        Of a complex sample: 1 after prewhitening, ``None`` to estimate it.
    budget_bytes
        Working memory beside the k-space arrays; sets how many slices go at once.

    Raises
    ------
    PermanentError
        ``too_few_acs``; ``bad_settings`` for a method that is not one of the four.
    """
    if method not in _METHODS:
        raise PermanentError(Code.BAD_SETTINGS, f"This method does not interpolate k-space: {method.value}.")
    data = kspace if isinstance(kspace, Tensor) else torch.from_numpy(np.ascontiguousarray(kspace))
    if data.ndim != 5 or data.dtype != torch.complex64 or tuple(data.shape[2:4]) != pattern.shape:
        raise ValueError(
            f"expected complex64 (slice, coil, {pattern.shape[0]}, {pattern.shape[1]}, kx), "
            f"got {data.dtype} {tuple(data.shape)}"
        )
    if pattern.fully_sampled:
        return Interpolation(kspace, Method.ZERO_FILLED, "Fully sampled: nothing to interpolate.", {})
    if method is Method.ZERO_FILLED:
        return Interpolation(kspace, method, "Zero filling was asked for.", {})
    if acs is None:
        require_acs(pattern)
        calibration, block = data, (pattern.acs_z or (0, 0), pattern.acs_y or (0, 0))
    else:
        calibration = acs if isinstance(acs, Tensor) else torch.from_numpy(np.ascontiguousarray(acs))
        block = _filled_block(calibration)
        require_acs(pattern, (block[0][1] - block[0][0], block[1][1] - block[1][0]))
    work = _Work(
        data, pattern, calibration, block, acs is None, method, seed, torch.device(_device(device)), progress,
        noise_variance, budget_bytes,
    )  # fmt: skip
    done = _plane(work) if pattern.two_dimensional else _hybrid(work)
    return done if isinstance(kspace, Tensor) else _as_array(done)


# ------------------------------------------------------------------------------------------------ pieces

Block = tuple[tuple[int, int], tuple[int, int]]


@dataclass(frozen=True)
class _Work:
    kspace: Tensor
    pattern: SamplingPattern
    calibration: Tensor
    block: Block
    embedded: bool
    method: Method
    seed: int
    device: torch.device
    progress: Progress
    noise_variance: float | None
    budget: int

    def acs(self, index: slice) -> Tensor:
        """Return the calibration block of some slices, ``(slice, coil, kz, ky, kx)``."""
        (z0, z1), (y0, y1) = self.block
        block = self.calibration[:, :, z0:z1, y0:y1]
        size = len(range(*index.indices(self.kspace.shape[0])))
        return block.expand(size, -1, -1, -1, -1) if block.shape[0] == 1 else block[index]


def _device(name: str) -> str:
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return name


def _as_array(done: Interpolation) -> Interpolation:
    values = {name: getattr(done, name) for name in done.__dataclass_fields__}
    filled = done.kspace.numpy() if isinstance(done.kspace, Tensor) else done.kspace
    return Interpolation(**{**values, "kspace": filled})


def _filled_block(acs: Tensor) -> Block:
    """Return the filled lines of a separate calibration, whatever its matrix was padded to."""
    mask = (acs != 0).any(dim=4).any(dim=1).any(dim=0).cpu().numpy()
    found = detect(mask)
    return found.acs_z or (0, 0), found.acs_y or (0, 0)


def _plane(work: _Work) -> Interpolation:
    """Two-dimensional lattices, image by image: GRAPPA in the (kz, ky) plane."""
    first = work.acs(slice(0, 1)).to(work.device)
    block = (first.shape[2], first.shape[3])
    smallest = grappa2d.cosets(work.pattern, min(grappa2d.NEIGHBOURS))
    if not all(grappa2d.fits(coset, block) for coset in smallest):
        raise PermanentError(
            Code.TOO_FEW_ACS,
            f"Found {block[1]} x {block[0]} (ky x kz) calibration lines; the smallest kernel for an "
            f"acceleration of R={work.pattern.acceleration} along both axes does not fit them: send the scan "
            "with more.",
        )
    neighbours, ridge, errors = grappa2d.choose(first, work.pattern)
    kernels = grappa2d.cosets(work.pattern, neighbours)
    weights: list[list[grappa2d.CosetWeights]] = []
    n_image = work.kspace.shape[0]
    for image in range(n_image):
        acs = work.acs(slice(image, image + 1)).to(work.device)
        weights.append([grappa2d.fit(acs, kernel, (ridge,))[0] for kernel in kernels])
        work.progress("train", (image + 1) / n_image, f"volume {image + 1} of {n_image}")

    def refill(kspace: Tensor) -> Tensor:
        out = torch.empty_like(kspace)
        for image, own in enumerate(weights):
            volume = kspace[image : image + 1].to(work.device)
            out[image : image + 1] = grappa2d.fill(volume, work.pattern, own).to(out.device)
        return out

    reason = "GRAPPA was asked for."
    if work.method is not Method.GRAPPA:
        reason = "The lattice is thinned along ky and kz; only GRAPPA interpolates such a lattice here."
    best = min(errors.values())
    words = f"{neighbours} lines x {grappa2d.READOUT}, ridge {ridge:g}"
    return Interpolation(
        refill(work.kspace), Method.GRAPPA, reason, {"grappa": best}, words, errors, {}, None, refill
    )


def _hybrid(work: _Work) -> Interpolation:
    """One accelerated axis: slices, or the partitions of a volume in hybrid space."""
    problem_of = _Slices(work)
    batches = list(problem_of.batches())
    sample = problem_of.sample()
    variance = holdout.noise_variance(sample) if work.noise_variance is None else work.noise_variance
    work.progress("choose", 0.0, "kernel by hold-out")
    kernel, kernel_errors = holdout.choose_kernel(sample, variance)
    errors = {"grappa": kernel_errors[str(kernel)]}
    parts: dict[str, dict[str, float | None]] = {}
    method, reason = work.method, f"{work.method.value} was asked for."
    if method is Method.AUTO:
        work.progress("choose", 0.5, "network against GRAPPA by hold-out")
        compared = holdout.compare(sample, kernel, work.seed, variance)
        errors = {name: one.error for name, one in compared.items()}
        parts = {name: asdict(one) for name, one in compared.items()}
        method, reason = _decide(compared)
    work.progress("choose", 1.0, method.value)
    fits: list[tuple[_Batch, grappa.Predictor]] = []
    trainings: list[Training] = []
    digest = hashlib.sha256()
    out = torch.empty_like(work.kspace)
    for done, batch in enumerate(batches):
        problem = problem_of.problem(batch)
        weights: grappa.Predictor
        if method is Method.RAKI:
            seeds = [work.seed + index for index in batch.numbers]
            network, training = train(problem, kernel, seeds)
            trainings.append(training)
            digest.update(network.digest().encode())
            weights = network
        else:
            weights = grappa.fit(weigh(problem.acs, problem.lines.r), kernel)
        fits.append((batch, weights))
        problem_of.store(out, batch, problem.kspace, weights)
        work.progress("train", (done + 1) / len(batches), f"{batch.last} of {problem_of.total} slices")
    problem_of.finish(out, work.kspace)

    def refill(kspace: Tensor) -> Tensor:
        filled = torch.empty_like(kspace)
        for batch, weights in fits:
            problem_of.store(filled, batch, problem_of.slices(kspace, batch), weights)
        problem_of.finish(filled, kspace)
        return filled

    record = _network_record(trainings, digest.hexdigest(), problem_of.total) if trainings else None
    return Interpolation(out, method, reason, errors, str(kernel), kernel_errors, parts, record, refill)


def _decide(errors: dict[str, holdout.Comparison]) -> tuple[Method, str]:
    told = f"error energy {errors['raki'].error:.3g} against {errors['grappa'].error:.3g} of the signal's"
    if holdout.network_wins(errors):
        return Method.RAKI, f"RAKI predicts held-back data better than GRAPPA: {told}."
    if errors["raki"].error < errors["grappa"].error:
        worse = errors["raki"].calibration / max(errors["grappa"].calibration, 1e-300)
        return Method.GRAPPA, (
            f"RAKI predicts held-back data not clearly better than GRAPPA: {told}, {worse:.2f} times "
            "GRAPPA's on the calibration lines."
        )
    return Method.GRAPPA, f"GRAPPA predicts held-back data as well as RAKI or better: {told}."


def _network_record(trainings: list[Training], digest: str, slices: int) -> dict[str, Any]:
    merged = Training(steps=trainings[0].steps, equations=trainings[0].equations)
    counts = [len(training.share) for training in trainings]
    for step in range(len(trainings[0].loss)):
        total = sum(training.loss[step] * n for training, n in zip(trainings, counts, strict=True))
        merged.loss.append(total / sum(counts))
    for training in trainings:
        merged.seconds += training.seconds
        merged.share += training.share
        merged.kept_step += training.kept_step
    return {**merged.record(), "networks": slices, "features": list(FEATURES), "weights_sha256": digest}


@dataclass(frozen=True)
class _Batch:
    """Slices ``low`` to ``high`` of image ``image`` in hybrid space, or of the first axis for 2-D data."""

    image: int
    low: int
    high: int
    numbers: range
    last: int


class _Slices:
    """Brings k-space to slices with one accelerated axis, and back, a batch at a time."""

    def __init__(self, work: _Work) -> None:
        self.work, pattern = work, work.pattern
        self.swap = pattern.r_y == 1
        self.other = pattern.shape[1] if self.swap else pattern.shape[0]
        self.volume = self.other > 1
        n_line = pattern.shape[0] if self.swap else pattern.shape[1]
        r, offset = (pattern.r_z, pattern.offset_z) if self.swap else (pattern.r_y, pattern.offset_y)
        self.lines = Lines(n_line, r, offset)
        axis = 1 if self.swap else 0
        self.acquired = torch.from_numpy(pattern.acquired.any(axis=axis))
        self.wanted = torch.from_numpy(pattern.missing.any(axis=axis)) & ~(
            torch.from_numpy(pattern.lattice.any(axis=axis)) & self.acquired
        )
        own = (pattern.acs_z if self.swap else pattern.acs_y) if work.embedded else None
        self.acs_range = own
        if not self.volume:
            self.wanted &= ~self.acquired
        self.total = work.kspace.shape[0] * (self.other if self.volume else 1)

    def batches(self) -> Iterator[_Batch]:
        """Yield the batches that fit the budget."""
        n_first, n_coil, *_, n_kx = self.work.kspace.shape
        channels = (
            2 * n_coil * 5 * 3 + 6 * sum(FEATURES) + 5 * FEATURES[1] * 3 + 6 * (self.lines.r - 1) * n_coil
        )
        per_slice = 8 * n_kx * (96 * channels + 3 * n_coil * self.lines.n)
        size = max(1, int(self.work.budget // per_slice))
        images, length = (n_first, self.other) if self.volume else (1, n_first)
        for image in range(images):
            for low in range(0, length, size):
                high = min(length, low + size)
                first = image * length
                yield _Batch(image, low, high, range(first + low, first + high), first + high)

    def slices(self, kspace: Tensor, batch: _Batch) -> Tensor:
        """Return ``(slice, coil, line, kx)`` of a batch on the device."""
        if not self.volume:
            flat = kspace[batch.low : batch.high]
            return (flat[:, :, :, 0] if self.swap else flat[:, :, 0]).to(self.work.device)
        return self._hybrid(kspace[batch.image].to(self.work.device), self.other, 0)[batch.low : batch.high]

    def problem(self, batch: _Batch) -> Problem:
        """Return the interpolation problem of a batch."""
        if not self.volume:
            acs = self.work.acs(slice(batch.low, batch.high)).to(self.work.device)
            acs = acs[:, :, :, 0] if self.swap else acs[:, :, 0]
        else:
            block = self.work.acs(slice(batch.image, batch.image + 1))[0].to(self.work.device)
            z, y = self.work.block
            own, full = (
                (y, self.work.calibration.shape[3]) if self.swap else (z, self.work.calibration.shape[2])
            )
            # Where the block lies against the centre of its own matrix, so against that of the image's.
            acs = self._hybrid(block, self.other, self.other // 2 - full // 2 + own[0])[
                batch.low : batch.high
            ]
        return Problem(
            self.slices(self.work.kspace, batch), self.lines, self.acquired.to(self.work.device),
            self.wanted.to(self.work.device), acs, self.acs_range,
        )  # fmt: skip

    def sample(self) -> Problem:
        """Return the few slices on which candidates are compared."""
        count = self.other if self.volume else self.work.kspace.shape[0]
        problems = [
            self.problem(_Batch(0, index, index + 1, range(index, index + 1), 0))
            for index in holdout.spread(count, holdout.MAX_SLICES)
        ]
        first = problems[0]
        return Problem(
            torch.cat([one.kspace for one in problems]), first.lines, first.acquired, first.wanted,
            torch.cat([one.acs for one in problems]), first.acs_range,
        )  # fmt: skip

    def store(self, out: Tensor, batch: _Batch, slices: Tensor, weights: grappa.Predictor) -> None:
        """Fill a batch and put it into ``out`` (still in hybrid space where the data are a volume)."""
        filled = grappa.fill(slices, self.lines, self.wanted, weights).to(out.device)
        if not self.volume:
            out[batch.low : batch.high] = filled[:, :, :, None] if self.swap else filled[:, :, None]
        elif self.swap:
            out[batch.image, :, :, batch.low : batch.high] = filled.permute(1, 2, 0, 3)
        else:
            out[batch.image, :, batch.low : batch.high] = filled.transpose(0, 1)

    def finish(self, out: Tensor, kspace: Tensor) -> None:
        """Bring volumes back to k-space; acquired lines as they came, nothing outside the extent."""
        if not self.volume:
            return
        acquired = torch.from_numpy(self.work.pattern.acquired).to(out.device)
        inside = torch.from_numpy(self.work.pattern.extent).to(out.device)
        for image in range(out.shape[0]):
            volume = image_to_kspace(out[image].to(self.work.device), (2 if self.swap else 1,)).to(out.device)
            volume = torch.where(inside[None, :, :, None], volume, torch.zeros_like(volume))
            out[image] = torch.where(acquired[None, :, :, None], kspace[image], volume)

    def _hybrid(self, volume: Tensor, length: int, start: int) -> Tensor:
        """``(coil, kz, ky, kx)`` to ``(partition, coil, line, kx)``, zero-padded to ``length`` first."""
        axis = 2 if self.swap else 1
        if volume.shape[axis] != length:
            shape = list(volume.shape)
            shape[axis] = length
            padded = volume.new_zeros(shape)
            lo, hi = max(0, start), min(length, start + volume.shape[axis])
            padded.narrow(axis, lo, hi - lo).copy_(volume.narrow(axis, lo - start, hi - lo))
            volume = padded
        image = kspace_to_image(volume, (axis,))
        return image.permute(2, 0, 1, 3) if self.swap else image.transpose(0, 1)
