"""What the cache refresh calls through boto3: the gateway, the ledger, the queue."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

from botocore.exceptions import ClientError

from mrirecon.contract import states
from mrirecon.contract.publications import Publication
from mrirecon.contract.states import PK, SK

MOST_RUNNING: Final = 2
"""The gateway refuses a third refresh of a share while two are running."""


class BusyError(RuntimeError):
    """The share cannot be refreshed now; ``seconds`` until it is worth trying again."""

    def __init__(self, seconds: float) -> None:
        super().__init__(seconds)
        self.seconds = seconds


class Gateway:
    """Storage Gateway."""

    def __init__(self, client: Any) -> None:
        self._gateway = client

    def refresh(self, share: str, folders: Sequence[str], retry_seconds: float) -> str:
        """Ask for a refresh and return its id.

        Raises
        ------
        BusyError
            When the gateway says that two are running, or that it cannot just now.
        """
        try:
            told = self._gateway.refresh_cache(FileShareARN=share, FolderList=list(folders), Recursive=False)
        except ClientError as error:
            if error.response.get("Error", {}).get("Code") == "InvalidGatewayRequestException":
                raise BusyError(retry_seconds) from error
            raise
        return str(told["NotificationId"])


class Book:
    """The ledger: one item a share (what runs, when it was last asked), and the scans' time-points."""

    def __init__(self, client: Any, table: str, *, spacing: float, running: float) -> None:
        self._db, self._table, self._spacing, self._running = client, table, spacing, running

    def take_turn(self, share: str, now: float) -> None:
        """Reserve a refresh of ``share`` for the caller alone.

        Raises
        ------
        BusyError
            When the last one was asked for too short a time ago, or two are known to run.
        """
        item = self._db.get_item(TableName=self._table, Key=self._key(share), ConsistentRead=True).get(
            "Item", {}
        )
        runs = {name: at for name, at in _runs(item).items() if now - at < self._running}
        if len(runs) >= MOST_RUNNING:
            raise BusyError(max(1.0, self._running - (now - min(runs.values()))))
        asked = float(item["asked_at"]["N"]) if "asked_at" in item else None
        if asked is not None and now - asked < self._spacing:
            raise BusyError(max(1.0, self._spacing - (now - asked)))
        unchanged = "attribute_not_exists(asked_at)" if asked is None else "asked_at = :was"
        try:
            self._db.update_item(
                TableName=self._table,
                Key=self._key(share),
                UpdateExpression="SET asked_at = :now, runs = :runs",
                ConditionExpression=unchanged,
                ExpressionAttributeValues={
                    ":now": {"N": repr(now)},
                    ":runs": {"S": json.dumps(runs)},
                    **({} if asked is None else {":was": item["asked_at"]}),
                },
            )
        except self._db.exceptions.ConditionalCheckFailedException:
            raise BusyError(max(1.0, self._spacing)) from None

    def started(self, share: str, notification_id: str, now: float) -> None:
        """Note that a refresh runs. The caller holds the turn: nobody else starts one meanwhile."""
        self._change(share, {notification_id: now}, drop="")

    def ended(self, shares: Sequence[str], notification_id: str) -> None:
        """Forget a refresh that has ended, whichever share it was of."""
        for share in shares:
            self._change(share, {}, drop=notification_id)

    def refreshed(self, publication: Publication, at: str) -> None:
        """Append the time-point to the attempt that published; once, and only if there is such an attempt."""
        told = self._db.get_item(
            TableName=self._table,
            Key=_key(states.scan_pk(publication.scan_id), states.recon_sk(publication.recon_id)),
            ProjectionExpression="#token",
            ExpressionAttributeNames={"#token": "token"},
        ).get("Item")
        if not told or "token" not in told:
            return
        attempt = states.attempt_sk(states.Stage.RECON, int(told["token"]["N"]))
        name = f"at_{states.TimePoint.SHARE_REFRESHED.value}"
        try:
            self._db.update_item(
                TableName=self._table,
                Key=_key(states.scan_pk(publication.scan_id), attempt),
                UpdateExpression="SET #at = if_not_exists(#at, :at)",
                ConditionExpression=f"attribute_exists({PK})",
                ExpressionAttributeNames={"#at": name},
                ExpressionAttributeValues={":at": {"S": at}},
            )
        except self._db.exceptions.ConditionalCheckFailedException:
            return

    def _change(self, share: str, add: dict[str, float], *, drop: str) -> None:
        """Change the running refreshes of a share, whatever another run changes at the same moment."""
        while True:
            item = self._db.get_item(TableName=self._table, Key=self._key(share), ConsistentRead=True).get(
                "Item", {}
            )
            runs = _runs(item)
            changed = {name: at for name, at in {**runs, **add}.items() if name != drop}
            if changed == runs:
                return
            try:
                self._db.update_item(
                    TableName=self._table,
                    Key=self._key(share),
                    UpdateExpression="SET runs = :new",
                    ConditionExpression="runs = :old",
                    ExpressionAttributeValues={":new": {"S": json.dumps(changed)}, ":old": item["runs"]},
                )
            except self._db.exceptions.ConditionalCheckFailedException:
                continue
            return

    def _key(self, share: str) -> dict[str, Any]:
        return _key("share#" + hashlib.sha256(share.encode()).hexdigest()[:16], "refresh")


class RefreshQueue:
    """The queue the publications come from."""

    def __init__(self, client: Any, url: str) -> None:
        self._sqs, self._url = client, url

    def put_off(self, receipts: Sequence[str], seconds: float) -> None:
        """Let messages that were deferred come again after ``seconds``, not at the queue's own pace."""
        for begin in range(0, len(receipts), 10):
            entries = [
                {
                    "Id": str(index),
                    "ReceiptHandle": receipt,
                    "VisibilityTimeout": min(int(seconds) + 1, 43200),
                }
                for index, receipt in enumerate(receipts[begin : begin + 10])
            ]
            self._sqs.change_message_visibility_batch(QueueUrl=self._url, Entries=entries)


def utc(now: float) -> str:
    """Return a clock's time as the ledger writes it."""
    return datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds")


def _key(pk: str, sk: str) -> dict[str, Any]:
    return {PK: {"S": pk}, SK: {"S": sk}}


def _runs(item: dict[str, Any]) -> dict[str, float]:
    return (
        {str(name): float(at) for name, at in json.loads(item["runs"]["S"]).items()} if "runs" in item else {}
    )
