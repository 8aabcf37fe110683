"""The bytes of an archive, unpacked: told by content, bounded while they come out, checked to the last one.

A :class:`Source` is read forward once.  A plain tar is read in place (and so skips members without reading
them); a compressed one goes through a decoder piece by piece, every piece counted against the budgets, and is
drained to its end, where the checksums of gzip, zstd, xz and bzip2 are.
"""

from __future__ import annotations

import bz2
import lzma
import os
import zlib
from collections.abc import Callable, Iterator
from typing import Protocol

import zstandard

from ...contract.causes import outside_archive
from ...contract.codes import Code, IncompleteError, PermanentError
from ..limits import MIB, Limits

_BLOCK = 64 * 1024
_PIECE = MIB
# A zstd block of a few bytes may unpack to 128 KiB: small bites keep what one call makes below 128 MiB.
_ZSTD_BITE = 4096
_HEAD = 18  # the longest header that tells what a stream is and wants (zstd)
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_ZSTD_SKIPPABLE = tuple(bytes([low]) + b"\x2a\x4d\x18" for low in range(0x50, 0x60))

MAGICS = {
    "gzip": (b"\x1f\x8b",),
    "zstd": (_ZSTD_MAGIC, *_ZSTD_SKIPPABLE),
    "xz": (b"\xfd7zXZ\x00",),
    "bzip2": (b"BZh",),
}


def compression_of(head: bytes) -> str | None:
    """Return ``gzip``, ``zstd``, ``xz`` or ``bzip2``, or None when ``head`` begins none of them."""
    for name, magics in MAGICS.items():
        if head.startswith(magics):
            return name
    return None


def is_cut_magic(head: bytes) -> bool:
    """Tell whether ``head`` is shorter than a compressed file's signature and the beginning of one."""
    return 0 < len(head) < 6 and any(magic.startswith(head) for magics in MAGICS.values() for magic in magics)


class Source(Protocol):
    """What the tar walk reads from; ``offset`` counts the unpacked bytes taken so far."""

    offset: int

    @property
    def fraction(self) -> float:
        """How much of the stored archive was read (0 to 1)."""

    def read(self, size: int) -> bytes:
        """Return the next ``size`` bytes, fewer only at the end."""

    def skip(self, size: int) -> int:
        """Pass over ``size`` bytes; return how many there were."""

    def pieces(self, size: int) -> Iterator[bytes]:
        """Give the next ``size`` bytes in pieces, fewer only at the end."""


class PlainSource:
    """An uncompressed archive, read at positions of its own."""

    def __init__(self, descriptor: int, size: int) -> None:
        self._descriptor = descriptor
        self._size = size
        self.offset = 0

    @property
    def fraction(self) -> float:
        """How much of the stored archive was read (0 to 1)."""
        return self.offset / max(1, self._size)

    def read(self, size: int) -> bytes:
        """Return the next ``size`` bytes, fewer only at the end."""
        data = os.pread(self._descriptor, min(size, max(0, self._size - self.offset)), self.offset)
        self.offset += len(data)
        return data

    def skip(self, size: int) -> int:
        """Pass over ``size`` bytes; return how many there were."""
        passed = min(size, max(0, self._size - self.offset))
        self.offset += passed
        return passed

    def pieces(self, size: int) -> Iterator[bytes]:
        """Give the next ``size`` bytes in pieces, fewer only at the end."""
        while size and (piece := self.read(min(size, _PIECE))):
            size -= len(piece)
            yield piece


