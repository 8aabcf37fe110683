"""The ledger: one row a scan and stage, changed only by conditional writes.

One DynamoDB table, keys ``pk`` and ``sk`` (both strings), one index :data:`BY_STATE`
(``state`` / ``updated_at``) for listings.

=======================  ==========================  ==================================================
``pk``                   ``sk``                      item
=======================  ==========================  ==================================================
``delivery#<digest>``    ``delivery``                a delivery (bucket, key, version by digest) → scan
``scan#<scan_id>``       ``intake``                  state of its decompression
``scan#<scan_id>``       ``recon#<recon_id>``        state of one reconstruction, with the record
``scan#<scan_id>``       ``attempt#<stage>#<token>`` one attempt and its time-points, appended only
``scaler#<stage>``       ``scaler``                  when the scaler last looked and last changed something
``share#<digest>``       ``refresh``                 when a share was last refreshed, and what runs
=======================  ==========================  ==================================================

State items hold ``state`` (:class:`State`), ``owner`` and ``token`` (the fencing token: a number that
grows with every claim; who publishes must still hold it), ``lease_until``, ``code``, ``message``.
The last two kinds of item have no ``state`` and so stand in no listing.
"""

from __future__ import annotations

import hashlib
from enum import StrEnum
from typing import Final

PK: Final = "pk"
SK: Final = "sk"
BY_STATE: Final = "by_state"
STATE: Final = "state"
UPDATED_AT: Final = "updated_at"
"""ISO 8601, UTC, sorts as text."""


class Stage(StrEnum):
    """The two stages a worker can serve."""

    DECOMPRESS = "decompress"
    RECON = "recon"


class State(StrEnum):
    """Where a scan is. From ``done`` on they never change again (``failed`` may be redriven)."""

    WAITING = "waiting"
    """Announced, its archive does not end yet."""
    QUEUED = "queued"
    CLAIMED = "claimed"
    DONE = "done"
    REJECTED = "rejected"
    FAILED = "failed"
    SUPERSEDED = "superseded"
    """Of deliveries only: the tar did not end, and a newer version of the object took its place."""


ENDED: Final = frozenset({State.DONE, State.REJECTED, State.FAILED, State.SUPERSEDED})


class TimePoint(StrEnum):
    """The time-points of a scan's journey, in order; also the names of the fault-injection points."""

    ANNOUNCED = "announced"
    RECEIVED = "received"
    CLAIMED = "claimed"
    READ = "read"
    DECOMPRESSED = "decompressed"
    QUEUED = "queued"
    RECON_RECEIVED = "recon_received"
    RECON_CLAIMED = "recon_claimed"
    RECON_READ = "recon_read"
    RECONSTRUCTED = "reconstructed"
    UPLOADED = "uploaded"
    PUBLISHED = "published"
    SHARE_REFRESHED = "share_refreshed"


def delivery_pk(bucket: str, key: str, version: str | None) -> str:
    """Return the partition key of a delivery. A digest: the raw key may hold a name."""
    text = "\0".join([bucket, key, version or ""])
    return "delivery#" + hashlib.sha256(text.encode()).hexdigest()[:32]


def scan_pk(scan_id: str) -> str:
    """Return the partition key under which all items of a scan lie."""
    return f"scan#{scan_id}"


DELIVERY_SK: Final = "delivery"
INTAKE_SK: Final = "intake"


def recon_sk(recon_id: str) -> str:
    """Return the sort key of a reconstruction's state item."""
    return f"recon#{recon_id}"


def attempt_sk(stage: Stage, token: int) -> str:
    """Return the sort key of an attempt's item."""
    return f"attempt#{stage.value}#{token:06d}"
