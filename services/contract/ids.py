"""Scan and reconstruction ids: opaque, derived from content, free of anything a scanner named."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any, BinaryIO

SCAN_ID_LENGTH = 16
RECON_ID_LENGTH = 8
_BLOCK = 4 * 1024 * 1024


def scan_id_from_digest(sha256_hex: str) -> str:
    """Return the scan id: the first 16 hex digits of the SHA-256 of the archive's bytes as stored."""
    return sha256_hex[:SCAN_ID_LENGTH]


def scan_id(archive: BinaryIO) -> str:
    """Read ``archive`` from where it stands to its end and return its scan id."""
    digest = hashlib.sha256()
    while block := archive.read(_BLOCK):
        digest.update(block)
    return scan_id_from_digest(digest.hexdigest())


def recon_id(scan: str, settings: Mapping[str, Any], version: str) -> str:
    """Return the reconstruction id: first 8 hex of SHA-256 over (scan id, settings, version).

    ``settings`` must be JSON-serialisable; key order does not matter. Another method or a repaired
    version of the reconstruction makes another id, and so another reconstruction beside the first.
    """
    text = json.dumps([scan, dict(settings), version], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:RECON_ID_LENGTH]


def uid(level: str, parts: Iterable[object]) -> str:
    """Return a deterministic DICOM UID ``2.25.<128 bits of SHA-256(level, parts)>`` (PS3.5, B.2)."""
    text = json.dumps([level, *[str(part) for part in parts]], separators=(",", ":"))
    return "2.25." + str(int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "big"))
