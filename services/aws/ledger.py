"""The ledger: DynamoDB through boto3. Every change of a state item is one conditional write.

See :mod:`mrirecon.contract.states` for the table.  A write that was carried out although its answer was lost
is recognised when botocore repeats it: the item then holds our own owner and token.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any

from ..contract import states
from ..contract.states import PK, SK, STATE, UPDATED_AT, Stage, State, TimePoint
from . import client as aws
from .clock import ServerClock, iso
from .ports import Claim, Row
from .table import Item, Table

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

_FIXED = frozenset({PK, SK, STATE, UPDATED_AT, "token", "owner", "lease_until"})
_HELD = "#token = :token AND #owner = :me AND #state = :claimed"


class DynamoLedger:
    """See :class:`~mrirecon.aws.ports.Ledger`."""

    def __init__(self, client: DynamoDBClient, table: str, clock: ServerClock) -> None:
        self._table = Table(client, table)
        self.clock = clock

    def get(self, pk: str, sk: str) -> Row | None:
        """Return a state item, read consistently."""
        with aws.translated("The ledger"):
            item = self._table.get(pk, sk)
        return _row(item) if item else None

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
            increment="token",
            condition="attribute_not_exists(#pk) OR #state IN (:queued, :waiting, :failed, :superseded) OR "
            "(#state = :claimed AND (#lease_until < :now OR #owner = :me))",
            values={
                "queued": State.QUEUED.value,
                "waiting": State.WAITING.value,
                "failed": State.FAILED.value,
                "superseded": State.SUPERSEDED.value,
                "claimed": State.CLAIMED.value,
                "now": now,
                "me": owner,
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
            condition="attribute_not_exists(#pk)",
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
            condition="#state = :was AND #lease_until = :lease",
            values={"was": row.state.value, "lease": row.lease_until},
        )
        return changed is not None

    def requeue(self, pk: str, sk: str, **attributes: Any) -> bool:
        """Set a ``failed`` item back to ``queued``, with these attributes."""
        changed = self._update(
            pk,
            sk,
            {"state": State.QUEUED.value, "updated_at": iso(self.clock.now()), **attributes},
            condition="#state = :failed",
            values={"failed": State.FAILED.value},
        )
        return changed is not None

    def reopen(self, row: Row) -> bool:
        """Set an ended item back to ``queued``, unless it has changed since ``row`` was read."""
        changed = self._update(
            row.pk,
            row.sk,
            {"state": State.QUEUED.value, "updated_at": iso(self.clock.now())},
            condition="#state = :was AND #token = :token",
            values={"was": row.state.value, "token": row.token},
        )
        return changed is not None

    def attempt(self, scan_id: str, stage: Stage, token: int, **attributes: Any) -> None:
        """Append to an attempt's item; what is there stays."""
        self._update(states.scan_pk(scan_id), states.attempt_sk(stage, token), {}, first=attributes)

    def point(self, scan_id: str, stage: Stage, token: int, point: TimePoint, at: str) -> None:
        """Append a time-point to an attempt's item, if it has none of that name."""
        self.attempt(scan_id, stage, token, **{f"at_{point.value}": at})

    def rows(self, state: State, limit: int = 100) -> list[Row]:
        """Return state items in ``state``, the most recently changed first."""
        found = self._table.query(STATE, state.value, index=states.BY_STATE, newest_first=True, page=limit)
        with aws.translated("The ledger"):
            return [_row(item) for item in islice(found, limit)]

    def scan(self, scan_id: str) -> tuple[list[Row], list[dict[str, Any]]]:
        """Return a scan's state items and its attempts."""
        with aws.translated("The ledger"):
            items = list(self._table.query(PK, states.scan_pk(scan_id)))
        return [_row(item) for item in items if STATE in item], [item for item in items if STATE not in item]

    def _held(self, claim: Claim, values: Mapping[str, Any]) -> Row | None:
        held = {"token": claim.token, "me": claim.owner, "claimed": State.CLAIMED.value}
        return self._update(claim.pk, claim.sk, values, condition=_HELD, values=held)

    def _update(self, pk: str, sk: str, assign: Mapping[str, Any], **more: Any) -> Row | None:
        with aws.translated("The ledger"):
            changed = self._table.update(pk, sk, assign, **more)
        return _row(changed) if changed else None


def _row(item: Item) -> Row:
    return Row(
        pk=item[PK],
        sk=item[SK],
        state=State(item.get(STATE, State.QUEUED)),
        token=int(item.get("token", 0)),
        owner=item.get("owner", ""),
        lease_until=float(item.get("lease_until", 0)),
        updated_at=item.get(UPDATED_AT, ""),
        attributes={name: value for name, value in item.items() if name not in _FIXED},
    )
