"""The scaling decision: how many workers a stage wants, from what its queues and workers show.

Pure and of the standard library alone, so that the scaler Lambda, the simulation of a hospital's day and
the property tests run the very same function. The rule is *backlog per worker*: every scan that waits or
is being worked on is ``scan_seconds`` of work, and the workers wanted are those that finish it within
``target_seconds``. A worker that must still start has ``boot_seconds`` less for its share, so missing work
asks for more of them than the same work would of workers that already run.

What else shapes the decision, in this order: no more workers than scans; never fewer than are busy; a
step at most ``max_step_out`` up or ``max_step_in`` down; down only after a cool-down that every change,
up or down, starts anew; between ``min_workers`` and ``max_workers``; never zero while anything waits, is in
flight or comes from the stage before. ``docs/scaling.md`` tells how the numbers were found.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Final, Self

MEASURED_RANGE: Final = 4.0
"""A measured time a scan is believed up to this factor above and below the policy's estimate."""


class PolicyError(ValueError):
    """A scaling policy is not one. The sentence names the field and what it may be."""


@dataclass(frozen=True, kw_only=True)
class Policy:
    """How one stage is scaled. Times in seconds.

    Attributes
    ----------
    min_workers, max_workers
        The clamp. ``max_workers`` is also the ceiling of what a bad day can cost.
    target_seconds
        Time within which everything that now waits shall have been worked on, starting workers included.
    scan_seconds
        Estimate of one scan's time on one worker, used until a measured one is known.
    boot_seconds
        From asking for a worker to its first scan.
    scale_in_cooldown_seconds
        Quiet time after any change before workers are given back.
    max_step_out, max_step_in
        Most workers added or given back by one decision.
    coming_weight
        Share (0 to 1) of the scans still in the stage before that is counted as work here: a worker that
        boots slowly must be asked for before its scans arrive.
    """

    min_workers: int = 0
    max_workers: int = 10
    target_seconds: float = 300.0
    scan_seconds: float = 60.0
    boot_seconds: float = 90.0
    scale_in_cooldown_seconds: float = 300.0
    max_step_out: int = 100
    max_step_in: int = 100
    coming_weight: float = 0.0

    def __post_init__(self) -> None:
        for field in fields(self):
            _check_type(field.name, str(field.type), getattr(self, field.name))
        _require(self.min_workers >= 0, "min_workers", "0 or more", self.min_workers)
        _require(
            self.max_workers >= max(1, self.min_workers),
            "max_workers",
            "at least 1 and not below min_workers",
            self.max_workers,
        )
        _require(self.scan_seconds > 0, "scan_seconds", "above 0", self.scan_seconds)
        _require(self.boot_seconds >= 0, "boot_seconds", "0 or more", self.boot_seconds)
        _require(
            self.target_seconds > self.boot_seconds,
            "target_seconds",
            "above boot_seconds, or no new worker could meet it",
            self.target_seconds,
        )
        cooldown = self.scale_in_cooldown_seconds
        _require(cooldown >= 0, "scale_in_cooldown_seconds", "0 or more", cooldown)
        _require(self.max_step_out >= 1, "max_step_out", "1 or more", self.max_step_out)
        _require(self.max_step_in >= 1, "max_step_in", "1 or more", self.max_step_in)
        _require(0 <= self.coming_weight <= 1, "coming_weight", "between 0 and 1", self.coming_weight)

    def to_json(self) -> str:
        """Return the policy as the value of its environment variable."""
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> Self:
        """Read a policy from a mapping; what is missing has its default.

        Raises
        ------
        PolicyError
            When a field is unknown, of another type or out of its range.
        """
        known = [field.name for field in fields(cls)]
        unknown = sorted(set(values) - set(known))
        if unknown:
            raise PolicyError(
                f"scaling policy: {unknown[0]!r} is no field of it; known are {', '.join(known)}."
            )
        return cls(**values)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read a policy from JSON text; raises :class:`PolicyError` like :meth:`from_mapping`."""
        try:
            values = json.loads(text)
        except ValueError:
            raise PolicyError("scaling policy: expected a JSON object, got text that is not JSON.") from None
        if not isinstance(values, dict):
            raise PolicyError(f"scaling policy: expected a JSON object, got a {type(values).__name__}.")
        return cls.from_mapping(values)


@dataclass(frozen=True, kw_only=True)
class Observation:
    """What a stage's queues (both lanes summed) and workers show at one moment. Times in seconds.

    Attributes
    ----------
    visible, in_flight, delayed
        Messages that wait, are held by a worker (or back off), are not to be seen yet.
    running, starting
        Workers that can take scans, and those asked for that cannot yet.
    coming
        Scans in the stage before, which will want a worker of this one.
    now, last_change
        Clock of the decision and of the last change of the number wanted; ``None``: never changed.
    oldest_seconds
        Age of the oldest message, for the reader of the reason; ``None``: not known.
    measured_scan_seconds
        Mean time a scan took lately; ``None``: not known.
    """

    visible: int
    in_flight: int = 0
    delayed: int = 0
    running: int = 0
    starting: int = 0
    coming: int = 0
    now: float = 0.0
    last_change: float | None = None
    oldest_seconds: float | None = None
    measured_scan_seconds: float | None = None

    @property
    def here(self) -> int:
        """Scans that wait or are worked on in this stage."""
        return self.visible + self.in_flight + self.delayed

    @property
    def workers(self) -> int:
        """Workers there are, those still starting included."""
        return self.running + self.starting


@dataclass(frozen=True)
class Decision:
    """The number of workers wanted (starting ones included) and the sentence that explains it."""

    wanted: int
    reason: str


def decide(policy: Policy, seen: Observation) -> Decision:
    """Decide how many workers a stage wants.

    The decision depends on nothing but its arguments, is monotone in every count of scans, and asked again
    of the same observation with its own answer as ``starting`` or ``running`` never asks for more.
    """
    scan_seconds = service_seconds(policy, seen.measured_scan_seconds)
    coming = seen.coming * policy.coming_weight
    work = (seen.here + coming) * scan_seconds
    scans = seen.here + math.ceil(coming)
    target = policy.target_seconds

    needed = math.ceil(work / target)
    if needed > seen.running:
        needed = seen.running + math.ceil(
            (work - seen.running * target) / max(target - policy.boot_seconds, 1.0)
        )
    needed = min(needed, scans)
    busy = min(seen.running, seen.in_flight)
    needed = max(needed, busy, 1 if scans else 0)
    needed = min(max(needed, policy.min_workers), policy.max_workers)

    why = _backlog(seen, scan_seconds, target)
    if needed > seen.workers:
        wanted = min(needed, seen.workers + policy.max_step_out)
        step = "" if wanted == needed else f" {needed} are needed, {policy.max_step_out} a step is the most."
        return Decision(wanted, f"{why} Out from {seen.workers} to {wanted}.{step}")
    if needed == seen.workers:
        return Decision(needed, f"{why} Stay at {needed}.")
    return _scale_in(policy, seen, needed, why)


def service_seconds(policy: Policy, measured: float | None) -> float:
    """Return the time a scan takes: the measured one, held near the policy's estimate, or the estimate.

    Held, because a flood of scans that fail at once must not talk the scaler into thinking that scans
    take no time, nor one hung scan into buying a fleet.
    """
    if measured is None or not math.isfinite(measured) or measured <= 0:
        return policy.scan_seconds
    low, high = policy.scan_seconds / MEASURED_RANGE, policy.scan_seconds * MEASURED_RANGE
    return min(max(measured, low), high)


def _scale_in(policy: Policy, seen: Observation, needed: int, why: str) -> Decision:
    cooldown = policy.scale_in_cooldown_seconds
    if seen.last_change is not None and seen.now - seen.last_change < cooldown:
        held = min(seen.workers, policy.max_workers)
        left = cooldown - (seen.now - seen.last_change)
        return Decision(held, f"{why} {needed} would do; stay at {held}, cool-down {left:.0f} s more.")
    wanted = min(max(needed, seen.workers - policy.max_step_in), policy.max_workers)
    return Decision(wanted, f"{why} In from {seen.workers} to {wanted}.")


def _backlog(seen: Observation, scan_seconds: float, target: float) -> str:
    oldest = "" if seen.oldest_seconds is None else f", oldest {seen.oldest_seconds:.0f} s"
    coming = f", {seen.coming} coming" if seen.coming else ""
    return (
        f"{seen.visible} waiting{oldest}, {seen.in_flight} in flight, {seen.delayed} delayed{coming}; "
        f"{scan_seconds:.0f} s a scan against {target:.0f} s; "
        f"{seen.running} running, {seen.starting} starting."
    )


def _check_type(name: str, annotation: str, value: object) -> None:
    checks: dict[str, tuple[Callable[[object], bool], str]] = {
        "int": (lambda it: isinstance(it, int) and not isinstance(it, bool), "a whole number"),
        "float": (
            lambda it: isinstance(it, int | float) and not isinstance(it, bool) and math.isfinite(it),
            "a finite number",
        ),
    }
    fits, words = checks[annotation]
    _require(fits(value), name, words, value)


def _require(holds: bool, name: str, expected: str, got: object) -> None:
    if not holds:
        raise PolicyError(f"scaling policy: {name} must be {expected}, got {got!r}.")


DECOMPRESS: Final = Policy(
    max_workers=20,
    target_seconds=240.0,
    scan_seconds=30.0,
    boot_seconds=90.0,
    scale_in_cooldown_seconds=180.0,
)
"""Default of the decompress stage (Fargate tasks)."""

RECON: Final = Policy(
    max_workers=20,
    target_seconds=645.0,
    scan_seconds=90.0,
    boot_seconds=300.0,
    scale_in_cooldown_seconds=300.0,
    coming_weight=1.0,
)
"""Default of the reconstruct stage (Batch jobs on GPU machines)."""

RECON_IDLE_SECONDS: Final = 45.0
"""How long a reconstruct worker waits for another scan before it leaves; belongs to :data:`RECON`."""
