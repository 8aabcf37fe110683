"""Dead letters: record their scans as failed, and give them back when a person says so.

A worker that sees a scan's last try fail records it.  One that is *killed* in the last try cannot; SQS then
moves the message at its next receive, and nobody who knows of ledgers is told.  So whoever is idle looks.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ..contract import states
from ..contract.codes import Code, MrireconError
from ..contract.keys import Priority
from ..contract.messages import Delivery, NotAMessageError, ReconRequest, deliveries
from ..contract.redrive import Redriven, cause
from ..contract.redrive import letters as walk_letters
from ..contract.redrive import redrive as give_back
from ..contract.states import Stage
from . import client as aws
from .ports import Ledger, ObjectStore, Row
from .references import pinned

_LOOK_SECONDS = 20
_SENTENCE = "Its workers were lost in every try; redrive the scan when their cause is mended."


@dataclass(frozen=True)
class Letter:
    """A dead letter and the state items it is about."""

    body: str
    rows: tuple[Row, ...]

    @property
    def reason(self) -> str:
        """Return the code under which its scan failed (``poison`` when it is about none)."""
        return cause((row.state.value, str(row.get("code") or "")) for row in self.rows)

    def is_about(self, scan_id: str) -> bool:
        """Whether it is about this scan."""
        return any(row.get("scan_id") == scan_id for row in self.rows)


class DeadLetters:
    """The dead-letter queue of one stage."""

    def __init__(
        self, sqs: Any, url: str, *, stage: Stage, store: ObjectStore, ledger: Ledger, wait: float = 1
    ) -> None:
        self._wait = min(1, round(wait))
        self._sqs = sqs
        self._url = url
        self._stage = stage
        self._store = store
        self._ledger = ledger

    def record(self) -> list[Row]:
        """Record as ``failed`` every scan whose message is dead and that no one holds; return their rows."""
        recorded = []
        for letter in self.letters():
            for row in letter.rows:
                if row.ended or row.lease_until > self._ledger.clock.now():
                    continue
                if self._ledger.fail(row, Code.WORKER_LOST.value, _SENTENCE):
                    recorded.append(row)
        return recorded

    def reasons(self) -> dict[str, int]:
        """Return how many dead letters there are of each reason."""
        return dict(self._redrive({}, dry_run=True).seen)

    def redrive(
        self, lanes: Mapping[Priority, str], *, reason: str | None = None, scan_id: str | None = None
    ) -> int:
        """Give dead letters back to their lanes (URLs): of one reason, of one scan, or all but poison.

        Returns how many.
        """
        return self._redrive(lanes, reason=reason, scan_id=scan_id).given_back

    def _redrive(
        self,
        lanes: Mapping[Priority, str],
        *,
        reason: str | None = None,
        scan_id: str | None = None,
        dry_run: bool = False,
    ) -> Redriven:
        # Which letters go back, and where to, is decided in the contract (the Lambda's, too).
        looked_at: dict[str, Letter] = {}  # the one that is being decided on

        def of(body: str) -> Letter:
            if body not in looked_at:
                looked_at.clear()
                looked_at[body] = self._letter(body)
            return looked_at[body]

        def requeue(body: str) -> None:
            for row in of(body).rows:
                self._ledger.requeue(row.pk, row.sk)

        with aws.translated("The dead-letter queue"):
            return give_back(
                self._sqs,
                self._url,
                lanes,
                self._stage,
                lambda body: of(body).reason,
                reason=reason,
                is_about=None if scan_id is None else (lambda body: of(body).is_about(scan_id)),
                before=requeue,
                dry_run=dry_run,
                look_seconds=_LOOK_SECONDS,
                wait_seconds=self._wait,
            )

    def letters(self) -> Iterator[Letter]:
        """Yield each dead letter once; all are visible again when the walk is over."""
        walk = walk_letters(self._sqs, self._url, look_seconds=_LOOK_SECONDS, wait_seconds=self._wait)
        with contextlib.closing(walk):
            while True:
                with aws.translated("The dead-letter queue"):
                    found = next(walk, None)
                if found is None:
                    return
                yield self._letter(found.body)

    def _letter(self, body: str) -> Letter:
        return Letter(body, tuple(self._rows(body)))

    def _rows(self, body: str) -> Iterator[Row]:
        try:
            if self._stage is Stage.RECON:
                request = ReconRequest.loads(body)
                yield self._row(
                    states.scan_pk(request.scan_id),
                    states.recon_sk(request.recon_id),
                    scan_id=request.scan_id,
                    recon_id=request.recon_id,
                )
                return
            for delivery in deliveries(body):
                yield from self._delivered(delivery)
        except (NotAMessageError, MrireconError):
            return

    def _delivered(self, told: Delivery) -> Iterator[Row]:
        delivery = pinned(told, self._store.head(told.bucket, told.key, told.version))
        pk = states.delivery_pk(delivery.bucket, delivery.key, delivery.version or delivery.etag)
        row = self._row(pk, states.DELIVERY_SK)
        yield row
        scan = row.get("scan_id")
        intake = self._ledger.get(states.scan_pk(str(scan)), states.INTAKE_SK) if scan else None
        if intake is not None:
            yield intake

    def _row(self, pk: str, sk: str, **attributes: str) -> Row:
        # No row: every try failed before the first write of the ledger.
        return self._ledger.get(pk, sk) or self._ledger.queue(pk, sk, **attributes)