class PackedSource:
    """A compressed archive.

    Raises (while being read)
    -------------------------
    PermanentError
        ``too_large`` over the byte budget, the ratio or the decoder's memory; ``corrupt_archive`` when the
        stream or its checksum is wrong; ``trailing_data`` when something else follows it.
    IncompleteError
        When the stream does not end.
    """

    def __init__(self, descriptor: int, size: int, compression: str, limits: Limits) -> None:
        self._descriptor = descriptor
        self._size = size
        self._limits = limits
        self._taken = 0
        self._out = 0
        self._buffer = b""
        self._at = 0
        self._stream = self._unpack(compression)
        self.offset = 0

    @property
    def fraction(self) -> float:
        """How much of the stored archive was read (0 to 1)."""
        return self._taken / max(1, self._size)

    def read(self, size: int) -> bytes:
        """Return the next ``size`` bytes, fewer only at the end."""
        return b"".join(self.pieces(size))

    def skip(self, size: int) -> int:
        """Pass over ``size`` bytes; return how many there were."""
        return sum(len(piece) for piece in self.pieces(size))

    def pieces(self, size: int) -> Iterator[bytes]:
        """Give the next ``size`` bytes in pieces, fewer only at the end."""
        while size:
            if self._at == len(self._buffer):
                self._buffer, self._at = next(self._stream, b""), 0
                if not self._buffer:
                    return
            piece = self._buffer[self._at : self._at + min(size, _PIECE)]
            self._at += len(piece)
            self.offset += len(piece)
            size -= len(piece)
            yield piece

    def _input(self) -> bytes:
        data = os.pread(self._descriptor, min(_BLOCK, self._size - self._taken), self._taken)
        self._taken += len(data)
        return data

    def _unpack(self, compression: str) -> Iterator[bytes]:
        """Yield what comes out of the stream, and of streams joined to it (as ``cat a.gz b.gz`` makes)."""
        make = _DECODERS[compression]
        data = self._input()
        while True:
            try:
                decoder = make(self._limits, data)
                while not decoder.eof:
                    if not data and not decoder.has_more:
                        data = self._input()
                        if not data:
                            raise _cut()
                    piece, data = decoder.step(data)
                    self._count(len(piece))
                    if piece:
                        yield piece
                data = decoder.unused + data
            except (zlib.error, lzma.LZMAError, zstandard.ZstdError, OSError, EOFError, ValueError) as error:
                if outside_archive(error):
                    raise  # the disk, not the stream
                raise self._broken(error) from None
            data = self._next_stream(data, compression)
            if not data:
                return

    def _next_stream(self, rest: bytes, compression: str) -> bytes:
        """Return the beginning of the stream that follows, or nothing at the end.

        Zeros may pad the end (tapes do it) and, in xz, stand between streams; nothing else may.
        """
        padded = False
        while True:
            while len(rest) < _HEAD and (more := self._input()):
                rest += more
            stripped = rest.lstrip(b"\0")
            padded = padded or len(stripped) < len(rest)
            rest = stripped
            if rest or self._taken >= self._size:
                break
        if not rest:
            return b""
        while len(rest) < _HEAD and (more := self._input()):
            rest += more
        if compression_of(rest) == compression and (not padded or compression == "xz"):
            return rest
        if is_cut_magic(rest):
            raise _cut()
        raise PermanentError(
            Code.TRAILING_DATA,
            "Something follows the end of the compressed archive. Pack and send the scan again.",
        )

    def _count(self, size: int) -> None:
        self._out += size
        limits = self._limits
        if self._out > limits.max_raw_bytes:
            raise PermanentError(
                Code.TOO_LARGE,
                f"The archive unpacks to more than {limits.max_raw_bytes} bytes. "
                "Send fewer raw files in one archive.",
            )
        if self._out > limits.ratio_floor_bytes and self._out > limits.max_ratio * self._taken:
            raise PermanentError(
                Code.TOO_LARGE,
                f"The archive unpacks to more than {limits.max_ratio} times its size, which raw data never "
                "does. Check what was packed, or send it uncompressed.",
            )

    def _broken(self, error: Exception) -> PermanentError | IncompleteError:
        if isinstance(error, lzma.LZMAError | zstandard.ZstdError) and "memory" in str(error).lower():
            return _too_much_memory(self._limits)
        if zero_tail(self._descriptor, self._size) >= 512:
            # A copy that reserved its space first ends in zeros until it is complete.
            return _cut()
        return PermanentError(
            Code.CORRUPT_ARCHIVE,
            "The compressed archive is damaged: it does not unpack or its checksum is wrong. "
            "Send the scan again.",
        )


