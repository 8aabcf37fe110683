"""Names of the environment variables by which infrastructure configures workers and Lambdas.

The infrastructure sets these names, the workers' and Lambdas' typed settings read them; nobody spells
one as a literal elsewhere.  Endpoints of emulators come by boto3's own ``AWS_ENDPOINT_URL[_SERVICE]``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

PREFIX: Final = "MRIRECON_"

# where things lie
RAW_BUCKET: Final = "MRIRECON_RAW_BUCKET"
KSPACE_BUCKET: Final = "MRIRECON_KSPACE_BUCKET"
IMAGES_BUCKET: Final = "MRIRECON_IMAGES_BUCKET"
QUARANTINE_BUCKET: Final = "MRIRECON_QUARANTINE_BUCKET"
LEDGER_TABLE: Final = "MRIRECON_LEDGER_TABLE"
LUSTRE_MOUNT: Final = "MRIRECON_LUSTRE_MOUNT"
"""Folder at which the k-space bucket's ``kspace/`` prefix is imported; empty or unset: read from S3."""
SCRATCH_DIR: Final = "MRIRECON_SCRATCH_DIR"
HEARTBEAT_FILE: Final = "MRIRECON_HEARTBEAT_FILE"
"""Touched while the worker lives; the container's health check looks at its age."""

# the queues: two lanes a stage, and the dead letters of each stage
DECOMPRESS_STAT_QUEUE_URL: Final = "MRIRECON_DECOMPRESS_STAT_QUEUE_URL"
DECOMPRESS_ROUTINE_QUEUE_URL: Final = "MRIRECON_DECOMPRESS_ROUTINE_QUEUE_URL"
DECOMPRESS_DEAD_LETTER_QUEUE_URL: Final = "MRIRECON_DECOMPRESS_DEAD_LETTER_QUEUE_URL"
RECON_STAT_QUEUE_URL: Final = "MRIRECON_RECON_STAT_QUEUE_URL"
RECON_ROUTINE_QUEUE_URL: Final = "MRIRECON_RECON_ROUTINE_QUEUE_URL"
RECON_DEAD_LETTER_QUEUE_URL: Final = "MRIRECON_RECON_DEAD_LETTER_QUEUE_URL"

# a worker's times, in seconds
VISIBILITY_SECONDS: Final = "MRIRECON_VISIBILITY_SECONDS"
"""Visibility set at receive and by every heartbeat; short, so that a lost worker's scan comes back soon."""
SETTLE_SECONDS: Final = "MRIRECON_SETTLE_SECONDS"
"""How long an archive that does not end may still be arriving before it is rejected as truncated."""
DRAIN_SECONDS: Final = "MRIRECON_DRAIN_SECONDS"
"""Time between SIGTERM (or the spot notice) and the end: finish within it or hand the scan back."""
IDLE_SECONDS: Final = "MRIRECON_IDLE_SECONDS"
"""A Batch worker leaves when its queues have been empty this long; 0: never (the Fargate service)."""
LIFETIME_SECONDS: Final = "MRIRECON_LIFETIME_SECONDS"
"""A Batch worker takes no further scan after this long; 0: no limit."""
SCAN_SECONDS: Final = "MRIRECON_SCAN_SECONDS"
"""Total limit of one scan in one stage."""
SILENCE_SECONDS: Final = "MRIRECON_SILENCE_SECONDS"
"""A scan that tells no progress for this long is ended."""
POLL_SECONDS: Final = "MRIRECON_POLL_SECONDS"
"""One look into the routine lane waits this long for a message (SQS: at most 20)."""
RETRY_SECONDS: Final = "MRIRECON_RETRY_SECONDS"
"""Wait before the second try of a scan; it doubles with every further try, up to a quarter of an hour."""
SPOT_NOTICE: Final = "MRIRECON_SPOT_NOTICE"
"""``1`` on spot machines: look for the two-minute notice in the instance's metadata, not only for SIGTERM."""
REQUIRE_GPU: Final = "MRIRECON_REQUIRE_GPU"
"""``1`` on GPU machines: a worker that finds no CUDA device leaves instead of computing on the processor."""
PRICE_PER_HOUR: Final = "MRIRECON_PRICE_PER_HOUR"
"""US dollars an hour of this worker's machine, for the cost of a scan; empty: not known, not shown."""
FAILPOINT: Final = "MRIRECON_FAILPOINT"
"""``<time-point>:<kill|error|hang>[:<n>]``: fault injection for the tests; never set by the stacks."""

# the scaler
ECS_CLUSTER: Final = "MRIRECON_ECS_CLUSTER"
ECS_SERVICE: Final = "MRIRECON_ECS_SERVICE"
BATCH_JOB_QUEUE: Final = "MRIRECON_BATCH_JOB_QUEUE"
BATCH_JOB_DEFINITION: Final = "MRIRECON_BATCH_JOB_DEFINITION"
DECOMPRESS_SCALING: Final = "MRIRECON_DECOMPRESS_SCALING"
RECON_SCALING: Final = "MRIRECON_RECON_SCALING"
"""JSON of :class:`~mrirecon.contract.scaling.Policy`, one a stage."""
SCALER_SPACING_SECONDS: Final = "MRIRECON_SCALER_SPACING_SECONDS"
"""Two looks of the scaler at a stage are at least this far apart (default 20): a beat can come twice."""

# the cache refresh
REFRESH_QUEUE_URL: Final = "MRIRECON_REFRESH_QUEUE_URL"
FILE_SHARE_ARNS: Final = "MRIRECON_FILE_SHARE_ARNS"
"""Comma-separated ARNs of the shares on the images bucket."""
REFRESH_SPACING_SECONDS: Final = "MRIRECON_REFRESH_SPACING_SECONDS"
"""Two refreshes of one share are asked for at least this far apart (default 60, as the gateway wants it)."""
REFRESH_RUNNING_SECONDS: Final = "MRIRECON_REFRESH_RUNNING_SECONDS"
"""A refresh whose end was not told counts as running this long (default 120)."""


class SettingError(RuntimeError):
    """An environment variable is missing or not what it must be. The sentence names it, not its value."""


def required(environ: Mapping[str, str], name: str) -> str:
    """Return the variable ``name``.

    Raises
    ------
    SettingError
        When it is missing or empty.
    """
    value = environ.get(name, "").strip()
    if not value:
        raise SettingError(f"The environment variable {name} is missing: the stacks set it, a test must.")
    return value


def seconds(environ: Mapping[str, str], name: str, default: float) -> float:
    """Return the variable ``name`` as a number of seconds, 0 or more.

    Raises
    ------
    SettingError
        When it is set and no such number.
    """
    text = environ.get(name, "").strip() or str(default)
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise SettingError(f"The environment variable {name} must be a number of seconds, 0 or more.")
    return value
