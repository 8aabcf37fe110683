"""What becomes of a finished run: its record, and the files for viewers, scripts and people."""

from __future__ import annotations

import importlib.metadata
import math
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ... import __version__
from ...contract.profiles import RECON_VERSION, Method
from ...contract.record import end_record, new_record
from ...imaging import pics, quality
from ...imaging.gfactor import MIN_REPLICAS
from ...kspace.file import KSpaceReader
from ..image_axes import reversed_axes
from ..pipeline import Run
from . import dicom, hdf5, nifti, notes, preview, report
from .facts import METHOD_NAMES, Facts, acquisition
from .record_fields import (
    aliasing_of,
    few_coils_of,
    folding_of,
    futility_of,
    geometry_of,
    misfit_of,
    partial_fourier_step,
    sampling_of,
    warnings_of,
)
from .volume import n_planes

_LIBRARIES = ("numpy", "scipy", "torch", "h5py", "pydicom", "nibabel", "pillow")


def found(scan: KSpaceReader) -> dict[str, Any]:
    """Return what a k-space file tells the record before anything is reckoned."""
    info = scan.info
    return {
        "format": info.format,
        "geometry": geometry_of(info.geometry, scan.shape[0], scan.shape[2]),
        "preprocessing": list(info.history),
        "acquisitions_digest": info.acquisitions_digest or None,
    }


def sampled(run: Run) -> dict[str, Any]:
    """Return what the record tells of acceleration and calibration, which a refused scan has, too."""
    pattern = run.plan.pattern
    return {
        "acceleration": {"ky": pattern.r_y, "kz": pattern.r_z, "caipi_shift": pattern.caipi_shift},
        "acs_lines": _acs_lines(run),
        "sampling": sampling_of(pattern, run.covered, 0 if run.scan.acs_mask is None else _acs_lines(run)),
    }


def describe(
    run: Run,
    images: hdf5.ImageFile,
    scan_id: str,
    recon_id: str,
    more_warnings: Sequence[str] = (),
    label: str | None = None,
) -> dict[str, Any]:
    """Return the record of a finished run: everything but how long the last files took."""
    pattern, covered = run.plan.pattern, run.covered
    record = new_record(scan_id)
    warnings = [
        *folding_of(pattern, run.scan.shape[2]),
        *futility_of(run.filler.futile),
        *aliasing_of(run.method, run.choice.holdout_errors),
        *few_coils_of(run.profile.method, run.scan.shape[2], run.plan.pattern),
        *misfit_of(run.filler.misfit),
        *warnings_of(run.info, covered, run.one_sided, run.plan.patterns, run.plan.first.items[0][0]),
        *more_warnings,
    ]
    record.update(found(run.scan))
    record.update(sampled(run))
    record.update(
        recon_id=recon_id,
        label=label,
        profile=run.profile.settings(),
        preprocessing=[*run.info.history, *_steps(run)],
        method=run.method,
        method_reason=run.choice.reason,
        holdout_errors=run.choice.holdout_errors,
        network=run.filler.network,
        quality=_quality(run, images),
        warnings=list(dict.fromkeys(warnings)),
        seconds=run.watch.seconds,
        versions=_versions(run),
    )
    return end_record(record, None)


def _steps(run: Run) -> list[dict[str, Any]]:
    steps: list[dict[str, Any]] = []
    if not run.plan.pattern.fully_sampled:
        lines = int(run.plan.pattern.missing.sum())
        steps.append(
            {
                "step": "interpolation",
                "method": run.method,
                "kernel": None if run.choice.kernel is None else str(run.choice.kernel),
                "lines": lines,
            }
        )
    if run.method == Method.PICS and run.scan.shape[2] > pics.MOST_COILS:
        steps[-1]["virtual_coils"] = pics.VIRTUAL_COILS
    told = partial_fourier_step(run.covered, run.one_sided)
    steps += [told] if told else []
    steps += run.grid.describe()
    turned = reversed_axes(run.info.geometry, run.info.header)
    if turned:
        steps.append({"step": "axes against the header's directions", "axes": ", ".join(turned)})
    steps.append({"step": "coil combination", "method": run.profile.combine})
    return steps


