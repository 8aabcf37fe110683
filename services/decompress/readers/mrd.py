"""MRD (ISMRMRD) version 1 in HDF5: ``<group>/xml`` and ``<group>/data``, one row a readout.

Two passes.  The first reads the fixed part of every row (header and *length* of its samples) straight from
the stored chunks, without touching the samples: h5py has no cheap way to read a field beside a
variable-length one.  All is checked and the memory needed is known before the first sample is read.  The
second reads slices of at most :data:`ROWS` rows, header and samples in one call, into place.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from ...contract.codes import Code, PermanentError
from ...contract.progress import Progress
from .. import xmlgate
from ..header import ScanHeader, parse
from ..limits import Limits
from ..members import Member
from ..readouts import COUNTERS, TABLE, Part, Table, allocate, check_finite

ROWS = 512
"""Readouts a read, at most: more gain nothing (measured)."""
BLOCK_BYTES = 16 * 1024 * 1024
"""Bytes a read, at most: what is read stays in memory already mapped, and mostly in the cache."""

_HEAD = ("flags", "measurement_uid", "number_of_samples", "active_channels", "center_sample", "discard_pre",
         "discard_post", "encoding_space_ref", "sample_time_us", "position", "read_dir", "phase_dir",
         "slice_dir", "patient_table_position", "idx")  # fmt: skip
_IDX = ("kspace_encode_step_1", "kspace_encode_step_2", "average", "slice", "contrast", "phase", "repetition",
        "set", "segment", "user")  # fmt: skip


def read(member: Member, limits: Limits, progress: Progress) -> list[Part]:
    """Read every measurement of one MRD file.

    A file may hold several groups (``dataset``, ``dataset_1`` …): each that has the right content is a part.

    Raises
    ------
    PermanentError
        ``h5_schema``, ``h5_corrupt``, ``xml_*``, ``no_acquisitions``, ``length_mismatch``,
        ``channel_mismatch``, ``too_large``, ``non_finite``.
    """
    with open_h5(member) as file, corrupt_on_error():
        names = [name for name in file if _is_measurement(file, name)]
        if not names:
            raise PermanentError(
                Code.H5_SCHEMA,
                "The HDF5 file holds no group with the two data sets of an ISMRMRD measurement, xml and "
                "data: export the scan again as ISMRMRD.",
            )
        many = len(names) > 1
        parts = []
        for number, name in enumerate(names):
            group = file[name]
            if many and group["data"].shape[:1] == (0,):
                continue  # an empty group beside the scan is no reason to refuse it
            parts.append(_read_group(group, member, limits, _share(progress, number, len(names))))
    if not parts:
        raise no_acquisitions()
    return parts


def no_acquisitions() -> PermanentError:
    """Return the error of a file without readouts."""
    return PermanentError(
        Code.NO_ACQUISITIONS, "The raw file holds no readouts: the scan was stopped before its first line."
    )


@contextmanager
def open_h5(member: Member) -> Iterator[h5py.File]:
    """Open an HDF5 member read-only, in place where it is a window of a tar."""
    if member.path is not None:
        with corrupt_on_error():
            file = h5py.File(member.path, "r")
        with file:
            yield file
        return
    with member.open() as stream:
        with corrupt_on_error():
            file = h5py.File(stream, "r")
        with file:
            yield file


@contextmanager
def corrupt_on_error() -> Iterator[None]:
    """Turn what HDF5 raises into ``h5_corrupt``: its own words name paths and addresses."""
    try:
        yield
    except (OSError, RuntimeError, MemoryError, ValueError, KeyError, TypeError, OverflowError) as error:
        raise PermanentError(
            Code.H5_CORRUPT,
            f"The HDF5 file is damaged: reading it ended in a {type(error).__name__}. Copy or export it "
            "again.",
        ) from None


def xml_text(dataset: h5py.Dataset, limits: Limits) -> bytes:
    """Return the XML header in ``dataset`` (a string, or an array of one), its size checked.

    Raises
    ------
    PermanentError
        ``h5_schema`` where it is no such data set.
    """
    kind = dataset.dtype
    if dataset.size != 1 or not (h5py.check_string_dtype(kind) or kind.kind in "SO"):
        raise PermanentError(
            Code.H5_SCHEMA, "The XML header in the HDF5 file is no single string: export the scan again."
        )
    if kind.kind == "S" and kind.itemsize > limits.max_xml_bytes:
        raise PermanentError(
            Code.XML_TOO_LARGE,
            f"The XML header has {kind.itemsize} bytes; at most {limits.max_xml_bytes} are read.",
        )
    value: Any = dataset[()]
    value = value.reshape(-1)[0] if isinstance(value, np.ndarray) else value
    return value.encode("utf-8", "surrogateescape") if isinstance(value, str) else bytes(value)


# ------------------------------------------------------------------------------------------------ one group


def _is_measurement(file: h5py.File, name: str) -> bool:
    group = file.get(name)
    return isinstance(group, h5py.Group) and all(
        isinstance(group.get(key), h5py.Dataset) for key in ("xml", "data")
    )


def _read_group(group: h5py.Group, member: Member, limits: Limits, progress: Progress) -> Part:
    header = parse(xmlgate.parse(xml_text(group["xml"], limits), limits))
    data = group["data"]
    _check_schema(data)
    count = int(data.shape[0])
    if count == 0:
        raise no_acquisitions()
    if count * data.dtype.itemsize > limits.memory_bytes // 4:
        raise PermanentError(
            Code.TOO_LARGE, f"The file declares {count} readouts, more than can be held here: is it damaged?"
        )
    heads, lengths = _first_pass(data, member)
    table = _table(heads)
    _check_lengths(table, lengths, header)
    stores = allocate(table, limits.memory_bytes // 2)
    _second_pass(data, table, stores, progress)
    return Part(header, table, stores)


def _check_schema(data: h5py.Dataset) -> None:
    kind: Any = data.dtype
    names = kind.names or ()
    head: Any = kind["head"] if "head" in names else np.dtype("u1")
    idx: Any = head["idx"] if "idx" in (head.names or ()) else np.dtype("u1")
    floats = h5py.check_vlen_dtype(kind["data"]) if "data" in names else None
    good = (
        data.ndim == 1
        and set(_HEAD) <= set(head.names or ())
        and set(_IDX) <= set(idx.names or ())
        and floats == np.dtype("<f4")
        and all(head[name].base.kind in "iuf" for name in _HEAD if name != "idx")
        and all(idx[name].base.kind in "iu" for name in _IDX)
        and all(head[name].shape == (3,) for name in ("position", "read_dir", "phase_dir", "slice_dir"))
        and idx["user"].shape == (8,)
    )
    if not good:
        raise PermanentError(
            Code.H5_SCHEMA,
            "The data set of the readouts is not the ISMRMRD version 1 compound of header and 32-bit "
            "samples: export the scan again as ISMRMRD.",
        )


def _first_pass(data: h5py.Dataset, member: Member) -> tuple[Table, NDArray[np.int64]]:
    """Return the header and the number of floats of every row, without reading samples where it can be
    had.
    """
    kind = data.dtype
    fixed = np.dtype(
        {
            "names": ["head", "length"],
            "formats": [kind["head"], "<u4"],
            "offsets": [kind.fields["head"][1], kind.fields["data"][1]],
            "itemsize": kind.itemsize,
        }
    )
    rows = _raw_rows(data, fixed, member)
    if rows is not None:
        lengths = rows["length"].astype(np.int64)
        if lengths.sum() * 4 > member.size:
            raise PermanentError(
                Code.H5_CORRUPT,
                f"The readouts claim {int(lengths.sum()) * 4} bytes of samples, the file has {member.size}: "
                "its list of readouts is damaged. Copy or export it again.",
            )
        return rows["head"].copy(), lengths
    heads = np.empty(data.shape[0], kind["head"])
    lengths = np.empty(data.shape[0], np.int64)
    for start in range(0, data.shape[0], ROWS):
        block = data[start : start + ROWS]
        heads[start : start + ROWS] = block["head"]
        lengths[start : start + ROWS] = [len(row) for row in block["data"]]
    return heads, lengths


def _raw_rows(data: h5py.Dataset, fixed: np.dtype[Any], member: Member) -> Table | None:
    """Return all rows as stored, ``None`` where they are filtered or laid out in another way."""
    creation = data.id.get_create_plist()
    if creation.get_nfilters():
        return None
    count = data.shape[0]
    layout = creation.get_layout()
    if layout == h5py.h5d.CHUNKED:
        (step,) = data.chunks
        rows = np.zeros(-(-count // step) * step, fixed)
        for start in range(0, count, step):
            with suppress(
                RuntimeError, OSError
            ):  # a chunk never written: its rows stay empty and are refused
                stored = data.id.read_direct_chunk((start,))[1]
                rows[start : start + step] = np.frombuffer(stored, fixed, count=step)
        return rows[:count]
    if layout == h5py.h5d.CONTIGUOUS and data.id.get_offset() is not None:
        with member.open() as stream:
            stream.seek(data.id.get_offset())
            return np.frombuffer(stream.read(count * fixed.itemsize), fixed, count=count)
    return None


def _table(heads: Table) -> Table:
    table = np.zeros(heads.shape[0], TABLE)
    for ours, theirs in (
        ("flags", "flags"), ("uid", "measurement_uid"), ("samples", "number_of_samples"),
        ("channels", "active_channels"), ("centre", "center_sample"), ("pre", "discard_pre"),
        ("post", "discard_post"), ("space", "encoding_space_ref"), ("position", "position"),
        ("read_dir", "read_dir"), ("phase_dir", "phase_dir"), ("slice_dir", "slice_dir"),
        ("patient_table", "patient_table_position"),
    ):  # fmt: skip
        table[ours] = heads[theirs]
    table["dwell_s"] = heads["sample_time_us"].astype(np.float64) * 1e-6
    idx = heads["idx"]
    for ours, theirs in zip(COUNTERS, _IDX[:-1], strict=True):
        table[ours] = idx[theirs]
    table["user_ky"], table["user_kz"] = idx["user"][:, 5], idx["user"][:, 6]
    return table


def _check_lengths(table: Table, lengths: NDArray[np.int64], header: ScanHeader) -> None:
    """Refuse rows whose samples are not as many as their header says, and say which of the two numbers is
    off.
    """
    samples, channels = table["samples"].astype(np.int64), table["channels"].astype(np.int64)
    wrong = (lengths != 2 * samples * channels) | (lengths == 0)
    if not wrong.any():
        return
    first = int(np.flatnonzero(wrong)[0])
    usual = header.channels or _most_common(channels)
    fits_usual = int(lengths[first]) == 2 * usual * int(samples[first])
    if int(channels[first]) != usual and fits_usual and lengths[first]:
        raise PermanentError(
            Code.CHANNEL_MISMATCH,
            f"{int(wrong.sum())} of {wrong.size} readouts do not hold the coils their header says: readout "
            f"{first} should have {channels[first]} channels of {samples[first]} samples and holds "
            f"{lengths[first] // 2} samples in all. The raw file is damaged; export the scan again.",
        )
    raise PermanentError(
        Code.LENGTH_MISMATCH,
        f"{int(wrong.sum())} of {wrong.size} readouts are not as long as their header says: readout {first} "
        f"should have {channels[first]} channels of {samples[first]} samples and holds "
        f"{lengths[first] // 2} samples in all. The raw file is damaged; export the scan again.",
    )


def _most_common(values: NDArray[np.int64]) -> int:
    found, counts = np.unique(values, return_counts=True)
    return int(found[counts.argmax()])


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


def _second_pass(
    data: h5py.Dataset, table: Table, stores: list[NDArray[np.complex64]], progress: Progress
) -> None:
    """Read the samples into place, checking each block while it is in the cache."""
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


def _check_stores(flat: list[NDArray[np.float32]], where: Table) -> None:
    """Check what was just read, in runs of rows that lie together."""
    for store in np.unique(where["store"]):
        rows = where["row"][where["store"] == store]
        check_finite(flat[store][rows.min() : rows.max() + 1])


def _share(progress: Progress, number: int, of: int) -> Progress:
    def told(stage: str, fraction: float, message: str = "", /) -> None:
        progress(stage, (number + fraction) / of, message)

    return told
