"""Dead letters: record their scans as failed, and give them back when a person says so.

A worker that sees a scan's last try fail records it.  One that is *killed* in the last try cannot; SQS then
moves the message at its next receive, and no one who keeps the ledger hears of it.  So idle workers look.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..contract import states
from ..contract.codes import Code, MrireconError
from ..contract.keys import INCOMING, Priority
from ..contract.messages import Delivery, NotAMessageError, ReconRequest, announcement
from ..contract.states import Stage, State
from . import client as aws
from .ports import Ledger, ObjectStore, Row
from .redrive import POISON, UNKNOWN, Redriven, cause
from .redrive import Letter as QueuedLetter
from .redrive import letters as walk_letters
from .redrive import redrive as give_back
from .references import delivery_pk, pinned

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

_LOOK_SECONDS = 20
_SENTENCE = "Its workers were lost in every try. Fix the cause, then redrive the scan."


@dataclass(frozen=True)
class Letter:
    """A dead letter and the state items it is about; ``malformed`` when a part of it cannot be read."""

    body: str
    rows: tuple[Row, ...]
    malformed: bool = False

    @property
    def reason(self) -> str:
        """Return the code under which its scan failed.

        ``poison`` when it is about no scan, or none of its scans failed and the rest of it cannot be read.
        """
        code = cause((row.state.value, str(row.get("code") or "")) for row in self.rows)
        return POISON if self.malformed and code == UNKNOWN else code

    def is_about(self, scan_id: str) -> bool:
        """Whether it is about this scan."""
        pk = states.scan_pk(scan_id)
        return any(row.pk == pk or row.get("scan_id") == scan_id for row in self.rows)


class DeadLetters:
    """The dead-letter queue of one stage.

    Parameters
    ----------
    sqs
        Client.
    url
        URL of the dead-letter queue.
    stage
        The stage, which says what the bodies are.
    store
        Where the archives lie: it knows the version of an object that was announced without one.
    ledger
        The ledger.
    wait
        Seconds a look waits for letters, at most 1; ``None``: see :mod:`~mrirecon.aws.redrive`.
    look_seconds
        How long a letter that was looked at stays hidden, should the walk die before it shows it again.
    """

    def __init__(
        self,
        sqs: SQSClient,
        url: str,
        *,
        stage: Stage,
        store: ObjectStore,
        ledger: Ledger,
        wait: float | None = None,
        look_seconds: int = _LOOK_SECONDS,
    ) -> None:
        self._wait = None if wait is None else min(1, round(wait))
        self._look_seconds = look_seconds
        self._sqs = sqs
        self._url = url
        self._stage = stage
        self._store = store
        self._ledger = ledger

    def record(self) -> list[Row]:
        """Record as ``failed`` every scan whose message is dead and that no one holds; return their rows.

        A letter whose rows cannot be read now is left to the next call.
        """
        recorded = []
        for found in self._found():
            with contextlib.suppress(MrireconError):
                recorded += [row for row in self._letter(found.body).rows if self._record(row, found.id)]
        return recorded

    def redrive(
        self,
        lanes: Mapping[Priority, str],
        *,
        reason: str | None = None,
        scan_id: str | None = None,
        limit: int | None = None,
        dry_run: bool = False,
    ) -> Redriven:
        """Give dead letters back to their lanes (URLs): of one reason, of one scan, or all but poison.

        Parameters
        ----------
        lanes
            URLs of the stage's lanes.
        reason, scan_id
            Give back only the letters of this reason, and of this scan.
        limit
            At most so many; ``None``: all.
        dry_run
            Only count; change nothing, neither in the queues nor in the ledger.

        Raises
        ------
        RetryableError
            When a queue, the object store or the ledger does not answer; what was given back stays so.
        """
        looked_at: dict[str, Letter] = {}  # the one that is being decided on

        def of(body: str) -> Letter:
            if body not in looked_at:
                looked_at.clear()
                looked_at[body] = self._letter(body)
            return looked_at[body]

        def requeue(letter: QueuedLetter) -> None:
            for row in of(letter.body).rows:
                self._ledger.requeue(row.pk, row.sk, redriven_letter=letter.id)

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
                limit=limit,
                dry_run=dry_run,
                look_seconds=self._look_seconds,
                wait_seconds=self._wait,
            )

    def _found(self) -> Iterator[QueuedLetter]:
        """Yield each dead letter once; all are visible again when the walk is over."""
        walk = walk_letters(self._sqs, self._url, look_seconds=self._look_seconds, wait_seconds=self._wait)
        with contextlib.closing(walk):
            while True:
                with aws.translated("The dead-letter queue"):
                    found = next(walk, None)
                if found is None:
                    return
                yield found

    def _record(self, row: Row, letter: str) -> bool:
        if row.ended or row.lease_until > self._ledger.clock.now():
            return False
        if row.state is State.QUEUED and row.get("redriven_letter") == letter:
            # A redrive sent this letter's copy and died before it deleted the letter: the copy waits.
            return False
        if not row.updated_at:  # every try failed before the first write of the ledger
            row = self._ledger.queue(row.pk, row.sk, **row.attributes)
        return self._ledger.fail(row, Code.WORKER_LOST.value, _SENTENCE)

    def _letter(self, body: str) -> Letter:
        try:
            if self._stage is Stage.RECON:
                return Letter(body, (self._requested(ReconRequest.loads(body)),))
            announced = announcement(body)
        except NotAMessageError:
            return Letter(body, ())
        rows = [row for delivery in announced.deliveries for row in self._delivered(delivery)]
        return Letter(body, tuple(rows), malformed=announced.unreadable > 0)

    def _requested(self, request: ReconRequest) -> Row:
        return self._row(
            states.scan_pk(request.scan_id),
            states.recon_sk(request.recon_id),
            scan_id=request.scan_id,
            recon_id=request.recon_id,
        )

    def _delivered(self, announced: Delivery) -> Iterator[Row]:
        row = self._row(delivery_pk(self._pinned(announced)), states.DELIVERY_SK)
        yield row
        scan = row.get("scan_id")
        intake = self._ledger.get(states.scan_pk(str(scan)), states.INTAKE_SK) if scan else None
        if intake is not None:
            yield intake

    def _pinned(self, announced: Delivery) -> Delivery:
        # Outside the prefix no one may read: neither did the worker, so the ledger knows no such version.
        if announced.version or not announced.key.startswith(INCOMING):
            return announced
        return pinned(announced, self._store.head(announced.bucket, announced.key))

    def _row(self, pk: str, sk: str, **attributes: str) -> Row:
        """Return the item, or what it would be had a worker come so far as to make it."""
        return self._ledger.get(pk, sk) or Row(pk, sk, State.QUEUED, attributes=attributes)
