"""The superblock of an HDF5 file: where it is, how wide its addresses are, where the file should end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import BinaryIO

SIGNATURE = b"\x89HDF\r\n\x1a\n"
_MAX_USER_BLOCK = 1 << 24


@dataclass(frozen=True)
class Superblock:
    """What the superblock tells.

    Attributes
    ----------
    start
        Where it begins, and what all addresses in the file are counted from.
    offset_bytes, length_bytes
        Width of an address and of a length.
    end
        The byte behind the last; ``None`` where the superblock itself is cut.
    """

    start: int
    offset_bytes: int
    length_bytes: int
    end: int | None


def find_signature(file: BinaryIO, size: int) -> int | None:
    """Return where the superblock begins (0, or a power of two from 512 on behind a user block), or None."""
    start = 0
    while start + len(SIGNATURE) <= size and start <= _MAX_USER_BLOCK:
        file.seek(start)
        if file.read(len(SIGNATURE)) == SIGNATURE:
            return start
        start = max(512, start * 2)
    return None


def read(file: BinaryIO, start: int) -> Superblock | None:
    """Return the superblock at ``start``, ``None`` where its version is unknown."""
    file.seek(start)
    block = file.read(96)
    version = block[8] if len(block) > 8 else 255
    if version in {0, 1}:
        widths, at = block[13:15], 24 + 4 * (version == 1)
    elif version in {2, 3}:
        widths, at = block[9:11], 12
    else:
        return None
    width, lengths = (widths + bytes(2))[:2]
    # The base address says where the superblock was when the file was written; a user block may have been
    # put before it since.
    base = int.from_bytes(block[at : at + width], "little")
    end = int.from_bytes(block[at + 2 * width : at + 3 * width], "little") + start - base
    return Superblock(start, width, lengths, end if len(block) >= at + 3 * width else None)
