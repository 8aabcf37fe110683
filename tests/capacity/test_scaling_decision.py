"""The scaling decision, by its properties: monotone, clamped, calm, never zero under work, drains in time."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import asdict, replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from mrirecon.contract.scaling import (
    DECOMPRESS,
    MEASURED_RANGE,
    RECON,
    Decision,
    Observation,
    Policy,
    PolicyError,
    decide,
    service_seconds,
)

TICK = 60.0


@st.composite
def policies(draw: st.DrawFn) -> Policy:
    minimum = draw(st.integers(0, 5))
    boot = draw(st.floats(0, 600))
    return Policy(
        min_workers=minimum,
        max_workers=draw(st.integers(max(1, minimum), 3000)),
        target_seconds=boot + draw(st.floats(1, 1200)),
        scan_seconds=draw(st.floats(1, 600)),
        boot_seconds=boot,
        scale_in_cooldown_seconds=draw(st.floats(0, 900)),
        max_step_out=draw(st.integers(1, 500)),
        max_step_in=draw(st.integers(1, 500)),
        coming_weight=draw(st.floats(0, 1)),
    )


counts = st.integers(0, 20_000)
observations = st.builds(
    Observation,
    visible=counts,
    in_flight=counts,
    delayed=counts,
    running=st.integers(0, 3000),
    starting=st.integers(0, 3000),
    coming=counts,
    now=st.floats(0, 1e6),
    last_change=st.none() | st.floats(0, 1e6),
    oldest_seconds=st.none() | st.floats(0, 1e5),
    measured_scan_seconds=st.none() | st.floats(0.1, 1e4),
)


@given(policies(), observations)
def test_wanted_lies_within_the_clamp(policy: Policy, seen: Observation) -> None:
    wanted = decide(policy, seen).wanted
    assert wanted <= policy.max_workers
    assert wanted >= min(policy.min_workers, seen.workers + policy.max_step_out)


@given(policies(), observations, st.sampled_from(["visible", "in_flight", "delayed", "coming"]), counts)
def test_more_backlog_never_wants_fewer_workers(
    policy: Policy, seen: Observation, count: str, more: int
) -> None:
    fuller = replace(seen, **{count: getattr(seen, count) + more})
    assert decide(policy, fuller).wanted >= decide(policy, seen).wanted


@given(policies(), observations)
def test_never_zero_while_a_scan_waits_or_is_in_flight(policy: Policy, seen: Observation) -> None:
    assume(seen.here > 0)
    assert decide(policy, seen).wanted >= 1


@given(policies(), observations)
def test_zero_when_nothing_waits_once_the_cool_down_is_over(policy: Policy, seen: Observation) -> None:
    policy = replace(policy, min_workers=0, max_step_in=10_000)
    empty = replace(seen, visible=0, in_flight=0, delayed=0, coming=0, last_change=None)
    assert decide(policy, empty).wanted == 0


@given(policies(), observations)
def test_a_step_is_bounded(policy: Policy, seen: Observation) -> None:
    assume(seen.workers <= policy.max_workers)
    wanted = decide(policy, seen).wanted
    assert -policy.max_step_in <= wanted - seen.workers <= policy.max_step_out


few = st.integers(0, 12)


@given(
    policies(),
    st.builds(Observation, visible=few, in_flight=few, delayed=few, running=few, starting=few, coming=few),
)
def test_no_more_workers_are_asked_for_than_there_are_scans(policy: Policy, seen: Observation) -> None:
    policy = replace(policy, min_workers=0, max_workers=3000, max_step_out=3000)
    scans = seen.here + math.ceil(seen.coming * policy.coming_weight)
    assert decide(policy, seen).wanted <= max(scans, seen.workers)


@pytest.mark.parametrize("count", ["visible", "in_flight", "delayed", "coming"])
def test_one_scan_anywhere_wants_one_worker(count: str) -> None:
    seen = Observation(**{"visible": 0, count: 1})
    assert decide(replace(RECON, min_workers=0), seen).wanted == 1


@given(policies(), observations)
def test_scale_in_waits_for_the_cool_down_and_spares_the_busy(policy: Policy, seen: Observation) -> None:
    wanted = decide(policy, seen).wanted
    if wanted < min(seen.workers, policy.max_workers):
        assert seen.last_change is None or seen.now - seen.last_change >= policy.scale_in_cooldown_seconds
        assert wanted >= min(seen.running, seen.in_flight, policy.max_workers)


@given(policies(), observations, st.integers(0, 3000))
def test_asked_again_it_wants_no_more(policy: Policy, seen: Observation, started: int) -> None:
    """Its own answer, starting or already running, is enough for the same queues: nothing is asked twice."""
    policy = replace(policy, max_step_out=10_000)
    wanted = decide(policy, seen).wanted
    more = max(wanted - seen.workers, 0)
    asked = replace(seen, starting=seen.starting + more, last_change=seen.now)
    assert decide(policy, asked).wanted <= max(wanted, asked.workers)
    up = min(started, asked.starting)
    booted = replace(asked, running=asked.running + up, starting=asked.starting - up)
    assert decide(policy, booted).wanted <= max(wanted, booted.workers)


@given(policies(), observations)
def test_the_answer_depends_on_nothing_but_the_question(policy: Policy, seen: Observation) -> None:
    assert decide(policy, seen) == decide(policy, seen)
    blind = replace(seen, oldest_seconds=None)
    assert decide(policy, blind).wanted == decide(policy, seen).wanted


class Fleet:
    """A stage second by second: workers boot, take scans in order, the decision ticks each minute."""

    def __init__(self, policy: Policy, backlog: int) -> None:
        self.policy, self.now, self.last_change = policy, 0.0, None
        self.waiting = [0.0] * backlog
        self.free_at: list[float] = []
        self.starting: list[float] = []
        self.wanted: list[int] = []
        self.waits: list[float] = []

    def arrive(self, n: int) -> None:
        self.waiting += [self.now] * n

    def tick(self) -> None:
        busy = sum(free > self.now for free in self.free_at)
        seen = Observation(
            visible=len(self.waiting),
            in_flight=busy,
            running=len(self.free_at),
            starting=len(self.starting),
            now=self.now,
            last_change=self.last_change,
        )
        decision: Decision = decide(self.policy, seen)
        self.wanted.append(decision.wanted)
        if decision.wanted != seen.workers:
            self.last_change = self.now
        self.starting += [self.now + self.policy.boot_seconds] * (decision.wanted - seen.workers)
        surplus = max(seen.workers - decision.wanted, 0)
        self.free_at = sorted(self.free_at)[surplus:] if surplus else self.free_at

    def step(self, seconds: float = 1.0) -> None:
        self.now += seconds
        ready = [at for at in self.starting if at <= self.now]
        self.starting = [at for at in self.starting if at > self.now]
        self.free_at += ready
        self.free_at.sort()
        while self.waiting and self.free_at and self.free_at[0] <= self.now:
            arrived = self.waiting.pop(0)
            begun = max(self.free_at.pop(0), arrived, self.now - seconds)  # between two steps, not at one
            self.waits.append(begun - arrived)
            self.free_at.append(begun + self.policy.scan_seconds)
            self.free_at.sort()


@given(
    backlog=st.integers(1, 400),
    scan=st.floats(5, 60),
    boot=st.floats(0, 300),
    slack=st.floats(120, 900),
)
def test_a_backlog_is_drained_within_the_target_when_capacity_allows(
    backlog: int, scan: float, boot: float, slack: float
) -> None:
    """All of it is begun within the target; whole scans cannot be shared, hence one scan of grace."""
    policy = Policy(
        max_workers=100_000,
        max_step_out=100_000,
        scan_seconds=scan,
        boot_seconds=boot,
        target_seconds=boot + slack,
        scale_in_cooldown_seconds=1e9,
    )
    fleet = Fleet(policy, backlog)
    fleet.tick()
    while fleet.waiting and fleet.now < 2 * policy.target_seconds + 3 * scan:
        fleet.step()
        if fleet.now % TICK == 0:
            fleet.tick()
    assert not fleet.waiting
    assert fleet.now <= policy.target_seconds + scan + 2


@pytest.mark.parametrize("policy", [DECOMPRESS, RECON], ids=["decompress", "recon"])
@pytest.mark.parametrize("per_hour", [1, 7, 60, 240, 1200])
def test_steady_load_settles_without_flapping(policy: Policy, per_hour: int) -> None:
    """Once settled, scans at a steady beat neither buy nor return a worker more than now and then."""
    policy = replace(policy, max_workers=500)
    fleet = Fleet(policy, 0)
    due = 0.0
    for second in range(6 * 3600):
        while due <= second:
            fleet.arrive(1)
            due += 3600 / per_hour
        fleet.step()
        if second % TICK == 0:
            fleet.tick()
    last_hours = fleet.wanted[3 * 60 :]
    moves = [b - a for a, b in itertools.pairwise(last_hours) if b != a]
    turns = sum(a * b < 0 for a, b in itertools.pairwise(moves))
    load = per_hour * policy.scan_seconds / 3600
    if load < 0.2:  # one scan now and then: a worker comes and goes with it, no oftener than they come
        assert len(moves) <= 2 * 3 * per_hour + 2
    else:
        assert turns <= 3 * 3600 / policy.scale_in_cooldown_seconds / 2
        assert max(last_hours) - min(last_hours) <= max(2, 0.25 * load)
    assert max(fleet.waits[len(fleet.waits) // 2 :]) <= policy.target_seconds + TICK


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"min_workers": -1}, "min_workers"),
        ({"min_workers": 3, "max_workers": 2}, "max_workers"),
        ({"max_workers": 0}, "max_workers"),
        ({"max_workers": 2.5}, "max_workers"),
        ({"max_workers": True}, "max_workers"),
        ({"scan_seconds": 0}, "scan_seconds"),
        ({"scan_seconds": "60"}, "scan_seconds"),
        ({"boot_seconds": -1}, "boot_seconds"),
        ({"target_seconds": 60, "boot_seconds": 60}, "target_seconds"),
        ({"target_seconds": math.inf}, "target_seconds"),
        ({"target_seconds": math.nan}, "target_seconds"),
        ({"scale_in_cooldown_seconds": -1}, "scale_in_cooldown_seconds"),
        ({"max_step_out": 0}, "max_step_out"),
        ({"max_step_in": 0}, "max_step_in"),
        ({"coming_weight": 1.1}, "coming_weight"),
        ({"colour": 1}, "colour"),
    ],
)
def test_a_bad_policy_names_its_field(change: dict[str, object], field: str) -> None:
    with pytest.raises(PolicyError, match=field):
        Policy.from_mapping(change)


@pytest.mark.parametrize("text", ["", "{", "[]", "3"])
def test_text_that_is_no_policy_is_refused(text: str) -> None:
    with pytest.raises(PolicyError, match="JSON"):
        Policy.from_json(text)


@given(policies())
def test_a_policy_survives_its_environment_variable(policy: Policy) -> None:
    assert Policy.from_json(policy.to_json()) == policy
    assert json.loads(policy.to_json()) == asdict(policy)


def test_a_measured_time_is_believed_within_bounds() -> None:
    policy = Policy(scan_seconds=60)
    assert service_seconds(policy, None) == 60
    assert service_seconds(policy, 45) == 45
    assert service_seconds(policy, 0.001) == 60 / MEASURED_RANGE
    assert service_seconds(policy, 1e9) == 60 * MEASURED_RANGE
    for nonsense in (0.0, -3.0, math.nan, math.inf):
        assert service_seconds(policy, nonsense) == 60


def test_the_reason_tells_what_was_seen() -> None:
    seen = Observation(
        visible=12, in_flight=3, delayed=1, running=2, starting=1, oldest_seconds=240, coming=4
    )
    reason = decide(RECON, seen).reason
    for words in (
        "12 waiting",
        "oldest 240 s",
        "3 in flight",
        "1 delayed",
        "4 coming",
        "2 running",
        "1 starting",
    ):
        assert words in reason
