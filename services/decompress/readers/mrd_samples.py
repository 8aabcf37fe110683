"""The samples of an MRD file into the arrays prepared for them: straight from the heap, or by the library."""

from __future__ import annotations

import ctypes

import h5py
import numpy as np
from numpy.typing import NDArray

from ...contract.progress import Progress
from ..acquisitions import Table, check_finite
from ..archive.members import Member
from . import hdf5_heap as globalheap
from .bulk_reads import Ints, cells
from .hdf5_heap import Stretch, UnusualHeapError

ROWS = 512
"""Readouts that the library reads at once, at most: more gain nothing (measured)."""
BLOCK_BYTES = 16 * 1024 * 1024
"""Bytes that it reads at once, at most: they stay in memory already mapped, and mostly in the cache."""

_LONG = 2048
"""Bytes of a readout from which a call for each costs less than numpy's way through many."""
_FLOAT = 4

Stores = list[NDArray[np.complex64]]


def fill(
    data: h5py.Dataset,
    elements: Table | None,
    member: Member,
    table: Table,
    stores: Stores,
    progress: Progress,
) -> None:
    """Read all samples into ``stores``, checking each block while it is in the cache.

    Parameters
    ----------
    data
        The data set of the readouts.
    elements
        :data:`~..globalheap.DESCRIPTOR` of the samples of every readout, ``None`` where not to be had.
    member
        The file.
    table, stores
        As made by :func:`~..readouts.allocate`; lengths agree with ``elements``.
    progress
        Called with the stage ``read``.

    Raises
    ------
    PermanentError
        ``non_finite``, ``h5_corrupt``.
    """
    if elements is None or not from_heap(elements, member, table, stores, progress):
        by_library(data, table, stores, progress)


def from_heap(elements: Table, member: Member, table: Table, stores: Stores, progress: Progress) -> bool:
    """Read the samples as they lie in the file; False where anything is odd, for the library to judge."""
    rows = [store.reshape(store.shape[0], -1).view(np.float32) for store in stores]
    done = 0
    try:
        with member.open() as stream:
            for stretch in globalheap.stretches(stream, member.size, elements, _FLOAT):
                _place(stretch, table[stretch.which], rows)
                done += stretch.which.size
                progress("read", done / table.shape[0], "")
    except UnusualHeapError:
        return False
    return True


def _place(stretch: Stretch, where: Table, rows: list[NDArray[np.float32]]) -> None:
    store = where["store"]
    for number in range(len(rows)) if (store != store[0]).any() else store[:1].tolist():
        chosen = store == number
        _place_equals(stretch.raw, stretch.at[chosen], rows[number], where["row"][chosen])


def _place_equals(
    raw: NDArray[np.uint8], at: Ints, rows: NDArray[np.float32], into: NDArray[np.int32]
) -> None:
    """Copy readouts of equal length to rows ``into`` and check them."""
    if not into.size:
        return
    length = rows.shape[1] * _FLOAT
    if length < _LONG:
        kind = np.dtype((np.void, length))
        rows.view(kind)[into, 0] = cells(raw, kind)[at]
    else:
        target = rows.view(np.uint8)
        for start, row in zip(at.tolist(), into.tolist(), strict=True):
            target[row] = raw[start : start + length]
    lowest, highest = int(into.min()), int(into.max())
    together = highest - lowest + 1 == into.size  # no row is met twice
    check_finite(rows[lowest : highest + 1] if together else rows[into])


def by_library(data: h5py.Dataset, table: Table, stores: Stores, progress: Progress) -> None:
    """Read the samples in slices of readouts with libhdf5, which allocates each readout apart."""
    keep_freed_memory()
    count = table.shape[0]
    flat = [store.reshape(store.shape[0], -1).view(np.float32) for store in stores]
    widest = 8 * int((table["channels"].astype(np.int64) * table["samples"]).max())
    step = max(1, min(ROWS, BLOCK_BYTES // widest))
    for start in range(0, count, step):
        stop = min(start + step, count)
        where = table[start:stop]
        payload = data[start:stop]["data"]
        for store, row, samples in zip(where["store"], where["row"], payload, strict=True):
            flat[store][row] = samples
        del payload
        _check_stores(flat, where)
        progress("read", stop / count, "")


def keep_freed_memory() -> None:
    """Let the C library keep what HDF5 frees after each readout, to be used for the next.

    A readout of 32 coils is just above the size from which glibc asks the system for fresh, zeroed pages and
    gives them back at once: most of the time of reading went there.  Where the C library is another, this
    does nothing.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        trim_threshold, mmap_threshold = -1, -3  # malloc.h
        mallopt(mmap_threshold, 32 * 1024 * 1024)
        mallopt(trim_threshold, 128 * 1024 * 1024)


def _check_stores(flat: list[NDArray[np.float32]], where: Table) -> None:
    """Check what was just read, in runs of rows that lie together."""
    for store in np.unique(where["store"]):
        rows = where["row"][where["store"] == store]
        check_finite(flat[store][rows.min() : rows.max() + 1])
