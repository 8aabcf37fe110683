"""The ledger's time. Workers' clocks may be wrong; all leases and settle times use the time AWS tells."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime


class ServerClock:
    """A clock set by the ``Date`` header of AWS's answers (whole seconds), before the first by our own.

    Parameters
    ----------
    local
        This machine's clock, seconds since 1970; the tests give a wrong one.
    """

    def __init__(self, local: Callable[[], float] = time.time) -> None:
        self._local = local
        self._offset = 0.0
        self._known = False
        self._lock = threading.Lock()

    def now(self) -> float:
        """Return the time in seconds since 1970."""
        with self._lock:
            return self._local() + self._offset

    def hear(self, date_header: str | None) -> None:
        """Set the clock by the ``Date`` header of an answer just received."""
        if not date_header:
            return
        try:
            told = parsedate_to_datetime(date_header).timestamp()
        except ValueError:
            return
        with self._lock:
            offset = told - self._local()
            # The header has whole seconds, rounded down: follow it only when we are off by more than that,
            # so that the clock does not jump back and forth.
            if not self._known or not -1.5 < self._offset - offset < 1.5:
                self._offset = offset if abs(offset) > 1.5 else 0.0
                self._known = True


def iso(seconds: float) -> str:
    """Return seconds since 1970 as ISO 8601 UTC text that sorts."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")


def seconds_between(earlier: str, later: str) -> float | None:
    """Return the seconds from one ISO time to another, ``None`` when one of them is none."""
    try:
        return (datetime.fromisoformat(later) - datetime.fromisoformat(earlier)).total_seconds()
    except (ValueError, TypeError):
        return None
