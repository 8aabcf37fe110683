"""The environment variables of the workers, by the contract's names."""

from __future__ import annotations

from mrirecon.contract import environment as env
from mrirecon.contract import keys

from .config_parts import WorkerTimes
from .resources import DataResources

SCRATCH = "/scratch"
LUSTRE = "/fsx"
"""Where a container sees the file system; k-space lies below it, in the folder of the contract's prefix."""
USER_ID = "10001"
"""The unprivileged user of both containers."""


def queue_urls(data: DataResources) -> dict[str, str]:
    """Return the queues of both stages."""
    return {
        env.DECOMPRESS_STAT_QUEUE_URL: data.decompress.stat.queue_url,
        env.DECOMPRESS_ROUTINE_QUEUE_URL: data.decompress.routine.queue_url,
        env.DECOMPRESS_DEAD_LETTER_QUEUE_URL: data.decompress.dead_letters.queue_url,
        env.RECON_STAT_QUEUE_URL: data.recon.stat.queue_url,
        env.RECON_ROUTINE_QUEUE_URL: data.recon.routine.queue_url,
        env.RECON_DEAD_LETTER_QUEUE_URL: data.recon.dead_letters.queue_url,
    }


def worker_environment(
    data: DataResources, times: WorkerTimes, *, region: str, lustre: bool, price: float | None, spot: bool
) -> dict[str, str]:
    """Return the environment of a worker of either stage."""
    return {
        "AWS_DEFAULT_REGION": region,
        env.RAW_BUCKET: data.raw.bucket_name,
        env.KSPACE_BUCKET: data.kspace.bucket_name,
        env.IMAGES_BUCKET: data.images.bucket_name,
        env.QUARANTINE_BUCKET: data.quarantine.bucket_name,
        env.LEDGER_TABLE: data.ledger.table_name,
        env.LUSTRE_MOUNT: f"{LUSTRE}/{keys.KSPACE.rstrip('/')}" if lustre else "",
        env.SCRATCH_DIR: SCRATCH,
        env.HEARTBEAT_FILE: f"{SCRATCH}/heartbeat",
        env.VISIBILITY_SECONDS: str(times.visibility_seconds),
        env.SETTLE_SECONDS: str(times.settle_seconds),
        env.DRAIN_SECONDS: str(times.drain_seconds),
        env.IDLE_SECONDS: str(times.idle_seconds),
        env.LIFETIME_SECONDS: str(times.lifetime_seconds),
        env.SCAN_SECONDS: str(times.scan_seconds),
        env.SILENCE_SECONDS: str(times.silence_seconds),
        env.PRICE_PER_HOUR: "" if price is None else str(price),
        env.SPOT_NOTICE: "1" if spot else "0",
        **queue_urls(data),
    }