def zero_tail(descriptor: int, size: int) -> int:
    """Return how many zero bytes the file of ``size`` bytes ends in."""
    end = size
    while end:
        start = max(0, end - _PIECE)
        kept = len(os.pread(descriptor, end - start, start).rstrip(b"\0"))
        if kept:
            return size - start - kept
        end = start
    return size


class _Decoder(Protocol):
    eof: bool
    has_more: bool
    """Can go on without input."""
    unused: bytes

    def step(self, data: bytes) -> tuple[bytes, bytes]:
        """Return a bounded piece of output and the input not taken yet."""


class _Gzip:
    def __init__(self, _limits: Limits, _head: bytes) -> None:
        self._decoder = zlib.decompressobj(wbits=31)
        self.eof, self.has_more, self.unused = False, False, b""

    def step(self, data: bytes) -> tuple[bytes, bytes]:
        piece = self._decoder.decompress(data, _PIECE)
        self.eof = self._decoder.eof
        self.unused = self._decoder.unused_data
        rest = b"" if self.eof else self._decoder.unconsumed_tail
        # A full piece may leave output inside the decoder with all input taken.
        self.has_more = not self.eof and len(piece) == _PIECE
        return piece, rest


class _Buffered:
    """bzip2 and xz of the standard library: they keep the input they were given."""

    def __init__(self, decoder: bz2.BZ2Decompressor | lzma.LZMADecompressor) -> None:
        self._decoder = decoder
        self.eof, self.has_more, self.unused = False, False, b""

    def step(self, data: bytes) -> tuple[bytes, bytes]:
        piece = self._decoder.decompress(data, _PIECE)
        self.eof = self._decoder.eof
        self.has_more = not self.eof and not self._decoder.needs_input
        self.unused = self._decoder.unused_data if self.eof else b""
        return piece, b""


class _Zstd:
    def __init__(self, limits: Limits, head: bytes) -> None:
        if head.startswith(_ZSTD_MAGIC) and _zstd_window(head) > limits.max_window_bytes:
            raise _too_much_memory(limits)
        self._decoder = zstandard.ZstdDecompressor(max_window_size=limits.max_window_bytes).decompressobj()
        self.eof, self.has_more, self.unused = False, False, b""

    def step(self, data: bytes) -> tuple[bytes, bytes]:
        piece: bytes = self._decoder.decompress(data[:_ZSTD_BITE])
        self.eof = self._decoder.eof
        self.unused = self._decoder.unused_data if self.eof else b""
        return piece, data[_ZSTD_BITE:]


def _zstd_window(head: bytes) -> int:
    try:
        window: int = zstandard.get_frame_parameters(head[:_HEAD]).window_size
    except zstandard.ZstdError:
        return 0  # too short or broken: the decoder itself will say so
    return window


_DECODERS: dict[str, Callable[[Limits, bytes], _Decoder]] = {
    "gzip": _Gzip,
    "zstd": _Zstd,
    "xz": lambda limits, _: _Buffered(
        lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=limits.max_window_bytes + 16 * MIB)
    ),
    "bzip2": lambda limits, _: _Buffered(bz2.BZ2Decompressor()),
}


def _cut() -> IncompleteError:
    return IncompleteError(
        "The compressed archive does not end: it may still be arriving. "
        "If it is complete at its source, send it again."
    )


def _too_much_memory(limits: Limits) -> PermanentError:
    return PermanentError(
        Code.TOO_LARGE,
        f"The compressed archive asks for more than {limits.max_window_bytes} bytes of memory to unpack. "
        "Compress it with a smaller window or send it uncompressed.",
    )
