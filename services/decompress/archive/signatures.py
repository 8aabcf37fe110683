"""First bytes of files that hold other files, or that are known but hold no raw data this project reads."""

from __future__ import annotations

_CONTAINERS = (
    (0, b"PK\x03\x04", "zip"),
    (0, b"PK\x05\x06", "zip"),
    (0, b"PK\x07\x08", "zip"),
    (0, b"7z\xbc\xaf\x27\x1c", "7z"),
    (0, b"Rar!\x1a\x07", "rar"),
    (0, b"MSCF\0\0\0\0", "cab"),
    (0, b"LZIP", "lzip"),
    (0, b"\x04\x22\x4d\x18", "lz4"),
    (0, b"\x1f\x9d", "compress"),
    (0, b"!<arch>\n", "ar"),
    (0, b"070701", "cpio"),
    (0, b"070707", "cpio"),
    (0, b"xar!", "xar"),
)


_BARE_RAW = (
    (0, b"\x89HDF\r\n\x1a\n", "HDF5"),
    (0, b"# Dimensions", "BART header"),
    (128, b"DICM", "DICOM"),
)


def container_of(head: bytes) -> str | None:
    """Return what kind of archive (other than tar and its compressions) begins with ``head``, or None."""
    return _first(_CONTAINERS, head)


def bare_of(head: bytes) -> str | None:
    """Return what a file is that should have been packed into a tar, for the sentence that says so."""
    return container_of(head) or _first(_BARE_RAW, head)


def _first(signatures: tuple[tuple[int, bytes, str], ...], head: bytes) -> str | None:
    for offset, magic, name in signatures:
        if head[offset : offset + len(magic)] == magic:
            return name
    return None
