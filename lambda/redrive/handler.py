"""An operator's tool: put dead letters back into their lane.

Called with ``{"stage": "decompress" | "recon"}`` and, where wanted, ``reason`` (a code), ``scan_id``,
``limit`` and ``dry_run``.
Without reason and scan every letter is given back except those that are not messages of this pipeline.
Fix the cause first: ``dry_run`` counts the letters by reason and gives none back.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from aws_lambda_powertools import Logger

from mrirecon.aws import client as aws
from mrirecon.aws.clock import ServerClock
from mrirecon.aws.dead_letters import DeadLetters
from mrirecon.aws.ledger import DynamoLedger
from mrirecon.aws.redrive import LOOK_SECONDS, POISON, UNKNOWN
from mrirecon.aws.store import S3Store
from mrirecon.contract import environment as names
from mrirecon.contract.codes import Code
from mrirecon.contract.keys import Priority
from mrirecon.contract.states import Stage

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_sqs import SQSClient

logger = Logger(service="redrive")
MOST = 5000
"""Letters one call may give back: what it can do in its time."""


class RequestError(ValueError):
    """The operator's request is not one; the sentence names the field."""


@dataclass(frozen=True)
class StageQueues:
    """The queues of a stage."""

    lanes: Mapping[Priority, str]
    dead_letters: str


@dataclass(frozen=True)
class Settings:
    """What the stacks tell this function."""

    queues: Mapping[Stage, StageQueues]
    table: str

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Self:
        """Read the environment; raises :class:`SettingError` naming what is missing."""

        def stage(stat: str, routine: str, dead: str) -> StageQueues:
            lanes = {
                Priority.STAT: names.required(environ, stat),
                Priority.ROUTINE: names.required(environ, routine),
            }
            return StageQueues(lanes, names.required(environ, dead))

        return cls(
            {
                Stage.DECOMPRESS: stage(
                    names.DECOMPRESS_STAT_QUEUE_URL,
                    names.DECOMPRESS_ROUTINE_QUEUE_URL,
                    names.DECOMPRESS_DEAD_LETTER_QUEUE_URL,
                ),
                Stage.RECON: stage(
                    names.RECON_STAT_QUEUE_URL,
                    names.RECON_ROUTINE_QUEUE_URL,
                    names.RECON_DEAD_LETTER_QUEUE_URL,
                ),
            },
            names.required(environ, names.LEDGER_TABLE),
        )


@dataclass(frozen=True)
class Request:
    """What the operator asks for."""

    stage: Stage
    reason: str | None = None
    scan_id: str | None = None
    limit: int = 1000
    dry_run: bool = False

    @classmethod
    def from_event(cls, event: Mapping[str, Any]) -> Self:
        """Read the event.

        Raises
        ------
        RequestError
            Naming the field that is missing, unknown or wrong.
        """
        unknown = sorted(set(event) - {"stage", "reason", "scan_id", "limit", "dry_run"})
        if unknown:
            raise RequestError("known fields are stage, reason, scan_id, limit and dry_run; others are not")
        stage, reason, scan = event.get("stage"), event.get("reason"), event.get("scan_id")
        limit, dry_run = event.get("limit", 1000), event.get("dry_run", False)
        reasons = {*(code.value for code in Code), POISON, UNKNOWN}
        if stage not in {it.value for it in Stage}:
            raise RequestError("stage must be decompress or recon")
        if reason is not None and reason not in reasons:
            raise RequestError(f"reason must be one of {', '.join(sorted(reasons))}")
        if scan is not None and not (isinstance(scan, str) and re.fullmatch("[0-9a-f]{16}", scan)):
            raise RequestError("scan_id must be 16 lower-case hex digits")
        if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= MOST:
            raise RequestError(f"limit must be a whole number from 1 to {MOST}")
        if not isinstance(dry_run, bool):
            raise RequestError("dry_run must be true or false")
        return cls(Stage(stage), reason, scan, limit, dry_run)


@functools.cache
def settings() -> Settings:
    """Return the settings of this function."""
    return Settings.from_environ(os.environ)


@dataclass(frozen=True)
class Clients:
    """boto3's clients of the services, and the clock that their answers set."""

    sqs: SQSClient
    s3: S3Client
    dynamodb: DynamoDBClient
    clock: ServerClock


@functools.cache
def clients() -> Clients:
    """Return the clients; made once and kept while the function is warm."""
    times: aws.Times = {"connect_timeout": 3, "read_timeout": 30, "attempts": 5}
    clock = ServerClock()
    return Clients(
        aws.client("sqs", clock, **times),
        aws.client("s3", clock, **times),
        aws.client("dynamodb", clock, **times),
        clock,
    )


@logger.inject_lambda_context
def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Give dead letters back and return what was done."""
    return run(settings(), clients(), Request.from_event(event))


def run(settings: Settings, services: Clients, request: Request) -> dict[str, Any]:
    """Give dead letters back as ``request`` says.

    Raises
    ------
    RetryableError
        When a service does not answer or refuses; the sentence says which.
    """
    queues = settings.queues[request.stage]
    letters = DeadLetters(
        services.sqs,
        queues.dead_letters,
        stage=request.stage,
        store=S3Store(services.s3),
        ledger=DynamoLedger(services.dynamodb, settings.table, services.clock),
        look_seconds=LOOK_SECONDS,
    )
    done = letters.redrive(
        queues.lanes,
        reason=request.reason,
        scan_id=request.scan_id,
        limit=request.limit,
        dry_run=request.dry_run,
    )
    answer: dict[str, Any] = {
        "stage": request.stage.value,
        "seen": dict(done.seen),
        "limited": done.limited,
        "would_give_back" if request.dry_run else "given_back": done.given_back,
    }
    logger.info("redriven", **answer)
    return answer
