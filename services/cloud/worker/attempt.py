"""The time-points of one attempt: told to the ledger as they come, and where the tests inject faults."""

from __future__ import annotations

from ...aws.clock import iso, seconds_between
from ...aws.ports import Claim, Ledger
from ...contract.states import Stage, TimePoint
from .failpoints import Failpoints
from .hold import Hold


class Trail:
    """Appends time-points to the attempt's item as soon as it is known whose attempt it is."""

    def __init__(self, ledger: Ledger, stage: Stage, owner: str, hold: Hold, failpoints: Failpoints) -> None:
        self._ledger = ledger
        self._stage = stage
        self._owner = owner
        self._hold = hold
        self._failpoints = failpoints
        self._attempt: tuple[str, int] | None = None
        self.points: dict[TimePoint, str] = {}

    def name(self, scan_id: str, claim: Claim) -> None:
        """From here on the attempt has a name; write what is known so far."""
        self._attempt = (scan_id, claim.token)
        first = {f"at_{point.value}": at for point, at in self.points.items()}
        self._ledger.attempt(
            scan_id,
            self._stage,
            claim.token,
            owner=self._owner,
            receives=self._hold.message.receives,
            **first,
        )

    def mark(self, point: TimePoint, at: str | None = None) -> None:
        """Come to a time-point, now or ``at`` an ISO time."""
        self.points[point] = at or iso(self._ledger.clock.now())
        if self._attempt is not None:
            scan, token = self._attempt
            self._ledger.point(scan, self._stage, token, point, self.points[point])
        self._failpoints.reach(point, self._hold.check)

    def close(self, outcome: str, **attributes: object) -> None:
        """Append how the attempt ended."""
        if self._attempt is not None:
            scan, token = self._attempt
            known = {name: value for name, value in attributes.items() if value is not None}
            self._ledger.attempt(scan, self._stage, token, outcome=outcome, **known)

    def seconds(self, earlier: TimePoint, later: TimePoint) -> float | None:
        """Return the seconds between two points, ``None`` when one was not reached."""
        if earlier not in self.points or later not in self.points:
            return None
        spent = seconds_between(self.points[earlier], self.points[later])
        return None if spent is None else max(0.0, spent)
