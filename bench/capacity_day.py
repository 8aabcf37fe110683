"""Simulate a hospital's day at several sizes and write the table and the plot of bench/results.

    python -m bench.capacity_day --out bench/results          # 1, 100 and 10,000 scanners; some minutes
    python -m bench.capacity_day --out /tmp/day --small       # 1 and 100 scanners; seconds

Prices are relative and everything about the hospital is assumed: see docs/scaling.md.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from mrirecon.capacity.config import Config, changed
from mrirecon.capacity.plot import plot
from mrirecon.capacity.report import meets, summary, table
from mrirecon.capacity.simulate import Report, Row, simulate

SEEDS = range(1, 11)


def sized(scanners: int, seed: int = 1) -> Config:
    config = Config()
    return replace(config, day=replace(config.day, scanners=scanners, seed=seed))


def machines(stage: str, **values: object) -> Callable[[Config], Config]:
    def change(config: Config) -> Config:
        return changed(config, **{stage: changed(getattr(config, stage), stage, **values)})

    return change


def day(**values: object) -> Callable[[Config], Config]:
    return lambda config: replace(config, day=changed(config.day, "day", **values))


def estimates(factor: float) -> Callable[[Config], Config]:
    def change(config: Config) -> Config:
        for stage in ("decompress", "recon"):
            policy = {"scan_seconds": factor * getattr(config, stage).policy.scan_seconds}
            config = machines(stage, policy=policy)(config)
        return config

    return change


WHAT_IF: dict[str, Callable[[Config], Config]] = {
    "as tuned": lambda config: config,
    "policy estimates half the true time a scan (measured times correct it)": estimates(0.5),
    "policy estimates twice the true time a scan": estimates(2.0),
    "a scan takes 30 s to reconstruct, not 90 (measured)": machines("recon", scan_seconds=30.0),
    "a scan takes 270 s to reconstruct, not 90 (measured)": machines("recon", scan_seconds=270.0),
    "GPU machines take 8 to 12 minutes to boot, policy still says 5": machines(
        "recon", boot_low=480.0, boot_high=720.0
    ),
    "spot takes back 5 % of the GPU machines every hour": machines("recon", reclaims_per_hour=0.05),
    "spot takes back 20 % of the GPU machines every hour": machines("recon", reclaims_per_hour=0.2),
    "every examination is sent all at once": day(burst_share=1.0),
    "times of scans spread widely (coefficient of variation 1.5)": machines("recon", scan_spread=1.5),
    "scaler looks every 5 minutes": lambda config: replace(config, tick_seconds=300.0),
    "scans on their way are not counted (coming_weight 0)": machines("recon", policy={"coming_weight": 0.0}),
    "GPU workers idle 300 s before they leave": machines("recon", idle_seconds=300.0),
    "GPU workers idle 15 s before they leave": machines("recon", idle_seconds=15.0),
    "shorter reconstruct target (450 s)": machines("recon", policy={"target_seconds": 450.0}),
    "shorter decompress target (120 s)": machines("decompress", policy={"target_seconds": 120.0}),
}


def scaler(config: Config) -> Row:
    return simulate(replace(config, policies=("scaler",))).rows[0]


def over_seeds(scanners: int, names: tuple[str, ...]) -> list[str]:
    """Mean and worst over days of the same hospital."""
    lines = [
        "| policy | 95 % routine wait: mean | worst day | of clairvoyant: mean | worst day |",
        "|---|---:|---:|---:|---:|",
    ]
    runs = [simulate(replace(sized(scanners, seed), policies=names)) for seed in SEEDS]
    for name in names:
        waits = [run.row(name).routine.p95 / 60 for run in runs]
        costs = [run.row(name).cost_ratio for run in runs]
        lines.append(
            f"| {name} | {np.mean(waits):.1f} | {max(waits):.1f} | {np.mean(costs):.2f} | {max(costs):.2f} |"
        )
    return lines


def what_if(sizes: list[int]) -> list[str]:
    head = " | ".join(f"{n:,}: 95 % | {n:,}: cost" for n in sizes)
    lines = [f"| what if | {head} |", "|---" + "|---:" * (2 * len(sizes)) + "|"]
    for name, change in WHAT_IF.items():
        cells = []
        for n in sizes:
            rows = [scaler(change(sized(n, seed))) for seed in (range(1, 6) if n <= 100 else (1,))]
            cells.append(f"{np.mean([row.routine.p95 for row in rows]) / 60:.1f}")
            cells.append(f"{np.mean([row.cost_ratio for row in rows]):.2f}")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def verdict(report: Report) -> str:
    ours, theirs = report.row("scaler"), report.row("target-tracking")
    tuned = report.row("tuned-tracking")

    def better(other: Row) -> str:
        waits, costs = ours.routine.p95 < other.routine.p95, ours.cost_ratio < other.cost_ratio
        return (
            "in both"
            if waits and costs
            else "in waiting only"
            if waits
            else "in cost only"
            if costs
            else "in neither"
        )

    kept = "kept" if meets(ours.routine, ours.cost_ratio) else "NOT kept"
    return (
        f"10 minutes and 1.25 are {kept}; better than target tracking at the same target {better(theirs)}, "
        f"than target tracking tuned to the 10 minutes {better(tuned)}."
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for capacity.md and capacity.svg")
    parser.add_argument("--small", action="store_true", help="without the day of 10,000 scanners")
    arguments = parser.parse_args()
    began = time.perf_counter()
    sizes = [1, 100] if arguments.small else [1, 100, 10_000]
    reports = [simulate(sized(n)) for n in sizes]
    lines = [
        "# A hospital's day, simulated",
        "",
        "Written by `python -m bench.capacity_day --out bench/results`. Times in minutes, cost relative to",
        "the clairvoyant lower bound (no scan waits, only busy machine-seconds are paid). What is assumed:",
        "[docs/scaling.md](../../docs/scaling.md).",
        "",
        "![GPU workers, scans waiting, and cost against waiting](capacity.svg)",
    ]
    for report in reports:
        lines += [
            "",
            f"## {report.config.day.scanners:,} scanner{'s' * (report.config.day.scanners > 1)}",
            "",
            summary(report),
            "",
            table(report),
        ]
        if report.config.day.scanners > 1:
            lines += ["", verdict(report)]
    lines += ["", f"## 100 scanners, {len(SEEDS)} days", ""]
    lines += over_seeds(100, ("scaler", "target-tracking", "tuned-tracking", "fixed"))
    lines += ["", "## What if", "", "The scaler alone. 100 scanners: mean of 5 days; 1,000: one day.", ""]
    lines += what_if([100] if arguments.small else [100, 1000])
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "capacity.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    plot(reports[1:], arguments.out / "capacity.svg")
    print(f"{time.perf_counter() - began:.0f} s", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