def _acs_lines(run: Run) -> int:
    pattern, mask = run.plan.pattern, run.scan.acs_mask
    if mask is None:
        return pattern.acs_lines
    along_kz = pattern.r_y == 1 and pattern.r_z > 1
    return int(np.any(mask[0, 0], axis=1 if along_kz else 0).sum())


def _quality(run: Run, images: hdf5.ImageFile) -> dict[str, Any]:
    pattern, first = run.plan.pattern, run.plan.first.items[0][0]
    noise = images.map("noise_sd")
    plain = pattern.fully_sampled and not run.covered.shares
    volume = images.volume(first)
    if plain and run.info.whitened:  # unit variance, half of it along the signal's phase
        noise = np.full_like(volume, math.sqrt(0.5))
    g_factor = images.map("g_factor")
    told: dict[str, Any] = quality.figures(volume, g_factor, noise)
    if g_factor is not None:
        told["g_factor_replicas"] = max(run.profile.g_factor_replicas, MIN_REPLICAS)
        told["g_factor_planes"] = int(np.isfinite(g_factor).any(axis=(1, 2)).sum())
        told["noise"] = "measured" if run.info.whitened else "assumed white"
    told["sampled_fraction"] = round(float(pattern.acquired.sum() / pattern.extent.sum()), 4)
    if run.energy.total > 0:
        told["interpolated_energy"] = round(run.energy.interpolated / run.energy.total, 5)
    if run.filler.misfit is not None:
        told["espirit_residual"] = run.filler.misfit
    return told


def _versions(run: Run) -> dict[str, str]:
    versions = {
        "mrirecon": __version__,
        "reconstruction": RECON_VERSION,
        "python": platform.python_version(),
    }
    versions.update({name: importlib.metadata.version(name) for name in _LIBRARIES})
    device = "CPU"
    if run.device.type == "cuda":
        device = f"{torch.cuda.get_device_name(run.device)}, CUDA {torch.version.cuda}"
    return {**versions, "device": device}


def facts_of(run: Run, record: dict[str, Any]) -> Facts:
    """Return what the writers may name."""
    made = METHOD_NAMES[record["method"]]
    return Facts(
        scan_id=record["scan_id"],
        recon_id=record["recon_id"],
        version=__version__,
        method=record["method"],
        summary=f"{made}; {record['sampling']['description']}; {run.profile.combine} combination",
        geometry=run.geometry,
        images=run.info.images,
        acquisition=acquisition(run.info.header),
        profile=run.profile.name,
        label=record["label"],
    )


def write(run: Run, out: Path, images: hdf5.ImageFile, facts: Facts, record: dict[str, Any]) -> None:
    """Write all files but ``image.h5``'s images, which are there, and the record; sets its ``seconds``."""
    n = images.n_images
    with run.watch.time("write"):
        run.progress("write", 0.1, "HDF5")
        images.describe(facts, _timeless(record))
        run.progress("write", 0.2, "NIfTI")
        volumes = (images.volume(image) for image in range(n))
        nifti.write(out / "image.nii.gz", run.geometry, volumes, n)
        folder = out / "dicom"
        folder.mkdir()
        dicom.write_all(folder, facts, images.volume, record["warnings"], run.progress)
        if run.profile.notes_series:
            notes.write(folder / "notes.dcm", facts, record, images.volume(0), images.map("g_factor"))
        run.progress("write", 0.8, "preview and report")
        preview.write(out / "preview.png", images.volume(0), run.geometry)
    record["seconds"] = dict(run.watch.seconds)
    middle = n_planes(run.geometry) // 2
    pictures = report.Pictures(
        images.volume(0),
        [(image, images.volume(image)[middle : middle + 1]) for image in range(1, n)],
        images.map("g_factor"),
    )
    report.write(out / "report.html", facts, record, run.plan.pattern, pictures)
    run.progress("write", 1.0, "all files")


def _timeless(record: dict[str, Any]) -> dict[str, Any]:
    """Return ``record`` without what differs from run to run."""
    network = record["network"]
    if network is not None:
        network = {name: value for name, value in network.items() if name != "seconds"}
    return {**{name: value for name, value in record.items() if name != "seconds"}, "network": network}
