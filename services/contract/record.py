"""The record of a scan (``scan.json``, and the body of its ledger row). No patient data, ever.

``scan.schema.json`` beside this file is its JSON schema; every key below is always there, ``None``
where a scan did not come so far. Records of earlier versions lack ``label``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .causes import ours
from .codes import End

SCHEMA_VERSION = 1

KEYS = (
    "schema_version",
    "status",
    "code",
    "message",
    "scan_id",
    "recon_id",
    "label",
    "profile",
    "format",
    "geometry",
    "acceleration",
    "acs_lines",
    "sampling",
    "preprocessing",
    "method",
    "method_reason",
    "holdout_errors",
    "network",
    "quality",
    "warnings",
    "seconds",
    "versions",
    "acquisitions_digest",
)


def schema() -> dict[str, Any]:
    """Return the JSON schema of the record."""
    text = Path(__file__).with_name("scan.schema.json").read_text(encoding="utf-8")
    loaded: dict[str, Any] = json.loads(text)
    return loaded


def new_record(scan_id: str | None = None) -> dict[str, Any]:
    """Return a record in which nothing is known yet but the scan id."""
    record: dict[str, Any] = dict.fromkeys(KEYS)
    record.update(
        schema_version=SCHEMA_VERSION,
        status=End.FAILED.value,
        scan_id=scan_id,
        warnings=[],
        seconds={},
        versions={},
        preprocessing=[],
    )
    return record


def end_record(record: dict[str, Any], error: BaseException | None) -> dict[str, Any]:
    """Set ``status``, ``code`` and ``message`` of ``record`` from how the scan ended; return it.

    A foreign error enters it as what :mod:`.causes` says it means; its own text may hold what a file said.
    What an error of ours carries as ``known`` enters the record too.
    """
    if error is None:
        record.update(status=End.DONE.value, code="", message="Images were made.")
    else:
        told = ours(error)
        record.update(told.known or {})
        record.update(status=told.end.value, code=told.code.value, message=told.message)
    return record


def dumps(record: dict[str, Any]) -> str:
    """Return the record as JSON text: keys in order, no NaN."""
    return json.dumps(record, indent=2, allow_nan=False, ensure_ascii=False) + "\n"
