"""The walk through a tar: every member judged, none extracted.

One scan is one tar, plain or compressed.  Its headers are read strictly, one after the other; only regular
files are taken, links and special files refuse the archive.  The files of a plain tar are read in place
afterwards; those of a compressed one are drained to ``<n>.bin`` in a private folder.  No name from the
archive reaches the disk, a message or another module.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO, cast

from ...contract.codes import Code, IncompleteError, PermanentError
from ...contract.progress import Progress, silent
from ..limits import KIB, Limits
from . import names
from . import tar_header as tarheader
from .compression import PackedSource, PlainSource, Source, compression_of, is_cut_magic, zero_tail
from .members import Window
from .signatures import bare_of, container_of
from .tar_header import BLOCK, Header, corrupt

_ZEROS = bytes(BLOCK)
_BEHIND_MAGIC = BLOCK - 257
_RECORD = 10 * KIB
_EVERYTHING = 1 << 62


@dataclass(frozen=True)
class RawEntry:
    """One regular file of the archive, litter left out; its name is gone but for what is told here.

    Attributes
    ----------
    size
        Bytes.
    open
        Makes a new binary file object at the first byte.
    path
        Where a compressed archive's file was drained to.
    stem
        Number shared by files whose names differ in the last suffix only.
    suffix
        That suffix, lower case with its dot (``.cfl``), or nothing.
    is_settings
        It is the archive's ``scan.json``.
    """

    size: int
    open: Callable[[], BinaryIO]
    path: Path | None
    stem: int
    suffix: str
    is_settings: bool


@dataclass(frozen=True)
class Walked:
    """What a complete and sound archive holds."""

    entries: tuple[RawEntry, ...]
    compression: str | None
    zeros_in_last: Callable[[], int]
    """Zero bytes that the last file ends in, when the archive could be a copy that is still being filled."""


def walk(descriptor: int, limits: Limits, work_dir: Path, progress: Progress = silent) -> Walked:
    """Read the archive open at ``descriptor`` from its first byte to its last.

    Parameters
    ----------
    descriptor
        Of a regular file, open for reading; its position is neither used nor moved.
    limits
        The budgets.
    work_dir
        Private folder for what a compressed archive unpacks to.
    progress
        Called with the stage ``unpack``.

    Raises
    ------
    PermanentError
        With the code of the first rule that the archive breaks.
    IncompleteError
        When the archive does not end: it may still be arriving.
    """
    size = os.fstat(descriptor).st_size
    if size > limits.max_archive_bytes:
        raise PermanentError(
            Code.TOO_LARGE,
            f"The archive has {size} bytes; at most {limits.max_archive_bytes} are taken. "
            "Send fewer raw files.",
        )
    head = os.pread(descriptor, BLOCK, 0)
    compression = compression_of(head)
    if compression is not None:
        walker = _Walker(PackedSource(descriptor, size, compression, limits), limits, work_dir, progress)
        walker.run()
        return Walked(tuple(walker.entries), compression, lambda: 0)
    _refuse_cut_start(descriptor, size, head)
    walker = _Walker(PlainSource(descriptor, size), limits, work_dir, progress, window_of=descriptor)
    try:
        walker.run()
    except PermanentError as error:
        left = size - walker.source.offset
        if error.code is Code.CORRUPT_ARCHIVE and zero_tail(descriptor, size) > left + _BEHIND_MAGIC:
            # The header itself breaks off in zeros up to the end: a copy that reserved its space first.
            raise _unfinished() from None
        raise
    last_end = walker.last_end
    return Walked(
        tuple(walker.entries),
        None,
        lambda: max(0, zero_tail(descriptor, size) - (size - last_end)),
    )


def _refuse_cut_start(descriptor: int, size: int, head: bytes) -> None:
    """Raise for a plain file that is empty, shorter than a header, or reserved but not filled."""
    if size == 0:
        raise IncompleteError("The archive is empty: it may still be arriving.")
    if is_cut_magic(head):
        raise _unfinished()
    if size < BLOCK and (not head.strip(b"\0") or _may_begin_a_header(head)):
        raise _unfinished()
    if size > _RECORD and not head.strip(b"\0") and zero_tail(descriptor, size) == size:
        raise _unfinished()


def _may_begin_a_header(head: bytes) -> bool:
    """Tell whether fewer bytes than a block can be the beginning of a tar header."""
    name, numbers = head[:100], head[100:156]
    plain_name = bool(name.rstrip(b"\0")) and b"\0" not in name.rstrip(b"\0")
    return plain_name and all(byte in b"01234567 \0" for byte in numbers) and container_of(head) is None


class _Walker:
    """The state of one walk."""

    def __init__(
        self,
        source: Source,
        limits: Limits,
        work_dir: Path,
        progress: Progress,
        window_of: int | None = None,
    ) -> None:
        self.source = source
        self.entries: list[RawEntry] = []
        self.last_end = 0
        self._limits = limits
        self._work_dir = work_dir
        self._progress = progress
        self._window_of = window_of
        self._headers = 0
        self._members = 0
        self._bytes = 0
        self._files: set[str] = set()
        self._folders: set[str] = set()
        self._stems: dict[str, int] = {}

    def run(self) -> None:
        """Walk to the end of the archive."""
        block = self.source.read(BLOCK)
        self._refuse_other_files(block)
        records: dict[bytes, bytes] = {}
        long_name: bytes | None = None
        pending = False
        while block != _ZEROS:
            if len(block) < BLOCK:
                raise _unfinished()
            header = tarheader.parse(block)
            self._count_header()
            if header.type in tarheader.PAX:
                if records:
                    raise corrupt("Two extended headers of the tar stand before one member.")
                records, pending = tarheader.parse_pax(self._header_data(header)), True
            elif header.type == tarheader.PAX_GLOBAL:
                if tarheader.places_data(tarheader.parse_pax(self._header_data(header))):
                    raise corrupt("A global header of the tar names or places its members.")
            elif header.type == tarheader.GNU_LONG_NAME:
                if long_name is not None:
                    raise corrupt("Two long names of the tar stand before one member.")
                long_name, pending = self._header_data(header).rstrip(b"\0"), True
            elif header.type == tarheader.GNU_LONG_LINK:
                self._header_data(header)
                pending = True
            else:
                self._member(tarheader.extended(header, records, long_name))
                records, long_name, pending = {}, None, False
            block = self.source.read(BLOCK)
        if pending:
            raise corrupt("The tar ends where a member should follow.")
        self._end()

    def _refuse_other_files(self, block: bytes) -> None:
        """Raise when the first block is no tar header: the file is something else."""
        packed = self._window_of is None
        if block == _ZEROS or tarheader.looks_like_tar(block):
            return
        if packed and (compression_of(block) or container_of(block)):
            raise PermanentError(
                Code.NESTED_ARCHIVE,
                "The archive holds another archive instead of a tar of raw files. Pack the raw files once.",
            )
        found = bare_of(block)
        raise PermanentError(
            Code.NOT_AN_ARCHIVE,
            "Expected a tar (plain or packed by gzip, zstd, xz or bzip2), found "
            + (f"a file of type {found}" if found else "something else")
            + ". Pack the raw files of one scan with tar.",
        )

    def _count_header(self) -> None:
        self._headers += 1
        # A member may have up to three extended headers before it.
        if self._headers > 4 * self._limits.max_members:
            raise self._too_many()

    def _too_many(self) -> PermanentError:
        return PermanentError(
            Code.TOO_MANY_MEMBERS,
            f"The archive has more than {self._limits.max_members} members; one scan has a few. "
            "Pack only the raw files of one scan.",
        )

    def _header_data(self, header: Header) -> bytes:
        """Return what an extended header holds."""
        if header.size > self._limits.max_header_bytes:
            raise PermanentError(
                Code.TOO_LARGE,
                f"An extended header of the tar has {header.size} bytes; at most "
                f"{self._limits.max_header_bytes} are read. Pack the scan anew.",
            )
        data = self.source.read(header.size)
        if len(data) < header.size:
            raise _unfinished()
        self._pass_padding(header.size)
        return data

    def _member(self, header: Header) -> None:
        self._members += 1
        if self._members > self._limits.max_members:
            raise self._too_many()
        self._refuse_type(header)
        is_folder = header.type == tarheader.FOLDER
        name = names.judge(header.name, self._limits, is_folder=is_folder)
        if is_folder:
            if header.size:
                raise corrupt("A folder of the tar claims to hold bytes.")
            if name.key in self._files:
                raise _duplicate()
            self._folders.update((*name.parents, name.key))
            return
        self._bytes += header.size
        if self._bytes > self._limits.max_raw_bytes:
            raise self._too_large()
        if name.is_litter:
            if self.source.skip(header.size) < header.size:
                raise _unfinished()
            self._pass_padding(header.size)
            return
        if name.key in self._files or name.key in self._folders or not self._files.isdisjoint(name.parents):
            raise _duplicate()
        self._files.add(name.key)
        self._folders.update(name.parents)
        path, open_file = self._take(header.size)
        self.last_end = self.source.offset
        self._pass_padding(header.size)
        stem = self._stems.setdefault(name.stem_key, len(self._stems))
        self.entries.append(RawEntry(header.size, open_file, path, stem, name.suffix, name.is_settings))
        self._progress("unpack", self.source.fraction)

    def _refuse_type(self, header: Header) -> None:
        if header.type in tarheader.LINKS:
            raise PermanentError(
                Code.LINK_MEMBER,
                "A member of the archive is a link; only regular files are read. Pack the files themselves "
                "(tar --dereference --hard-dereference).",
            )
        if header.is_sparse and header.size > self._limits.max_raw_bytes:
            raise self._too_large()
        if header.is_sparse or header.type not in {*tarheader.REGULAR, tarheader.FOLDER}:
            raise PermanentError(
                Code.SPECIAL_MEMBER,
                "A member of the archive is not a regular file (a device, a pipe, a sparse file or of an "
                "unknown type). Pack only the raw files, without tar --sparse.",
            )

    def _take(self, size: int) -> tuple[Path | None, Callable[[], BinaryIO]]:
        """Return how to read the next ``size`` bytes later on: in place, or from a private file."""
        if self._window_of is not None:
            start = self.source.offset
            if self.source.skip(size) < size:
                raise _unfinished()
            return None, partial(_window, self._window_of, start, size)
        path = self._work_dir / f"{len(self.entries)}.bin"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        left = size
        with os.fdopen(os.open(path, flags, 0o600), "wb", buffering=0) as file:
            for piece in self.source.pieces(size):
                _write_all(file.fileno(), piece)
                left -= len(piece)
                self._progress("unpack", self.source.fraction)
        if left:
            raise _unfinished()
        return path, partial(_open, path)

    def _pass_padding(self, size: int) -> None:
        padding = -size % BLOCK
        if self.source.skip(padding) < padding:
            raise _unfinished()

    def _too_large(self) -> PermanentError:
        return PermanentError(
            Code.TOO_LARGE,
            f"The archive holds more than {self._limits.max_raw_bytes} bytes of files. Send fewer raw files.",
        )

    def _end(self) -> None:
        """Check the second of the two blocks that end a tar, and that nothing but zeros follows."""
        block = self.source.read(BLOCK)
        if len(block) < BLOCK:
            raise _unfinished()
        if block != _ZEROS:
            raise corrupt("The tar has an end mark in its middle.")
        for piece in self.source.pieces(_EVERYTHING):
            if piece.strip(b"\0"):
                raise PermanentError(
                    Code.TRAILING_DATA,
                    "Something follows the end of the tar and would be lost. Pack one scan into one tar and "
                    "send it again.",
                )
        self._progress("unpack", 1.0)


def _window(descriptor: int, start: int, size: int) -> BinaryIO:
    return cast("BinaryIO", Window(descriptor, start, size))


def _open(path: Path) -> BinaryIO:
    return path.open("rb")


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _unfinished() -> IncompleteError:
    return IncompleteError(
        "The archive does not end: it may still be arriving. If it is complete at its source, send it again."
    )


def _duplicate() -> PermanentError:
    return PermanentError(
        Code.DUPLICATE_MEMBER,
        "Two members of the archive have the same name (case and Unicode forms do not count). "
        "Pack the scan anew, each file once.",
    )
