"""What a message on the refresh queue says: results were published, or a share's refresh has ended."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from . import keys
from .messages import NotAMessageError, deliveries

REFRESH_DONE: Final = "Storage Gateway Refresh Cache Event"
"""The gateway's event through EventBridge (``source`` is ``aws.storagegateway``) when a refresh has ended."""
MOST_FOLDERS: Final = 50
"""The gateway takes no more folders in one request."""

_RECORD = re.compile(rf"{keys.IMAGES}([0-9a-f]+)/([0-9a-f]+)/{re.escape(keys.RECORD_FILE)}")


@dataclass(frozen=True, order=True)
class Publication:
    """A record was put: the reconstruction ``recon_id`` of ``scan_id`` is published."""

    scan_id: str
    recon_id: str


@dataclass(frozen=True)
class RefreshDone:
    """A refresh that was asked for has ended."""

    notification_id: str


def read(body: str) -> list[Publication] | RefreshDone:
    """Read a message of the refresh queue; objects that are no record are no publication.

    Raises
    ------
    NotAMessageError
        When it is of no known form.
    """
    try:
        event = json.loads(body)
    except ValueError:
        raise NotAMessageError("The message is not JSON.") from None
    if isinstance(event, dict) and event.get("detail-type") == REFRESH_DONE:
        detail = event.get("detail")
        told = detail.get("notification-id") if isinstance(detail, dict) else None
        if not isinstance(told, str) or not told:
            raise NotAMessageError("The gateway's event lacks the refresh it is about.")
        return RefreshDone(told)
    found = (_RECORD.fullmatch(delivery.key) for delivery in deliveries(body))
    return [Publication(match[1], match[2]) for match in found if match]


def folders(publications: Iterable[Publication]) -> list[str]:
    """Return the folders of a share to refresh, at most :data:`MOST_FOLDERS`, without recursion.

    A gateway only refreshes folders that it has listed before, so that each new one needs its parents:
    the folder of all scans, the scan's, the reconstruction's. When that is more than one request takes, the
    reconstructions' folders are left out, then the scans': a new folder is listed when it is first opened,
    and only a second reconstruction of a scan that somebody has looked at is then shown later, by the share's
    own cache time.
    """
    wanted = sorted(set(publications))
    root = keys.IMAGES.rstrip("/")
    scans = sorted({f"{root}/{item.scan_id}" for item in wanted})
    recons = [f"{root}/{item.scan_id}/{item.recon_id}" for item in wanted]
    for choice in ([root, *scans, *recons], [root, *scans]):
        if len(choice) <= MOST_FOLDERS:
            return [f"/{folder}" for folder in choice]
    return [f"/{root}"]
