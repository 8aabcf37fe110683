"""Metrics in CloudWatch's embedded format: one JSON line on stdout, read by the log driver, no API call."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping

from ...contract import metrics as names

_UNITS = {
    names.STAGE_SECONDS: "Seconds",
    names.WAIT_SECONDS: "Seconds",
    names.JOURNEY_SECONDS: "Seconds",
    names.BYTES: "Bytes",
    names.COST: "None",
}


def emit(dimensions: Mapping[str, str], values: Mapping[str, float | None]) -> None:
    """Write metrics with ``dimensions`` (never anything of a scanner or patient); ``None`` is left out."""
    known = {name: value for name, value in values.items() if value is not None}
    if not known:
        return
    line = {
        "_aws": {
            "Timestamp": int(time.time() * 1000),
            "CloudWatchMetrics": [
                {
                    "Namespace": names.NAMESPACE,
                    "Dimensions": [list(dimensions)],
                    "Metrics": [{"Name": name, "Unit": _UNITS.get(name, "Count")} for name in known],
                }
            ],
        },
        **dimensions,
        **known,
    }
    sys.stdout.write(json.dumps(line, separators=(",", ":")) + "\n")
    sys.stdout.flush()
