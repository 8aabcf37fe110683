"""BART's data sets: a header and its numbers, two files of one name."""

from __future__ import annotations

from pathlib import Path

SUFFIXES = {".cfl": ".hdr", ".hdr": ".cfl"}


def partner(path: Path) -> Path | None:
    """Return the other file of a BART pair (``.hdr`` and ``.cfl`` of one name), where both are there."""
    suffix = SUFFIXES.get(path.suffix.lower())
    if suffix is None:
        return None
    for other in (path.with_suffix(suffix), path.with_suffix(suffix.upper())):
        if other.is_file() and not other.is_symlink():
            return other
    return None
