"""One reconstruction, batch after batch: from k-space of the file to planes of the images."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..contract.profiles import FOURIER, Method, Profile
from ..contract.progress import Progress
from ..imaging import coil_combination, noise_maps, partial_fourier
from ..imaging.image_grid import ImageGrid, image_grid
from ..kspace.file import KSpaceReader
from ..kspace.sampling import SamplingPattern
from ..raki.choice import Choice
from ..raki.interpolate import Interpolation
from .batches import Batch, Plan
from .image_axes import image_geometry
from .interpolator import Filler
from .outputs import hdf5
from .scale import LastLook, factor
from .stopwatch import Stopwatch


@dataclass
class Energy:
    """Energy of k-space, and what of it was interpolated."""

    total: float = 0.0
    interpolated: float = 0.0

    def add(self, kspace: Tensor, pattern: SamplingPattern) -> None:
        """Add filled k-space ``(slice, coil, kz, ky, kx)``."""
        power = torch.linalg.vector_norm(kspace, dim=(0, 1, 4)).square().cpu().numpy()
        self.total += float(power.sum())
        self.interpolated += float(power[pattern.missing].sum())


class Run:
    """What a reconstruction was given, and what is known of it so far.

    Attributes
    ----------
    geometry
        Of the images: where their voxels lie.
    plan, filler
        Which slices go together, and what fills them.
    grid
        From the k-space grid to the images'.
    covered
        What is known of k-space after the interpolation, of the batch that decides.
    watch, energy
        Seconds spent and energy interpolated.
    """

    def __init__(
        self, scan: KSpaceReader, profile: Profile, device: torch.device, progress: Progress
    ) -> None:
        self.scan, self.profile, self.device, self.progress = scan, profile, device, progress
        self.info = scan.info
        self.geometry = image_geometry(scan.info.geometry, scan.info.header)
        self.watch = Stopwatch(device)
        self.plan = Plan(scan, device, noise=profile.g_factor_replicas > 0)
        _, _, _, n_kz, n_ky, n_kx = scan.shape
        self.grid: ImageGrid = image_grid((n_kz, n_ky, n_kx), self.geometry)
        self.filler = Filler(profile, device, progress, scan.info.whitened)
        self.energy = Energy()
        self._factor: float | None = 1.0 if scan.info.whitened else None
        self._last_look = LastLook()
        self.covered = self._coverage(self.plan.pattern)

    def fill(self, images: hdf5.ImageFile) -> None:
        """Reconstruct every batch into ``images``."""
        done, total = 0, self.plan.total
        for batch in self.plan:
            self.progress("reconstruct", done / total, f"{len(batch.items)} of {total} slices")
            self._batch(batch, images)
            done += len(batch.items)
        self._last_look.end()
        self.progress("reconstruct", 1.0, f"all of {total} slices")

    @property
    def method(self) -> str:
        """The method that made the images: what filled the missing lines, or the plain transform."""
        plain = self.choice.method is Method.ZERO_FILLED and self.plan.pattern.fully_sampled
        return FOURIER if plain else self.choice.method.value

    @property
    def choice(self) -> Choice:
        """What filled the missing lines and why, once a batch is done."""
        assert self.filler.choice is not None
        return self.filler.choice

    @property
    def one_sided(self) -> partial_fourier.PartialFourierMethod:
        """What was done about the side of k-space that was never sampled."""
        return self._one_sided(self.covered)

    def _batch(self, batch: Batch, images: hdf5.ImageFile) -> None:
        if not self.filler.decided(batch.pattern):
            with self.watch.time("choose"):
                sample = self.plan.sample(batch.pattern)
                self.filler.decide(batch.pattern, self._read(sample), self._read_acs(sample))
        covered = self.covered if batch.pattern is self.plan.pattern else self._coverage(batch.pattern)
        with self.watch.time("load"):
            kspace, acs = self._read(batch), self._read_acs(batch)
        with self.watch.time("interpolate"):
            numbers = batch.numbers(self.scan.shape[1])
            model = self._one_sided(covered) is partial_fourier.PartialFourierMethod.MODEL
            done = self.filler.fill(kspace, batch.pattern, acs, numbers, one_sided=model)
            filled = done.kspace
            assert isinstance(filled, Tensor)
            self.energy.add(filled, batch.pattern)
        if batch is self.plan.first and self._wants_noise(done):
            with self.watch.time("noise"):
                self._noise(batch, done, kspace, images)
        del kspace, done
        with self.watch.time("partial fourier"):
            if covered.shares:
                for block in self._blocks(filled):
                    block.copy_(partial_fourier.fill(block, covered, self._one_sided(covered)))
        with self.watch.time("combine"):
            magnitude, combined = self._combine(self._images(filled))
        with self.watch.time("write"):
            for n, (image, slice_) in enumerate(batch.items):
                images.put(image, slice_, magnitude[n], combined[n])

    def _wants_noise(self, done: Interpolation) -> bool:
        return self.profile.g_factor_replicas > 0 and done.method in {Method.GRAPPA, Method.RAKI}

    def _noise(self, batch: Batch, done: Interpolation, kspace: Tensor, images: hdf5.ImageFile) -> None:
        maps = noise_maps.measure(
            done,
            kspace,
            batch.pattern,
            self.grid,
            whitened=self.info.whitened,
            replicas=self.profile.g_factor_replicas,
            seed=self.profile.seed,
            progress=self.progress,
        )
        for n, (_, slice_) in enumerate(batch.items):
            images.put_map("g_factor", slice_, maps.g_factor[n])
            if maps.noise_sd is not None and not self.covered.shares:
                images.put_map("noise_sd", slice_, maps.noise_sd[n])

    def _read(self, batch: Batch) -> Tensor:
        blocks = np.empty((len(batch.items), *self.scan.shape[2:]), np.complex64)
        for n, item in enumerate(batch.items):
            blocks[n] = self.scan.read(*item)
        return self._scaled(blocks)

    def _scaled(self, blocks: NDArray[np.complex64]) -> Tensor:
        # Whitened data are in units of their noise. Others may be of any size; what is read first, the slices
        # that the method is chosen on, decides for the whole scan.
        if self._factor is None:
            self._factor = factor(float(np.abs(blocks).max(initial=0.0)))
        if self._factor != 1:
            blocks *= np.float32(self._factor)
        return torch.from_numpy(blocks).to(self.device)

    def _read_acs(self, batch: Batch) -> Tensor | None:
        """Return the calibration acquired apart, on its own matrix, ``(slice, coil, kz, ky, kx)``."""
        blocks = [self.scan.read_acs(*item) for item in batch.items]
        known = [block for block in blocks if block is not None]
        return self._scaled(np.stack(known)) if len(known) == len(blocks) else None

    def _coverage(self, pattern: SamplingPattern) -> partial_fourier.Coverage:
        known = pattern.extent | pattern.acquired
        return partial_fourier.coverage(known, self.info.kx_range, self.scan.shape[5])

    def _one_sided(self, covered: partial_fourier.Coverage) -> partial_fourier.PartialFourierMethod:
        kind = partial_fourier.PartialFourierMethod
        asked = kind(self.profile.partial_fourier) if covered.usable else kind.ZERO_FILL
        # pics knows the phase too, and fills the side together with the other lines; not along the readout
        model = asked is kind.POCS and self.choice.method is Method.PICS and "kx" not in covered.shares
        return kind.MODEL if model and covered.shares else asked

    def _blocks(self, data: Tensor) -> Iterator[Tensor]:
        """Yield views that go through a transform by themselves: slices, or of volumes single coils."""
        for one in data:
            yield from (one if self.geometry.is_3d else (one,))

    def _images(self, kspace: Tensor) -> Tensor:
        """Return coil images ``(slice, coil, z, y, x)``, in place of ``kspace`` where they are as large."""
        shape = (*kspace.shape[:2], *self.grid.shape)
        images = kspace if kspace.shape == shape else kspace.new_empty(shape)
        for source, target in zip(self._blocks(kspace), self._blocks(images), strict=True):
            target.copy_(self.grid.image(source))
        return images

    def _combine(self, coils: Tensor) -> tuple[NDArray[np.float32], NDArray[np.complex64]]:
        """Return magnitude and complex combination ``(slice, z, y, x)`` of ``(slice, coil, z, y, x)``."""
        combined = coil_combination.adaptive_image(coils)
        magnitude = coil_combination.rss(coils) if self.profile.combine == "rss" else combined.abs()
        if self._factor is not None and self._factor != 1:
            magnitude, combined = magnitude / self._factor, combined / self._factor
        self._last_look.see(magnitude.cpu().numpy())
        return magnitude.cpu().numpy(), combined.cpu().numpy()
