"""``mrirecon canary``: a small scan, made here and unlike any before, goes through the deployed pipeline."""

from __future__ import annotations

import secrets
import tempfile
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from ..contract.keys import Priority
from .operate import guarded, send

if TYPE_CHECKING:
    from ..cloud.operators.operator import Operator


def register(parser: ArgumentParser) -> None:
    """Add the arguments of ``mrirecon canary``."""
    parser.add_argument("--site", required=True, help="a site that sends to S3")
    parser.add_argument(
        "--timeout", type=float, default=2700.0, metavar="S", help="fail after this long (2700)"
    )
    parser.set_defaults(command=guarded(_canary))


def make(archive: Path) -> None:
    """Write a small accelerated scan to ``archive``; its noise is new each time, so no stage has seen it."""
    from ..phantom.scanner import Protocol, pack, simulate

    protocol = Protocol(
        matrix=(96, 96),
        fov_mm=(240.0, 240.0),
        n_slices=1,
        n_coils=6,
        acceleration=2,
        n_acs=24,
        seed=secrets.randbits(32),
    )
    raw = archive.with_suffix(".h5")
    simulate(raw, protocol)
    pack(archive, [raw])
    raw.unlink()


def _canary(operator: Operator, arguments: Namespace) -> int:
    with tempfile.TemporaryDirectory(prefix="mrirecon-") as folder:
        archive = Path(folder) / "canary.tar"
        make(archive)
        return send(operator, archive, site=arguments.site, priority=Priority.STAT, timeout=arguments.timeout)
