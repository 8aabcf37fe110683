"""The ways to set the number of workers that are compared. Each looks at a stage once a tick and acts.

* :class:`Scaler` asks the very function the scaler Lambda asks.
* :class:`TargetTracking` is a target-tracking policy on backlog per worker as the cloud runs it: it steps out
  when the metric was above the target for three minutes, in when it was below nine tenths of it for fifteen,
  with a cool-down after each, and keeps at least one worker, because a backlog per no worker is no number.
* :class:`Fixed` never moves.
"""

from __future__ import annotations

import math
from typing import Final, Protocol

from ..contract.scaling import Observation, decide
from .fleet import Fleet

OUT_MINUTES: Final = 3
IN_MINUTES: Final = 15
IN_BELOW: Final = 0.9
TRACKING_COOLDOWN: Final = 300.0


class Controller(Protocol):
    """Looks at a stage every tick and sets its workers."""

    def begin(self) -> None:
        """Act once, before the day."""
        ...

    def tick(self, coming: int) -> None:
        """Look and act; ``coming`` scans are in the stage before."""
        ...


class Scaler:
    """What ``lambda/scaler`` does."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.policy = fleet.machines.policy
        self.last_change: float | None = None

    def begin(self) -> None:
        """Start the least number of workers."""
        self.fleet.start(self.policy.min_workers)

    def tick(self, coming: int) -> None:
        """Observe, decide, act."""
        fleet = self.fleet
        seen = Observation(
            visible=fleet.visible,
            in_flight=fleet.busy,
            running=fleet.running,
            starting=len(fleet.starting),
            coming=coming,
            now=fleet.env.now,
            last_change=self.last_change,
            measured_scan_seconds=fleet.measured(),
        )
        wanted = decide(self.policy, seen).wanted
        if wanted > seen.workers:
            fleet.start(wanted - seen.workers)
        elif wanted < seen.workers and not fleet.machines.idle_seconds:
            fleet.stop(seen.workers - wanted)
        else:
            return
        self.last_change = fleet.env.now


class TargetTracking:
    """Target tracking on visible messages a running worker; ``factor`` scales the target."""

    def __init__(self, fleet: Fleet, factor: float = 1.0) -> None:
        self.fleet = fleet
        policy = fleet.machines.policy
        self.maximum = policy.max_workers
        self.target = factor * policy.target_seconds / policy.scan_seconds
        self.above = 0
        self.below = 0
        self.last_out = self.last_in = -math.inf

    def begin(self) -> None:
        """Start the one worker it always keeps."""
        self.fleet.start(1)

    def tick(self, coming: int) -> None:
        """Count the minutes above and below the target, and follow its alarms."""
        fleet = self.fleet
        running = max(fleet.running, 1)
        metric = fleet.visible / running
        self.above = self.above + 1 if metric > self.target else 0
        self.below = self.below + 1 if metric < IN_BELOW * self.target else 0
        tracked = min(max(math.ceil(running * metric / self.target), 1), self.maximum)
        now = fleet.env.now
        if self.above >= OUT_MINUTES and tracked > fleet.workers:
            if now - self.last_out >= TRACKING_COOLDOWN:
                self.last_out = now
                fleet.start(tracked - fleet.workers)
        elif (
            self.below >= IN_MINUTES
            and tracked < fleet.workers
            and now - max(self.last_in, self.last_out) >= TRACKING_COOLDOWN
        ):
            self.last_in = now
            fleet.stop(fleet.workers - tracked)
        # What was reclaimed is replaced by the service itself.
        fleet.start(max(1 - fleet.workers, 0))


class Fixed:
    """A fixed number of workers, there before the day begins."""

    def __init__(self, fleet: Fleet, workers: int) -> None:
        self.fleet, self.workers = fleet, workers

    def begin(self) -> None:
        """Start them all."""
        self.fleet.start(self.workers)

    def tick(self, coming: int) -> None:
        """Replace what was reclaimed."""
        self.fleet.start(self.workers - self.fleet.workers)
