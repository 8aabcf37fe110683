"""Variable-length data of an HDF5 file, measured before the library allocates what they claim.

On disk each variable-length element is a descriptor: its length (4 bytes), the address of a global heap
collection and an index into it.  The heap stores its objects as they are, unpacked and once, so the lengths
of one data set can never add to more than the file.  They are read here from the raw chunks.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np
from h5py import h5d, h5t, h5z
from numpy.typing import NDArray

from ...contract.codes import Code, PermanentError

_DESCRIPTOR = 16  # with addresses of 8 bytes
_GATHERED = 256 * 1024
_MAX_PIECE = 8 * 1024 * 1024


def claimed(file: BinaryIO, size: int, dataset: Any, kind: Any) -> int:
    """Return the bytes that a data set's variable-length elements claim.

    Parameters
    ----------
    file, size
        The HDF5 file's bytes.
    dataset, kind
        Low-level data set and its type, already known to hold no references.

    Raises
    ------
    PermanentError
        ``h5_corrupt`` when the lengths do not fit, ``h5_schema`` for variable-length data inside others.
    """
    places, item = _places(kind)
    total = 0
    if not places:
        return total
    for raw in pieces(file, size, dataset, item):
        usable = len(raw) // item * item
        rows = np.frombuffer(raw, np.uint8, usable).reshape(-1, item)
        for offset, base in places:
            lengths = _field(rows, offset, "<u4", 4)
            addresses = _field(rows, offset + 4, "<u8", 8)
            used = lengths > 0
            total += int(lengths.sum(dtype=np.uint64)) * base
            if total > size or bool((addresses[used] >= size).any()):
                raise PermanentError(
                    Code.H5_CORRUPT,
                    "Variable-length data in an HDF5 file claim more bytes than the file has. "
                    "Export and send the scan again.",
                )
    return total


def _field(rows: NDArray[np.uint8], offset: int, kind: str, width: int) -> NDArray[Any]:
    return np.ascontiguousarray(rows[:, offset : offset + width]).view(kind)[:, 0]


def _places(kind: Any) -> tuple[list[tuple[int, int]], int]:
    """Return (offset on disk, bytes of one item) of each variable-length field, and the element's disk size.

    The library reports sizes in memory, where a variable-length string takes a pointer and a sequence two
    words; on disk both take a descriptor, and the fields behind them move accordingly.
    """
    family = kind.get_class()
    if family == h5t.VLEN:
        if _has_vlen(kind.get_super()):
            raise _nested()
        return [(0, kind.get_super().get_size())], _DESCRIPTOR
    if family == h5t.STRING and kind.is_variable_str():
        return [(0, 1)], _DESCRIPTOR
    if family == h5t.ARRAY:
        inner, item = _places(kind.get_super())
        count = 1
        for edge in kind.get_array_dims():
            count *= int(edge)
        if inner and count > 4096:
            raise _nested()
        return [
            (n * item + at, base) for n in range(count if inner else 0) for at, base in inner
        ], item * count
    if family == h5t.COMPOUND:
        found: list[tuple[int, int]] = []
        moved = 0
        members = sorted((kind.get_member_offset(n), n) for n in range(kind.get_nmembers()))
        for offset, number in members:
            member = kind.get_member_type(number)
            inner, item = _places(member)
            found += [(offset + moved + at, base) for at, base in inner]
            moved += item - member.get_size()
        return found, kind.get_size() + moved
    return [], kind.get_size()


def _has_vlen(kind: Any) -> bool:
    return bool(_places(kind)[0])


def _nested() -> PermanentError:
    return PermanentError(
        Code.H5_SCHEMA,
        "An HDF5 file holds variable-length data inside variable-length data; no raw format does. "
        "Check what wrote the file.",
    )


def pieces(file: BinaryIO, size: int, dataset: Any, item: int) -> Iterator[bytes]:
    """Yield the data set's stored bytes, filters undone, in pieces that begin at an element."""
    plan = dataset.get_create_plist()
    layout = plan.get_layout()
    if layout == h5d.CONTIGUOUS:
        offset = dataset.get_offset()
        if offset is None:
            return
        left = int(dataset.get_storage_size())
        step = max(1, _MAX_PIECE // item) * item
        while left > 0:
            file.seek(offset)
            piece = file.read(min(step, left))
            if not piece:
                return
            offset, left = offset + len(piece), left - len(piece)
            yield piece
    elif layout == h5d.CHUNKED:
        filters = [plan.get_filter(n)[0] for n in range(plan.get_nfilters())]
        chunk_bytes = item
        for edge in plan.get_chunk():
            chunk_bytes *= int(edge)
        stored: list[tuple[int, int, int]] = []

        def note(info: Any) -> None:
            stored.append((int(info.byte_offset), int(info.size), int(info.filter_mask)))

        dataset.chunk_iter(note)
        gathered, held = [], 0
        for offset, length, mask in stored:
            if offset + length > size:
                raise _damaged()
            file.seek(offset)
            piece = _unpack(file.read(length), filters, mask, chunk_bytes, item)
            gathered.append(piece[: len(piece) // item * item])
            held += len(piece)
            if held > _GATHERED:  # scanners write a chunk a readout: looking at each alone takes longer
                yield b"".join(gathered)
                gathered, held = [], 0
        yield b"".join(gathered)
    # Compact data lie in the object header, where no offset tells; some libraries put single strings there.
    # A lie about a string's length fails in the library (the heap knows better), within the child's memory.
    elif layout == h5d.COMPACT and dataset.get_type().get_class() != h5t.STRING:
        raise PermanentError(
            Code.H5_SCHEMA,
            "An HDF5 file stores variable-length data inside an object header; no raw format does. "
            "Check what wrote the file.",
        )


def _unpack(raw: bytes, filters: list[int], mask: int, chunk_bytes: int, item: int) -> bytes:
    """Undo the filters of one chunk (bounded by the chunk's size)."""
    for number in reversed(range(len(filters))):
        if mask >> number & 1:
            continue
        if filters[number] == h5z.FILTER_FLETCHER32:
            raw = raw[:-4]
        elif filters[number] == h5z.FILTER_DEFLATE:
            try:
                raw = zlib.decompressobj().decompress(raw, chunk_bytes + 4)
            except zlib.error:
                raise _damaged() from None
        elif filters[number] == h5z.FILTER_SHUFFLE and len(raw) >= item:
            count = len(raw) // item
            block = np.frombuffer(raw, np.uint8, count * item).reshape(item, count)
            raw = block.T.tobytes() + raw[count * item :]
    return raw


def _damaged() -> PermanentError:
    return PermanentError(
        Code.H5_CORRUPT,
        "An HDF5 file is damaged: a stored block does not unpack. Export and send the scan again.",
    )
