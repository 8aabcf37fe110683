"""Data that come sorted: a table of readouts laid over arrays that are k-space already."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..acquisitions import TABLE, Part, check_finite
from ..header import ScanHeader


def acquired(lines: NDArray[np.complex64]) -> NDArray[np.int64]:
    """Return which of ``lines`` (line, coil, kx) hold anything: a line of zeros was not acquired."""
    return np.flatnonzero([bool(line.any()) for line in lines])


def gridded_part(
    header: ScanHeader, stores: list[NDArray[np.complex64]], counters: list[dict[str, int]], n_ky: int
) -> Part:
    """Return a part whose store ``i`` holds the lines (kz, ky) of one slice of one image.

    Parameters
    ----------
    header
        Whose encoding fits the arrays.
    n_ky
        Lines of a partition.
    stores
        complex64 ``(kz * ky, coil, kx)`` each, k-space centre at ``n // 2``; lines of zeros are left out.
    counters
        What counters (of :data:`~mrirecon.decompress.acquisitions.TABLE`) each store has.

    Raises
    ------
    PermanentError
        ``non_finite``.
    """
    tables = []
    for number, (store, values) in enumerate(zip(stores, counters, strict=True)):
        check_finite(np.ascontiguousarray(store))
        rows = acquired(store)
        table = np.zeros(rows.size, TABLE)
        table["channels"], table["samples"] = store.shape[1:]
        table["centre"] = store.shape[2] // 2
        table["store"], table["row"] = number, rows
        table["kz"], table["ky"] = np.divmod(rows, n_ky)
        for name, value in values.items():
            table[name] = value
        tables.append(table)
    return Part(header, np.concatenate(tables), stores)
