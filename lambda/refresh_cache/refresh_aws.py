"""What the cache refresh calls through boto3: the gateway, the ledger, the queue."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from botocore.exceptions import ClientError

from mrirecon.aws.client import error_code
from mrirecon.aws.table import Item, Table
from mrirecon.contract import states
from mrirecon.contract.publications import Publication

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_sqs.type_defs import ChangeMessageVisibilityBatchRequestEntryTypeDef
    from mypy_boto3_storagegateway import StorageGatewayClient

MOST_RUNNING: Final = 2
"""The gateway refuses a third refresh of a share while two are running."""


class BusyError(RuntimeError):
    """The share cannot be refreshed now; ``seconds`` until it is worth trying again."""

    def __init__(self, seconds: float) -> None:
        super().__init__(seconds)
        self.seconds = seconds


class Gateway:
    """Storage Gateway."""

    def __init__(self, client: StorageGatewayClient) -> None:
        self._gateway = client

    def refresh(self, share: str, folders: Sequence[str], retry_seconds: float) -> str:
        """Ask for a refresh and return its id.

        Raises
        ------
        BusyError
            When the gateway says that two are running, or that it cannot just now.
        """
        try:
            accepted = self._gateway.refresh_cache(FileShareARN=share, FolderList=folders, Recursive=False)
        except ClientError as error:
            if error_code(error) == "InvalidGatewayRequestException":
                raise BusyError(retry_seconds) from error
            raise
        return accepted["NotificationId"]


class ShareRefreshTable:
    """The ledger's table: one item a share (what runs, when it was last asked), and the scans' time-points.

    Parameters
    ----------
    table
        The table.
    spacing
        Seconds between two refreshes of one share.
    running
        Seconds after which a refresh whose end nobody announced no longer counts as running.
    """

    def __init__(self, table: Table, *, spacing: float, running: float) -> None:
        self._table, self._spacing, self._running = table, spacing, running

    def take_turn(self, share: str, now: float) -> None:
        """Reserve a refresh of ``share`` for the caller alone.

        Raises
        ------
        BusyError
            When the last one was asked for too short a time ago, or two are known to run.
        """
        item = self._table.get(*_keys(share)) or {}
        runs = {name: at for name, at in _runs(item).items() if now - at < self._running}
        if len(runs) >= MOST_RUNNING:
            raise BusyError(max(1.0, self._running - (now - min(runs.values()))))
        asked = item.get("asked_at")
        if asked is not None and now - asked < self._spacing:
            raise BusyError(max(1.0, self._spacing - (now - asked)))
        taken = self._table.update(
            *_keys(share),
            {"asked_at": now, "runs": json.dumps(runs)},
            condition="attribute_not_exists(#asked_at)" if asked is None else "#asked_at = :was",
            values={} if asked is None else {"was": asked},
        )
        if taken is None:
            raise BusyError(max(1.0, self._spacing))

    def started(self, share: str, notification_id: str, now: float) -> None:
        """Note that a refresh runs. The caller holds the turn: nobody else starts one meanwhile."""
        self._change(share, {notification_id: now}, drop="")

    def ended(self, shares: Sequence[str], notification_id: str) -> None:
        """Forget a refresh that has ended, whichever share it was of."""
        for share in shares:
            self._change(share, {}, drop=notification_id)

    def refreshed(self, publication: Publication, at: str) -> None:
        """Append the time-point to the attempt that published; once, and only if there is such an attempt."""
        scan = states.scan_pk(publication.scan_id)
        published = self._table.get(scan, states.recon_sk(publication.recon_id), attributes=["token"])
        if not published:
            return
        self._table.update(
            scan,
            states.attempt_sk(states.Stage.RECON, published["token"]),
            {},
            first={f"at_{states.TimePoint.SHARE_REFRESHED.value}": at},
            condition=f"attribute_exists(#{states.PK})",
        )

    def _change(self, share: str, add: Mapping[str, float], *, drop: str) -> None:
        """Change the running refreshes of a share, whatever another run changes at the same moment."""
        while True:
            item = self._table.get(*_keys(share)) or {}
            runs = _runs(item)
            changed = {name: at for name, at in {**runs, **add}.items() if name != drop}
            if changed == runs:
                return
            done = self._table.update(
                *_keys(share),
                {"runs": json.dumps(changed)},
                condition="#runs = :old",
                values={"old": item["runs"]},
            )
            if done is not None:
                return


class RefreshQueue:
    """The queue the publications come from."""

    def __init__(self, client: SQSClient, url: str) -> None:
        self._sqs, self._url = client, url

    def put_off(self, receipts: Sequence[str], seconds: float) -> None:
        """Let messages that were deferred come again after ``seconds``, not at the queue's own pace."""
        for begin in range(0, len(receipts), 10):
            entries: list[ChangeMessageVisibilityBatchRequestEntryTypeDef] = [
                {
                    "Id": str(index),
                    "ReceiptHandle": receipt,
                    "VisibilityTimeout": min(int(seconds) + 1, 43200),
                }
                for index, receipt in enumerate(receipts[begin : begin + 10])
            ]
            self._sqs.change_message_visibility_batch(QueueUrl=self._url, Entries=entries)


def _keys(share: str) -> tuple[str, str]:
    return "share#" + hashlib.sha256(share.encode()).hexdigest()[:16], "refresh"


def _runs(item: Item) -> dict[str, float]:
    known: dict[str, Any] = json.loads(item.get("runs", "{}"))
    return {name: float(at) for name, at in known.items()}
