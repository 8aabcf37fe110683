"""The fixed part of every readout of an MRD file: its header, and length and place of its samples."""

from __future__ import annotations

from array import array
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from ...contract.codes import Code, PermanentError
from ..acquisitions import Table
from ..archive.members import Member
from .bulk_reads import gather
from .hdf5_heap import DESCRIPTOR
from .mrd_samples import ROWS


@dataclass(frozen=True)
class Rows:
    """What a file says of its readouts.

    Attributes
    ----------
    heads
        ``(n,)`` headers as stored.
    lengths
        ``(n,)`` floats of the samples of each.
    elements
        :data:`~..globalheap.DESCRIPTOR` ``(n,)``: where the samples lie; ``None`` where not to be had.
    """

    heads: Table
    lengths: NDArray[np.int64]
    elements: Table | None


def read(data: h5py.Dataset, member: Member) -> Rows:
    """Read the fixed parts of all rows, without touching samples where it can be had.

    h5py has no cheap way to read a field beside a variable-length one: what is stored is looked at itself.

    Raises
    ------
    PermanentError
        ``h5_corrupt``.
    """
    kind = data.dtype
    fixed = np.dtype(
        {
            "names": ["head", "data"],
            "formats": [kind["head"], DESCRIPTOR],
            "offsets": [kind.fields["head"][1], kind.fields["data"][1]],
            "itemsize": kind.itemsize,
        }
    )
    rows = _stored(data, fixed, member)
    if rows is not None:
        lengths = rows["data"]["length"].astype(np.int64)
        if lengths.sum() * 4 > member.size:
            raise PermanentError(
                Code.H5_CORRUPT,
                f"The readouts claim {int(lengths.sum()) * 4} bytes of samples, the file has {member.size}: "
                "its list of readouts is damaged. Copy or export it again.",
            )
        return Rows(rows["head"].copy(), lengths, rows["data"].copy())
    heads = np.empty(data.shape[0], kind["head"])
    lengths = np.empty(data.shape[0], np.int64)
    for start in range(0, data.shape[0], ROWS):
        block = data[start : start + ROWS]
        heads[start : start + ROWS] = block["head"]
        lengths[start : start + ROWS] = [len(row) for row in block["data"]]
    return Rows(heads, lengths, None)


def _stored(data: h5py.Dataset, fixed: np.dtype[Any], member: Member) -> Table | None:
    """Return all rows as stored, ``None`` where they are filtered or laid out in another way."""
    creation = data.id.get_create_plist()
    if creation.get_nfilters():
        return None
    count = data.shape[0]
    layout = creation.get_layout()
    if layout == h5py.h5d.CHUNKED:
        (step,) = data.chunks
        chunk = np.dtype((fixed, (step,)))
        rows = np.zeros(-(-count // step), chunk)
        if not _many_chunks(data, chunk, member, rows):
            for number in range(rows.shape[0]):
                # a chunk never written: its rows stay empty and are refused
                with suppress(RuntimeError, OSError):
                    stored = data.id.read_direct_chunk((number * step,))[1]
                    rows[number] = np.frombuffer(stored, fixed, count=step)
        return rows.reshape(-1)[:count]
    if layout == h5py.h5d.CONTIGUOUS and data.id.get_offset() is not None:
        with member.open() as stream:
            stream.seek(data.id.get_offset())
            return np.frombuffer(stream.read(count * fixed.itemsize), fixed, count=count)
    return None


def _many_chunks(data: h5py.Dataset, chunk: np.dtype[Any], member: Member, rows: Table) -> bool:
    """Read chunks ``(n, step)`` in few reads; False where their list is odd: then each is looked up.

    Scanners write a chunk a readout, and looking up each takes longer than all the rest.
    """
    (step,) = chunk.shape
    listed = array("Q")
    data.id.chunk_iter(lambda info: listed.extend((info.chunk_offset[0], info.byte_offset, info.size)))
    offset, at, size = np.array(listed).reshape(-1, 3).T
    number, rest = np.divmod(offset.astype(np.int64), step)
    if not (
        (at < member.size).all()
        and (size == chunk.itemsize).all()
        and (rest == 0).all()
        and (number < rows.shape[0]).all()
        and np.unique(number).size == number.size
    ):
        return False
    with member.open() as stream:
        found = gather(stream, at.astype(np.int64), np.dtype((np.void, chunk.itemsize)))
    if found is None:
        return False
    rows[number] = found.view(chunk.base).reshape(-1, step)
    return True
