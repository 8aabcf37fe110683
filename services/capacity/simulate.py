"""Discrete-event simulation of a day of scans through both stages, for each way to scale them.

The scaler row runs :func:`mrirecon.contract.scaling.decide`, the function the Lambda runs. The clairvoyant
row is a lower bound and no machine: every machine is known ahead and there at the very second it is wanted,
so that no scan waits and only the time spent on scans is paid for. No policy can wait less or pay less.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import simpy
from numpy.typing import NDArray

from .arrivals import DAY, Arrivals, arrivals
from .config import Config, ConfigError
from .controllers import Controller, Fixed, Scaler, TargetTracking
from .fleet import Fleet, Scan

DRAIN = 12 * 3600.0
"""How long after the day the last scans may take before the run is ended and said to be unfinished."""
TRACKING_FACTORS = (1.0, 0.8, 0.65, 0.5, 0.4, 0.3, 0.2, 0.1)
"""Of the target, tried by ``tuned-tracking``."""
LIMIT = 600.0
"""95th percentile of waiting [s] that ``tuned-tracking`` is tuned to keep."""
FIXED_USE = 0.85
"""A fixed fleet is sized so that it is used this much in the day's busiest hour."""


@dataclass(frozen=True)
class Waits:
    """Waiting time [s] of one lane: time in which nobody works on the scan, over both stages."""

    scans: int
    median: float
    p95: float
    p99: float
    longest: float


@dataclass(frozen=True)
class Row:
    """What one policy did with the day.

    ``cost_per_scan`` is in relative units; ``cost_ratio`` against the clairvoyant, ``stage_ratios`` the same
    of each stage alone (independent of prices); ``unfinished`` the scans still under way at the end.
    """

    policy: str
    routine: Waits
    stat: Waits
    cost_per_scan: float
    cost_ratio: float
    stage_ratios: tuple[float, float]
    peak_workers: tuple[int, int]
    workers_started: tuple[int, int]
    unfinished: int
    seconds: float


@dataclass(frozen=True)
class Trace:
    """Minute by minute: scans waiting and workers (running or starting) of each stage, (minute, stage)."""

    minutes: NDArray[np.float64]
    waiting: NDArray[np.int64]
    workers: NDArray[np.int64]


@dataclass(frozen=True)
class Report:
    """The day, the rows in the order asked for, and a trace of each simulated policy."""

    config: Config
    scans: int
    per_hour: NDArray[np.int64]
    rows: tuple[Row, ...]
    traces: dict[str, Trace] = field(default_factory=dict)
    tracking: tuple[Row, ...] = ()
    """Target tracking at every target that ``tuned-tracking`` tried."""
    load: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 2)))
    """Workers of each stage kept busy by what arrived in a minute, (minute, stage)."""

    def row(self, policy: str) -> Row:
        """Return the row of ``policy``."""
        return next(row for row in self.rows if row.policy == policy)


