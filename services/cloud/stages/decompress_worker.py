"""The decompress worker: ``python -m mrirecon.cloud.stages.decompress_worker`` (a Fargate task)."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ...contract.progress import Progress
from ...contract.states import Stage
from ..worker.failpoints import Failpoints
from ..worker.service import World, serve
from ..worker.settings import DecompressSettings
from ..worker.supervisor import Job, Supervisor, Work
from .decompress_handler import IntakeHandler


def decompress(job: Job, progress: Progress) -> dict[str, Any]:
    """Call the stage function; runs in the scan's own child."""
    from ...decompress.limits import Limits
    from ...decompress.stage import decompress as stage

    intake = stage(
        Path(job["archive"]),
        Path(job["kspace"]),
        limits=Limits.from_env(),
        progress=progress,
        work_dir=Path(job["work_dir"]),
    )
    return asdict(intake)


def make_handler(
    settings: DecompressSettings, world: World, failpoints: Failpoints, work: Work = decompress
) -> tuple[IntakeHandler, Callable[[], None]]:
    """Return the stage's handler and what closes it."""
    supervisor = Supervisor(
        work,
        silence=settings.silence_seconds,
        total=settings.scan_seconds,
        preload=["numpy", "h5py"] if work is decompress else [],
    )
    supervisor.prepare()
    handler = IntakeHandler(
        store=world.store,
        ledger=world.ledger,
        recon_lanes=dict(world.recon_lanes),
        supervisor=supervisor,
        owner=world.owner,
        kspace_bucket=settings.kspace_bucket,
        quarantine_bucket=settings.quarantine_bucket,
        scratch=settings.scratch_dir,
        settle_seconds=settings.settle_seconds,
        price_per_hour=settings.price_per_hour,
        retry_base=settings.retry_seconds,
        failpoints=failpoints,
    )
    return handler, supervisor.close


def main(work: Work = decompress) -> int:
    """Serve until told to stop; return the exit code."""
    return serve(
        Stage.DECOMPRESS,
        DecompressSettings,
        lambda settings, world, failpoints: make_handler(settings, world, failpoints, work),
    )


if __name__ == "__main__":
    sys.exit(main())
