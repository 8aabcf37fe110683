"""The ends a scan can have, the codes that name why, and the two error families that carry them.

A scan ends in exactly one of ``done``, ``rejected`` or ``failed``; ``incomplete`` waits.  Messages are
sentences for the person at the share: they say what was expected, what was found and what to do, and
never hold anything a scanner wrote (no names, ids, dates, member names).
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any


class End(StrEnum):
    """How a scan ends (``incomplete`` is the one that may still change)."""

    DONE = "done"
    REJECTED = "rejected"
    FAILED = "failed"
    INCOMPLETE = "incomplete"


class Code(StrEnum):
    """Why a scan did not end ``done``. The value is what records, tables and metrics show."""

    # the archive
    UNSAFE_PATH = "unsafe_path"
    LINK_MEMBER = "link_member"
    SPECIAL_MEMBER = "special_member"
    BAD_NAME = "bad_name"
    DUPLICATE_MEMBER = "duplicate_member"
    TOO_LARGE = "too_large"
    TOO_MANY_MEMBERS = "too_many_members"
    NESTED_ARCHIVE = "nested_archive"
    NOT_AN_ARCHIVE = "not_an_archive"
    CORRUPT_ARCHIVE = "corrupt_archive"
    TRAILING_DATA = "trailing_data"
    NO_RAW_DATA = "no_raw_data"
    TRUNCATED = "truncated"
    GONE = "gone"
    # the raw files
    H5_EXTERNAL = "h5_external"
    H5_LINKS = "h5_links"
    H5_FILTER = "h5_filter"
    H5_CORRUPT = "h5_corrupt"
    H5_SCHEMA = "h5_schema"
    XML_FORBIDDEN = "xml_forbidden"
    XML_INVALID = "xml_invalid"
    XML_TOO_LARGE = "xml_too_large"
    UNSUPPORTED = "unsupported"
    MIXED_SCANS = "mixed_scans"
    PARSER_CRASH = "parser_crash"
    # the acquisitions
    NON_FINITE = "non_finite"
    NO_ACQUISITIONS = "no_acquisitions"
    LENGTH_MISMATCH = "length_mismatch"
    CHANNEL_MISMATCH = "channel_mismatch"
    INDEX_RANGE = "index_range"
    INCOMPLETE_KSPACE = "incomplete_kspace"
    NOISE_SINGULAR = "noise_singular"
    GEOMETRY = "geometry"
    # the reconstruction
    TOO_FEW_ACS = "too_few_acs"
    BAD_SETTINGS = "bad_settings"
    # may pass with time
    INCOMPLETE = "incomplete"
    # failed: retries spent
    TIMED_OUT = "timed_out"
    SILENT = "silent"
    OUT_OF_MEMORY = "out_of_memory"
    DISK_FULL = "disk_full"
    WORKER_LOST = "worker_lost"
    STORAGE = "storage"
    INTERNAL = "internal"


class MrireconError(Exception):
    """Base of every error this project raises on purpose: a :class:`Code` and a sentence.

    >>> str(PermanentError(Code.NO_RAW_DATA, "The archive holds no raw data file."))
    'no_raw_data: The archive holds no raw data file.'
    """

    end: End = End.FAILED
    scan_id: str | None = None
    """Set by the intake where the whole archive was read, so that a refused scan has its id too."""
    known: dict[str, Any] | None = None
    """Keys of the record that were found out before the scan ended so; set by the reconstruction."""

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message

    def __str__(self) -> str:
        return f"{self.code.value}: {self.message}"


class PermanentError(MrireconError):
    """Trying again cannot help: the scan is ``rejected`` and its archive kept under quarantine."""

    end = End.REJECTED


class IncompleteError(MrireconError):
    """The archive does not end yet: it may still be arriving. Rejected as ``truncated`` once settled."""

    end = End.INCOMPLETE

    def __init__(self, message: str) -> None:
        super().__init__(Code.INCOMPLETE, message)

    def __reduce__(self) -> tuple[type[IncompleteError], tuple[str]]:
        return type(self), (self.message,)


class RetryableError(MrireconError):
    """Trying again may help: the message goes back to its queue, at last to the dead letters."""

    end = End.FAILED
