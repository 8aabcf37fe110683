"""MRD (ISMRMRD) version 1 in HDF5: ``<group>/xml`` and ``<group>/data``, one row a readout.

Two passes.  The first (:mod:`.mrdrows`) reads the fixed part of every row, header and *length* of its
samples, without touching them.  All is checked and the memory needed is known before the first sample is
read.  The second (:mod:`.mrdsamples`) reads the samples, a few megabytes at a time, into place.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from ...contract.codes import Code, PermanentError
from ...contract.progress import Progress
from ..acquisitions import COUNTERS, TABLE, Part, Table, allocate
from ..archive.members import Member
from ..gates import hdf5_vlen as h5vlen
from ..gates import xml as xmlgate
from ..header import ScanHeader, parse
from ..limits import Limits
from . import hdf5_heap as globalheap
from . import mrd_rows as mrdrows
from . import mrd_samples as mrdsamples

_HEAD = (
    "flags",
    "measurement_uid",
    "number_of_samples",
    "active_channels",
    "center_sample",
    "discard_pre",
    "discard_post",
    "encoding_space_ref",
    "sample_time_us",
    "position",
    "read_dir",
    "phase_dir",
    "slice_dir",
    "patient_table_position",
    "idx",
)
_IDX = (
    "kspace_encode_step_1",
    "kspace_encode_step_2",
    "average",
    "slice",
    "contrast",
    "phase",
    "repetition",
    "set",
    "segment",
    "user",
)


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


def xml_text(dataset: h5py.Dataset, member: Member, limits: Limits) -> bytes:
    """Return the XML header in ``dataset`` of ``member`` (a string, or an array of one), its size checked.

    Raises
    ------
    PermanentError
        ``h5_schema`` where it is no such data set, ``h5_corrupt`` where it cannot be read.
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
    if kind.kind == "O":
        with member.open() as stream:
            stored = b"".join(h5vlen.pieces(stream, member.size, dataset.id, globalheap.DESCRIPTOR.itemsize))
            told = np.frombuffer(stored, globalheap.DESCRIPTOR, min(1, len(stored) // 16))
            globalheap.refuse_circles(stream, member.size, told, 1)
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
    header = parse(xmlgate.parse(xml_text(group["xml"], member, limits), limits))
    data = group["data"]
    _check_schema(data)
    count = int(data.shape[0])
    if count == 0:
        raise no_acquisitions()
    if count * data.dtype.itemsize > limits.memory_bytes // 4:
        raise PermanentError(
            Code.TOO_LARGE, f"The file declares {count} readouts, more than can be held here: is it damaged?"
        )
    rows = mrdrows.read(data, member)
    table = _table(rows.heads)
    _check_lengths(table, rows.lengths, header)
    stores = allocate(table, limits.memory_bytes // 2)
    mrdsamples.fill(data, rows.elements, member, table, stores, progress)
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


def _table(heads: Table) -> Table:
    table = np.zeros(heads.shape[0], TABLE)
    for ours, theirs in (
        ("flags", "flags"),
        ("uid", "measurement_uid"),
        ("samples", "number_of_samples"),
        ("channels", "active_channels"),
        ("centre", "center_sample"),
        ("pre", "discard_pre"),
        ("post", "discard_post"),
        ("space", "encoding_space_ref"),
        ("position", "position"),
        ("read_dir", "read_dir"),
        ("phase_dir", "phase_dir"),
        ("slice_dir", "slice_dir"),
        ("patient_table", "patient_table_position"),
    ):
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


def _share(progress: Progress, number: int, of: int) -> Progress:
    def told(stage: str, fraction: float, message: str = "", /) -> None:
        progress(stage, (number + fraction) / of, message)

    return told
