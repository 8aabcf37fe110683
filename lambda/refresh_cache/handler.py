"""Published records, gathered by SQS into batches, become one refresh of each share's changed folders.

What could not be refreshed now (two refreshes run, or the last was asked for a moment ago) stays in the queue
and comes again when it may work. A message is done when every share has taken it; to ask one twice does no
harm. The time-point ``share_refreshed`` is when every gateway had accepted the refresh.
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from aws_lambda_powertools import Logger
from aws_lambda_powertools.metrics import EphemeralMetrics, MetricUnit
from botocore.exceptions import BotoCoreError, ClientError
from refresh_aws import BusyError, Gateway, RefreshQueue, ShareRefreshTable

from mrirecon.aws import client as aws
from mrirecon.aws.clock import iso
from mrirecon.aws.table import Table
from mrirecon.contract import environment as names
from mrirecon.contract import metrics, publications
from mrirecon.contract.messages import NotAMessageError
from mrirecon.contract.publications import Publication, RefreshDone

logger = Logger(service="refresh_cache")
FAULTS = (ClientError, BotoCoreError)
RETRY_SECONDS = 60.0


@dataclass(frozen=True)
class Settings:
    """What the stacks tell this function."""

    shares: tuple[str, ...]
    queue: str
    table: str
    spacing: float
    running: float

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Self:
        """Read the environment; raises :class:`SettingError` naming what is missing or wrong."""
        shares = (share.strip() for share in environ.get(names.FILE_SHARE_ARNS, "").split(","))
        return cls(
            shares=tuple(share for share in shares if share),
            queue=names.required(environ, names.REFRESH_QUEUE_URL),
            table=names.required(environ, names.LEDGER_TABLE),
            spacing=names.seconds(environ, names.REFRESH_SPACING_SECONDS, 60.0),
            running=names.seconds(environ, names.REFRESH_RUNNING_SECONDS, 120.0),
        )


@dataclass(frozen=True)
class Adapters:
    """The services, one object each."""

    gateway: Gateway
    shares: ShareRefreshTable
    queue: RefreshQueue


@functools.cache
def settings() -> Settings:
    """Return the settings of this function."""
    return Settings.from_environ(os.environ)


@functools.cache
def adapters() -> Adapters:
    """Return the adapters of this function; made once and kept while it is warm."""
    told = settings()
    times: aws.Times = {"connect_timeout": 3, "read_timeout": 15, "attempts": 4}
    # A refusal of RefreshCache is an answer, and a retry after a lost answer would start a second refresh: no
    # retry here. The queue tries again, in its time.
    once: aws.Times = {"connect_timeout": 3, "read_timeout": 20, "attempts": 1}
    table = Table(aws.client("dynamodb", **times), told.table)
    return Adapters(
        Gateway(aws.client("storagegateway", **once)),
        ShareRefreshTable(table, spacing=told.spacing, running=told.running),
        RefreshQueue(aws.client("sqs", **times), told.queue),
    )


@logger.inject_lambda_context
def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Take a batch from the refresh queue; return the messages that must come again."""
    return run(settings(), adapters(), event["Records"], time.time())


def run(
    settings: Settings, services: Adapters, records: Sequence[Mapping[str, Any]], now: float
) -> dict[str, Any]:
    """Refresh each share once for all publications of the batch."""
    published: dict[str, list[Publication]] = {}
    receipts: dict[str, str] = {}
    failed: list[str] = []
    for record in records:
        message = str(record["messageId"])
        receipts[message] = str(record["receiptHandle"])
        try:
            read = publications.read(str(record["body"]))
            if isinstance(read, RefreshDone):
                services.shares.ended(settings.shares, read.notification_id)
            elif read:
                published[message] = read
        except NotAMessageError as error:
            logger.error("a message is none of ours; on its way to the dead letters", error=str(error))
            failed.append(message)
        except FAULTS as error:
            _log(error, "the end of a refresh could not be noted")
            failed.append(message)

    every = sorted({item for items in published.values() for item in items})
    wait = _refresh(settings, services, every, now) if every else None
    if wait is not None:
        deferred = list(published)
        failed += deferred
        try:
            services.queue.put_off([receipts[message] for message in deferred], wait)
        except FAULTS as error:
            _log(error, "deferred messages come again at the queue's own pace")
        _emit({metrics.REFRESH_DEFERRED: len(deferred)})
    elif every and settings.shares:
        _note(services, every, now)
    return {"batchItemFailures": [{"itemIdentifier": message} for message in failed]}


def _refresh(
    settings: Settings, services: Adapters, every: Sequence[Publication], now: float
) -> float | None:
    """Refresh every share; return the seconds to wait before those that could not are tried again."""
    folders = publications.folders(every)
    waits: list[float] = []
    for number, share in enumerate(settings.shares):
        try:
            services.shares.take_turn(share, now)
            notification = services.gateway.refresh(share, folders, RETRY_SECONDS)
        except BusyError as busy:
            logger.info("share is busy", share=number, seconds=round(busy.seconds))
            waits.append(busy.seconds)
            continue
        except FAULTS as error:
            _log(error, "a share was not refreshed")
            waits.append(RETRY_SECONDS)
            continue
        logger.info("refresh asked for", share=number, folders=len(folders), scans=len(every))
        _emit({metrics.REFRESHED_FOLDERS: len(folders)})
        try:
            services.shares.started(share, notification, now)
        except FAULTS as error:
            # It runs all the same: the gateway's own refusal keeps the third away.
            _log(error, "a running refresh could not be noted")
    return max(waits) if waits else None


def _note(services: Adapters, every: Sequence[Publication], now: float) -> None:
    for item in every:
        try:
            services.shares.refreshed(item, iso(now))
        except FAULTS as error:
            _log(error, "a time-point could not be noted")


def _log(error: Exception, consequence: str) -> None:
    code = aws.error_code(error) or type(error).__name__
    logger.error(
        "a call failed: %s", consequence, error=code, operation=getattr(error, "operation_name", None)
    )


def _emit(values: Mapping[str, float]) -> None:
    emf = EphemeralMetrics(namespace=metrics.NAMESPACE, service="")
    for name, value in values.items():
        emf.add_metric(name, MetricUnit.Count, value)
    emf.flush_metrics()
