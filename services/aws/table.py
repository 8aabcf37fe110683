"""One DynamoDB table with the keys ``pk`` and ``sk``: plain Python values in, plain Python values out.

Numbers come back exactly as they were written: ``int`` where they are whole, ``float`` elsewhere. Errors are
botocore's own: the callers know what a failed call means to them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from ..contract.states import PK, SK

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_dynamodb.type_defs import (
        GetItemInputTypeDef,
        QueryInputTypeDef,
        UpdateItemInputTypeDef,
    )

Item = dict[str, Any]
"""An item's attributes by name."""


class Table:
    """A table of the ledger's shape.

    In conditions attributes are written ``#name``, values ``:name``, as DynamoDB's expressions have them.
    """

    def __init__(self, client: DynamoDBClient, name: str) -> None:
        from boto3.dynamodb.types import TypeDeserializer, TypeSerializer

        self._db = client
        self._name = name
        self._serialize = TypeSerializer().serialize
        self._deserialize = TypeDeserializer().deserialize

    def get(self, pk: str, sk: str, *, attributes: Sequence[str] = ()) -> Item | None:
        """Return an item, read consistently; ``None`` when there is none.

        Parameters
        ----------
        pk, sk
            Its keys.
        attributes
            Read only these; none: all.
        """
        request: GetItemInputTypeDef = {
            "TableName": self._name,
            "Key": self._dynamo({PK: pk, SK: sk}),
            "ConsistentRead": True,
        }
        if attributes:
            request["ProjectionExpression"] = ", ".join(f"#{name}" for name in attributes)
            request["ExpressionAttributeNames"] = {f"#{name}": name for name in attributes}
        answer = self._db.get_item(**request)
        return self.plain(answer["Item"]) if answer.get("Item") else None

    def update(
        self,
        pk: str,
        sk: str,
        assign: Mapping[str, Any],
        *,
        first: Mapping[str, Any] | None = None,
        increment: str = "",
        condition: str = "",
        values: Mapping[str, Any] | None = None,
    ) -> Item | None:
        """Change an item, or make it, in one conditional write; return it as it is then.

        Parameters
        ----------
        pk, sk
            Its keys.
        assign
            Attributes to set.
        first
            Attributes to set unless the item has them.
        increment
            Name of a number to raise by one; it begins at 0.
        condition
            What must hold for the item as it is; empty: nothing.
        values
            The values that the condition names, without their colons.

        Returns
        -------
        ``None`` when the condition does not hold: then nothing has changed.
        """
        names: dict[str, str] = {}
        given: dict[str, Any] = {f":{name}": value for name, value in (values or {}).items()}
        parts: list[str] = []
        for number, (name, value) in enumerate(assign.items()):
            names[f"#a{number}"], given[f":a{number}"] = name, value
            parts.append(f"#a{number} = :a{number}")
        for number, (name, value) in enumerate((first or {}).items()):
            names[f"#f{number}"], given[f":f{number}"] = name, value
            parts.append(f"#f{number} = if_not_exists(#f{number}, :f{number})")
        if increment:
            names["#i"] = increment
            given.update({":zero": 0, ":one": 1})
            parts.append("#i = if_not_exists(#i, :zero) + :one")
        names.update({f"#{name}": name for name in re.findall(r"#(\w+)", condition)})
        request: UpdateItemInputTypeDef = {
            "TableName": self._name,
            "Key": self._dynamo({PK: pk, SK: sk}),
            "UpdateExpression": "SET " + ", ".join(parts),
            "ExpressionAttributeNames": names,
            "ExpressionAttributeValues": self._dynamo(given),
            "ReturnValues": "ALL_NEW",
        }
        if condition:
            request["ConditionExpression"] = condition
        try:
            answer = self._db.update_item(**request)
        except self._db.exceptions.ConditionalCheckFailedException:
            return None
        return self.plain(answer["Attributes"])

    def query(
        self,
        attribute: str,
        value: str,
        *,
        index: str | None = None,
        newest_first: bool = False,
        page: int = 0,
    ) -> Iterator[Item]:
        """Yield all items whose partition key ``attribute`` is ``value``, in the order of their sort key.

        Parameters
        ----------
        attribute, value
            The partition key, of the table or of ``index``.
        index
            Name of an index; none: the table itself, read consistently.
        newest_first
            The largest sort key first.
        page
            Read at most so many items with one call; 0: as many as DynamoDB gives.
        """
        request: QueryInputTypeDef = {
            "TableName": self._name,
            "ScanIndexForward": not newest_first,
            "KeyConditionExpression": "#key = :value",
            "ExpressionAttributeNames": {"#key": attribute},
            "ExpressionAttributeValues": self._dynamo({":value": value}),
        }
        if index:
            request["IndexName"] = index
        else:
            request["ConsistentRead"] = True
        if page:
            request["Limit"] = page
        while True:
            answer = self._db.query(**request)
            yield from map(self.plain, answer["Items"])
            if not answer.get("LastEvaluatedKey"):
                return
            request["ExclusiveStartKey"] = answer["LastEvaluatedKey"]

    def plain(self, item: Mapping[str, Any]) -> Item:
        """Return an item of boto3's as plain values."""
        return {name: _plain(self._deserialize(value)) for name, value in item.items()}

    def _dynamo(self, values: Mapping[str, Any]) -> dict[str, Any]:
        # The shortest text that is read back as the same float: a condition may compare what was read before.
        return {
            name: self._serialize(Decimal(repr(value)) if isinstance(value, float) else value)
            for name, value in values.items()
        }


def _plain(value: Any) -> Any:
    if not isinstance(value, Decimal):
        return value
    return int(value) if value == value.to_integral_value() else float(value)
