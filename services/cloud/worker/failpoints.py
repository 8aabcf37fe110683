"""Fault injection for the tests: die, fail or hang at a time-point chosen by the environment.

``MRIRECON_FAILPOINT=<time-point>:<kill|error|hang>[:<n>]`` acts once, the n-th time (default the first) this
process comes to that point.  The stacks never set it; a worker that finds it set says so in its log.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

from ...contract import environment
from ...contract.codes import Code, PermanentError
from ...contract.states import TimePoint

KILL, ERROR, HANG = "kill", "error", "hang"


class InjectedError(Exception):
    """What ``error`` raises: no error of ours, as an unforeseen one would be."""


class Failpoints:
    """The one fault this process was told to make, if any."""

    def __init__(self, text: str = "") -> None:
        self._point: TimePoint | None = None
        self._action = ""
        self._left = 0
        if not text:
            return
        point, action, *count = [*text.split(":"), "1"]
        if point not in set(TimePoint) or action not in {KILL, ERROR, HANG} or not count[0].isdecimal():
            raise PermanentError(
                Code.BAD_SETTINGS, f"{environment.FAILPOINT} must be <time-point>:<kill|error|hang>[:<n>]."
            )
        self._point, self._action, self._left = TimePoint(point), action, int(count[0])

    @classmethod
    def from_env(cls) -> Failpoints:
        """Read the environment."""
        return cls(os.environ.get(environment.FAILPOINT, ""))

    @property
    def armed(self) -> bool:
        """Whether a fault was asked for."""
        return self._point is not None

    def reach(self, point: TimePoint, check: Callable[[], None]) -> None:
        """Come to ``point``; ``check`` may end a hang by raising."""
        if point is not self._point:
            return
        self._left -= 1
        if self._left:
            return
        if self._action == KILL:
            os.kill(os.getpid(), signal.SIGKILL)
        if self._action == ERROR:
            raise InjectedError
        while True:
            check()
            time.sleep(0.05)
