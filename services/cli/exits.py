"""Exit codes with a meaning."""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum

from ..contract.codes import End


class Exit(IntEnum):
    """What the shell is told. Of several archives the gravest: failed, rejected, incomplete."""

    OK = 0
    FAILED = 1
    USAGE = 2
    REJECTED = 3
    INCOMPLETE = 4
    INTERRUPTED = 130


_OF_END = {
    End.DONE: Exit.OK,
    End.FAILED: Exit.FAILED,
    End.REJECTED: Exit.REJECTED,
    End.INCOMPLETE: Exit.INCOMPLETE,
}
_GRAVEST_FIRST = (Exit.FAILED, Exit.REJECTED, Exit.INCOMPLETE)


def gravest(ends: Iterable[End]) -> Exit:
    """Return the exit code of several scans' ends."""
    codes = {_OF_END[end] for end in ends}
    return next((code for code in _GRAVEST_FIRST if code in codes), Exit.OK)
