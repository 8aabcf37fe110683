"""What the archive walk hands to the format readers: raw files told by content, without their names.

The seam of this room.  The walk (``archive``, ``sniff``, ``h5gate``) makes :class:`Member` objects; a reader
sees their bytes and what they are, never what the archive called them.  Readers are called in the sandboxed
child as

``prepare.read(members, out, limits, progress, scan_id) -> dict``
    write the k-space file to ``out`` and return its summary.  The keys ``format`` (str),
    ``acquisitions_digest`` (str), ``warnings`` (list of str) and ``seconds`` (dict of float) are taken out
    into the :class:`~mrirecon.decompress.stage.Intake`; all others are its ``summary``.  Plain JSON values.
``readers.inspect(members, limits) -> dict``
    tell the same without writing.

Every HDF5 member has passed the structural gate; XML inside goes through ``xmlgate`` by the reader.
"""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import IO, TYPE_CHECKING, BinaryIO, cast

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer


class RawKind(StrEnum):
    """What a raw file is, told by its content."""

    MRD = "mrd"
    """MRD/ISMRMRD version 1, HDF5."""
    FASTMRI = "fastmri"
    """fastMRI HDF5 (``kspace`` at the root)."""
    TWIX = "twix"
    """Siemens ``.dat``, VB or VD and later."""
    CFL = "cfl"
    """BART data: complex64 without a header."""
    HDR = "hdr"
    """BART header, ``# Dimensions``."""


@dataclass(frozen=True)
class Member:
    """One raw file of the archive.

    Attributes
    ----------
    index
        Place among the raw files handed on, from 0, in the order of the archive.
    size
        Bytes.
    kind
        What it is.
    open
        Makes a new seekable binary file object that reads the member from its first byte (also
        ``readinto``); each has its own position, and several may be open at once.  The caller closes it.
    path
        A private copy on disk, read-only by agreement; ``None`` when the member is read in place through a
        window of an uncompressed tar.
    stem
        Opaque number, the same for members whose names differ in nothing but the last suffix: this is how a
        BART ``.hdr`` finds its ``.cfl``.
    work_dir
        Private folder (mode 0700) for what a reader must lay down; removed with the child.
    """

    index: int
    size: int
    kind: RawKind
    open: Callable[[], BinaryIO]
    path: Path | None = None
    stem: int = 0
    work_dir: Path | None = field(default=None, repr=False)

    def as_file(self, suffix: str = ".bin") -> Path:
        """Return a path to the bytes under a name of ours that ends in ``suffix``, copying only if it must.

        For libraries that insist on a file name (twixtools wants ``.dat``).
        """
        if self.path is not None and self.path.suffix == suffix:
            return self.path
        if self.work_dir is None:
            raise ValueError("a member without a work folder cannot be laid down as a file")
        target = self.work_dir / f"{self.index}-copy{suffix}"
        if target.exists():
            return target
        if self.path is not None:
            os.link(self.path, target)
            return target
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with self.open() as source, os.fdopen(descriptor, "wb", buffering=0) as copy:
            shutil.copyfileobj(source, cast("IO[bytes]", copy), 8 * 1024 * 1024)
        return target


class Window(io.RawIOBase):
    """A stretch of an open file, read in place: ``size`` bytes from ``start`` of ``descriptor``.

    Positioned reads only, so any number of windows share one descriptor, in any thread.  The descriptor is
    borrowed: closing the window leaves it open.
    """

    def __init__(self, descriptor: int, start: int, size: int) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._start = start
        self._size = size
        self._at = 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the position in the window."""
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Move to ``offset`` from the start, the position or the end; beyond the end reads nothing."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise ValueError("negative seek position")
        self._at = base + offset
        return self._at

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Fill ``buffer`` from the position on; less only at the window's end."""
        view = memoryview(buffer).cast("B")
        wanted = max(0, min(len(view), self._size - self._at))
        done = 0
        while done < wanted:  # one call moves at most 2 GiB
            got = os.preadv(self._descriptor, [view[done:wanted]], self._start + self._at + done)
            if not got:
                break
            done += got
        self._at += done
        return done
