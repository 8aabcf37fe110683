"""What an error of a library or the system means: one table, used by every process that runs a scan.

Foreign errors become errors of ours here and nowhere else. A row says who is to blame (the archive, the
settings or the machine), and with that whether another try can help, plus the code and the sentence for a
person. Types are recognised by name, so that nothing here imports torch or numpy.

The text of a foreign error never enters a sentence: libraries quote the file in it.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum

from .codes import Code, MrireconError, PermanentError, RetryableError


class Blame(StrEnum):
    """Whose fault it is that a scan stopped."""

    ARCHIVE = "archive"
    SETTINGS = "settings"
    MACHINE = "machine"


@dataclass(frozen=True)
class Cause:
    """Why a foreign error stopped a scan."""

    blame: Blame
    code: Code
    message: str

    def error(self) -> MrireconError:
        """Return it as an error of ours: another try can help only where the machine is to blame."""
        family = RetryableError if self.blame is Blame.MACHINE else PermanentError
        return family(self.code, self.message)


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes
    ----------
    cause
        What the error means.
    errnos
        Error numbers of an ``OSError``.
    types
        Names of exception types, their bases included; a leading underscore does not count.
    text
        How a plain ``RuntimeError`` says it whose type alone tells nothing.
    confined
        What it means in the process that parses an archive, whose memory and file sizes are limited on
        purpose; ``cause`` where not given.
    wrapped
        Whether an error raised while this one was handled means the same.
    """

    cause: Cause
    errnos: frozenset[int] = frozenset()
    types: frozenset[str] = frozenset()
    text: str = ""
    confined: Cause | None = None
    wrapped: bool = True

    def matches(self, error: BaseException) -> bool:
        """Return whether ``error`` itself is one of these."""
        if isinstance(error, OSError) and error.errno in self.errnos:
            return True
        if self.text and type(error) is RuntimeError and self.text in str(error):
            return True
        return any(base.__name__.lstrip("_") in self.types for base in type(error).__mro__)


DISK_FULL = Cause(
    Blame.MACHINE,
    Code.DISK_FULL,
    "The disk of the results or the temporary folder is full: free some space, or use a larger disk.",
)

TABLE = (
    Row(
        Cause(
            Blame.MACHINE,
            Code.OUT_OF_MEMORY,
            "The scan needs more memory than this machine has: use a machine with more.",
        ),
        errnos=frozenset({errno.ENOMEM}),
        types=frozenset({"MemoryError", "OutOfMemoryError"}),  # torch.OutOfMemoryError: of a GPU
        text="DefaultCPUAllocator: can't allocate memory",  # torch on a CPU has no type for it
        confined=Cause(
            Blame.SETTINGS,
            Code.TOO_LARGE,
            "The raw data need more memory than the intake may use. "
            "Send fewer raw files, or raise its limit.",
        ),
    ),
    Row(DISK_FULL, errnos=frozenset({errno.ENOSPC, errno.EDQUOT})),
    Row(
        Cause(
            Blame.MACHINE,
            Code.STORAGE,
            "A file is larger than the file system or the limits of this user allow: use another disk.",
        ),
        errnos=frozenset({errno.EFBIG}),
        confined=Cause(
            Blame.SETTINGS,
            Code.TOO_LARGE,
            "The scan unpacks to more than the byte limit. Send fewer raw files.",
        ),
    ),
    Row(
        Cause(
            Blame.MACHINE,
            Code.STORAGE,
            "The archive or a work file could not be read or written: check the disk or share and the access "
            "rights.",
        ),
        # Not EINVAL, EOVERFLOW and the like: a damaged file sends a library to absurd places. It cannot
        # cause EBADF or ESPIPE: a descriptor was closed, or a pipe stands where a file should.
        errnos=frozenset(
            {
                errno.EACCES,
                errno.EBADF,
                errno.EIO,
                errno.EMFILE,
                errno.ENFILE,
                errno.ENODEV,
                errno.ENXIO,
                errno.EPERM,
                errno.EROFS,
                errno.ESPIPE,
                # of network file systems
                errno.ECONNABORTED,
                errno.ECONNRESET,
                errno.EHOSTDOWN,
                errno.EHOSTUNREACH,
                errno.ENETDOWN,
                errno.ENETUNREACH,
                errno.ENOTCONN,
                errno.ESTALE,
                errno.ETIMEDOUT,
            }
        ),
    ),
    Row(
        Cause(
            Blame.MACHINE,
            Code.INTERNAL,
            "mrirecon is not completely installed on this machine: run mrirecon doctor.",
        ),
        types=frozenset({"ImportError"}),
        wrapped=False,  # libraries try imports and go on without
    ),
    Row(
        Cause(
            Blame.ARCHIVE,
            Code.NON_FINITE,
            "The equations of this scan have no finite solution: its samples are empty, out of range or the "
            "same in several coils. Export and send the scan again.",
        ),
        types=frozenset({"LinAlgError"}),  # numpy.linalg's and torch.linalg's
    ),
)
"""The first row that matches any error of the chain decides."""


def cause_of(error: BaseException, *, confined: bool = False) -> Cause | None:
    """Return what a foreign error means, ``None`` where the table does not know it.

    The whole chain of causes and contexts counts: where a write fails, HDF5 fails once more on closing, and
    only the first error says why.

    Parameters
    ----------
    error
        What was raised. An error of ours in the chain is passed over.
    confined
        Whether it was raised in the process that parses an archive under limits.
    """
    chain = list(_chain(error))
    for row in TABLE:
        if any(row.matches(link) for link in (chain if row.wrapped else chain[:1])):
            return row.confined if confined and row.confined else row.cause
    return None


def outside_archive(error: BaseException) -> bool:
    """Return whether the machine or a limit set on it caused ``error``, and not what a file holds."""
    cause = cause_of(error, confined=True)
    return cause is not None and cause.blame is not Blame.ARCHIVE


def ours(error: BaseException) -> MrireconError:
    """Return ``error`` as one of ours; one that the table does not know may pass, so it is retryable."""
    if isinstance(error, MrireconError):
        return error
    cause = cause_of(error)
    if cause is not None:
        return cause.error()
    return RetryableError(
        Code.INTERNAL, f"An unexpected {type(error).__name__} stopped the scan; the archive is untouched."
    )


@contextmanager
def translated() -> Iterator[None]:
    """Raise the block's foreign errors that the table knows as errors of ours; let all others pass."""
    try:
        yield
    except MrireconError:
        raise
    except Exception as error:
        cause = cause_of(error)
        if cause is None:
            raise
        raise cause.error() from error


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        link = link.__cause__ or link.__context__
