"""What messages and ledger rows refer to: a delivery's object version, a reconstruction's record."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from ..contract import states
from ..contract.messages import Delivery
from .ports import ObjectInfo, Row


def pinned(delivery: Delivery, info: ObjectInfo | None) -> Delivery:
    """Return the delivery with version and ETag filled in from what lies there: a gateway tells neither."""
    if info is None:
        return delivery
    return replace(delivery, version=delivery.version or info.version, etag=delivery.etag or info.etag)


def delivery_pk(delivery: Delivery) -> str:
    """Return the partition key of a pinned delivery: by its version, or by its ETag where it has none."""
    return states.delivery_pk(delivery.bucket, delivery.key, delivery.version or delivery.etag)


def body_of(row: Row) -> dict[str, Any] | None:
    """Return the record that a reconstruction's row holds, ``None`` when it has none yet."""
    text = row.get("body")
    loaded: dict[str, Any] | None = json.loads(text) if text else None
    return loaded
