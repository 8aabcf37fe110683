"""A report as text: a Markdown table for people, JSON for programs."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

from .simulate import Report, Row, Waits

NAMES = {
    "clairvoyant": "clairvoyant (lower bound)",
    "scaler": "scaler (`contract/scaling.py`)",
    "target-tracking": "target tracking, same target",
    "tuned-tracking": "target tracking, tuned to 10 min",
    "fixed": "fixed capacity",
}
HEADER = (
    "policy",
    "routine wait: median",
    "95 %",
    "99 %",
    "stat wait: 95 %",
    "relative cost a scan",
    "of clairvoyant",
    "decompress alone",
    "reconstruct alone",
    "most workers",
    "started",
    "unfinished",
)


def table(report: Report) -> str:
    """Return the rows as a Markdown table; times in minutes."""
    lines = ["| " + " | ".join(HEADER) + " |", "|---" + "|---:" * (len(HEADER) - 1) + "|"]
    lines += ["| " + " | ".join(_cells(row)) + " |" for row in report.rows]
    return "\n".join(lines)


def _cells(row: Row) -> list[str]:
    bound = row.policy == "clairvoyant"
    return [
        NAMES[row.policy],
        *(_minutes(it) for it in (row.routine.median, row.routine.p95, row.routine.p99, row.stat.p95)),
        f"{row.cost_per_scan:.0f}",
        f"{row.cost_ratio:.2f}",
        *(f"{ratio:.2f}" for ratio in row.stage_ratios),
        " + ".join(str(it) for it in row.peak_workers),
        "–" if bound else " + ".join(str(it) for it in row.workers_started),
        str(row.unfinished),
    ]


def _minutes(seconds: float) -> str:
    return "–" if math.isnan(seconds) else f"{seconds / 60:.1f}"


def summary(report: Report) -> str:
    """Return one line of what the day was."""
    config = report.config
    day = config.day
    return (
        f"Scanners {day.scanners:,}, scans {report.scans:,}, busiest hour {int(report.per_hour.max())}; "
        f"decompress {config.decompress.scan_seconds:g} s, "
        f"reconstruct {config.recon.scan_seconds:g} s a scan; "
        f"price of a machine-second {config.decompress.price:g} and {config.recon.price:g}; seed {day.seed}."
    )


def as_json(report: Report) -> str:
    """Return the report without its traces as JSON; what is not a number is ``null``."""
    rows = [_plain(dataclasses.asdict(row)) for row in report.rows]
    told = {
        "config": _plain(dataclasses.asdict(report.config)),
        "scans": report.scans,
        "scans_per_hour": report.per_hour.tolist(),
        "policies": rows,
    }
    return json.dumps(told, indent=2, allow_nan=False)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(it) for name, it in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(it) for it in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def meets(waits: Waits, ratio: float, *, minutes: float = 10.0, cost: float = 1.25) -> bool:
    """Whether a lane's 95th percentile and a cost ratio keep the limits that are asked of the scaler."""
    return waits.p95 <= 60 * minutes and ratio <= cost
