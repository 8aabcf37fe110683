"""One stage of the simulation: two lanes, workers that boot, take scans, idle, leave or are reclaimed.

Built on simpy's clock with bare timeouts and callbacks: a process a worker would cost several times the
events, and a day of 10,000 scanners has over a million of them.
"""

from __future__ import annotations

import functools
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .config import Machines


@dataclass(slots=True)
class Scan:
    """A scan on its way: ``wait`` [s] sums the time nobody works on it, over both stages."""

    index: int
    stat: bool
    seconds: tuple[float, float]
    entered: float = 0.0
    wait: float = 0.0


class Worker:
    """A machine that takes one scan at a time."""

    __slots__ = ("asked_at", "place", "scan", "since", "state", "turn")

    def __init__(self, asked_at: float) -> None:
        self.asked_at = asked_at
        self.state = "starting"
        self.scan: Scan | None = None
        self.since = asked_at
        self.turn = 0
        """Grows with every change of state, so that a timer set before it knows it is out of date."""
        self.place = -1
        """Where it stands in the list of the idle."""


class Fleet:
    """The queue and workers of one stage.

    ``machine_seconds`` is what is paid for, ``busy_seconds`` the part of it spent on scans that were
    finished here. ``done`` is called with every scan that has been worked on.
    """

    def __init__(
        self, env: Any, stage: int, machines: Machines, rng: random.Random, done: Callable[[Scan], None]
    ) -> None:
        self.env, self.stage, self.machines, self.rng, self.done = env, stage, machines, rng, done
        self.lanes: tuple[deque[Scan], deque[Scan]] = (deque(), deque())
        self.idle: list[Worker] = []
        self.starting: list[Worker] = []
        self.busy = 0
        self.leaving = 0
        self.machine_seconds = 0.0
        self.busy_seconds = 0.0
        self.started = 0
        self.peak = 0
        self.recent: deque[float] = deque(maxlen=200)

    # what the scaler sees

    @property
    def visible(self) -> int:
        """Scans that wait."""
        return len(self.lanes[0]) + len(self.lanes[1])

    @property
    def running(self) -> int:
        """Workers that are not told to leave and can take, or have, a scan."""
        return len(self.idle) + self.busy - self.leaving

    @property
    def workers(self) -> int:
        """Workers running or starting."""
        return self.running + len(self.starting)

    def measured(self) -> float | None:
        """Return the mean time of the last scans, as the scaler reads it from the metrics."""
        return sum(self.recent) / len(self.recent) if len(self.recent) >= 20 else None

    # scans

    def arrive(self, scan: Scan) -> None:
        """Put ``scan`` into its lane, or into the hands of any idle worker."""
        scan.entered = self.env.now
        if self.idle:
            # Any of the waiting long polls may get the message.
            worker = self.idle[self.rng.randrange(len(self.idle))]
            self._unidle(worker)
            self.busy += 1
            self._work(worker, scan)
        else:
            self.lanes[not scan.stat].append(scan)

    def _work(self, worker: Worker, scan: Scan) -> None:
        scan.wait += self.env.now - scan.entered
        worker.state, worker.scan, worker.since = "busy", scan, self.env.now
        worker.turn += 1
        turn = worker.turn
        self._after(scan.seconds[self.stage], lambda _: self._finish(worker, turn))

    def _finish(self, worker: Worker, turn: int) -> None:
        if worker.turn != turn or worker.scan is None:
            return
        scan, worker.scan = worker.scan, None
        seconds = scan.seconds[self.stage]
        self.busy_seconds += seconds
        self.recent.append(seconds)
        self._next(worker)
        self.done(scan)

    def _next(self, worker: Worker) -> None:
        if self.leaving:
            self.leaving -= 1
            self.busy -= 1
            self._gone(worker)
        elif self.lanes[0]:
            self._work(worker, self.lanes[0].popleft())
        elif self.lanes[1]:
            self._work(worker, self.lanes[1].popleft())
        else:
            self.busy -= 1
            self._rest(worker)

    # workers

    def start(self, n: int) -> None:
        """Ask for ``n`` more workers."""
        self.started += n
        for _ in range(n):
            worker = Worker(self.env.now)
            self.starting.append(worker)
            boot = self.rng.uniform(self.machines.boot_low, self.machines.boot_high)
            self._after(boot, functools.partial(self._ready, worker))
        self.peak = max(self.peak, self.workers + self.leaving)

    def stop(self, n: int) -> None:
        """Take ``n`` workers away: starting ones, then idle ones, then busy ones as they finish."""
        for _ in range(min(n, len(self.starting))):
            self._gone(self.starting.pop())
            n -= 1
        for _ in range(min(n, len(self.idle))):
            worker = self.idle[self.rng.randrange(len(self.idle))]
            self._unidle(worker)
            self._gone(worker)
            n -= 1
        self.leaving += min(n, self.busy - self.leaving)

    def _ready(self, worker: Worker, _: Any) -> None:
        if worker.state != "starting":
            return
        self.starting.remove(worker)
        if self.machines.reclaims_per_hour:
            self._after(
                self.rng.expovariate(self.machines.reclaims_per_hour / 3600), lambda _: self._reclaim(worker)
            )
        self.busy += 1
        self._next(worker)

    def _rest(self, worker: Worker) -> None:
        worker.state, worker.place = "idle", len(self.idle)
        worker.turn += 1
        self.idle.append(worker)
        if self.machines.idle_seconds:
            turn = worker.turn
            self._after(self.machines.idle_seconds, lambda _: self._leave(worker, turn))

    def _leave(self, worker: Worker, turn: int) -> None:
        if worker.turn == turn and worker.state == "idle":
            self._unidle(worker)
            self._gone(worker)

    def _reclaim(self, worker: Worker) -> None:
        if worker.state == "idle":
            self._unidle(worker)
            self._gone(worker)
        elif worker.state == "busy" and worker.scan is not None:
            scan, worker.scan = worker.scan, None
            scan.wait += self.env.now - worker.since
            worker.turn += 1
            self.busy -= 1
            self.leaving = min(self.leaving, self.busy)
            self._gone(worker)
            if self.idle:
                self.arrive(scan)
            else:
                scan.entered = self.env.now
                self.lanes[not scan.stat].appendleft(scan)

    def _unidle(self, worker: Worker) -> None:
        last = self.idle.pop()
        if last is not worker:
            self.idle[worker.place] = last
            last.place = worker.place
        worker.place = -1

    def _gone(self, worker: Worker) -> None:
        worker.state = "gone"
        worker.turn += 1
        self.machine_seconds += self.env.now - worker.asked_at + self.machines.stop_seconds

    def close(self) -> None:
        """Charge the workers still there, at the end of the day."""
        self.stop(self.workers)

    def _after(self, seconds: float, call: Callable[[Any], None]) -> None:
        self.env.timeout(seconds).callbacks.append(call)
