"""Watch scans pass through the cloud, on this machine: a share folder, a live view, images that appear.

``python -m emulator.cloud_demo`` (or ``make cloud-demo``): the real command line deploys the stacks into
an emulated AWS, three scans (and one file that is none) are dropped into the share, and the operator's own
tables show them pass. Drop archives of your own into the folder it names; Ctrl-C ends. ``--once`` ends with
the last of the demo's own.
"""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from emulator.emulated_cloud import EmulatedCloud, ends_on_sigterm
from emulator.runner import Runner
from emulator.share import Share
from infra.outputs import VARIABLES
from mrirecon.cli.operate import queue_table, scan_table
from mrirecon.cloud.operators.operator import Operator, ScanStatus
from mrirecon.contract.keys import INCOMING, RECORD_FILE
from mrirecon.phantom.scanner import Protocol, pack, simulate

SCANS = {
    "stat": [Protocol(matrix=(112, 96), n_slices=2, n_coils=8, acceleration=2, n_acs=24, seed=1)],
    "routine": [
        Protocol(matrix=(112, 96), n_slices=2, n_coils=8, acceleration=3, n_acs=24, seed=2),
        Protocol(matrix=(112, 96), n_slices=3, n_coils=8, acceleration=4, n_acs=24, seed=3),
    ],
}
MINUTES = 10
"""Of ``--once``, until it gives up."""
ENDED = {"done", "rejected", "failed"}


def drop(share: Path, folder: Path) -> int:
    """Leave the demo's archives on the share, and one file that is no archive; return how many."""
    count = 0
    for lane, protocols in SCANS.items():
        for protocol in protocols:
            raw, archive = folder / f"scan{count}.h5", folder / f"scan{count}.tar"
            simulate(raw, protocol)
            pack(archive, [raw])
            archive.rename(share / INCOMING / "main" / lane / archive.name)
            count += 1
    (share / INCOMING / "main" / "routine" / "notes.tar").write_bytes(b"PK\x03\x04" + bytes(2000))
    return count + 1


def workers(cloud: EmulatedCloud, runner: Runner) -> Text:
    """Return a line that says which workers run."""
    return Text(
        f"workers: {len(runner.service)} decompress (ECS), {len(runner.batch)} reconstruct (Batch); "
        f"refreshes of the share: {len(cloud.refreshes)}",
        style="dim",
    )


def records(share: Share) -> dict[Path, int]:
    """Return when each record on the share was written."""
    return {record: record.stat().st_mtime_ns for record in sorted(share.images.rglob(RECORD_FILE))}


def show(
    cloud: EmulatedCloud,
    runner: Runner,
    operator: Operator,
    share: Share,
    *,
    expected: int,
    once: bool,
    before: dict[Path, int],
) -> list[ScanStatus]:
    """Show the tables until all the demo's scans have ended (``once``) or Ctrl-C.

    Images that an earlier demo left on the share (``before``) are not told again.
    """
    told, started = dict(before), time.monotonic()
    with Live(console=Console(width=None if sys.stdout.isatty() else 120), auto_refresh=False) as live:
        while True:
            rows = operator.status(limit=20)
            live.update(
                Group(queue_table(operator.queues()), scan_table(rows), workers(cloud, runner)), refresh=True
            )
            for record, written in records(share).items():
                if told.get(record) != written:
                    live.console.print(f"images: {record.parent / 'report.html'}", soft_wrap=True)
                    told[record] = written
            ended = [
                row for row in rows if row.state in ENDED and (row.stage == "recon" or row.state != "done")
            ]
            done = sum(row.state == "done" for row in ended)
            fresh = sum(before.get(record) != written for record, written in told.items())
            if once and len(ended) >= expected and fresh >= done:
                return ended
            if share.faults or runner.faults:
                raise RuntimeError(
                    f"the demo's share or workers failed: {[*share.faults, *runner.faults][0]}"
                )
            if once and time.monotonic() - started > MINUTES * 60:
                raise RuntimeError(f"{len(ended)} of {expected} scans have ended within {MINUTES} minutes")
            time.sleep(1)


def watch(folder: Path, place: Path, once: bool) -> bool:
    """Deploy, drop the demo's archives on the share, show them pass; return whether all ended as meant."""
    with EmulatedCloud(folder, lambda text: print(text, flush=True)) as cloud:
        cloud.deploy()
        runner = cloud.work()
        os.environ.update(cloud.environment)
        values = {variable: cloud.outputs[out] for variable, out in VARIABLES.items() if out in cloud.outputs}
        buckets = cloud.outputs["RawBucket"], cloud.outputs["ImagesBucket"]
        with Share(place, cloud.client("s3"), *buckets) as share:
            before = records(share)
            expected = drop(place, folder)
            print(f"Drop archives into {place / INCOMING / 'main' / 'routine'}; Ctrl-C ends.", flush=True)
            ended = show(cloud, runner, Operator(values), share, expected=expected, once=once, before=before)
    return sum(row.state == "done" for row in ended) == expected - 1


def main(arguments: list[str] | None = None) -> int:
    """Run the demo; return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--share", type=Path, default=Path("results/share"), help="the share folder")
    parser.add_argument("--once", action="store_true", help="end when the demo's scans have ended")
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="mrirecon-cloud-") as name:
        print("Starting the emulated cloud and deploying the stacks: a few minutes.", flush=True)
        try:
            good = watch(Path(name), given.share, given.once)
        except KeyboardInterrupt:
            print("Stopped; the images stay on the share.")
            return 0
        except RuntimeError as error:
            print(f"FAILED: {error}", file=sys.stderr)
            return 1
    print(
        "\nAll scans ended as they must; everything is stopped." if good else "\nFAILED: see the table above."
    )
    return 0 if good else 1


if __name__ == "__main__":
    ends_on_sigterm()
    sys.exit(main())
