"""The simulation: it conserves scans and money, knows its bounds, holds the scaler to what is asked of it."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simpy
from hypothesis import given, settings
from hypothesis import strategies as st

from mrirecon.capacity import simulate as simulation
from mrirecon.capacity.arrivals import DAY, Arrivals, arrivals
from mrirecon.capacity.config import Config, ConfigError, Day, Machines, changed
from mrirecon.capacity.controllers import Fixed, Scaler, TargetTracking
from mrirecon.capacity.fleet import Fleet, Scan
from mrirecon.capacity.report import as_json, meets, table
from mrirecon.capacity.simulate import simulate
from mrirecon.contract import scaling


def small(**day: Any) -> Config:
    return replace(Config(), day=Day(**{"scanners": 20, **day}))


def machines(**values: Any) -> Machines:
    told = {"scan_seconds": 100.0, "boot_low": 0.0, "boot_high": 0.0, "policy": scaling.Policy()}
    return Machines(**{**told, **values})


def one_stage(at: list[float], seconds: list[float], workers: int, **values: Any) -> tuple[Fleet, list[Scan]]:
    """Run scans through a fixed number of workers of one stage until all have left."""
    env = simpy.Environment()
    done: list[Scan] = []
    fleet = Fleet(env, 0, machines(**values), random.Random(1), done.append)
    fleet.start(workers)
    day = Arrivals(np.array(at), np.zeros(len(at), bool), np.array([seconds, seconds]))
    simulation._feed(env, day, fleet.arrive)
    env.run()
    return fleet, done


@given(st.lists(st.tuples(st.floats(0, 5000), st.floats(1, 500)), min_size=1, max_size=60), st.integers(1, 8))
@settings(max_examples=60)
def test_waits_are_those_of_a_queue_with_several_servers(
    scans: list[tuple[float, float]], workers: int
) -> None:
    """Kiefer and Wolfowitz: each scan in order of arrival takes the server that is free first."""
    scans.sort()
    fleet, done = one_stage([at for at, _ in scans], [seconds for _, seconds in scans], workers)
    free = [0.0] * workers
    expected = []
    for at, seconds in scans:
        begin = max(at, min(free))
        free[free.index(min(free))] = begin + seconds
        expected.append(begin - at)
    waits = [scan.wait for scan in sorted(done, key=lambda scan: scan.index)]
    assert waits == pytest.approx(expected, abs=1e-6)
    assert fleet.busy_seconds == pytest.approx(sum(seconds for _, seconds in scans))


def test_what_is_paid_is_boot_work_idling_and_stopping() -> None:
    fleet, done = one_stage(
        [0.0, 50.0], [100.0, 30.0], 1, boot_low=60, boot_high=60, stop_seconds=7, idle_seconds=20
    )
    assert [scan.wait for scan in done] == [60.0, 110.0]
    assert fleet.machine_seconds == pytest.approx(60 + 100 + 30 + 20 + 7)


def test_a_worker_that_is_idle_leaves_and_one_that_is_not_stays() -> None:
    fleet, _ = one_stage([0.0, 115.0, 300.0], [100.0, 100.0, 1.0], 2, idle_seconds=20)
    assert fleet.workers == 0
    assert fleet.visible == 1  # the third came when both had left


def test_a_reclaimed_machine_loses_its_work_but_no_scan() -> None:
    env = simpy.Environment()
    done: list[Scan] = []
    fleet = Fleet(env, 0, machines(reclaims_per_hour=0.0), random.Random(3), done.append)
    fleet.start(1)
    env.run(until=1)
    fleet.arrive(Scan(0, False, (100.0, 1.0)))
    (worker,) = [it for it in _workers(fleet) if it.state == "busy"]
    env.run(until=61)
    fleet._reclaim(worker)
    assert fleet.running == 0
    fleet.start(1)
    env.run()
    assert [scan.wait for scan in done] == [60.0]
    assert fleet.busy_seconds == 100.0


def _workers(fleet: Fleet) -> list[Any]:
    import gc

    from mrirecon.capacity.fleet import Worker

    return [it for it in gc.get_objects() if isinstance(it, Worker)]


def test_stat_goes_first() -> None:
    env = simpy.Environment()
    done: list[Scan] = []
    fleet = Fleet(env, 0, machines(), random.Random(1), done.append)
    for index, stat in enumerate([False, False, True]):
        fleet.arrive(Scan(index, stat, (10.0, 0.0)))
    fleet.start(1)
    env.run()
    assert [scan.index for scan in done] == [2, 0, 1]


@pytest.mark.parametrize("policy", ["scaler", "target-tracking", "fixed"])
@pytest.mark.parametrize("reclaims", [0.0, 1.0])
def test_every_scan_is_done_once_and_no_less_is_paid_than_was_worked(policy: str, reclaims: float) -> None:
    config = small()
    config = replace(
        config, policies=("clairvoyant", policy), recon=replace(config.recon, reclaims_per_hour=reclaims)
    )
    report = simulate(config)
    row, bound = report.row(policy), report.row("clairvoyant")
    assert row.unfinished == 0
    assert row.routine.scans + row.stat.scans == report.scans == len(arrivals(config))
    assert row.cost_ratio >= 1
    assert min(row.stage_ratios) >= 1
    assert row.cost_per_scan > bound.cost_per_scan
    assert row.routine.median >= bound.routine.longest == 0
    assert row.routine.median <= row.routine.p95 <= row.routine.p99 <= row.routine.longest


def test_the_same_seed_gives_the_same_day_and_another_another() -> None:
    first, again, other = (simulate(replace(small(seed=seed), policies=("scaler",))) for seed in (1, 1, 2))
    assert replace(first.rows[0], seconds=0) == replace(again.rows[0], seconds=0)
    assert first.rows[0].cost_ratio != other.rows[0].cost_ratio


def test_arrivals_follow_the_day() -> None:
    config = small(scanners=400)
    day = arrivals(config)
    assert len(day) == pytest.approx(400 * 40, rel=0.05)
    assert (np.diff(day.at) >= 0).all()
    assert day.at[0] >= 0
    assert day.at[-1] <= DAY + 2 * config.day.exam_seconds
    assert day.stat.mean() == pytest.approx(0.05, abs=0.02)
    for stage, expected in zip(day.seconds, (config.decompress, config.recon), strict=True):
        assert stage.mean() == pytest.approx(expected.scan_seconds, rel=0.03)
        assert stage.std() / stage.mean() == pytest.approx(expected.scan_spread, rel=0.1)
    hours = np.bincount((day.at // 3600).astype(int), minlength=24)[:24]
    assert np.corrcoef(hours, np.array(config.day.profile))[0, 1] > 0.9


def test_bursts_arrive_together() -> None:
    gaps = {
        share: np.median(np.diff(arrivals(small(scanners=1, scans_per_scanner=400, burst_share=share)).at))
        for share in (0.0, 1.0)
    }
    assert gaps[1.0] < gaps[0.0] / 3


def test_the_simulated_scaler_runs_the_very_function(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[scaling.Observation] = []

    def none(policy: scaling.Policy, observation: scaling.Observation) -> scaling.Decision:
        seen.append(observation)
        return scaling.Decision(0, "")

    monkeypatch.setattr("mrirecon.capacity.controllers.decide", none)
    monkeypatch.setattr(simulation, "DRAIN", 600.0)
    row = simulate(replace(small(), policies=("scaler",))).rows[0]
    assert row.unfinished > 0
    assert row.workers_started == (0, 0)
    assert len(seen) >= 2 * 1440


def test_target_tracking_moves_only_after_its_minutes() -> None:
    env = simpy.Environment()
    policy = scaling.Policy(target_seconds=300, scan_seconds=100, max_workers=50)
    fleet = Fleet(env, 0, machines(scan_seconds=100, policy=policy), random.Random(1), lambda scan: None)
    control = TargetTracking(fleet)
    control.begin()
    env.run(until=1)
    for index in range(31):
        fleet.arrive(Scan(index, False, (1e6, 0.0)))
    workers = []
    for _ in range(4):
        control.tick(0)
        workers.append(fleet.workers)
    assert workers == [1, 1, 10, 10]  # 30 waiting, 3 a worker wanted; out at the third minute


def test_a_fixed_fleet_replaces_what_is_reclaimed() -> None:
    env = simpy.Environment()
    fleet = Fleet(env, 0, machines(reclaims_per_hour=3600.0), random.Random(1), lambda scan: None)
    control = Fixed(fleet, 5)
    control.begin()
    env.run(until=30)
    assert fleet.workers == 0
    control.tick(0)
    assert fleet.workers == 5


def test_scale_in_of_a_service_lets_the_busy_finish() -> None:
    env = simpy.Environment()
    done: list[Scan] = []
    fleet = Fleet(env, 0, machines(), random.Random(1), done.append)
    fleet.start(2)
    env.run(until=1)
    fleet.arrive(Scan(0, False, (100.0, 0.0)))
    fleet.stop(2)
    assert fleet.running == 0
    env.run()
    assert [scan.index for scan in done] == [0]
    assert fleet.workers == 0
    assert Scaler(fleet).policy is fleet.machines.policy


@pytest.mark.parametrize("seed", range(1, 6))
def test_a_hundred_scanners_wait_ten_minutes_at_most_for_a_quarter_more_than_the_bound(seed: int) -> None:
    """What is asked of the scaler, with its default policies, on five days of a hospital."""
    config = replace(Config(), day=Day(scanners=100, seed=seed), policies=("scaler", "target-tracking"))
    report = simulate(config)
    ours, theirs = report.row("scaler"), report.row("target-tracking")
    assert meets(ours.routine, ours.cost_ratio)
    assert ours.routine.p95 < theirs.routine.p95
    assert ours.cost_ratio < theirs.cost_ratio
    assert ours.stat.p95 < ours.routine.p95


def test_target_tracking_tuned_to_the_same_limit_pays_more() -> None:
    report = simulate(replace(Config(), policies=("scaler", "tuned-tracking")))
    ours, theirs = report.row("scaler"), report.row("tuned-tracking")
    assert theirs.routine.p95 <= simulation.LIMIT
    assert ours.cost_ratio < 0.9 * theirs.cost_ratio
    assert theirs in report.tracking


@pytest.mark.slow
def test_ten_thousand_scanners_wait_ten_minutes_at_most_for_a_quarter_more_than_the_bound() -> None:
    config = replace(Config(), day=Day(scanners=10_000), policies=("scaler", "target-tracking"))
    report = simulate(config)
    ours, theirs = report.row("scaler"), report.row("target-tracking")
    assert meets(ours.routine, ours.cost_ratio)
    assert ours.routine.p95 < theirs.routine.p95
    assert ours.cost_ratio < theirs.cost_ratio


def test_one_scanner_pays_for_boots_not_for_nights() -> None:
    """Its machines boot for every patient: the bound is out of reach, a fleet that never sleeps worse."""
    report = simulate(replace(Config(), day=Day(scanners=1), policies=("scaler", "fixed")))
    assert meets(report.row("scaler").routine, 1.0)
    assert report.row("scaler").cost_ratio < report.row("fixed").cost_ratio / 3


def test_the_report_is_a_table_and_json() -> None:
    report = simulate(small())
    lines = table(report).splitlines()
    assert len(lines) == 2 + len(report.rows)
    assert {line.count("|") for line in lines} == {13}
    assert '"policy": "scaler"' in as_json(report)
    empty = simulate(small(stat_share=0.0))
    assert math.isnan(empty.rows[0].stat.p95)
    assert "NaN" not in as_json(empty)


def test_the_picture_is_the_same_bytes_twice(tmp_path: Path) -> None:
    from mrirecon.capacity.plot import plot

    report = simulate(small())
    for name in ("a.svg", "b.svg"):
        plot([report], tmp_path / name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"scanners": 0}, "day.scanners"),
        ({"stat_share": 1.5}, "day.stat_share"),
        ({"profile": (1.0,)}, "day.profile"),
        ({"exam_scans": 0.5}, "day.exam_scans"),
        ({"colour": 1}, "colour"),
    ],
)
def test_a_bad_day_names_its_field(values: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigError, match=field):
        changed(Day(), "day", **values)
