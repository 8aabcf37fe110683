"""Object keys. No key of ours holds a name from the scanner; everything derived is keyed by ids.

====================  ==========================================  =======================
bucket                key                                         written by
====================  ==========================================  =======================
raw                   ``incoming/<site>/<stat|routine>/<any>``    the share, ``submit``
quarantine            ``quarantine/<scan_id>/archive``            decompress
quarantine            ``quarantine/<scan_id>/reason.json``        decompress
kspace                ``kspace/<scan_id>/kspace.h5``              decompress
images                ``images/<scan_id>/<recon_id>/<file>``      reconstruct
====================  ==========================================  =======================
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from pathlib import PurePosixPath

from .codes import Code, PermanentError

INCOMING = "incoming/"
KSPACE = "kspace/"
IMAGES = "images/"
QUARANTINE = "quarantine/"
KSPACE_FILE = "kspace.h5"
RECORD_FILE = "scan.json"

DONE_TAG = ("mrirecon:ended", "true")
"""Tag put on a raw object when its scan has ended; the lifecycle archives only what bears it."""

_SITE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}")
_ID = re.compile(r"[0-9a-f]+")


class Priority(StrEnum):
    """The lane a scan waits in."""

    STAT = "stat"
    ROUTINE = "routine"


@dataclass(frozen=True)
class Incoming:
    """What a raw key tells before a byte of the archive is read."""

    site: str
    priority: Priority


def parse_incoming(key: str) -> Incoming:
    """Read site and priority from ``incoming/<site>/<stat|routine>/<any name>``.

    Raises
    ------
    PermanentError
        ``bad_name`` when the key has another form. The message does not repeat the key.
    """
    parts = PurePosixPath(key).parts
    lanes = {lane.value for lane in Priority}
    if len(parts) < 4 or parts[0] + "/" != INCOMING or parts[2] not in lanes or not _SITE.fullmatch(parts[1]):
        raise PermanentError(
            Code.BAD_NAME,
            "The archive lies at a key that is not incoming/<site>/<stat|routine>/<name>: "
            "drop it in the stat or routine folder of the site.",
        )
    return Incoming(parts[1], Priority(parts[2]))


def incoming(site: str, priority: Priority, name: str) -> str:
    """Return the raw key of an archive called ``name`` at ``site``."""
    if not _SITE.fullmatch(site):
        raise PermanentError(
            Code.BAD_NAME, "A site is 1 to 63 letters, digits, '-' or '_', the first a letter or digit."
        )
    return f"{INCOMING}{site}/{priority.value}/{name}"


def kspace(scan_id: str) -> str:
    """Return the key of a scan's k-space file."""
    return f"{KSPACE}{_checked(scan_id)}/{KSPACE_FILE}"


def images(scan_id: str, recon_id: str, name: str = "") -> str:
    """Return the key of a result file, or with no ``name`` the folder's prefix (ends in ``/``)."""
    return f"{IMAGES}{_checked(scan_id)}/{_checked(recon_id)}/{name}"


def record(scan_id: str, recon_id: str) -> str:
    """Return the key of the record, whose existence is the publication."""
    return images(scan_id, recon_id, RECORD_FILE)


def quarantine(scan_id: str, name: str = "archive") -> str:
    """Return the key under which a rejected archive (or its reason) is kept."""
    return f"{QUARANTINE}{_checked(scan_id)}/{name}"


def _checked(identifier: str) -> str:
    if not _ID.fullmatch(identifier):
        raise ValueError(f"an id is lower-case hex, got {identifier!r}")
    return identifier
