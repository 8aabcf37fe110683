"""The day as a picture: GPU workers against what they had to do, and cost against waiting."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .simulate import Report

_COLOURS = {
    "scaler": "#0b6e4f",
    "target-tracking": "#c1440e",
    "tuned-tracking": "#e0a458",
    "fixed": "#7a7a7a",
}
_LABELS = {
    "scaler": "scaler",
    "target-tracking": "target tracking",
    "tuned-tracking": "target tracking, tuned",
    "fixed": "fixed",
}
SMOOTH_MINUTES = 15
EVERY = 3
"""Minutes between two points of a line: nobody sees more."""


def plot(reports: Sequence[Report], path: Path) -> None:
    """Draw the reports side by side and write ``path`` (SVG or PNG, by its suffix).

    The same reports give the same SVG bytes.
    """
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot as plt

    settings: dict[Any, Any] = {
        "svg.hashsalt": "mrirecon",
        "svg.fonttype": "none",
        "font.size": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
    }
    with mpl.rc_context(settings):
        figure, axes = plt.subplots(
            3, len(reports), figsize=(5.2 * len(reports), 9), squeeze=False, layout="constrained"
        )
        for column, report in enumerate(reports):
            _workers(axes[0][column], report)
            _waiting(axes[1][column], report)
            _frontier(axes[2][column], report)
        axes[0][0].legend(loc="upper left", frameon=False, fontsize=8, ncols=2)
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None, dpi=120)
        plt.close(figure)


def _workers(axis: Any, report: Report) -> None:
    load = report.load[:, 1]
    smooth = np.convolve(load, np.ones(SMOOTH_MINUTES) / SMOOTH_MINUTES, mode="same")
    axis.fill_between(
        np.arange(len(load))[::EVERY] / 60,
        smooth[::EVERY],
        color="#d9e4dd",
        label=f"work arriving ({SMOOTH_MINUTES} min mean)",
    )
    for name in ("fixed", "target-tracking", "scaler"):
        if name in report.traces:
            trace = report.traces[name]
            axis.plot(
                trace.minutes[::EVERY] / 60,
                trace.workers[::EVERY, 1],
                color=_COLOURS[name],
                lw=1,
                label=_LABELS[name],
            )
    axis.set_title(f"{report.config.day.scanners:,} scanners, {report.scans:,} scans")
    axis.set_ylabel("GPU workers")
    _hours(axis)
    axis.set_ylim(top=1.2 * axis.get_ylim()[1])  # room for the legend


def _waiting(axis: Any, report: Report) -> None:
    for name in ("target-tracking", "scaler"):
        if name in report.traces:
            trace = report.traces[name]
            axis.plot(
                trace.minutes[::EVERY] / 60, trace.waiting[::EVERY].sum(axis=1), color=_COLOURS[name], lw=1
            )
    axis.set_ylabel("scans waiting, both stages")
    _hours(axis)


def _hours(axis: Any) -> None:
    axis.set_xlim(0, 24)
    axis.set_xticks(range(0, 25, 4))
    axis.set_xlabel("hour of the day")
    axis.set_ylim(bottom=0)


def _frontier(axis: Any, report: Report) -> None:
    axis.fill_between([-1, 10], 0, 1.25, color="#e4eee8", zorder=0, lw=0)
    axis.axvline(10, color="#999999", lw=0.8, ls=":")
    axis.axhline(1.25, color="#999999", lw=0.8, ls=":")
    if report.tracking:
        axis.plot(
            [row.routine.p95 / 60 for row in report.tracking],
            [row.cost_ratio for row in report.tracking],
            "o-",
            color=_COLOURS["target-tracking"],
            ms=4,
            lw=0.8,
        )
    for row in report.rows:
        if row.policy in ("scaler", "fixed"):
            axis.plot(row.routine.p95 / 60, row.cost_ratio, "s", color=_COLOURS[row.policy], ms=7)
    axis.plot(0, 1, "*", color="black", ms=10)
    axis.annotate("clairvoyant", (0, 1), xytext=(6, -2), textcoords="offset points", fontsize=8)
    axis.set_xlabel("routine wait, 95th percentile [min]")
    axis.set_ylabel("cost, of clairvoyant")
    axis.set_xlim(-0.5, 20)
    most = max((row.cost_ratio for row in report.rows if np.isfinite(row.cost_ratio)), default=2.0)
    axis.set_ylim(0.9, min(4.0, max(2.0, 1.08 * most)))
