"""What an operator asks: where is my scan, how long are the queues, send this archive, try that one again."""

from __future__ import annotations

import functools
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...aws import client as aws
from ...aws.clock import ServerClock
from ...aws.dead_letters import DeadLetters
from ...aws.ledger import DynamoLedger
from ...aws.ports import Ledger, Row
from ...aws.queue import SqsQueue
from ...aws.references import body_of
from ...aws.store import S3Store, file_sha256
from ...contract import environment as env
from ...contract import keys, states
from ...contract.codes import Code, PermanentError, RetryableError
from ...contract.ids import scan_id_from_digest
from ...contract.keys import Priority
from ...contract.states import Stage, State

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_sqs.literals import QueueAttributeNameType

_COUNTS: Mapping[str, QueueAttributeNameType] = {
    "visible": "ApproximateNumberOfMessages",
    "in_flight": "ApproximateNumberOfMessagesNotVisible",
    "delayed": "ApproximateNumberOfMessagesDelayed",
}
_URLS = {
    (Stage.DECOMPRESS, "stat"): env.DECOMPRESS_STAT_QUEUE_URL,
    (Stage.DECOMPRESS, "routine"): env.DECOMPRESS_ROUTINE_QUEUE_URL,
    (Stage.DECOMPRESS, "dead"): env.DECOMPRESS_DEAD_LETTER_QUEUE_URL,
    (Stage.RECON, "stat"): env.RECON_STAT_QUEUE_URL,
    (Stage.RECON, "routine"): env.RECON_ROUTINE_QUEUE_URL,
    (Stage.RECON, "dead"): env.RECON_DEAD_LETTER_QUEUE_URL,
}


@dataclass(frozen=True)
class ScanStatus:
    """One scan, or one reconstruction of it, as ``mrirecon status`` shows it."""

    scan_id: str
    recon_id: str
    stage: str
    state: str
    code: str
    message: str
    site: str
    priority: str
    announced_at: str
    updated_at: str
    tries: int
    label: str = ""
    record: dict[str, Any] | None = field(default=None, repr=False)


@dataclass(frozen=True)
class QueueStatus:
    """One stage's queues as ``mrirecon queues`` shows them; ``claimed`` is how many scans workers hold."""

    stage: str
    lanes: Mapping[str, Mapping[str, int]]
    dead_letters: int
    claimed: int
    oldest_seconds: float | None


@dataclass(frozen=True)
class Submitted:
    """An archive that was put into the raw bucket."""

    scan_id: str
    key: str = field(repr=False)
    version: str | None = field(repr=False)


