"""Small pieces of a file read in few, long reads."""

from __future__ import annotations

from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]

STRETCH = 4 * 1024 * 1024
"""Bytes read at once: what is found in them is still in the cache when it is copied and checked."""
_GAP = 16 * 1024
"""Bytes between two pieces that cost less to read than another call."""


def fill(stream: BinaryIO, start: int, raw: NDArray[np.uint8]) -> bool:
    """Read uint8 ``raw`` full from ``start``; False where the file ends before."""
    stream.seek(start)
    view, done = raw.data, 0
    while done < raw.size:
        got = stream.readinto(view[done:])  # type: ignore[attr-defined]
        if not got:
            return False
        done += got
    return True


def cells(raw: NDArray[np.uint8], kind: np.dtype[Any]) -> NDArray[Any]:
    """Return ``raw`` seen as an item of ``kind`` beginning at every byte (a view)."""
    return np.ndarray((max(0, raw.size - kind.itemsize + 1),), kind, raw, strides=(1,))


def gather(stream: BinaryIO, at: Ints, kind: np.dtype[Any]) -> NDArray[Any] | None:
    """Return the items of ``kind`` ``(n,)`` that begin at bytes ``at``; ``None`` where the file is cut."""
    order = np.argsort(at, kind="stable")
    places = at[order]
    found = np.empty(at.size, kind)
    edges = [*(np.flatnonzero(np.diff(places) > kind.itemsize + _GAP) + 1).tolist(), at.size]
    scratch = np.empty(STRETCH + kind.itemsize, np.uint8)
    first = edge = 0
    while first < at.size:
        reach = int(np.searchsorted(places, places[first] + STRETCH, side="right"))
        stop = min(reach, edges[edge])
        raw = scratch[: int(places[stop - 1] - places[first]) + kind.itemsize]
        if not fill(stream, int(places[first]), raw):
            return None
        found[order[first:stop]] = cells(raw, kind)[places[first:stop] - places[first]]
        first, edge = stop, edge + (stop == edges[edge])
    return found
