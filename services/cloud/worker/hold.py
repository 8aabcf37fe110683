"""Holding a scan while work goes on: message hidden, claims renewed, task protected, health shown."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ...aws.ports import Claim, Ledger, Message, Queue
from ...contract.codes import Code, MrireconError, RetryableError
from ...contract.states import State
from . import logs


class Wait(Exception):  # noqa: N818 (control flow, not a fault)
    """Nothing went wrong, but not now: show the message again after ``seconds``.

    ``counts`` is false where this receive should not bring the message nearer to the dead letters.
    """

    def __init__(self, seconds: float, *, counts: bool = True) -> None:
        super().__init__(seconds)
        self.seconds = seconds
        self.counts = counts


class HandBack(Exception):  # noqa: N818
    """The machine is told to stop and the time it was given is over: another must do the scan."""


class LostClaim(Exception):  # noqa: N818
    """Another worker holds a newer token: whatever we have done, we may not publish it."""


class Drain:
    """Whether this worker was told to stop, and until when it may finish what it does."""

    def __init__(self, seconds: float, timer: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._timer = timer
        self._until: float | None = None

    def begin(self) -> None:
        """Stop taking scans; the one at hand has ``seconds`` left. Safe in a signal handler."""
        if self._until is None:
            self._until = self._timer() + self._seconds

    @property
    def requested(self) -> bool:
        """Whether no further scan is to be taken."""
        return self._until is not None

    @property
    def expired(self) -> bool:
        """Whether the scan at hand must be handed back."""
        return self._until is not None and self._timer() >= self._until


class Hold:
    """One received message, held by a heartbeat thread until the ``with`` block ends.

    Parameters
    ----------
    lease
        Seconds of visibility and lease that each beat gives anew; it beats three times in that.
    total
        Seconds one scan may take in this stage; 0: no limit.
    beat
        Called with each beat (health file, task protection).
    """

    def __init__(
        self,
        message: Message,
        lane: Queue,
        ledger: Ledger,
        drain: Drain,
        *,
        lease: float,
        total: float = 0,
        beat: Callable[[], None] = lambda: None,
    ) -> None:
        self.message = message
        self.lane = lane
        self.lease = lease
        self._ledger = ledger
        self._drain = drain
        self._beat = beat
        self._claims: dict[Claim, float] = {}
        self._lost = threading.Event()
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._begun = time.monotonic()
        self._total = total
        # Two threads: a queue that does not answer must not let a lease lapse at a ledger that does.
        self._threads = [
            threading.Thread(target=self._repeat, args=(beat_one,), daemon=True, name=name)
            for name, beat_one in (("heartbeat", self._renew_claims), ("visibility", self._extend))
        ]

    @property
    def last_try(self) -> bool:
        """Whether the queue gives the message to the dead letters instead of a next receive."""
        return self.message.receives >= self.lane.max_receives > 0

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def keep(self, claim: Claim) -> None:
        """Renew ``claim`` with every beat until it is settled or the message let go."""
        with self._lock:
            self._claims[claim] = time.monotonic()

    def check(self) -> None:
        """Raise when the scan must stop now.

        Raises
        ------
        LostClaim, HandBack, RetryableError
            The last one when the stage's total limit is over.
        """
        if self._lost.is_set():
            raise LostClaim
        if self._drain.expired:
            raise HandBack
        spent = time.monotonic() - self._begun
        if self._total and spent > self._total:
            raise RetryableError(Code.TIMED_OUT, f"The scan was ended after {spent:.0f} s, its total limit.")

    def settle(self, claim: Claim, state: State, **attributes: Any) -> None:
        """Leave a claimed item in ``state`` and renew it no more.

        Raises
        ------
        LostClaim
            When another holds the newer token.
        """
        with self._lock:
            self._claims.pop(claim, None)
        if not self._ledger.release(claim, state, **attributes):
            self._lost.set()
            raise LostClaim

    def confirm(self, claim: Claim) -> None:
        """Make sure, at the ledger itself, that ``claim`` is still the newest; called before publishing."""
        self.check()
        if not self._ledger.renew(claim, self.lease):
            self._lost.set()
            raise LostClaim

    def _repeat(self, beat_one: Callable[[], None]) -> None:
        while not self._stop.wait(self.lease / 3):
            beat_one()

    def renew(self) -> None:
        """Do one beat of both."""
        self._renew_claims()
        self._extend()

    def _extend(self) -> None:
        """Keep the message hidden."""
        try:
            # A stale receipt alone is no loss: the ledger's token decides who may publish.
            self.lane.extend(self.message, self.lease)
        except MrireconError as error:
            logs.get().warning("heartbeat: visibility not extended", **logs.describe(error))

    def _renew_claims(self) -> None:
        """Prolong the leases, and show that this worker lives."""
        with self._lock:
            claims = list(self._claims.items())
        for claim, last in claims:
            try:
                held = self._ledger.renew(claim, self.lease)
            except MrireconError as error:
                logs.get().warning("heartbeat: lease not renewed", **logs.describe(error))
                held = time.monotonic() - last < self.lease
            else:
                with self._lock:
                    if claim in self._claims:
                        self._claims[claim] = time.monotonic()
            with self._lock:
                still = claim in self._claims  # it may have been released while we asked
            if not held and still:
                self._lost.set()
        self._beat()


def touch(file: Path | None) -> None:
    """Show that this worker lives; the container's health check looks at the file's age."""
    if file is None:
        return
    try:
        file.touch()
    except OSError as error:
        logs.get().warning("heartbeat file not touched", error=type(error).__name__)