def simulate(config: Config) -> Report:
    """Simulate a day.

    Raises
    ------
    ConfigError
        When the configuration asks for a policy that is not known.
    """
    known = Config().policies
    for name in config.policies:
        if name not in known:
            raise ConfigError(f"policies: {name!r} is not known; known are {', '.join(known)}.")
    day = arrivals(config)
    rows: list[Row] = []
    traces: dict[str, Trace] = {}
    tracking: tuple[Row, ...] = ()
    for name in config.policies:
        if name == "clairvoyant":
            rows.append(_clairvoyant(config, day))
        elif name == "tuned-tracking":
            tried = [_run(config, day, name, factor) for factor in TRACKING_FACTORS]
            row, traces[name] = min(tried, key=lambda run: _rank(run[0]))
            tracking = tuple(run[0] for run in tried)
            rows.append(row)
        else:
            row, traces[name] = _run(config, day, name)
            rows.append(row)
    per_hour = np.histogram(day.at % DAY, bins=24, range=(0.0, DAY))[0]
    minute = (day.at // 60).astype(np.int64)
    load = np.stack([np.bincount(minute, weights=seconds) / 60 for seconds in day.seconds], axis=1)
    return Report(config, len(day), per_hour, tuple(rows), traces, tracking, load)


def fixed_workers(day: Arrivals, stage: int) -> int:
    """Return the workers of a stage that are used :data:`FIXED_USE` in its busiest hour."""
    hours = np.bincount((day.at // 3600).astype(np.int64), weights=day.seconds[stage])
    return max(1, math.ceil(float(hours.max()) / 3600 / FIXED_USE))


def _rank(row: Row) -> tuple[bool, float]:
    """Order the tries of ``tuned-tracking``: the cheapest that keeps :data:`LIMIT`, else the fastest."""
    kept = row.routine.p95 <= LIMIT and not row.unfinished
    return not kept, row.cost_ratio if kept else row.routine.p95


def _clairvoyant(config: Config, day: Arrivals) -> Row:
    busy = day.seconds.sum(axis=1)
    cost = float(busy[0] * config.decompress.price + busy[1] * config.recon.price)
    zero = np.zeros(len(day))
    return Row(
        "clairvoyant",
        _waits(zero[~day.stat]),
        _waits(zero[day.stat]),
        cost / len(day),
        1.0,
        (1.0, 1.0),
        (_most_at_once(day.at, day.seconds[0]), _most_at_once(day.at + day.seconds[0], day.seconds[1])),
        (0, 0),
        0,
        0.0,
    )


def _most_at_once(begin: NDArray[np.float64], seconds: NDArray[np.float64]) -> int:
    times = np.concatenate([begin, begin + seconds])
    steps = np.concatenate([np.ones(len(begin)), -np.ones(len(begin))])
    return int(np.cumsum(steps[np.argsort(times, kind="stable")]).max())


def _run(config: Config, day: Arrivals, policy: str, factor: float = 1.0) -> tuple[Row, Trace]:
    began = time.perf_counter()
    env = simpy.Environment()
    rng = random.Random(config.day.seed + 7919)
    finished: list[Scan] = []
    recon = Fleet(env, 1, config.recon, rng, finished.append)
    decompress = Fleet(env, 0, config.decompress, rng, recon.arrive)
    fleets = (decompress, recon)
    controllers = [_controller(policy, fleet, day, factor) for fleet in fleets]
    for controller in controllers:
        controller.begin()

    _feed(env, day, decompress.arrive)
    n = len(day)
    end = float(day.at[-1])
    samples: list[tuple[float, int, int, int, int]] = []
    # The scaler's beat is not in step with the day.
    tick = rng.uniform(0, config.tick_seconds)
    while True:
        env.run(until=tick)
        controllers[0].tick(0)
        controllers[1].tick(decompress.visible + decompress.busy)
        samples.append((env.now, decompress.visible, recon.visible, decompress.workers, recon.workers))
        tick += config.tick_seconds
        late = env.now > end + DRAIN
        done = env.now >= max(DAY, end) and len(finished) == n
        # The scaler's own workers must have left, or their idling at night would be forgotten.
        left = policy != "scaler" or decompress.workers + recon.workers <= _least(config)
        if late or (done and left):
            break
    for fleet in fleets:
        fleet.close()

    cost = sum(fleet.machine_seconds * fleet.machines.price for fleet in fleets)
    ideal = float(day.seconds[0].sum() * config.decompress.price + day.seconds[1].sum() * config.recon.price)
    ratios = [fleet.machine_seconds / float(day.seconds[fleet.stage].sum()) for fleet in fleets]
    waits = np.array([scan.wait for scan in finished])
    stat = np.array([scan.stat for scan in finished], dtype=bool)
    row = Row(
        policy,
        _waits(waits[~stat]),
        _waits(waits[stat]),
        cost / n,
        cost / ideal,
        (ratios[0], ratios[1]),
        (decompress.peak, recon.peak),
        (decompress.started, recon.started),
        n - len(finished),
        time.perf_counter() - began,
    )
    table = np.array(samples)
    trace = Trace(table[:, 0] / 60, table[:, 1:3].astype(np.int64), table[:, 3:5].astype(np.int64))
    return row, trace


def _controller(policy: str, fleet: Fleet, day: Arrivals, factor: float) -> Controller:
    if policy == "scaler":
        return Scaler(fleet)
    # A fixed or tracked fleet is a service whose workers do not leave by themselves.
    fleet.machines = replace(fleet.machines, idle_seconds=0.0)
    if policy in {"target-tracking", "tuned-tracking"}:
        return TargetTracking(fleet, factor)
    return Fixed(fleet, fixed_workers(day, fleet.stage))


def _least(config: Config) -> int:
    return config.decompress.policy.min_workers + config.recon.policy.min_workers


def _feed(env: Any, day: Arrivals, arrive: Callable[[Scan], None]) -> None:
    """Let the scans arrive: one pending event at a time, so that the clock's heap stays small."""
    at = day.at.tolist()
    stat = day.stat.tolist()
    seconds = list(zip(*day.seconds.tolist(), strict=True))

    def hand_in(index: int) -> None:
        arrive(Scan(index, stat[index], seconds[index]))
        if index + 1 < len(at):
            wait(index + 1)

    def wait(index: int) -> None:
        env.timeout(at[index] - env.now).callbacks.append(lambda _: hand_in(index))

    wait(0)


def _waits(seconds: NDArray[np.float64]) -> Waits:
    if not len(seconds):
        return Waits(0, math.nan, math.nan, math.nan, math.nan)
    median, p95, p99 = (float(it) for it in np.percentile(seconds, [50, 95, 99]))
    return Waits(len(seconds), median, p95, p99, float(seconds.max()))
