"""A small undersampled scan, and how far an image is from what a full scan of the same object shows."""

from dataclasses import dataclass, replace
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from mrirecon.contract.progress import silent
from mrirecon.local.runner import run_archive
from mrirecon.phantom.scanner import Protocol, pack, simulate

Image = NDArray[np.floating]

PROTOCOL = Protocol(
    matrix=(96, 80), fov_mm=(224.0, 186.7), n_slices=2, n_coils=8, acceleration=3, n_acs=24, snr=500.0
)
FULL = replace(PROTOCOL, acceleration=1, snr=10000.0)
"""Every line, hardly any noise, through the same coils: nothing is interpolated in its image."""


@dataclass(frozen=True)
class Errors:
    """Normalised root-mean-square errors against the full scan's image."""

    image: float
    zero_filled: float


def make_archive(folder: Path, protocol: Protocol = PROTOCOL, name: str = "scan") -> Path:
    """Scan the phantom and pack it as a scanner's share would."""
    raw, archive = folder / f"{name}.h5", folder / f"{name}.tar"
    simulate(raw, protocol)
    pack(archive, [raw])
    return archive


def compare(image: Image, archive: Path, folder: Path) -> Errors:
    """Compare ``image`` float ``(image, z, y, x)``, and that of doing nothing about the missing lines."""
    full = _local(make_archive(folder, FULL, "full"), folder / "full", None)
    nothing = _local(archive, folder / "zero-filled", "zero-filled")
    return Errors(_nrmse(image, full), _nrmse(nothing, full))


def _local(archive: Path, out: Path, method: str | None) -> Image:
    done = run_archive(archive, out, method=method, progress=silent)
    if done.status != "done" or done.out is None:
        raise RuntimeError(f"the local run of {archive.name} ended {done.status}: {done.message}")
    with h5py.File(Path(done.out) / "image.h5") as file:
        image: Image = file["image"][()]
    return image


def _nrmse(image: Image, truth: Image) -> float:
    """Fit one factor, then compare: an image's unit is arbitrary."""
    image, truth = np.asarray(image, float), np.asarray(truth, float)
    factor = (image * truth).sum() / (image * image).sum()
    return float(np.linalg.norm(factor * image - truth) / np.linalg.norm(truth))
