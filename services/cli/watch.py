"""``mrirecon watch``: a folder served on one machine, with no cloud."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from functools import partial
from pathlib import Path

from ..contract.codes import End, MrireconError
from ..contract.profiles import DEFAULT_PROFILE, PROFILES
from ..local.runner import Outcome, run_archive
from . import usage
from .exits import Exit
from .run import tell


def register(parser: ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("share", type=Path, metavar="SHARE", help="the folder a scanner drops archives into")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where the images go")
    parser.add_argument(
        "--profile",
        choices=sorted(PROFILES),
        help=f"named settings (default: what the archive asks for, else {DEFAULT_PROFILE})",
    )
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"], help="where to compute")
    parser.add_argument(
        "--settle",
        type=float,
        default=10.0,
        metavar="S",
        help="seconds for which a file must not have changed (10)",
    )
    parser.add_argument("--once", action="store_true", help="leave when nothing is left to do")
    parser.add_argument("--json", action="store_true", help="print one JSON object an archive")
    parser.set_defaults(command=command)


def command(arguments: Namespace) -> int:
    """Serve the share until interrupted."""
    import time

    from ..local.watch import Watch

    if not arguments.share.is_dir():
        print(
            "mrirecon watch: the share is no folder; give the folder archives are dropped into.",
            file=sys.stderr,
        )
        return Exit.USAGE
    if (wrong := usage.no_device(arguments.device)) is not None:
        return usage.error(wrong)
    work = partial(run_archive, profile_name=arguments.profile, device=arguments.device)
    try:
        served = Watch(arguments.share, arguments.out, work, settle=arguments.settle)
    except MrireconError as error:
        print(f"mrirecon watch: {error.message}", file=sys.stderr)
        return Exit.FAILED if error.end is End.FAILED else Exit.USAGE
    print("Watching. Drop archives into the share; Ctrl-C ends.", file=sys.stderr, flush=True)
    quiet_since = time.monotonic()

    def done() -> bool:
        return bool(arguments.once) and time.monotonic() - quiet_since > 2 * arguments.settle + 1

    for outcome in served.serve(every=min(2.0, arguments.settle / 2 or 0.1), stop=done):
        assert isinstance(outcome, Outcome)
        # Never the archive's own name: a log is kept, and the name may be a patient's.
        tell(outcome, as_json=arguments.json, name=scan_name(outcome))
        quiet_since = time.monotonic()
    return Exit.OK


def scan_name(outcome: Outcome) -> str:
    """Return what a log calls a scan: its label and id, the id alone, or the digest of the file's path."""
    known = [word for word in (outcome.label, outcome.scan_id) if word]
    return ", ".join(known) or f"file {outcome.archive}"
