"""Intake of a 1 GB, 32-coil scan: read and sort beside the ismrmrd library's loop, and the whole way to
k-space.

    python -m bench.intake [--out bench/results] [--slices 30] [--work DIR]

Makes the archive, measures each way in a process of its own (so that the peak memory is its own), and writes
``intake.md``: seconds, MB/s, peak memory, the versions and the machine.

A virtual machine gets memory from its host at the first touch, page by page, which can take longer than
reading the scan does; what was freed goes back to the host after a second or two.  To compare the ways and
not the order in which they run, as much memory as either needs is touched just before each; one more run,
and the whole intake, go without.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tarfile
import tempfile
import time
from functools import partial
from importlib.metadata import version
from pathlib import Path

import h5py
import numpy as np

from mrirecon.phantom.mrd import HEAD, Encoding, Flag, ScannerHeader, header_xml

COILS, LINES, SAMPLES = 32, 256, 512
NOISE = 16


def generate(path: Path, slices: int) -> None:
    """Write a fully sampled scan of noise-like samples, a few hundred readouts at a time."""
    rng = np.random.default_rng(1)
    ragged = h5py.vlen_dtype(np.float32)
    kind = np.dtype([("head", HEAD), ("traj", ragged), ("data", ragged)])
    count = slices * LINES + NOISE
    encoding = Encoding(
        matrix=(1, LINES, SAMPLES),
        fov_mm=(4.0, 256.0, 512.0),
        recon_matrix=(1, LINES, SAMPLES // 2),
        recon_fov_mm=(4.0, 256.0, 256.0),
        centre=(0, LINES // 2),
    )
    limits = {"kspace_encoding_step_1": (0, LINES - 1, LINES // 2)}
    xml = header_xml(ScannerHeader(coils=[f"c{i}" for i in range(COILS)]), encoding, limits)
    with h5py.File(path, "w") as file:
        data = file.create_dataset("dataset/data", (count,), kind, maxshape=(None,), chunks=(64,))
        file.create_dataset("dataset/xml", data=[xml.encode()], dtype=h5py.string_dtype())
        for start in range(0, count, 256):
            stop = min(start + 256, count)
            rows = np.empty(stop - start, kind)
            head = np.zeros(stop - start, HEAD)
            number = np.arange(start, stop) - NOISE
            head["flags"] = np.where(number < 0, Flag.NOISE_MEASUREMENT.mask, 0)
            line, place = np.divmod(np.maximum(number, 0), slices)  # slices interleaved in time
            head["idx"]["kspace_encode_step_1"], head["idx"]["slice"] = line, place
            head["number_of_samples"], head["center_sample"] = SAMPLES, SAMPLES // 2
            head["active_channels"] = head["available_channels"] = COILS
            head["sample_time_us"], head["measurement_uid"], head["version"] = 5.0, 1, 1
            head["read_dir"], head["phase_dir"], head["slice_dir"] = np.eye(3)
            head["position"][:, 2] = 5.0 * place
            rows["head"] = head
            samples = rng.standard_normal((stop - start, 2 * COILS * SAMPLES), np.float32)
            for index in range(stop - start):
                rows["traj"][index], rows["data"][index] = np.zeros(0, np.float32), samples[index]
            data[start:stop] = rows


def touch(size: int) -> tuple[float, float]:
    """Touch so much memory twice, in a child that then ends; return the processor seconds of each time."""
    reading, writing = os.pipe()
    if not os.fork():
        spent = [cpu()]
        for _ in range(2):
            np.empty(size, np.uint8)[::4096] = 1
            spent.append(cpu())
        os.write(writing, json.dumps(np.diff(spent).tolist()).encode())
        os._exit(0)
    os.wait()
    first, second = json.loads(os.read(reading, 1000))
    return first, second


def ours(path: Path, touched: bool = True) -> None:
    """Read and sort with this project: to one array (slice, ky, coil, kx), centre of kx as sampled."""
    from mrirecon.contract.progress import silent
    from mrirecon.decompress.archive.members import Member, RawKind
    from mrirecon.decompress.limits import Limits
    from mrirecon.decompress.preparation.notes import Notes
    from mrirecon.decompress.preparation.sorter import sort
    from mrirecon.decompress.readers import mrd

    if touched:
        touch(path.stat().st_size * 5 // 4)
    began, spent = time.perf_counter(), cpu()
    member = Member(0, path.stat().st_size, RawKind.MRD, lambda: path.open("rb"), path)
    (part,) = mrd.read(member, Limits(), silent)
    block = sort(part, Notes()).block
    seconds, spent = time.perf_counter() - began, cpu() - spent
    # in order: line i is readout rows[i], without a copy
    order = part.table["row"][block.rows]
    store = part.stores[int(part.table["store"][block.rows[0]])]
    check = float(np.abs(store[order[:: len(order) // 16]]).sum())
    report(seconds, spent, len(block.rows), check)


def library(path: Path) -> None:
    """Read and sort with the ismrmrd library, readout by readout, as its examples do."""
    import ismrmrd

    touch(path.stat().st_size * 5 // 4)
    began, spent = time.perf_counter(), cpu()
    dataset = ismrmrd.Dataset(str(path), "dataset", mode="r")
    header = ismrmrd.xsd.CreateFromDocument(dataset.read_xml_header())
    n_y = header.encoding[0].encodedSpace.matrixSize.y
    count = dataset.number_of_acquisitions()
    slices = (count - NOISE) // n_y
    kspace = np.zeros((slices, n_y, COILS, SAMPLES), np.complex64)
    placed = 0
    for number in range(count):
        acquisition = dataset.read_acquisition(number)
        if acquisition.is_flag_set(ismrmrd.ACQ_IS_NOISE_MEASUREMENT):
            continue
        kspace[acquisition.idx.slice, acquisition.idx.kspace_encode_step_1] = acquisition.data
        placed += 1
    seconds, spent = time.perf_counter() - began, cpu() - spent
    flat = kspace.reshape(-1, COILS, SAMPLES)
    report(seconds, spent, placed, float(np.abs(flat[:: flat.shape[0] // 16]).sum()))


def intake(path: Path) -> None:
    """Archive to k-space file, as the service does it: child, digests, whitening, cropping, file."""
    from mrirecon.decompress.stage import decompress

    target = path.with_name("kspace.h5")
    target.unlink(missing_ok=True)
    began = time.perf_counter()
    found = decompress(path, target)
    seconds = time.perf_counter() - began
    print(
        json.dumps(
            {
                "cpu": cpu(),
                "seconds": seconds,
                "peak": found.peak_memory_bytes,
                "steps": found.seconds,
                "written": target.stat().st_size,
            }
        )
    )
    target.unlink()


def cpu() -> float:
    """Return the processor seconds of this process and of the children it has waited for."""
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in usage)


def report(seconds: float, spent: float, readouts: int, check: float) -> None:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"seconds": seconds, "readouts": readouts, "peak": peak, "check": check, "cpu": spent}))


def measure(what: str, path: Path) -> dict[str, object]:
    done = subprocess.run(
        [sys.executable, __file__, "--one", what, str(path)], check=True, capture_output=True, text=True
    )
    found: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    print(f"{what}: {found}", file=sys.stderr)
    return found


def table(
    raw: int,
    size: int,
    results: dict[str, dict[str, object]],
    slices: int,
    runs: int,
    touched: tuple[float, float],
) -> str:
    def row(name: str, result: dict[str, object]) -> str:
        seconds, peak, spent = (float(str(result[key])) for key in ("seconds", "peak", "cpu"))
        rate, memory = size / seconds / 1e6, f"{peak / 1e6:.0f} | {peak / raw:.2f}"
        return f"| {name} | {seconds:.2f} | {rate:.0f} | {spent:.1f} | {memory} |"

    ratio, ratio_cpu = (
        float(str(results["library"][key])) / float(str(results["ours"][key])) for key in ("seconds", "cpu")
    )
    in_fresh = float(str(results["library"]["cpu"])) / float(str(results["fresh"]["cpu"]))
    fresh, used = (seconds * 1e9 / size for seconds in touched)
    steps = ", ".join(f"{k} {v}" for k, v in dict(results["intake"]["steps"]).items())  # type: ignore[call-overload]
    names = ("h5py", "numpy", "scipy", "ismrmrd")
    versions = ", ".join(f"{n} {version(n)}" for n in names) + f", HDF5 {h5py.version.hdf5_version}"
    return "\n".join(
        [
            f"# Intake of {slices} slices, {COILS} coils, {LINES} lines of {SAMPLES} samples "
            f"({size / 1e6:.0f} MB)",
            "",
            "| way | seconds | MB/s | CPU seconds | peak memory MB | times the raw array |",
            "|---|---:|---:|---:|---:|---:|",
            row("`ismrmrd.Dataset.read_acquisition` loop, read and sort", results["library"]),
            row("this project, read and sort (all checks)", results["ours"]),
            row("the same, in memory fresh from the host", results["fresh"]),
            row("this project, whole intake: tar to k-space file (memory as it comes)", results["intake"]),
            "",
            f"Read and sort is {ratio:.1f} times the speed of the loop, {ratio_cpu:.1f} times by CPU "
            f"({in_fresh:.1f} when only it gets fresh memory). "
            "Steps of the whole intake [s]: "
            f"{steps}.",
            "",
            f"First two rows: of {runs} runs in turn the one with the least CPU; the others: one run. Page "
            "cache warm.",
            f"Touching 1 GB of memory takes {fresh:.2f} CPU seconds here when it is fresh from the host of",
            f"the virtual machine, {used:.2f} when not,",
            "whoever does it: before the runs of the first two rows it was touched.",
            "",
            f"Python {platform.python_version()}, {versions};",
            f"{len(os.sched_getaffinity(0))} cores, load average {os.getloadavg()[0]:.1f} when written, "
            f"run at priority (nice) {os.nice(0)}.",
            "",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("results"))
    parser.add_argument("--slices", type=int, default=30)
    parser.add_argument("--work", type=Path, default=None)
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--runs", type=int, default=3)
    arguments = parser.parse_args()
    if arguments.one:
        what, path = arguments.one[0], Path(arguments.one[1])
        {"ours": ours, "fresh": partial(ours, touched=False), "library": library, "intake": intake}[what](
            path
        )
        return
    with tempfile.TemporaryDirectory(dir=arguments.work) as folder:
        raw, archive = Path(folder) / "meas.h5", Path(folder) / "scan.tar"
        print("making the archive", file=sys.stderr)
        generate(raw, arguments.slices)
        with tarfile.open(archive, "w") as tar:
            tar.add(raw, "meas.h5")
        size = raw.stat().st_size
        time.sleep(10)  # what was freed until now goes back to the host
        touched = touch(size)
        runs = [{what: measure(what, raw) for what in ("ours", "library")} for _ in range(arguments.runs)]
        if len({run[what]["check"] for run in runs for what in run}) != 1:
            raise SystemExit("the two ways do not read the same samples")
        results = {what: min((run[what] for run in runs), key=lambda run: run["cpu"]) for what in runs[0]}
        time.sleep(10)
        results["fresh"] = measure("fresh", raw)
        raw.unlink()
        results["intake"] = measure("intake", archive)
    array = arguments.slices * LINES * COILS * SAMPLES * 8
    text = table(array, size, results, arguments.slices, arguments.runs, touched)
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "intake.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
