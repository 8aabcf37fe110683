"""The ledger: DynamoDB through boto3. Every change of a state item is one conditional write.

See :mod:`mrirecon.contract.states` for the table.  A write that was carried out although its answer was lost
is recognised when botocore repeats it: the item then holds our own owner and token.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from ..contract import states
from ..contract.states import PK, SK, STATE, UPDATED_AT, Stage, State, TimePoint
from . import client as aws
from .clock import ServerClock, iso
from .ports import Claim, Row

_FIXED = frozenset({PK, SK, STATE, UPDATED_AT, "token", "owner", "lease_until"})


class DynamoLedger:
    """See :class:`~mrirecon.aws.ports.Ledger`."""

    def __init__(self, client: Any, table: str, clock: ServerClock) -> None:
        from boto3.dynamodb.types import TypeDeserializer, TypeSerializer

        self._db = client
        self._table = table
        self.clock = clock
        self._serialize = TypeSerializer().serialize
        self._deserialize = TypeDeserializer().deserialize

    def get(self, pk: str, sk: str) -> Row | None:
        """Return a state item, read consistently."""
        with aws.translated("The ledger"):
            told = self._db.get_item(
                TableName=self._table, Key=self._item({PK: pk, SK: sk}), ConsistentRead=True
            )
        return self._row(told["Item"]) if told.get("Item") else None

    def claim(self, pk: str, sk: str, owner: str, lease: float, **first: Any) -> Claim | Row:
        """Take a state item, or return it as it is when it is ended or another's lease still runs."""
        now = self.clock.now()
        held = self._update(
            pk,
            sk,
            {
                "state": State.CLAIMED.value,
                "owner": owner,
                "lease_until": now + lease,
                "updated_at": iso(now),
            },
            first=first,
            add_token=True,
            condition="attribute_not_exists(pk) OR #state IN (:queued, :waiting, :failed, :superseded) OR "
            "(#state = :claimed AND (lease_until < :now OR #owner = :me))",
            values={
                ":queued": State.QUEUED.value,
                ":waiting": State.WAITING.value,
                ":failed": State.FAILED.value,
                ":superseded": State.SUPERSEDED.value,
                ":claimed": State.CLAIMED.value,
                ":now": now,
                ":me": owner,
            },
        )
        if held is not None:
            return Claim(pk, sk, owner, held.token, held.attributes)
        row = self.get(pk, sk)
        if row is None:  # deleted between the two calls: as if it had just been let go
            return Row(pk, sk, State.QUEUED)
        return row

    def renew(self, claim: Claim, lease: float) -> bool:
        """Prolong the lease; ``False`` when the token is no longer the newest."""
        return self._held(claim, {"lease_until": self.clock.now() + lease}) is not None

    def note(self, claim: Claim, **attributes: Any) -> bool:
        """Set attributes of a claimed item."""
        return self._held(claim, attributes) is not None

    def release(self, claim: Claim, state: State, **attributes: Any) -> bool:
        """Leave a claimed item in ``state``."""
        changed = self._held(
            claim, {"state": state.value, "lease_until": 0, "updated_at": iso(self.clock.now()), **attributes}
        )
        if changed is not None:
            return True
        row = self.get(claim.pk, claim.sk)
        return row is not None and (row.token, row.owner, row.state) == (claim.token, claim.owner, state)

    def queue(self, pk: str, sk: str, **attributes: Any) -> Row:
        """Make a ``queued`` item unless there is one already; return what is there then."""
        made = self._update(
            pk,
            sk,
            {
                "state": State.QUEUED.value,
                "lease_until": 0,
                "updated_at": iso(self.clock.now()),
                **attributes,
            },
            condition="attribute_not_exists(pk)",
            values={},
        )
        return made or self.get(pk, sk) or Row(pk, sk, State.QUEUED)

    def fail(self, row: Row, code: str, message: str) -> bool:
        """Record that retries are spent, unless the item has changed since ``row`` was read."""
        changed = self._update(
            row.pk,
            row.sk,
            {
                "state": State.FAILED.value,
                "code": code,
                "message": message,
                "lease_until": 0,
                "updated_at": iso(self.clock.now()),
            },
            condition="#state = :was AND lease_until = :lease",
            values={":was": row.state.value, ":lease": row.lease_until},
        )
        return changed is not None

    def requeue(self, pk: str, sk: str) -> bool:
        """Set a ``failed`` item back to ``queued``."""
        changed = self._update(
            pk,
            sk,
            {"state": State.QUEUED.value, "updated_at": iso(self.clock.now())},
            condition="#state = :failed",
            values={":failed": State.FAILED.value},
        )
        return changed is not None

    def attempt(self, scan_id: str, stage: Stage, token: int, **attributes: Any) -> None:
        """Append to an attempt's item; what is there stays."""
        self._update(
            states.scan_pk(scan_id),
            states.attempt_sk(stage, token),
            {},
            first=attributes,
            condition="",
            values={},
        )

    def point(self, scan_id: str, stage: Stage, token: int, point: TimePoint, at: str) -> None:
        """Append a time-point to an attempt's item, if it has none of that name."""
        self.attempt(scan_id, stage, token, **{f"at_{point.value}": at})

    def rows(self, state: State, limit: int = 100) -> list[Row]:
        """Return state items in ``state``, the most recently changed first."""
        found: list[Row] = []
        start: dict[str, Any] = {}
        with aws.translated("The ledger"):
            while len(found) < limit:
                told = self._db.query(
                    TableName=self._table,
                    IndexName=states.BY_STATE,
                    ScanIndexForward=False,
                    KeyConditionExpression="#state = :state",
                    ExpressionAttributeNames={"#state": STATE},
                    ExpressionAttributeValues=self._item({":state": state.value}),
                    Limit=limit,
                    **start,
                )
                found += [self._row(item) for item in told["Items"]]
                if not told.get("LastEvaluatedKey"):
                    break
                start = {"ExclusiveStartKey": told["LastEvaluatedKey"]}
        return found[:limit]

    def scan(self, scan_id: str) -> tuple[list[Row], list[dict[str, Any]]]:
        """Return a scan's state items and its attempts."""
        items: list[dict[str, Any]] = []
        start: dict[str, Any] = {}
        with aws.translated("The ledger"):
            while True:
                told = self._db.query(
                    TableName=self._table,
                    ConsistentRead=True,
                    KeyConditionExpression="pk = :pk",
                    ExpressionAttributeValues=self._item({":pk": states.scan_pk(scan_id)}),
                    **start,
                )
                items += told["Items"]
                if not told.get("LastEvaluatedKey"):
                    break
                start = {"ExclusiveStartKey": told["LastEvaluatedKey"]}
        rows = [self._row(item) for item in items if STATE in item]
        return rows, [self._plain(item) for item in items if STATE not in item]

    def _held(self, claim: Claim, values: Mapping[str, Any]) -> Row | None:
        return self._update(
            claim.pk,
            claim.sk,
            dict(values),
            condition="#token = :token AND #owner = :me AND #state = :claimed",
            values={":token": claim.token, ":me": claim.owner, ":claimed": State.CLAIMED.value},
        )

    def _update(
        self,
        pk: str,
        sk: str,
        assign: dict[str, Any],
        *,
        condition: str,
        values: Mapping[str, Any],
        first: Mapping[str, Any] | None = None,
        add_token: bool = False,
    ) -> Row | None:
        """Carry out one conditional update; ``None`` when the condition does not hold."""
        names = {"#state": STATE, "#owner": "owner", "#token": "token"}
        given: dict[str, Any] = dict(values)
        parts: list[str] = []
        for number, (name, value) in enumerate(assign.items()):
            names[f"#a{number}"], given[f":a{number}"] = name, value
            parts.append(f"#a{number} = :a{number}")
        for number, (name, value) in enumerate((first or {}).items()):
            names[f"#f{number}"], given[f":f{number}"] = name, value
            parts.append(f"#f{number} = if_not_exists(#f{number}, :f{number})")
        if add_token:
            given.update({":zero": 0, ":one": 1})
            parts.append("#token = if_not_exists(#token, :zero) + :one")
        expression = "SET " + ", ".join(parts)
        used = {name: full for name, full in names.items() if name in f"{expression} {condition}"}
        with aws.translated("The ledger"):
            try:
                told = self._db.update_item(
                    TableName=self._table,
                    Key=self._item({PK: pk, SK: sk}),
                    UpdateExpression=expression,
                    **({"ConditionExpression": condition} if condition else {}),
                    **({"ExpressionAttributeNames": used} if used else {}),
                    ExpressionAttributeValues=self._item(given),
                    ReturnValues="ALL_NEW",
                )
            except self._db.exceptions.ConditionalCheckFailedException:
                return None
        return self._row(told["Attributes"])

    def _item(self, values: Mapping[str, Any]) -> dict[str, Any]:
        return {
            name: self._serialize(Decimal(str(round(value, 6))) if isinstance(value, float) else value)
            for name, value in values.items()
        }

    def _plain(self, item: Mapping[str, Any]) -> dict[str, Any]:
        plain = {name: self._deserialize(value) for name, value in item.items()}
        return {name: _number(value) for name, value in plain.items()}

    def _row(self, item: Mapping[str, Any]) -> Row:
        plain = self._plain(item)
        return Row(
            pk=plain[PK],
            sk=plain[SK],
            state=State(plain.get(STATE, State.QUEUED)),
            token=int(plain.get("token", 0)),
            owner=plain.get("owner", ""),
            lease_until=float(plain.get("lease_until", 0)),
            updated_at=plain.get(UPDATED_AT, ""),
            attributes={name: value for name, value in plain.items() if name not in _FIXED},
        )


def _number(value: Any) -> Any:
    if not isinstance(value, Decimal):
        return value
    return int(value) if value == value.to_integral_value() else float(value)
