"""``mrirecon run``: archives to images."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from ..contract.codes import End
from ..contract.profiles import FOURIER
from ..local.runner import Outcome, run_archive
from . import screen, usage
from .exits import gravest


def run(arguments: Namespace) -> int:
    """Run every archive; one that ends badly does not stop the others."""
    if (wrong := usage.missing(arguments.archives) or usage.no_device(arguments.device)) is not None:
        return usage.error(wrong)
    ends: list[End] = []
    many = len(arguments.archives)
    for number, archive in enumerate(arguments.archives, 1):
        title = f"Scan {number} of {many}" if many > 1 else "Scan"
        with screen.progress(title) as progress:
            outcome = run_archive(
                archive,
                arguments.out,
                profile_name=arguments.profile,
                method=arguments.method,
                device=arguments.device,
                progress=progress,
            )
        tell(outcome, as_json=arguments.json)
        ends.append(outcome.end)
    return gravest(ends)


def tell(outcome: Outcome, *, as_json: bool, name: str | None = None) -> None:
    """Say how an archive ended: JSON or sentences, the images' folder on stdout; warnings on stderr.

    ``name`` is what the sentences call the scan, the archive's own name where it is not given.
    """
    done = outcome.end is End.DONE
    if not as_json:
        if name is None:
            printable = Path(outcome.archive).name.encode("ascii", "backslashreplace").decode()
            name = "".join(c if c.isprintable() else "?" for c in printable)
        screen.say(f"{outcome.status}: {name}")
        if done:
            method = "" if outcome.method == FOURIER else f", method {outcome.method}"
            screen.say(f"{outcome.seconds:.1f} s{method}. {outcome.reason}", indent="  ")
        else:
            screen.say(f"{outcome.code}: {outcome.message}", indent="  ")
    if done:
        for warning in outcome.warnings:
            screen.say(f"warning: {warning}", indent="  ")
    if as_json:
        print(outcome.dumps(), flush=True)
    elif done:
        print(outcome.out, flush=True)
