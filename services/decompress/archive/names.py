"""Rules for the names in an archive. A name is judged, compared, and then forgotten."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

from ...contract.codes import Code, PermanentError
from ..limits import Limits

_DRIVE = re.compile(r"[A-Za-z]:")
_SUFFIX = re.compile(r"\.[a-z0-9]{1,8}")
# C0/C1 controls, surrogates, line and paragraph separators, unassigned code points.
_BAD_CATEGORIES = frozenset({"Cc", "Cs", "Zl", "Zp", "Cn"})
# Marks that turn the direction of text, so that a name looks like another one.
_DIRECTION_MARKS = frozenset("\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u061c")
_LITTER_FILES = frozenset({".ds_store", "thumbs.db", "ehthumbs.db", "desktop.ini", ".localized", "icon\r"})
_LITTER_FOLDERS = frozenset(
    {"__macosx", ".appledouble", ".spotlight-v100", ".trashes", ".fseventsd", "@eadir", ".thumbnails"}
)


@dataclass(frozen=True)
class Name:
    """What is remembered of a member's name while the archive is walked.

    Attributes
    ----------
    key
        Equal for names that one file system or another takes for the same file.
    parents
        Keys of its folders.
    stem_key
        ``key`` without the last suffix.
    suffix
        Last suffix in lower case with its dot, or nothing.
    is_settings
        The base name is ``scan.json``.
    is_litter
        What desktops leave behind; ignored.
    """

    key: str
    parents: tuple[str, ...]
    stem_key: str
    suffix: str
    is_settings: bool
    is_litter: bool


def judge(raw: bytes, limits: Limits, *, is_folder: bool) -> Name:
    """Return what matters of the name ``raw``.

    Raises
    ------
    PermanentError
        ``bad_name`` or ``unsafe_path``. The sentence does not repeat the name.
    """
    folded = [_fold(part) for part in _parts(_readable(raw, limits), limits, is_folder=is_folder)]
    stem, dot, suffix = folded[-1].rpartition(".") if folded else ("", "", "")
    suffix = dot + suffix if stem and _SUFFIX.fullmatch(dot + suffix) else ""
    base = folded[-1] if folded else ""
    return Name(
        key="/".join(folded),
        parents=tuple("/".join(folded[:depth]) for depth in range(1, len(folded))),
        stem_key="/".join(folded)[: -len(suffix)] if suffix else "/".join(folded),
        suffix=suffix,
        is_settings=base == "scan.json",
        is_litter=(
            base.startswith("._") or base in _LITTER_FILES or any(part in _LITTER_FOLDERS for part in folded)
        ),
    )


def _parts(text: str, limits: Limits, *, is_folder: bool) -> list[str]:
    """Return the folders and the file of a name that stays inside the archive."""
    if text.startswith("/") or "\\" in text or _DRIVE.match(text):
        raise _unsafe()
    parts = [part for part in text.split("/") if part not in {"", "."}]
    if ".." in parts:
        raise _unsafe()
    if len(parts) > limits.max_name_depth:
        raise PermanentError(
            Code.BAD_NAME,
            f"A member lies in more than {limits.max_name_depth} folders. Pack the scan in one folder.",
        )
    if not is_folder and (not parts or text.endswith(("/", "/."))):
        raise _bad("A member of the archive has no file name.")
    return parts


def _readable(raw: bytes, limits: Limits) -> str:
    if len(raw) > limits.max_name_bytes:
        raise PermanentError(
            Code.BAD_NAME,
            f"A member's name has {len(raw)} bytes; at most {limits.max_name_bytes} are allowed. "
            "Pack the scan with shorter names.",
        )
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        raise _bad("A member's name is not UTF-8 text.") from None
    if any(unicodedata.category(sign) in _BAD_CATEGORIES or sign in _DIRECTION_MARKS for sign in text):
        raise _bad("A member's name holds control characters.")
    return text


def _fold(part: str) -> str:
    """Return ``part`` as the most forgiving file system compares it (case, Unicode forms, trailing dots)."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", part).casefold())
    return folded.rstrip(". ") or folded


def _bad(finding: str) -> PermanentError:
    return PermanentError(Code.BAD_NAME, finding + " Pack the scan anew with plain names.")


def _unsafe() -> PermanentError:
    return PermanentError(
        Code.UNSAFE_PATH,
        "A member's name points outside the archive's own folder (absolute, with a drive, '..' or '\\'). "
        "Pack the scan anew with relative names.",
    )
