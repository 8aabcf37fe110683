"""The messages on our queues: one envelope for all that announces an archive, one request a reconstruction.

Three senders announce archives: plain S3 notifications, S3 events through EventBridge, and the file
gateway's upload notification through EventBridge (after its settling time). All become :class:`Delivery`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from typing import Any, Self
from urllib.parse import unquote_plus

from .labels import is_label

VERSION = 1


class NotAMessageError(ValueError):
    """A queue message is none of ours. Its text is not repeated: it may hold a name."""


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """An archive lies at ``bucket``/``key``.

    ``sequencer`` orders events of one key (S3: compare as right-padded hex text); ``announced_at`` is the
    event's time in ISO 8601 UTC.
    """

    bucket: str
    key: str
    version: str | None = None
    size: int | None = None
    etag: str | None = None
    sequencer: str | None = None
    announced_at: str = ""


@dataclass(frozen=True, kw_only=True)
class ReconRequest:
    """A scan's k-space lies in the k-space bucket and wants one reconstruction."""

    scan_id: str
    recon_id: str
    profile: str
    method: str | None = None
    site: str
    priority: str
    kspace_key: str
    kspace_sha256: str
    kspace_bytes: int
    raw: Delivery | None = None
    """Where the archive lies, to be tagged when the scan has ended."""
    announced_at: str = ""
    intake_seconds: dict[str, float] = field(default_factory=dict)
    """Where the intake's seconds went; the record tells them with those of the reconstruction."""
    intake_warnings: list[str] = field(default_factory=list)
    label: str | None = None
    """What the site calls the scan; messages of earlier versions lack it."""

    def dumps(self) -> str:
        """Return the message body."""
        return json.dumps({"v": VERSION, "kind": "reconstruct", **asdict(self)}, separators=(",", ":"))

    @classmethod
    def loads(cls, body: str) -> Self:
        """Read a message body.

        Raises
        ------
        NotAMessageError
            When it is not a reconstruction request of this version.
        """
        data = _json_object(body)
        if data.get("kind") != "reconstruct" or data.get("v") != VERSION:
            raise NotAMessageError("The message is not a reconstruction request of this version.")
        known = {each.name for each in fields(cls)}
        values = {name: value for name, value in data.items() if name in known}
        try:
            if values.get("raw") is not None:
                values["raw"] = Delivery(**values["raw"])
            values["intake_seconds"] = dict(values.get("intake_seconds") or {})
            values["intake_warnings"] = list(values.get("intake_warnings") or [])
            if not (values.get("label") is None or is_label(values["label"])):
                raise ValueError("label")
            return cls(**values)
        except (TypeError, ValueError):
            raise NotAMessageError("The reconstruction request lacks a field, or one is no such.") from None


@dataclass(frozen=True)
class Announcement:
    """What a message on a decompress queue announces; ``unreadable`` counts the records that are not."""

    deliveries: tuple[Delivery, ...]
    unreadable: int = 0


def announcement(body: str) -> Announcement:
    """Return what a message announces, however many of its records can be read.

    One S3 notification may hold several records: a malformed one must not hold up the others' scans.

    Raises
    ------
    NotAMessageError
        When the message is of no known form, or none of its records can be read.
    """
    data = _json_object(body)
    records = data.get("Records")
    if not isinstance(records, list) or len(records) < 2:
        return Announcement(tuple(deliveries(body)))
    found: list[Delivery] = []
    unreadable = 0
    for record in records:
        try:
            found += deliveries(json.dumps({"Records": [record]}))
        except NotAMessageError:
            unreadable += 1
    if unreadable == len(records):
        raise NotAMessageError("The event lacks what tells where the archive lies.")
    return Announcement(tuple(found), unreadable)


def deliveries(body: str) -> list[Delivery]:
    """Return the deliveries a message on a decompress queue announces.

    An S3 test event announces none. Events that are no creation of an object announce none.

    Raises
    ------
    NotAMessageError
        When the message is of no known form.
    """
    data = _json_object(body)
    try:
        if data.get("Event") == "s3:TestEvent":
            return []
        if "Records" in data:
            return [_from_s3(record) for record in data["Records"] if _creates(record)]
        if data.get("source") == "aws.s3":
            return [_from_eventbridge_s3(data)] if data.get("detail-type") == "Object Created" else []
        if data.get("source") == "aws.storagegateway":
            return [_from_gateway(data)]
    except (AttributeError, KeyError, TypeError, ValueError):
        raise NotAMessageError("The event lacks what tells where the archive lies.") from None
    raise NotAMessageError("The message is neither an S3 event nor a gateway upload notification.")


def _json_object(body: str) -> dict[str, Any]:
    try:
        data = json.loads(body)
    except ValueError:
        raise NotAMessageError("The message is not JSON.") from None
    if not isinstance(data, dict):
        raise NotAMessageError("The message is not a JSON object.")
    return data


def _creates(record: Mapping[str, Any]) -> bool:
    return str(record.get("eventName", "")).removeprefix("s3:").startswith("ObjectCreated")


def _from_s3(record: Mapping[str, Any]) -> Delivery:
    thing = record["s3"]["object"]
    return Delivery(
        bucket=record["s3"]["bucket"]["name"],
        key=unquote_plus(thing["key"]),
        version=_version(thing.get("versionId")),
        size=_size(thing.get("size")),
        etag=thing.get("eTag"),
        sequencer=thing.get("sequencer"),
        announced_at=_utc(record.get("eventTime")),
    )


def _from_eventbridge_s3(event: Mapping[str, Any]) -> Delivery:
    thing = event["detail"]["object"]
    return Delivery(
        bucket=event["detail"]["bucket"]["name"],
        key=thing["key"],
        version=_version(thing.get("version-id")),
        size=_size(thing.get("size")),
        etag=thing.get("etag"),
        sequencer=thing.get("sequencer"),
        announced_at=_utc(event.get("time")),
    )


def _from_gateway(event: Mapping[str, Any]) -> Delivery:
    detail = event["detail"]
    return Delivery(
        bucket=str(detail["bucket-name"]).removeprefix("arn:aws:s3:::"),
        key=detail["object-key"],
        size=_size(detail.get("object-size")),
        announced_at=_utc(event.get("time")),
    )


def _version(value: object) -> str | None:
    return str(value) if value not in (None, "", "null") else None


def _size(value: object) -> int | None:
    return None if value is None else int(str(value))


def _utc(text: object) -> str:
    moment = datetime.fromisoformat(str(text)) if text else datetime.now(UTC)
    return moment.astimezone(UTC).isoformat(timespec="milliseconds")