class Operator:
    """The operator's side of the service. Settings come by the names of the contract.

    Raises
    ------
    PermanentError
        ``bad_settings`` from any method that needs a variable that is not set.
    """

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        self._environ = dict(os.environ if environ is None else environ)
        self._clock = ServerClock()
        self._ledger: DynamoLedger | None = None

    def status(self, scan_id: str | None = None, *, limit: int = 100) -> list[ScanStatus]:
        """Return all scans (the most recently changed first) or the rows of one."""
        ledger = self.ledger()
        if scan_id is not None:
            rows, _ = ledger.scan(scan_id)
            return sorted(map(scan_status, rows), key=lambda row: row.updated_at)
        found = [row for state in State for row in ledger.rows(state, limit)]
        # A delivery whose bytes were read is shown by its scan.
        shown = [row for row in found if row.sk != states.DELIVERY_SK or not row.get("scan_id")]
        imaged = {row.get("scan_id") for row in shown if row.sk.startswith("recon#")}
        shown = [row for row in shown if not (_is_done_intake(row) and row.get("scan_id") in imaged)]
        return sorted(map(scan_status, shown), key=lambda row: row.updated_at, reverse=True)[:limit]

    def attempts(self, scan_id: str) -> list[dict[str, Any]]:
        """Return all attempts of a scan with their time-points, the first first."""
        _, attempts = self.ledger().scan(scan_id)
        return sorted(attempts, key=lambda item: min(str(v) for k, v in item.items() if k.startswith("at_")))

    def queues(self) -> list[QueueStatus]:
        """Return both stages' queues; scans whose workers were lost in the last try are recorded first."""
        claimed = self.ledger().rows(State.CLAIMED, 10_000)
        queued = self.ledger().rows(State.QUEUED, 10_000)
        told = []
        for stage in Stage:
            self.dead_letters(stage).record()
            lanes = {lane: self._counts(stage, lane) for lane in ("stat", "routine")}
            mine = [row for row in claimed if _stage_of(row) is stage and row.sk != states.DELIVERY_SK]
            waiting = [row.get("announced_at") for row in queued if _stage_of(row) is stage]
            oldest = min((str(at) for at in waiting if at), default=None)
            age = None if oldest is None else max(0.0, _age(oldest, self._clock.now()))
            dead = sum(self._counts(stage, "dead").values())
            told.append(QueueStatus(stage.value, lanes, dead, len(mine), age))
        return told

    def submit(self, archive: Path, *, site: str, priority: Priority = Priority.ROUTINE) -> Submitted:
        """Put an archive into the raw bucket as the share would; its file name does not go along.

        Raises
        ------
        PermanentError, RetryableError
            When the site is no site's name, or S3 refuses.
        """
        digest = file_sha256(archive)
        scan = scan_id_from_digest(digest)
        bucket = self._setting(env.RAW_BUCKET)
        key = keys.incoming(site, priority, f"{scan}.tar")
        store = self._store
        there = store.head(bucket, key)
        if there is None or there.sha256 != digest:
            store.upload(archive, bucket, key, replace=there.etag if there else None)
            there = store.head(bucket, key)
        return Submitted(scan, key, there.version if there else None)

    def follow(
        self,
        scan_id: str,
        *,
        every: float = 1.0,
        timeout: float = 0,
        sleep: Callable[[float], None] = time.sleep,
        notice: Callable[[str], None] | None = None,
        unseen_seconds: float = 300,
    ) -> Iterator[ScanStatus]:
        """Yield a scan's rows as they change, until its last stage has ended.

        ``notice`` is told, once, when no worker has taken the scan within ``unseen_seconds``.

        Raises
        ------
        RetryableError
            ``timed_out`` after ``timeout`` seconds (0: never).
        """
        seen: dict[tuple[str, str], ScanStatus] = {}
        begun = time.monotonic()
        while True:
            rows = self.status(scan_id)
            for row in rows:
                if seen.get((row.stage, row.recon_id)) != row:
                    seen[row.stage, row.recon_id] = row
                    yield row
            if finished(rows):
                return
            if notice and not rows and time.monotonic() - begun > unseen_seconds:
                notice(
                    f"No worker has taken the scan within {unseen_seconds:.0f} s. Either none runs yet "
                    "(mrirecon queues), or nobody announced it: scans of a site behind a file gateway are "
                    "announced by the gateway alone. Submit under a site that sends to S3."
                )
                notice = None
            if timeout and time.monotonic() - begun > timeout:
                raise RetryableError(
                    Code.TIMED_OUT, f"The scan has not ended within {timeout:.0f} s; it goes on without us."
                )
            sleep(every)

    def redrive(
        self, *, reason: str | None = None, scan_id: str | None = None, stage: Stage | None = None
    ) -> dict[str, int]:
        """Give dead letters back to their queue: all (but poison), of one reason, or of one scan."""
        done = {}
        for each in Stage if stage is None else [stage]:
            lanes = {lane: self._setting(_URLS[each, lane.value]) for lane in Priority}
            redriven = self.dead_letters(each).redrive(lanes, reason=reason, scan_id=scan_id)
            done[each.value] = redriven.given_back
        return done

    def dead_letters(self, stage: Stage) -> DeadLetters:
        """Return the dead letters of a stage."""
        url = self._setting(_URLS[stage, "dead"])
        return DeadLetters(self._sqs, url, stage=stage, store=self._store, ledger=self.ledger())

    def ledger(self) -> Ledger:
        """Return the ledger."""
        if self._ledger is None:
            table = self._setting(env.LEDGER_TABLE)
            self._ledger = DynamoLedger(aws.client("dynamodb", self._clock), table, self._clock)
        return self._ledger

    def _counts(self, stage: Stage, lane: str) -> dict[str, int]:
        told = self._lane(stage, lane).attributes(*_COUNTS.values())
        return {name: int(told.get(attribute, 0)) for name, attribute in _COUNTS.items()}

    def _lane(self, stage: Stage, lane: str) -> SqsQueue:
        url = self._setting(_URLS[stage, lane])
        return SqsQueue(self._sqs, url, name=f"{stage.value} {lane}", visibility=30)

    @functools.cached_property
    def _sqs(self) -> SQSClient:
        return aws.client("sqs", self._clock)

    @functools.cached_property
    def _store(self) -> S3Store:
        return S3Store(aws.client("s3", self._clock))

    def _setting(self, name: str) -> str:
        value = self._environ.get(name, "")
        if not value:
            raise PermanentError(
                Code.BAD_SETTINGS,
                f"{name} is not set; the stacks' outputs tell its value.",
            )
        return value


def scan_status(row: Row) -> ScanStatus:
    """Return a ledger row as operators see it."""

    def text(name: str) -> str:
        return str(row.get(name) or "")

    return ScanStatus(
        scan_id=text("scan_id"),
        recon_id=text("recon_id"),
        stage=_stage_of(row).value,
        state=row.state.value,
        code=text("code"),
        message=text("message"),
        site=text("site"),
        priority=text("priority"),
        announced_at=text("announced_at"),
        updated_at=row.updated_at,
        tries=row.token,
        label=text("label"),
        record=body_of(row),
    )


def finished(rows: list[ScanStatus]) -> bool:
    """Whether nothing more will happen to the scan of these rows by itself."""
    last = [row for row in rows if row.stage == Stage.RECON.value] or rows
    return (
        bool(last)
        and all(State(row.state) in states.ENDED for row in last)
        and (last[0].stage == Stage.RECON.value or all(row.state != State.DONE.value for row in last))
    )


def as_json(rows: list[Any]) -> str:
    """Return rows of any of the classes above as JSON."""
    return json.dumps([asdict(row) for row in rows], indent=2)


def _is_done_intake(row: Row) -> bool:
    return row.sk == states.INTAKE_SK and row.state is State.DONE


def _stage_of(row: Row) -> Stage:
    return Stage.RECON if row.sk.startswith("recon#") else Stage.DECOMPRESS


def _age(earlier: str, now: float) -> float:
    from datetime import datetime

    try:
        return now - datetime.fromisoformat(earlier).timestamp()
    except ValueError:
        return 0.0
