"""Variable-length data of an HDF5 file straight from its global heap, without the library.

The library allocates every element and copies it twice.  The bytes lie in the file as they are, in
*collections* (HDF5 File Format Specification, "Global Heap")::

    "GCOL"  version u1 = 1  reserved 3  bytes of the collection u8         then, to its end, objects:
    index u2  references u2  reserved u4  bytes u8  data, padded to 8      index 0: free space, header counted

Read here is only what is plain beyond doubt: every collection lies apart from the others and in the file, and
is walked to its end with every object in bounds and every index once; every element is found and has the
bytes that it claims.  :class:`UnusualHeapError` is no verdict: the library then reads the file and judges.
Only objects that do not fit into their collection are refused here: they send the library round in circles.
All reads are of whole stretches of the file, each byte at most once, and the walk is over all collections of
a stretch in step, with a bound on the steps: the time is in proportion to the file, whatever the heap says.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from ...contract.codes import Code, PermanentError
from ..gates import hdf5_superblock as superblock
from .bulk_reads import STRETCH, Ints, cells, fill

DESCRIPTOR = np.dtype([("length", "<u4"), ("address", "<u8"), ("index", "<u4")])
"""A variable-length element where its data set is stored: items, collection, index of the object in it."""
_COLLECTION = np.dtype([("signature", "<u4"), ("version", "u1"), ("reserved", "V3"), ("bytes", "<u8")])
_OBJECT = np.dtype([("index", "<u2"), ("references", "<u2"), ("reserved", "<u4"), ("bytes", "<u8")])
_GCOL = int.from_bytes(b"GCOL", "little")
_MAX_COLLECTION = 256 * 1024 * 1024
_INDEX_BITS = 16
_SPARE_STEPS = 1024


class UnusualHeapError(Exception):
    """The heap is not as plain as is read here."""


@dataclass(frozen=True)
class Stretch:
    """Some elements, and the bytes of the file they lie in.

    Attributes
    ----------
    which
        ``(n,)`` their places in what was asked for.
    raw
        uint8 ``(bytes,)``; overwritten by the next stretch.
    at
        ``(n,)`` where in ``raw`` the data of each begin.
    """

    which: NDArray[np.intp]
    raw: NDArray[np.uint8]
    at: Ints


def stretches(stream: BinaryIO, size: int, elements: NDArray[Any], item: int) -> Iterator[Stretch]:
    """Find the data of variable-length elements, a stretch of the file at a time.

    Parameters
    ----------
    stream, size
        The HDF5 file, seekable, ``size`` bytes long.
    elements
        :data:`DESCRIPTOR` ``(n,)``, none of them empty.
    item
        Bytes of one item of an element.

    Yields
    ------
    Stretch
        Every element in exactly one of them, in the order of the file.

    Raises
    ------
    UnusualHeapError
        Where anything is not exactly as the library would write it.
    PermanentError
        ``h5_corrupt`` where the objects of a collection do not fit into it.
    """
    base, size = _bounds(stream, size)
    address, index = elements["address"], elements["index"]
    _require(
        bool((address < max(0, size - base)).all() and (index > 0).all() and (index < 1 << _INDEX_BITS).all())
    )
    starts, collection = np.unique(address.astype(np.int64) + base, return_inverse=True)
    claimed = elements["length"].astype(np.int64) * item
    order = np.argsort(collection, kind="stable")
    behind = np.searchsorted(collection[order], np.arange(starts.size), side="right")
    scratch = np.empty(0, np.uint8)
    first = 0
    while first < starts.size:
        # To the last collection that begins within reach: those before it must end where it begins.
        stop = int(np.searchsorted(starts, starts[first] + STRETCH, side="right")) - 1
        if stop > first:
            length = int(starts[stop] - starts[first])
        else:
            stop, length = first + 1, _collection_bytes(stream, int(starts[first]), size)
        if length > scratch.size:
            scratch = np.empty(max(length, STRETCH), np.uint8)
        raw = scratch[:length]
        _require(fill(stream, int(starts[first]), raw))
        edges = np.append(starts[first:stop] - starts[first], length)
        which = order[behind[first - 1] if first else 0 : behind[stop - 1]]
        found = _walk(raw, edges, 4 * which.size + _SPARE_STEPS)
        key = (collection[which] - first) << _INDEX_BITS | index[which]
        place = np.searchsorted(found.key, key)
        place[place == found.key.size] = 0
        _require(bool((found.key[place] == key).all() and (found.bytes[place] == claimed[which]).all()))
        yield Stretch(which, raw, found.at[place])
        first = stop


def refuse_circles(stream: BinaryIO, size: int, elements: NDArray[Any], item: int) -> None:
    """Refuse (``h5_corrupt``) elements whose collections the library would walk for ever."""
    with suppress(UnusualHeapError):
        for _ in stretches(stream, size, elements, item):
            pass


# ------------------------------------------------------------------------------------------------ pieces


@dataclass(frozen=True)
class _Objects:
    """Objects of some collections: collection times 2**16 and index (ascending), data from, bytes of data."""

    key: Ints
    at: Ints
    bytes: Ints


def _walk(raw: NDArray[np.uint8], edges: Ints, most_steps: int) -> _Objects:
    """Walk the collections that begin at ``edges[:-1]``, each ending before the next, all in step."""
    _require(raw.size >= _COLLECTION.itemsize and int(edges[-2]) + _COLLECTION.itemsize <= raw.size)
    heads = cells(raw, _COLLECTION)[edges[:-1]]
    bytes_ = heads["bytes"]
    _require(
        bool(
            (heads["signature"] == _GCOL).all()
            and (heads["version"] == 1).all()
            and (bytes_ >= _COLLECTION.itemsize).all()
            and (bytes_ <= np.diff(edges).astype(np.uint64)).all()
        )
    )
    at, number = edges[:-1] + _COLLECTION.itemsize, np.arange(edges.size - 1)
    end = edges[:-1] + bytes_.astype(np.int64)
    objects = cells(raw, _OBJECT)
    found: list[tuple[Ints, Ints, Ints]] = []
    for _ in range(most_steps):
        inside = end - at >= _OBJECT.itemsize
        if not inside.all():
            rest = ~inside & (at < end)  # too small for a header: free space as well
            found.append((number[rest] << _INDEX_BITS, at[rest], end[rest] - at[rest]))
            at, end, number = at[inside], end[inside], number[inside]
        if not at.size:
            break
        head = objects[at]
        free = head["index"] == 0
        fits = head["bytes"] <= (end - at).astype(np.uint64)
        data = np.where(fits, head["bytes"], 0).astype(np.int64)
        taken = np.where(free, data, _OBJECT.itemsize + (data + 7 & ~7))
        if not (fits & (taken >= _OBJECT.itemsize) & (at + taken <= end)).all():
            raise _broken()
        found.append((number << _INDEX_BITS | head["index"], at + _OBJECT.itemsize, data))
        at = at + taken
    else:
        raise UnusualHeapError
    if not any(part.size for part, _, _ in found):
        raise UnusualHeapError
    key, place, length = (np.concatenate(column) for column in zip(*found, strict=True))
    order = np.argsort(key)
    key = key[order]
    _require(bool((np.diff(key) > 0).all()))
    return _Objects(key, place[order], length[order])


def _bounds(stream: BinaryIO, size: int) -> tuple[int, int]:
    """Return what addresses are counted from and where the file ends by its own word."""
    start = superblock.find_signature(stream, size)
    block = None if start is None else superblock.read(stream, start)
    if block is None or block.end is None or block.end > size:
        raise UnusualHeapError
    _require(block.offset_bytes == 8 and block.length_bytes == 8)
    return block.start, block.end


def _collection_bytes(stream: BinaryIO, start: int, size: int) -> int:
    head = np.zeros(1, _COLLECTION)
    _require(start + head.nbytes <= size)
    _require(fill(stream, start, head.view(np.uint8)))
    length = int(head["bytes"][0])
    _require(head.nbytes <= length <= min(size - start, _MAX_COLLECTION))
    return length


def _broken() -> PermanentError:
    return PermanentError(
        Code.H5_CORRUPT,
        "An HDF5 file is damaged: the heap of its variable-length data does not hold. "
        "Export and send the scan again.",
    )


def _require(plain: bool) -> None:
    if not plain:
        raise UnusualHeapError
