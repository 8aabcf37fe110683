"""``mrirecon demo``: a raw scan is made and goes the whole way."""

from __future__ import annotations

import sys
import tempfile
from argparse import Namespace
from pathlib import Path

from ..local.runner import run_archive
from . import screen
from .exits import gravest


def demo(arguments: Namespace) -> int:
    """Simulate an accelerated multi-coil scan, archive it as a scanner would, reconstruct it."""
    from ..phantom.scanner import Protocol, pack, simulate

    protocol = Protocol()
    out: Path = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    archive = out / "demo-scan.tar"
    with screen.progress("Demo") as progress, tempfile.TemporaryDirectory(prefix="mrirecon-") as folder:
        raw = Path(folder) / "scan.h5"
        simulate(raw, protocol, progress)
        archive.unlink(missing_ok=True)
        pack(archive, [raw])
    with screen.progress("Reconstruction") as progress:
        outcome = run_archive(archive, out, method=arguments.method, progress=progress)
    if outcome.out is None or outcome.method is None:
        print(f"mrirecon demo: {outcome.status}, {outcome.code}: {outcome.message}", file=sys.stderr)
        return gravest([outcome.end])
    place = Path(outcome.out)
    ny, nx = protocol.matrix
    print(
        f"\nA scan of {protocol.n_slices} slices, {ny} × {nx}, {protocol.n_coils} coils, every "
        f"{protocol.acceleration}rd line acquired, was reconstructed by {outcome.method} "
        f"in {outcome.seconds:.0f} s.\n",
        file=sys.stderr,
    )
    for name, what in (
        ("preview.png", "all slices at a glance"),
        ("report.html", "open in a browser: images, quality, what was done and why"),
        ("dicom/", "for a viewer"),
        ("image.nii.gz", "for a script (NIfTI)"),
        ("image.h5", "for a physicist (float images, complex combination, quality maps)"),
        ("scan.json", "the record"),
    ):
        print(f"{place}/{name:<14} {what}")
    return gravest([outcome.end])
