"""``mrirecon doctor``: is this machine fit to reconstruct?"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import sys
import tempfile
from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..local.runner import run_archive
from .exits import Exit

_NEEDED = ("numpy", "scipy", "h5py", "twixtools", "torch", "pydicom", "nibabel")
_FREE_BYTES = 10 * 1024**3


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's answer."""

    what: str
    ok: bool
    found: str
    advice: str = ""


def examine(reconstruct: bool = True) -> list[Finding]:
    """Return what was found, each finding with advice where it is not well."""
    checks: list[Callable[[], Finding]] = [_python, _libraries, _device, _memory, _temporary_folder, _sandbox]
    if reconstruct:
        checks.append(_tiny_reconstruction)
    findings = []
    for check in checks:
        try:
            findings.append(check())
        except Exception as error:
            what = check.__name__.strip("_").replace("_", " ")
            findings.append(Finding(what, False, f"{type(error).__name__}", "reinstall mrirecon"))
    return findings


def doctor(_: Namespace) -> int:
    """Print the findings; the exit code says whether all is well."""
    findings = examine()
    for finding in findings:
        print(f"{'ok ' if finding.ok else 'NOT'}  {finding.what:<22} {finding.found}")
        if not finding.ok:
            print(f"     {'':<22} → {finding.advice}")
    return Exit.OK if all(finding.ok for finding in findings) else Exit.FAILED


def _python() -> Finding:
    ok = sys.version_info >= (3, 11)
    return Finding("python", ok, platform.python_version(), "mrirecon needs Python 3.11 or newer")


def _libraries() -> Finding:
    found, missing = [], []
    for name in _NEEDED:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            missing.append(name)
    if missing:
        return Finding("libraries", False, "missing: " + ", ".join(missing), "pip install 'mrirecon[local]'")
    return Finding("libraries", True, ", ".join(found))


def _device() -> Finding:
    import torch

    if torch.cuda.is_available():
        return Finding("device", True, f"{torch.cuda.get_device_name()} (CUDA {torch.version.cuda})")
    return Finding("device", True, f"CPU, {torch.get_num_threads()} threads (no CUDA device found)")


def _memory() -> Finding:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Finding("memory", total > 4e9, f"{total / 1e9:.0f} GB", "large scans want 8 GB or more")


def _temporary_folder() -> Finding:
    free = shutil.disk_usage(tempfile.gettempdir()).free
    advice = "set TMPDIR to a disk with room for the largest scan"
    return Finding("temporary folder", free > _FREE_BYTES, f"{free / 1e9:.0f} GB free", advice)


def _sandbox() -> Finding:
    from ..decompress.sandbox import landlock, seccomp

    files, calls = landlock.version(), seccomp.version()
    layers = ["limits", f"Landlock {files}" if files else "", f"seccomp {calls}" if calls else ""]
    found = ", ".join(layer for layer in layers if layer)
    missing = [name for name, there in (("Landlock", files), ("seccomp", calls)) if not there]
    if missing:
        found += f" (this machine has no {' and no '.join(missing)})"
    return Finding("parser's sandbox", True, found)


def _tiny_reconstruction() -> Finding:
    from ..phantom.scanner import Protocol, pack, simulate

    protocol = Protocol(
        matrix=(64, 48), fov_mm=(240.0, 180.0), n_slices=1, n_coils=6, acceleration=2, n_acs=16
    )
    with tempfile.TemporaryDirectory(prefix="mrirecon-") as folder:
        raw, archive = Path(folder) / "scan.h5", Path(folder) / "scan.tar"
        simulate(raw, protocol)
        pack(archive, [raw])
        outcome = run_archive(archive, Path(folder) / "out", method="grappa")
        made = outcome.out is not None and (Path(outcome.out) / "image.h5").exists()
    found = f"{outcome.status} in {outcome.seconds:.1f} s"
    return Finding("tiny reconstruction", made, found, f"{outcome.code}: {outcome.message}")
