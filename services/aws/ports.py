"""What a worker needs of the world: an object store, a queue, a ledger, a clock. No boto3 here.

The adapters (``store``, ``queue``, ``ledger``) speak to AWS; the tests' in-memory ones obey the same rules.
Adapters raise only the errors of :mod:`~mrirecon.contract.codes`, never a library's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from ..contract.states import ENDED, Stage, State, TimePoint

Check = Callable[[], None]
"""Called often during long work; raises when the scan must stop (token lost, time spent, told to stop)."""


def never() -> None:
    """Nothing stops this work."""


class Clock(Protocol):
    """Time in seconds since 1970 as the *ledger* sees it: a worker's own clock may be wrong."""

    def now(self) -> float:
        """Return the time."""
        ...


@dataclass(frozen=True)
class ObjectInfo:
    """What a store tells of an object before it is read (``sha256``: hex, when its writer recorded it)."""

    size: int
    etag: str
    version: str | None
    modified: float
    sha256: str | None = None
    checksum_sha256: str | None = None
    archived: bool = False
    plain_md5: bool = False
    metadata: Mapping[str, str] = field(default_factory=dict)


class ObjectStore(Protocol):
    """S3, or something that obeys the same rules."""

    def head(self, bucket: str, key: str, version: str | None = None) -> ObjectInfo | None:
        """Return what is known of the object, ``None`` when there is none."""
        ...

    def download(self, bucket: str, key: str, path: Path, info: ObjectInfo, check: Check = never) -> str:
        """Write exactly the object that ``info`` describes to ``path``; return its SHA-256 (hex)."""
        ...

    def upload(
        self,
        path: Path,
        bucket: str,
        key: str,
        *,
        metadata: Mapping[str, str] | None = None,
        replace: str | None = None,
        check: Check = never,
    ) -> bool:
        """Put a file only if the key is absent (or still holds the ETag ``replace``); tell whether it did."""
        ...

    def put_if_absent(self, bucket: str, key: str, body: bytes) -> bool:
        """Put a small object only if the key is absent; tell whether it did."""
        ...

    def read(self, bucket: str, key: str) -> bytes | None:
        """Return a small object, ``None`` when there is none."""
        ...

    def copy(self, source: tuple[str, str, str | None], bucket: str, key: str) -> None:
        """Copy an object (bucket, key, version) on the store's side."""
        ...

    def tag_ended(self, bucket: str, key: str, version: str | None) -> None:
        """Mark a raw object as no longer needed in reach; an object that is gone is no error."""
        ...


@dataclass(frozen=True)
class Message:
    """One receipt of a queue message. ``receives`` counts this one."""

    id: str
    body: str = field(repr=False)
    receipt: str = field(repr=False)
    receives: int
    group: str | None = field(default=None, repr=False)


class Queue(Protocol):
    """One lane of a stage."""

    name: str
    max_receives: int

    def receive(self, wait: float) -> Message | None:
        """Return the next message, waiting at most ``wait`` seconds for one."""
        ...

    def extend(self, message: Message, seconds: float) -> bool:
        """Hide the message for ``seconds`` from now; ``False`` when this receipt no longer holds it."""
        ...

    def delete(self, message: Message) -> None:
        """The work is done."""
        ...

    def send(self, body: str, *, group: str, delay: float = 0) -> None:
        """Send a message; messages of one group do not starve those of another."""
        ...


@dataclass(frozen=True)
class Claim:
    """The right to change a state item, as long as its token is the newest."""

    pk: str
    sk: str
    owner: str
    token: int
    known: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)
    """The item's other attributes when it was taken."""


@dataclass(frozen=True)
class Row:
    """A state item as the ledger tells it."""

    pk: str
    sk: str
    state: State
    token: int = 0
    owner: str = ""
    lease_until: float = 0.0
    updated_at: str = ""
    attributes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def ended(self) -> bool:
        """Whether this is an end state."""
        return self.state in ENDED

    def get(self, name: str) -> Any:
        """Return another attribute of the item, ``None`` when it has none."""
        return self.attributes.get(name)


class Ledger(Protocol):
    """The state items, changed only by conditional writes, and the attempts beside them."""

    @property
    def clock(self) -> Clock:
        """Return the ledger's clock."""
        ...

    def get(self, pk: str, sk: str) -> Row | None:
        """Return a state item, read consistently."""
        ...

    def claim(self, pk: str, sk: str, owner: str, lease: float, **first: Any) -> Claim | Row:
        """Take a state item, or return it as it is when it is ended or another's lease still runs.

        A ``failed`` item may be taken again: whoever redrives it wants just that.  So may a
        ``superseded`` one: the same unfinished bytes may lie under another key, and be the newest there.
        ``first`` are attributes set when the item has none of them yet.
        """
        ...

    def renew(self, claim: Claim, lease: float) -> bool:
        """Prolong the lease; ``False`` when the token is no longer the newest."""
        ...

    def note(self, claim: Claim, **attributes: Any) -> bool:
        """Set attributes of a claimed item."""
        ...

    def release(self, claim: Claim, state: State, **attributes: Any) -> bool:
        """Leave a claimed item in ``state``: an end, or ``queued``/``waiting`` for the next to take."""
        ...

    def queue(self, pk: str, sk: str, **attributes: Any) -> Row:
        """Make a ``queued`` item unless there is one already; return what is there then."""
        ...

    def fail(self, row: Row, code: str, message: str) -> bool:
        """Record that a scan's retries are spent, unless its item has changed since ``row`` was read."""
        ...

    def requeue(self, pk: str, sk: str, **attributes: Any) -> bool:
        """Set a ``failed`` item back to ``queued``, with these attributes."""
        ...

    def reopen(self, row: Row) -> bool:
        """Set an ended item back to ``queued``, unless it has changed since ``row`` was read.

        Only for an intake whose k-space file is gone before its images were made.
        """
        ...

    def attempt(self, scan_id: str, stage: Stage, token: int, **attributes: Any) -> None:
        """Append to an attempt's item; what is there stays."""
        ...

    def point(self, scan_id: str, stage: Stage, token: int, point: TimePoint, at: str) -> None:
        """Append a time-point to an attempt's item, if it has none of that name."""
        ...

    def rows(self, state: State, limit: int = 100) -> list[Row]:
        """Return state items in ``state``, the most recently changed first."""
        ...

    def scan(self, scan_id: str) -> tuple[list[Row], list[dict[str, Any]]]:
        """Return a scan's state items and its attempts."""
        ...
