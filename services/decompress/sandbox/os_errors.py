"""Tell the machine's faults from the archive's, in errors that libraries wrap and re-raise."""

from __future__ import annotations

import errno
from collections.abc import Iterator

DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_MACHINE = DISK_FULL | {
    errno.EIO,
    errno.ESTALE,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.EMFILE,
    errno.ENFILE,
    errno.ENODEV,
    errno.ENXIO,
    errno.ETIMEDOUT,
    errno.ENOMEM,
    errno.EFBIG,
}
"""Not among them: EINVAL and the like, which a damaged file causes by leading a library to absurd places."""


def machine_errno(error: BaseException) -> int | None:
    """Return the error number by which the machine stopped ``error`` or what came before it, or None.

    The whole chain counts: where a write fails, HDF5 fails once more on closing, and only the first error
    says why.
    """
    for link in _chain(error):
        if isinstance(link, OSError) and link.errno in _MACHINE:
            return link.errno
    return None


def out_of_memory(error: BaseException) -> bool:
    """Tell whether ``error`` or what came before it was a want of memory."""
    return (
        any(isinstance(link, MemoryError) for link in _chain(error)) or machine_errno(error) == errno.ENOMEM
    )


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        link = link.__cause__ or link.__context__
