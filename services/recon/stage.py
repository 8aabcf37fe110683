"""The reconstruction stage: a k-space file becomes images, a page and a record."""

from __future__ import annotations

import importlib.metadata
import math
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .. import __version__
from ..contract.codes import Code, PermanentError, RetryableError
from ..contract.ids import recon_id
from ..contract.profiles import RECON_VERSION, Method, Profile
from ..contract.progress import Progress, silent
from ..contract.record import end_record, new_record
from ..kspace.file import KSpaceReader, open_kspace
from ..kspace.sampling import SamplingPattern
from ..raki import combine
from ..raki.gfactor import MIN_REPLICAS
from ..raki.interpolate import Interpolation
from . import coil_combination, dicom, hdf5, nifti, noise_maps, partial_fourier, preview, quality, report
from .batches import Batch, Plan
from .facts import Facts, acquisition
from .filling import Filler
from .image_grid import ImageGrid, image_grid
from .stopwatch import Stopwatch
from .told import geometry_of, partial_fourier_step, sampling_of, warnings_of
from .volume import n_planes

_LIBRARIES = ("numpy", "scipy", "torch", "h5py", "pydicom", "nibabel", "pillow")


def reconstruct(
    kspace_path: Path,
    out_dir: Path,
    *,
    scan_id: str,
    profile: Profile,
    device: str = "auto",
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Reconstruct a k-space file into ``out_dir`` and return the record.

    Written are ``image.h5``, ``image.nii.gz``, ``dicom/*.dcm``, ``preview.png`` and ``report.html``; not the
    record itself (``scan.json``), whose existence is the publication and the caller's to make. A scan that
    fails may leave some of the files behind: the caller owns ``out_dir``.

    Parameters
    ----------
    kspace_path
        What decompress wrote.
    out_dir
        Folder for the results, made if it is not there; none of the files may exist yet.
    scan_id
        Of the archive.
    profile
        Settings; they and the scan id make the reconstruction id.
    device
        ``auto`` (CUDA where there is a device), ``cpu``, ``cuda`` or ``cuda:<n>``.
    progress
        Told as it goes on.

    Raises
    ------
    PermanentError
        Where the data cannot be reconstructed as asked (pattern, calibration, settings).
    RetryableError
        ``out_of_memory``.
    """
    out_dir.mkdir(parents=True, exist_ok=True)
    try:
        with open_kspace(kspace_path) as scan:
            run = _Run(scan, out_dir, scan_id, profile, choose_device(device), progress or silent)
            return run.record()
    except (MemoryError, torch.cuda.OutOfMemoryError) as error:
        raise RetryableError(
            Code.OUT_OF_MEMORY,
            "The memory did not suffice for this scan: give the reconstruction a larger machine.",
        ) from error


def choose_device(name: str) -> torch.device:
    """Return the torch device called ``name``; ``auto`` is CUDA where there is one.

    Raises
    ------
    PermanentError
        ``bad_settings`` for a device that is not there.
    """
    cuda = torch.cuda.is_available()
    if name == "auto":
        return torch.device("cuda" if cuda else "cpu")
    if name == "cpu" or (cuda and name.startswith("cuda")):
        return torch.device(name)
    raise PermanentError(
        Code.BAD_SETTINGS, "There is no device of that name here: take auto, cpu or, with a GPU, cuda."
    )


def _timeless(record: dict[str, Any]) -> dict[str, Any]:
    """Return ``record`` without what differs from run to run."""
    network = record["network"]
    if network is not None:
        network = {name: value for name, value in network.items() if name != "seconds"}
    return {**{name: value for name, value in record.items() if name != "seconds"}, "network": network}


@dataclass
class _Energy:
    """Energy of k-space, and what of it was interpolated."""

    total: float = 0.0
    interpolated: float = 0.0

    def add(self, kspace: Tensor, pattern: SamplingPattern) -> None:
        power = torch.linalg.vector_norm(kspace, dim=(0, 1, 4)).square().cpu().numpy()
        self.total += float(power.sum())
        self.interpolated += float(power[pattern.missing].sum())


class _Run:
    """One reconstruction: what it was given, and what is known of it so far."""

    def __init__(
        self,
        scan: KSpaceReader,
        out: Path,
        scan_id: str,
        profile: Profile,
        device: torch.device,
        progress: Progress,
    ) -> None:
        self.scan, self.out, self.profile = scan, out, profile
        self.device, self.progress = device, progress
        self.info = scan.info
        self.geometry = scan.info.geometry
        self.scan_id = scan_id
        self.recon_id = recon_id(scan_id, profile.settings(), RECON_VERSION)
        self.watch = Stopwatch(device)
        self.plan = Plan(scan, device)
        _, _, _, n_kz, n_ky, n_kx = scan.shape
        self.grid: ImageGrid = image_grid((n_kz, n_ky, n_kx), self.geometry)
        self.filler = Filler(profile, device, progress, scan.info.whitened)
        self.noise_bytes = 0
        self.energy = _Energy()
        self.fourier = partial_fourier.PartialFourierMethod(profile.partial_fourier)
        self.covered = self._coverage(self.plan.pattern)

    def record(self) -> dict[str, Any]:
        """Reconstruct, write everything, return the record."""
        with hdf5.create(self.out / "image.h5", self.geometry, self.scan.shape[0]) as images:
            for done, batch in enumerate(self.plan):
                self.progress("reconstruct", done / len(self.plan), batch.name)
                self._batch(batch, images)
            self.progress("reconstruct", 1.0, "all images")
            record = self._describe(images)
            facts = self._facts(record)
            self._write(images, facts, record)
        return record

    # ------------------------------------------------------------------------------------ reconstruction

    def _batch(self, batch: Batch, images: hdf5.ImageFile) -> None:
        with self.watch.time("read"):
            kspace, acs = self._read(batch), self._read_acs(batch)
        with self.watch.time("interpolate"):
            number = batch.image * self.scan.shape[1] + batch.slices[0]
            done = self.filler.fill(kspace, batch.pattern, acs, number)
            filled = done.kspace
            assert isinstance(filled, Tensor)
            self.energy.add(filled, batch.pattern)
        if self._wants_noise(batch, done, kspace):
            with self.watch.time("noise"):
                self._noise(batch, done, kspace, images)
        del kspace, done
        covered = self.covered if batch.pattern is self.plan.pattern else self._coverage(batch.pattern)
        with self.watch.time("partial fourier"):
            whole = partial_fourier.fill(filled, covered, self._one_sided(covered))
        with self.watch.time("combine"):
            magnitude, combined = self._combine(self.grid.image(whole))
        with self.watch.time("write"):
            for n, slice_ in enumerate(batch.slices):
                images.put(batch.image, slice_, magnitude[n], combined[n])

    def _wants_noise(self, batch: Batch, done: Interpolation, kspace: Tensor) -> bool:
        wanted = self.profile.g_factor_replicas > 0 and batch.image == self.plan.first.image
        if not wanted or done.method not in {Method.GRAPPA, Method.RAKI}:
            return False
        size = kspace.element_size() * kspace.nelement()
        fits = self.device.type == "cuda" or self.noise_bytes + size <= noise_maps.CPU_BYTES
        return batch is self.plan.first or fits

    def _noise(self, batch: Batch, done: Interpolation, kspace: Tensor, images: hdf5.ImageFile) -> None:
        maps = noise_maps.measure(
            done, kspace, batch.pattern, self.grid, whitened=self.info.whitened,
            replicas=self.profile.g_factor_replicas, seed=self.profile.seed, progress=self.progress,
        )  # fmt: skip
        self.noise_bytes += kspace.element_size() * kspace.nelement()
        for n, slice_ in enumerate(batch.slices):
            images.put_map("g_factor", slice_, maps.g_factor[n])
            if maps.noise_sd is not None and not self.covered.shares:
                images.put_map("noise_sd", slice_, maps.noise_sd[n])

    def _read(self, batch: Batch) -> Tensor:
        blocks = np.empty((len(batch.slices), *self.scan.shape[2:]), np.complex64)
        for n, slice_ in enumerate(batch.slices):
            blocks[n] = self.scan.read(batch.image, slice_)
        return torch.from_numpy(blocks).to(self.device)

    def _read_acs(self, batch: Batch) -> Tensor | None:
        if self.scan.acs_mask is None:
            return None
        mask = self.scan.acs_mask
        blocks = []
        for slice_ in batch.slices:
            block = self.scan.read_acs(batch.image, slice_)
            lines = mask[min(batch.image, mask.shape[0] - 1), min(slice_, mask.shape[1] - 1)]
            z, y = np.flatnonzero(lines.any(axis=1)), np.flatnonzero(lines.any(axis=0))
            if block is None or not len(y):
                return None
            blocks.append(block[:, z[0] : z[-1] + 1, y[0] : y[-1] + 1])
        return torch.from_numpy(np.stack(blocks)).to(self.device)

    def _coverage(self, pattern: SamplingPattern) -> partial_fourier.Coverage:
        known = pattern.extent | pattern.acquired
        return partial_fourier.coverage(known, self.info.kx_range, self.scan.shape[5])

    def _one_sided(self, covered: partial_fourier.Coverage) -> partial_fourier.PartialFourierMethod:
        return self.fourier if covered.usable else partial_fourier.PartialFourierMethod.ZERO_FILL

    def _combine(self, coils: Tensor) -> tuple[NDArray[np.float32], NDArray[np.complex64]]:
        """Return magnitude and complex combination ``(slice, z, y, x)`` of ``(slice, coil, z, y, x)``."""
        combined = coil_combination.adaptive(coils).image
        magnitude = combine.rss(coils) if self.profile.combine == "rss" else combined.abs()
        return magnitude.cpu().numpy(), combined.cpu().numpy()

    # ---------------------------------------------------------------------------------------- the results

    def _describe(self, images: hdf5.ImageFile) -> dict[str, Any]:
        pattern, covered = self.plan.pattern, self.covered
        method = self._one_sided(covered)
        record = new_record(self.scan_id)
        steps = [*self.info.history, *self._steps(method)]
        record.update(
            recon_id=self.recon_id,
            profile=self.profile.settings(),
            format=self.info.format,
            geometry=geometry_of(self.geometry, self.scan.shape[0], self.scan.shape[2]),
            acceleration={"ky": pattern.r_y, "kz": pattern.r_z, "caipi_shift": pattern.caipi_shift},
            acs_lines=self._acs_lines(),
            sampling=sampling_of(pattern, covered, self.scan.acs_mask is not None),
            preprocessing=steps,
            method=self._method,
            method_reason=self.filler.reason,
            holdout_errors=self.filler.holdout_errors,
            network=self.filler.network,
            quality=self._quality(images),
            warnings=[
                *warnings_of(self.info, covered, method, self.plan.patterns), *self.filler.warnings
            ],
            seconds=self.watch.seconds,
            versions=self._versions(),
        )  # fmt: skip
        return end_record(record, None)

    def _steps(self, method: partial_fourier.PartialFourierMethod) -> list[dict[str, Any]]:
        steps: list[dict[str, Any]] = []
        if not self.plan.pattern.fully_sampled:
            lines = int(self.plan.pattern.missing.sum())
            steps.append(
                {
                    "step": "interpolation",
                    "method": self._method,
                    "kernel": self.filler.kernel,
                    "lines": lines,
                }
            )
        told = partial_fourier_step(self.covered, method)
        steps += [told] if told else []
        steps += self.grid.describe()
        steps.append({"step": "coil combination", "method": self.profile.combine})
        return steps

    @property
    def _method(self) -> str:
        return self.filler.method.value if self.filler.method else ""

    def _acs_lines(self) -> int:
        if self.scan.acs_mask is not None:
            return int(self.scan.acs_mask[0, 0].any(axis=0).sum())
        return self.plan.pattern.acs_lines

    def _quality(self, images: hdf5.ImageFile) -> dict[str, Any]:
        pattern, first = self.plan.pattern, self.plan.first.image
        noise = images.map("noise_sd")
        plain = pattern.fully_sampled and not self.covered.shares
        volume = images.volume(first)
        if plain and self.info.whitened:  # unit variance, half of it along the signal's phase
            noise = np.full_like(volume, math.sqrt(0.5))
        g_factor = images.map("g_factor")
        told: dict[str, Any] = quality.figures(volume, g_factor, noise)
        if g_factor is not None:
            told["g_factor_replicas"] = max(self.profile.g_factor_replicas, MIN_REPLICAS)
            told["g_factor_planes"] = int(np.isfinite(g_factor).any(axis=(1, 2)).sum())
            told["noise"] = "measured" if self.info.whitened else "assumed white"
        told["sampled_fraction"] = round(float(pattern.acquired.sum() / pattern.extent.sum()), 4)
        if self.energy.total > 0:
            told["interpolated_energy"] = round(self.energy.interpolated / self.energy.total, 5)
        return {**told, **self.filler.figures}

    def _versions(self) -> dict[str, str]:
        versions = {
            "mrirecon": __version__,
            "reconstruction": RECON_VERSION,
            "python": platform.python_version(),
        }
        names = [*_LIBRARIES, *(["sigpy"] if self.filler.method is Method.ESPIRIT else [])]
        versions.update({name: importlib.metadata.version(name) for name in names})
        device = "CPU"
        if self.device.type == "cuda":
            device = f"{torch.cuda.get_device_name(self.device)}, CUDA {torch.version.cuda}"
        return {**versions, "device": device}

    def _facts(self, record: dict[str, Any]) -> Facts:
        return Facts(
            scan_id=self.scan_id,
            recon_id=self.recon_id,
            version=__version__,
            method=record["method"],
            summary=f"{record['method']}; {self.plan.pattern.describe()}; {self.profile.combine} combination",
            geometry=self.geometry,
            images=self.info.images,
            acquisition=acquisition(self.info.header),
        )

    def _write(self, images: hdf5.ImageFile, facts: Facts, record: dict[str, Any]) -> None:
        n = images.n_images
        with self.watch.time("write"):
            self.progress("write", 0.1, "HDF5")
            images.describe(facts, _timeless(record))
            self.progress("write", 0.2, "NIfTI")
            volumes = (images.volume(image) for image in range(n))
            nifti.write(self.out / "image.nii.gz", self.geometry, volumes, n)
            folder = self.out / "dicom"
            folder.mkdir()
            for image in range(n):
                self.progress("write", 0.4 + 0.4 * image / n, f"DICOM, image {image + 1}")
                dicom.write_series(folder, facts, image, images.volume(image), record["warnings"])
            self.progress("write", 0.8, "preview and report")
            preview.write(self.out / "preview.png", images.volume(0), self.geometry)
        record["seconds"] = dict(self.watch.seconds)
        middle = n_planes(self.geometry) // 2
        pictures = report.Pictures(
            images.volume(0),
            [(image, images.volume(image)[middle : middle + 1]) for image in range(1, n)],
            images.map("g_factor"),
        )
        report.write(self.out / "report.html", facts, record, self.plan.pattern, pictures)
        self.progress("write", 1.0, "all files")
