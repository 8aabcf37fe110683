"""Which slices are reconstructed together: as many as a byte budget holds, all sampled alike."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from ..contract.codes import Code, PermanentError
from ..kspace.file import KSpaceReader
from ..kspace.sampling import SamplingPattern, detect

CPU_BYTES = 128 * 1024**2
"""k-space of one batch on a CPU; interpolation and images need several times that on top."""
CUDA_SHARE = 1 / 16
"""Share of a CUDA device's free memory that the k-space of one batch may take."""


@dataclass(frozen=True)
class Batch:
    """Slices of one image that share a sampling pattern.

    Attributes
    ----------
    image, slices
        Indices into the k-space file's first two axes.
    pattern
        What was acquired of each of them.
    """

    image: int
    slices: tuple[int, ...]
    pattern: SamplingPattern

    @property
    def name(self) -> str:
        """Return what progress shows."""
        first, last = self.slices[0] + 1, self.slices[-1] + 1
        where = f"slice {first}" if first == last else f"slices {first} to {last}"
        return f"image {self.image + 1}, {where}"


class Plan:
    """The batches of a scan, the one that decides about the method first."""

    def __init__(self, scan: KSpaceReader, device: torch.device) -> None:
        self._patterns: dict[bytes, SamplingPattern] = {}
        n_image, n_slice, *volume = scan.shape
        at_once = max(1, budget(device) // (8 * int(np.prod(volume))))
        batches = []
        for image in range(n_image):
            kinds = itertools.groupby(range(n_slice), key=lambda s: scan.mask[image, s].tobytes())
            for _, group in kinds:
                slices = list(group)
                pattern = self._pattern(scan, image, slices[0])
                for part in np.array_split(slices, -(-len(slices) // at_once)):
                    batches.append(Batch(image, tuple(int(s) for s in part), pattern))
        self.first = _middle(batches, n_slice)
        self._batches = batches

    @property
    def pattern(self) -> SamplingPattern:
        """The pattern that the record tells: of the batch that decides."""
        return self.first.pattern

    @property
    def patterns(self) -> int:
        """How many different sampling patterns the scan has."""
        return len(self._patterns)

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[Batch]:
        yield self.first
        yield from (batch for batch in self._batches if batch is not self.first)

    def _pattern(self, scan: KSpaceReader, image: int, slice_: int) -> SamplingPattern:
        mask = scan.mask[image, slice_]
        key = mask.tobytes()
        if key not in self._patterns:
            if not mask.any():
                raise PermanentError(
                    Code.INCOMPLETE_KSPACE,
                    f"Nothing was acquired of slice {slice_ + 1} of image {image + 1}: send the whole scan.",
                )
            self._patterns[key] = detect(mask)
        return self._patterns[key]


def budget(device: torch.device) -> int:
    """Return the bytes that the k-space of one batch may have."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free * CUDA_SHARE)
    return CPU_BYTES


def _middle(batches: list[Batch], n_slice: int) -> Batch:
    """Return the batch of image 0 that holds the middle slice, thinned ones before fully sampled ones."""
    thinned = [b for b in batches if not b.pattern.fully_sampled] or batches
    same_image = [b for b in thinned if b.image == thinned[0].image]
    return min(same_image, key=lambda b: min(abs(s - n_slice // 2) for s in b.slices))
