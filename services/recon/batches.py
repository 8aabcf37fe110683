"""Which slices are reconstructed together: as many as a byte budget holds, all sampled alike.

The first batch is special: its pattern is the one that is told, and the noise maps are made of it. It holds
slices around the middle of the first image that has lines to fill, no more of them than noise replicas can be
afforded for. Method and kernel are chosen on slices of their own, so no image depends on the batches.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from ..contract.codes import Code, PermanentError
from ..kspace.detection import detect
from ..kspace.file import KSpaceReader
from ..kspace.sampling import SamplingPattern
from ..raki import holdout

CPU_BYTES = 1024**3
"""k-space of one batch on a CPU; the interpolation needs as much again, and its fixed working memory."""
CUDA_SHARE = 1 / 8
"""Share of a CUDA device's free memory that the k-space of one batch may take."""
NOISE_BYTES = 128 * 1024**2
"""k-space whose noise is mapped on a CPU; on a GPU it is all of the first image."""


@dataclass(frozen=True)
class Batch:
    """Slices that share a sampling pattern.

    Attributes
    ----------
    items
        ``(image, slice)`` indices into the k-space file's first two axes.
    pattern
        What was acquired of each of them.
    """

    items: tuple[tuple[int, int], ...]
    pattern: SamplingPattern

    def numbers(self, n_slice: int) -> list[int]:
        """Return which of all slices of the scan these are."""
        return [image * n_slice + slice_ for image, slice_ in self.items]


class Plan:
    """The batches of a scan, the one that decides about the method first."""

    def __init__(self, scan: KSpaceReader, device: torch.device, *, noise: bool) -> None:
        n_image, n_slice, *volume = scan.shape
        kinds: dict[bytes, list[tuple[int, int]]] = {}
        for image in range(n_image):
            for slice_ in range(n_slice):
                kinds.setdefault(scan.mask[image, slice_].tobytes(), []).append((image, slice_))
        patterns = {key: _pattern(scan, *items[0]) for key, items in kinds.items()}
        self.patterns = len(patterns)
        self.total = n_image * n_slice
        size = 8 * int(np.prod(volume))
        most = max(1, budget(device) // size)
        few = most if device.type == "cuda" or not noise else max(1, NOISE_BYTES // size)
        chosen = next((key for key, p in patterns.items() if not p.fully_sampled), next(iter(kinds)))
        items = kinds[chosen]
        first = [item for item in items if item[0] == items[0][0]]
        first = sorted(first, key=lambda item: abs(item[1] - n_slice // 2))[: min(few, most)]
        self.first = Batch(tuple(sorted(first)), patterns[chosen])
        self._samples = {id(patterns[key]): _spread(items) for key, items in kinds.items()}
        self._others = []
        for key, items in kinds.items():
            rest = [item for item in items if key != chosen or item not in self.first.items]
            for low in range(0, len(rest), most):
                self._others.append(Batch(tuple(rest[low : low + most]), patterns[key]))

    @property
    def pattern(self) -> SamplingPattern:
        """The pattern that the record tells: of the batch that decides."""
        return self.first.pattern

    def sample(self, pattern: SamplingPattern) -> Batch:
        """Return the slices on which method and kernel are chosen for a pattern of this plan."""
        return Batch(self._samples[id(pattern)], pattern)

    def __iter__(self) -> Iterator[Batch]:
        yield self.first
        yield from self._others


def budget(device: torch.device) -> int:
    """Return the bytes that the k-space of one batch may have."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free * CUDA_SHARE)
    return CPU_BYTES


def _spread(items: list[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """Return a few of the first image's slices, evenly spread over them."""
    mine = [item for item in items if item[0] == items[0][0]]
    return tuple(mine[index] for index in holdout.spread(len(mine), holdout.MAX_SLICES))


def _pattern(scan: KSpaceReader, image: int, slice_: int) -> SamplingPattern:
    mask = scan.mask[image, slice_]
    if not mask.any():
        raise PermanentError(
            Code.INCOMPLETE_KSPACE,
            f"Nothing was acquired of slice {slice_ + 1} of image {image + 1}: send the whole scan.",
        )
    return detect(mask)
