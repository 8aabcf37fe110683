"""The data of an interpolation, brought to slices with one accelerated axis, a batch at a time.

Two-dimensional slices are such slices. Of a volume the other phase-encoding axis is brought to image space
first (hybrid space), where each partition is one. How many go together is bounded by a byte budget.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..kspace.detection import detect
from ..kspace.sampling import SamplingPattern
from . import grappa, holdout
from .fft import image_to_kspace, kspace_to_image
from .lines import Lines
from .network import FEATURES
from .problem import Problem

Block = tuple[tuple[int, int], tuple[int, int]]


@dataclass(frozen=True)
class Given:
    """What an interpolation was given.

    Attributes
    ----------
    kspace
        complex64 ``(slice, coil, kz, ky, kx)``; the first axis runs over volumes where ``n_kz > 1``.
    pattern
        Of all of them.
    calibration
        ``kspace`` itself, or the calibration acquired apart on its own matrix.
    block
        ``((kz low, high), (ky low, high))`` of the calibration's filled lines in its matrix.
    embedded
        Whether the calibration lies in ``kspace``.
    numbers
        Which of the scan's slices (or volumes) the first axis holds: they seed the networks.
    device
        Where to compute.
    budget
        Bytes of working memory beside the k-space arrays.
    """

    kspace: Tensor
    pattern: SamplingPattern
    calibration: Tensor
    block: Block
    embedded: bool
    numbers: Sequence[int]
    device: torch.device
    budget: int

    def acs(self, index: slice) -> Tensor:
        """Return the calibration block of some slices, ``(slice, coil, kz, ky, kx)``."""
        (z0, z1), (y0, y1) = self.block
        block = self.calibration[:, :, z0:z1, y0:y1]
        size = len(range(*index.indices(self.kspace.shape[0])))
        return block.expand(size, -1, -1, -1, -1) if block.shape[0] == 1 else block[index]


def filled_block(acs: Tensor) -> Block:
    """Return the filled lines of a separate calibration, whatever its matrix was padded to."""
    mask = (acs != 0).any(dim=4).any(dim=1).any(dim=0).cpu().numpy()
    found = detect(mask)
    return found.acs_z or (0, 0), found.acs_y or (0, 0)


@dataclass(frozen=True)
class Batch:
    """Slices ``low`` to ``high`` of image ``image`` in hybrid space, or of the first axis for 2-D data.

    ``numbers`` are theirs in the whole scan; ``last`` is how many are done with this batch.
    """

    image: int
    low: int
    high: int
    numbers: Sequence[int]
    last: int


class Slices:
    """Brings k-space to slices with one accelerated axis, and back, a batch at a time."""

    def __init__(self, given: Given) -> None:
        self.given, pattern = given, given.pattern
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
        own = (pattern.acs_z if self.swap else pattern.acs_y) if given.embedded else None
        self.acs_range = own
        if not self.volume:
            self.wanted &= ~self.acquired
        self.total = given.kspace.shape[0] * (self.other if self.volume else 1)

    def batches(self) -> Iterator[Batch]:
        """Yield the batches that fit the budget."""
        n_first, n_coil, *_, n_kx = self.given.kspace.shape
        # Complex samples (8 bytes) that training holds for one readout point: sources, feature maps, their
        # unfoldings and targets with their gradients, for 96 rows of equations (the calibration grows to 64
        # lines or more), and three copies of the slice. Counted by hand on the generous side, not measured.
        channels = (
            2 * n_coil * 5 * 3 + 6 * sum(FEATURES) + 5 * FEATURES[1] * 3 + 6 * (self.lines.r - 1) * n_coil
        )
        per_slice = 8 * n_kx * (96 * channels + 3 * n_coil * self.lines.n)
        size = max(1, int(self.given.budget // per_slice))
        images, length = (n_first, self.other) if self.volume else (1, n_first)
        for image in range(images):
            for low in range(0, length, size):
                high = min(length, low + size)
                yield Batch(image, low, high, self._numbers(image, low, high), image * length + high)

    def _numbers(self, image: int, low: int, high: int) -> Sequence[int]:
        given = self.given.numbers
        return (
            [given[image] * self.other + one for one in range(low, high)] if self.volume else given[low:high]
        )

    def slices(self, kspace: Tensor, batch: Batch) -> Tensor:
        """Return ``(slice, coil, line, kx)`` of a batch on the device."""
        if not self.volume:
            flat = kspace[batch.low : batch.high]
            return (flat[:, :, :, 0] if self.swap else flat[:, :, 0]).to(self.given.device)
        return self._hybrid(kspace[batch.image].to(self.given.device), self.other, 0)[batch.low : batch.high]

    def problem(self, batch: Batch) -> Problem:
        """Return the interpolation problem of a batch."""
        if not self.volume:
            acs = self.given.acs(slice(batch.low, batch.high)).to(self.given.device)
            acs = acs[:, :, :, 0] if self.swap else acs[:, :, 0]
        else:
            block = self.given.acs(slice(batch.image, batch.image + 1))[0].to(self.given.device)
            z, y = self.given.block
            own, full = (
                (y, self.given.calibration.shape[3]) if self.swap else (z, self.given.calibration.shape[2])
            )
            # Where the block lies against the centre of its own matrix, so against that of the image's.
            acs = self._hybrid(block, self.other, self.other // 2 - full // 2 + own[0])[
                batch.low : batch.high
            ]
        return Problem(
            self.slices(self.given.kspace, batch),
            self.lines,
            self.acquired.to(self.given.device),
            self.wanted.to(self.given.device),
            acs,
            self.acs_range,
        )

    def sample(self) -> Problem:
        """Return the few slices on which candidates are compared, spread over all (or the first volume)."""
        count = self.other if self.volume else self.given.kspace.shape[0]
        problems = [
            self.problem(Batch(0, index, index + 1, (), 0))
            for index in holdout.spread(count, holdout.MAX_SLICES)
        ]
        first = problems[0]
        return Problem(
            torch.cat([one.kspace for one in problems]),
            first.lines,
            first.acquired,
            first.wanted,
            torch.cat([one.acs for one in problems]),
            first.acs_range,
        )

    def store(self, out: Tensor, batch: Batch, slices: Tensor, weights: grappa.Predictor) -> None:
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
        acquired = torch.from_numpy(self.given.pattern.acquired).to(out.device)
        inside = torch.from_numpy(self.given.pattern.extent).to(out.device)
        for image in range(out.shape[0]):
            volume = image_to_kspace(out[image].to(self.given.device), (2 if self.swap else 1,)).to(
                out.device
            )
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
