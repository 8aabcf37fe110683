"""Dead letters: record their scans as failed, and give them back when a person says so.

A worker that sees a scan's last try fail records it.  One that is *killed* in the last try cannot; SQS then
moves the message at its next receive, and nobody who knows of ledgers is told.  So whoever is idle looks.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from ..contract import states
from ..contract.codes import Code, MrireconError
from ..contract.messages import Delivery, NotAMessageError, ReconRequest, deliveries
from ..contract.redrive import POISON, UNKNOWN
from ..contract.redrive import letters as walk_letters
from ..contract.states import Stage, State
from . import aws, logs
from .intake import pinned
from .ports import Ledger, ObjectStore, Row

_LOOK_SECONDS = 20
_SENTENCE = "Its workers were lost in every try; redrive the scan when their cause is mended."


@dataclass(frozen=True)
class Letter:
    """A dead letter and the state items it is about."""

    body: str
    receipt: str
    rows: tuple[Row, ...]
    group: str | None = None

    @property
    def reason(self) -> str:
        """Return the code under which its scan failed (``poison`` when it is about none)."""
        codes = [str(row.get("code")) for row in self.rows if row.state is State.FAILED and row.get("code")]
        return codes[0] if codes else (POISON if not self.rows else UNKNOWN)

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

    def record(self) -> int:
        """Record as ``failed`` every scan whose message is dead and that no one holds; return how many."""
        count = 0
        for letter in self.letters():
            for row in letter.rows:
                if row.ended or row.lease_until > self._ledger.clock.now():
                    continue
                if self._ledger.fail(row, Code.WORKER_LOST.value, _SENTENCE):
                    count += 1
                    logs.get().error("scan failed: found among the dead letters", scan_id=row.get("scan_id"))
        return count

    def reasons(self) -> dict[str, int]:
        """Return how many dead letters there are of each reason."""
        return dict(Counter(letter.reason for letter in self.letters()))

    def redrive(
        self, send: Callable[[Letter], None], *, reason: str | None = None, scan_id: str | None = None
    ) -> int:
        """Give dead letters back by ``send``: of one reason, of one scan, or all but poison; return how many.

        The ledger is set back to ``queued`` first, then the copy is sent, then the dead letter deleted: what
        dies between is done again, and a scan sent twice ends once.
        """
        count = 0
        for letter in self.letters():
            if scan_id is not None and not letter.is_about(scan_id):
                continue
            if letter.reason != reason if reason is not None else letter.reason == POISON:
                continue
            for row in letter.rows:
                self._ledger.requeue(row.pk, row.sk)
            send(letter)
            with aws.translated("The dead-letter queue"):
                self._sqs.delete_message(QueueUrl=self._url, ReceiptHandle=letter.receipt)
            count += 1
        return count

    def letters(self) -> Iterator[Letter]:
        """Yield each dead letter once; all are visible again when the walk is over, save those deleted."""
        walk = walk_letters(self._sqs, self._url, look_seconds=_LOOK_SECONDS, wait_seconds=self._wait)
        with contextlib.closing(walk):
            while True:
                with aws.translated("The dead-letter queue"):
                    found = next(walk, None)
                if found is None:
                    return
                yield Letter(found.body, found.receipt, tuple(self._rows(found.body)), found.group)

    def _rows(self, body: str) -> Iterator[Row]:
        try:
            if self._stage is Stage.RECON:
                request = ReconRequest.loads(body)
                yield self._row(states.scan_pk(request.scan_id), states.recon_sk(request.recon_id),
                                scan_id=request.scan_id, recon_id=request.recon_id)  # fmt: skip
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
