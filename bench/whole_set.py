"""A set of 2.4 GB of k-space (32 coils, 46 slices, 320 lines of 640 samples) from the archive to the images.

    python -m bench.whole_set [--slices 46] [--device auto] [--method raki] [--out bench/results]

Acquired four-fold accelerated with 40 calibration lines, so the archive itself is smaller than the k-space
it fills. Every stage is timed by the run itself (its record); memory is the largest of any one process.
"""

import argparse
import json
import platform
import resource
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np

from mrirecon.phantom.mrd import Encoding, Flag, MrdWriter, ScannerHeader, header_xml
from mrirecon.phantom.scanner import Protocol, full_kspace, pack, sampled_lines

LINES, SAMPLES, COILS, ACCELERATION, ACS = 320, 640, 32, 4, 40
DRAWN = 4
"""Slices that are drawn; the others repeat them with noise of their own."""


def make_archive(folder: Path, n_slices: int) -> Path:
    protocol = Protocol(
        matrix=(LINES, SAMPLES // 2),
        fov_mm=(256.0, 256.0),
        n_slices=DRAWN,
        n_coils=COILS,
        acceleration=ACCELERATION,
        n_acs=ACS,
    )
    rng = np.random.default_rng(0)
    drawn = [full_kspace(protocol, s) for s in range(DRAWN)]
    sigma = 0.004
    noise = lambda n: sigma / np.sqrt(2) * (rng.normal(size=(COILS, n)) + 1j * rng.normal(size=(COILS, n)))  # noqa: E731
    writer = MrdWriter()
    axes = {"read_dir": (1, 0, 0), "phase_dir": (0, 1, 0), "slice_dir": (0, 0, 1), "sample_time_us": 5.0}
    for _ in range(32):
        writer.add(noise(SAMPLES), flags=Flag.NOISE_MEASUREMENT.mask, **axes)
    for s in range(n_slices):
        for ky in np.flatnonzero(sampled_lines(LINES, ACCELERATION, ACS)):
            writer.add(
                (drawn[s % DRAWN][:, ky] + noise(SAMPLES)).astype(np.complex64),
                kspace_encode_step_1=ky,
                slice=s,
                position=(0, 0, 5.0 * s),
                **axes,
            )
    encoding = Encoding(
        matrix=(1, LINES, SAMPLES),
        fov_mm=(5.0, 256.0, 512.0),
        recon_matrix=(1, LINES, SAMPLES // 2),
        recon_fov_mm=(5.0, 256.0, 256.0),
        centre=(0, LINES // 2),
        acceleration=(ACCELERATION, 1),
    )
    limits = {"kspace_encoding_step_1": (0, LINES - 1, LINES // 2), "kspace_encoding_step_2": (0, 0, 0)}
    raw = folder / "scan.h5"
    writer.write(raw, header_xml(ScannerHeader(coils=[f"C{i}" for i in range(COILS)]), encoding, limits))
    archive = folder / "scan.tar"
    pack(archive, [raw])
    raw.unlink()
    return archive


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--slices", type=int, default=46)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--method", default="raki")
    parser.add_argument("--profile", default="routine")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        archive = make_archive(folder, arguments.slices)
        call = [
            sys.executable,
            "-m",
            "mrirecon.cli",
            "run",
            str(archive),
            "--out",
            str(folder / "out"),
            "--json",
            "--method",
            arguments.method,
            "--profile",
            arguments.profile,
            "--device",
            arguments.device,
        ]
        begun = time.perf_counter()
        done = subprocess.run(call, capture_output=True, text=True, check=True)
        wall = time.perf_counter() - begun
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        record = json.loads((Path(json.loads(done.stdout)["out"]) / "scan.json").read_text())
        size = archive.stat().st_size
    full = arguments.slices * COILS * LINES * SAMPLES * 8
    rows = [
        f"# A whole set, archive to images ({time.strftime('%Y-%m-%d')})",
        "",
        f"{COILS} coils, {arguments.slices} slices, {LINES} × {SAMPLES} (readout oversampled twice): "
        f"{full / 1e9:.2f} GB of k-space; {ACCELERATION}-fold accelerated with {ACS} calibration lines: "
        "an archive of "
        f"{size / 1e9:.2f} GB. Method `{arguments.method}`, profile `{arguments.profile}`.",
        "",
        f"{platform.processor() or platform.machine()}, {len(__import__('os').sched_getaffinity(0))} cores, "
        f"device `{record['versions'].get('device', arguments.device)}`, Python {platform.python_version()}, "
        f"torch {version('torch')}, numpy {version('numpy')}, h5py {version('h5py')}.",
        "",
        "| stage | seconds |",
        "|---|---|",
        *(f"| {stage} | {seconds:.1f} |" for stage, seconds in record["seconds"].items()),
        f"| **all, start of the process to its end** | **{wall:.1f}** |",
        "",
        f"CPU seconds {used.ru_utime + used.ru_stime:.0f}; largest process {used.ru_maxrss / 1e6:.2f} GB.",
        "",
    ]
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "whole_set.md").write_text("\n".join(rows))
    print("\n".join(rows))


if __name__ == "__main__":
    main()
