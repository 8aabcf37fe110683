"""One loop for both stages: take a message, hold it while the stage works on it, let it go.

A message is deleted only when its scan has ended or lies safely in the next queue; whatever else happens,
it comes back by its visibility.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from uuid import uuid4

from ...aws.ports import Ledger, Message, Queue, Row
from ...aws.queue import backoff
from ...contract import metrics as names
from ...contract.codes import MrireconError
from ...contract.messages import NotAMessageError
from ...contract.states import Stage
from . import logs, metrics
from .hold import Drain, HandBack, Hold, LostClaim, Wait, touch
from .protection import TaskProtection

_DEAD_LETTER_SECONDS = 60.0


class StageHandler(Protocol):
    """What a stage does with a message; returning means that the message is done with."""

    @property
    def stage(self) -> Stage:
        """Return which stage this is."""
        ...

    def handle(self, hold: Hold) -> None:
        """Do it. Raises ``Wait``, ``HandBack``, ``LostClaim`` or what went wrong unforeseen."""
        ...


@dataclass(frozen=True, kw_only=True)
class Times:
    """The loop's times, in seconds; see the environment names of the contract."""

    visibility: float = 120
    total: float = 4 * 3600
    idle: float = 0
    lifetime: float = 0
    poll: float = 10
    retry_base: float = 5


def owner_name() -> str:
    """Return a name for this worker process that no other has."""
    return f"{socket.gethostname()[:32]}-{os.getpid()}-{uuid4().hex[:6]}"


class Worker:
    """Takes scans, ``stat`` before ``routine``, until told to stop, idle for long, or old.

    Parameters
    ----------
    lanes
        In order of precedence.
    record_dead
        Called now and then when there is nothing to do: records the scans of dead letters as failed.
    """

    def __init__(
        self,
        handler: StageHandler,
        lanes: Sequence[Queue],
        ledger: Ledger,
        *,
        drain: Drain,
        times: Times,
        protection: TaskProtection | None = None,
        heartbeat_file: Path | None = None,
        record_dead: Callable[[], Iterable[Row]] | None = None,
    ) -> None:
        self._handler = handler
        self._lanes = list(lanes)
        self._ledger = ledger
        self._drain = drain
        self._times = times
        self._protection = protection or TaskProtection()
        self._file = heartbeat_file
        self._record_dead = record_dead
        self._dead_at = -_DEAD_LETTER_SECONDS
        self._turn = 0

    def run(self) -> int:
        """Work until there is a reason to leave; return the exit code."""
        begun = idle_since = time.monotonic()
        reason = "told to stop"
        while not self._drain.requested:
            touch(self._file)
            if self.step():
                idle_since = time.monotonic()
            elif self._times.poll < 1:
                time.sleep(0.2)  # no long poll: do not spin
            now = time.monotonic()
            if self._times.lifetime and now - begun > self._times.lifetime:
                reason = "lifetime over"
                break
            if self._times.idle and now - idle_since > self._times.idle:
                reason = "queues empty"
                break
        logs.get().info("worker leaves", reason=reason)
        return 0

    def step(self) -> bool:
        """Take one message and work on it; return whether there was one."""
        try:
            taken = self._receive()
        except MrireconError as error:
            logs.get().error("no message could be received", **logs.describe(error))
            time.sleep(min(5.0, 0.2 + self._times.poll))
            return False
        if taken is None:
            self._tend_dead_letters()
            return False
        lane, message = taken
        logs.bind(attempt=message.receives, lane=lane.name)
        try:
            self._work(lane, message)
        finally:
            logs.unbind("attempt", "lane", "scan_id", "label")
        return True

    def _receive(self) -> tuple[Queue, Message] | None:
        # A look costs milliseconds, so an empty ``stat`` lane does not slow a busy ``routine`` one. SQS
        # answers a look from some of its servers only: a stat scan may be overlooked once, and is found by
        # one of the next looks, after the scan at hand.
        for lane in self._lanes:
            if message := lane.receive(0):
                return lane, message
        if self._times.poll < 1:
            return None
        # Nothing to do: wait, which asks all servers, at each lane in turn. What comes meanwhile on the other
        # waits no longer than that.
        self._turn = (self._turn + 1) % len(self._lanes)
        lane = self._lanes[self._turn]
        message = lane.receive(max(1.0, self._times.poll / len(self._lanes)))
        return (lane, message) if message else None

    def _work(self, lane: Queue, message: Message) -> None:
        def beat() -> None:
            touch(self._file)
            self._protection.protect(2 * self._times.visibility)

        hold = Hold(
            message,
            lane,
            self._ledger,
            self._drain,
            lease=self._times.visibility,
            total=self._times.total,
            beat=beat,
        )
        self._protection.protect(2 * self._times.visibility)
        then: Callable[[], object] | None = None
        try:
            with hold:
                then = self._handled(hold)
        finally:
            self._protection.release()
        try:
            then()
        except MrireconError as error:
            # The message comes back when its visibility is over, and finds what was recorded.
            logs.get().error("message neither deleted nor given back", **logs.describe(error))

    def _handled(self, hold: Hold) -> Callable[[], object]:
        """Let the stage work; return what is then to be done with the message."""
        lane, message = hold.lane, hold.message
        try:
            self._handler.handle(hold)
        except Wait as wait:
            seconds = wait.seconds
            if not wait.counts and hold.last_try:
                return lambda: self._pass_on(lane, message, seconds)
            return lambda: lane.extend(message, seconds)
        except HandBack:
            return lambda: lane.extend(message, 0)
        except LostClaim:
            logs.get().warning("another worker holds this scan now; it is left to that one")
            return lambda: None
        except NotAMessageError:
            logs.get().error("a message of no known form; it goes to the dead letters")
            metrics.emit({names.STAGE: self._handler.stage.value}, {names.POISON: 1})
            return lambda: lane.extend(message, backoff(message.receives, self._times.retry_base, most=60))
        except Exception as error:
            logs.get().error("the scan could not even be recorded", **logs.describe(error))
            return lambda: lane.extend(message, backoff(message.receives, self._times.retry_base))
        return lambda: lane.delete(message)

    def _pass_on(self, lane: Queue, message: Message, seconds: float) -> None:
        # Another worker is busy with this scan, and one receive more would make a dead letter of a scan that
        # goes well. A fresh copy keeps its promise to look again.
        lane.send(message.body, group=message.group or "passed-on", delay=seconds)
        lane.delete(message)

    def _tend_dead_letters(self) -> None:
        now = time.monotonic()
        if self._record_dead is None or now - self._dead_at < _DEAD_LETTER_SECONDS:
            return
        self._dead_at = now
        with contextlib.suppress(MrireconError):
            for row in self._record_dead():
                logs.get().error("scan failed: found among the dead letters", scan_id=row.get("scan_id"))


def stop_on_signals(drain: Drain) -> None:
    """Let SIGTERM and SIGINT begin the drain."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: drain.begin())
