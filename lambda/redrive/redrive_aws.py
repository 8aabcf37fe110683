"""What the ledger knows of dead letters: why they died, and that they are given back."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from mrirecon.contract import redrive, states
from mrirecon.contract.messages import NotAMessageError, ReconRequest, deliveries
from mrirecon.contract.states import PK, SK, STATE, UPDATED_AT, Stage, State


class Reasons:
    """The ledger, asked about letters."""

    def __init__(self, client: Any, table: str, stage: Stage) -> None:
        self._db, self._table, self._stage = client, table, stage

    def reason(self, body: str) -> str:
        """Return the code its scan failed with; ``unknown`` where none is told, ``poison`` for no scan."""
        try:
            items = [self._get(pk, sk) for pk, sk in self._keys(body)]
        except NotAMessageError:
            items = []
        return redrive.cause((item.get(STATE, ""), item.get("code", "")) for item in items)

    def is_about(self, body: str, scan_id: str) -> bool:
        """Whether the letter is about this scan."""
        try:
            if self._stage is Stage.RECON:
                return ReconRequest.loads(body).scan_id == scan_id
            keys = list(self._keys(body))
        except NotAMessageError:
            return False
        return any(self._get(pk, sk).get("scan_id") == scan_id for pk, sk in keys)

    def requeue(self, body: str) -> None:
        """Set what failed back to ``queued``, so that nobody reads ``failed`` of a scan that waits again."""
        try:
            keys = list(self._keys(body))
        except NotAMessageError:
            return
        for pk, sk in keys:
            try:
                self._db.update_item(
                    TableName=self._table,
                    Key={PK: {"S": pk}, SK: {"S": sk}},
                    UpdateExpression="SET #state = :queued, #at = :now",
                    ConditionExpression="#state = :failed",
                    ExpressionAttributeNames={"#state": STATE, "#at": UPDATED_AT},
                    ExpressionAttributeValues={
                        ":queued": {"S": State.QUEUED.value},
                        ":failed": {"S": State.FAILED.value},
                        ":now": {"S": datetime.now(UTC).isoformat(timespec="milliseconds")},
                    },
                )
            except self._db.exceptions.ConditionalCheckFailedException:
                continue

    def _keys(self, body: str) -> Iterator[tuple[str, str]]:
        if self._stage is Stage.RECON:
            request = ReconRequest.loads(body)
            yield states.scan_pk(request.scan_id), states.recon_sk(request.recon_id)
            return
        for delivery in deliveries(body):
            # The worker pins a delivery by its version, or by its ETag in a bucket without versions.
            pk = states.delivery_pk(delivery.bucket, delivery.key, delivery.version or delivery.etag)
            yield pk, states.DELIVERY_SK
            scan = self._get(pk, states.DELIVERY_SK).get("scan_id")
            if scan:
                yield states.scan_pk(scan), states.INTAKE_SK

    def _get(self, pk: str, sk: str) -> dict[str, str]:
        told = self._db.get_item(
            TableName=self._table,
            Key={PK: {"S": pk}, SK: {"S": sk}},
            ConsistentRead=True,
            ProjectionExpression="#state, #code, scan_id",
            ExpressionAttributeNames={"#state": STATE, "#code": "code"},
        )
        return {name: value["S"] for name, value in told.get("Item", {}).items() if "S" in value}
