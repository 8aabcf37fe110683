"""Names of the metrics (CloudWatch embedded format), shared by workers, Lambdas, dashboard and alarms.

Dimensions are only ``Stage`` (``decompress``, ``recon``) and, for :data:`ENDS`, ``Status`` and ``Code``:
nothing a scanner or a patient could name.
"""

from __future__ import annotations

from typing import Final

NAMESPACE: Final = "Mrirecon"
STAGE: Final = "Stage"
STATUS: Final = "Status"
CODE: Final = "Code"

# workers, one value a scan
SCANS: Final = "Scans"
ENDS: Final = "Ends"
STAGE_SECONDS: Final = "StageSeconds"
WAIT_SECONDS: Final = "WaitSeconds"
JOURNEY_SECONDS: Final = "JourneySeconds"
"""From the announcement of the archive to its published images."""
BYTES: Final = "Bytes"
COST: Final = "CostUSD"
DUPLICATES: Final = "Duplicates"
"""Deliveries or messages that found their work done."""
RETRIES: Final = "Retries"
"""Scans given back to be tried again."""
HANDED_BACK: Final = "HandedBack"
"""Scans given back because the machine was told to stop."""
POISON: Final = "PoisonMessages"
"""Messages of no known form, on their way to the dead letters."""

# the scaler, one value a minute and stage
VISIBLE: Final = "Visible"
IN_FLIGHT: Final = "InFlight"
DELAYED: Final = "Delayed"
OLDEST_SECONDS: Final = "OldestSeconds"
WORKERS_RUNNING: Final = "WorkersRunning"
WORKERS_STARTING: Final = "WorkersStarting"
WORKERS_WANTED: Final = "WorkersWanted"
DEAD_LETTERS: Final = "DeadLetters"
SCALER_ERRORS: Final = "ScalerErrors"

# the cache refresh
REFRESHED_FOLDERS: Final = "RefreshedFolders"
REFRESH_DEFERRED: Final = "RefreshDeferred"
