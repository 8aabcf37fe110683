"""The reconstruction worker: ``python -m mrirecon.cloud.stages.recon_worker`` (a Batch job of many scans)."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ...contract.profiles import profile
from ...contract.progress import Progress
from ...contract.states import Stage
from ..worker.failpoints import Failpoints
from ..worker.service import World, serve
from ..worker.settings import ReconSettings, SettingsError
from ..worker.supervisor import Job, Supervisor, Work, cuda_context
from .recon_handler import ImagingHandler

NO_GPU = (
    "This worker was started on a GPU machine and finds no CUDA device: look at the machine's driver "
    "(nvidia-smi). It takes no scan."
)


def reconstruct(job: Job, progress: Progress) -> dict[str, Any]:
    """Call the stage function; runs in the scan's own child."""
    from ...recon.stage import reconstruct as stage

    return stage(
        Path(job["kspace"]),
        Path(job["out"]),
        scan_id=job["scan_id"],
        profile=profile(job["profile"], job["method"]),
        progress=progress,
        intake_seconds=job["intake_seconds"],
        intake_warnings=job["intake_warnings"],
        label=job["label"],
    )


def gpu_found() -> bool:
    """Tell whether a process of this worker finds a CUDA device (a child asks, so that torch stays out)."""
    ask = "import sys, torch; sys.exit(not torch.cuda.is_available())"
    return subprocess.run([sys.executable, "-c", ask], check=False, capture_output=True).returncode == 0


def make_handler(
    settings: ReconSettings, world: World, failpoints: Failpoints, work: Work = reconstruct
) -> tuple[ImagingHandler, Callable[[], None]]:
    """Return the stage's handler and what closes it."""
    real = work is reconstruct
    if settings.require_gpu and not gpu_found():
        raise SettingsError([NO_GPU])
    supervisor = Supervisor(
        work,
        silence=settings.silence_seconds,
        total=settings.scan_seconds,
        preload=["numpy", "h5py", "torch"] if real else [],
        warm_up=cuda_context if real else None,
    )
    supervisor.prepare()
    handler = ImagingHandler(
        store=world.store,
        ledger=world.ledger,
        supervisor=supervisor,
        owner=world.owner,
        kspace_bucket=settings.kspace_bucket,
        images_bucket=settings.images_bucket,
        quarantine_bucket=settings.quarantine_bucket,
        scratch=settings.scratch_dir,
        lustre=settings.lustre_mount,
        price_per_hour=settings.price_per_hour,
        retry_base=settings.retry_seconds,
        failpoints=failpoints,
    )
    return handler, supervisor.close


def main(work: Work = reconstruct) -> int:
    """Serve until idle, old or told to stop; return the exit code."""
    return serve(
        Stage.RECON,
        ReconSettings,
        lambda settings, world, failpoints: make_handler(settings, world, failpoints, work),
    )


if __name__ == "__main__":
    sys.exit(main())
