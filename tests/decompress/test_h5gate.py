"""The HDF5 gate: sound files pass whole, spoiled ones get a verdict, and lengths are measured rightly."""

from __future__ import annotations

import io
import struct

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mrirecon.contract.codes import Code, MrireconError, PermanentError
from mrirecon.decompress.archive.members import RawKind
from mrirecon.decompress.gates import hdf5 as h5gate
from mrirecon.decompress.gates import hdf5_superblock as superblock
from mrirecon.decompress.gates import hdf5_vlen as h5vlen
from mrirecon.decompress.gates.sniff import of_hdf5
from mrirecon.decompress.limits import MIB, Limits
from tests.support.hostile_build import MATRIX, fastmri, h5_with, mrd, readouts

GOOD = mrd()


def gate(data: bytes, limits: Limits | None = None) -> h5gate.Contents:
    return h5gate.inspect(io.BytesIO(data), len(data), limits or Limits())


def code_of(data: bytes, limits: Limits | None = None) -> Code | None:
    try:
        gate(data, limits)
    except PermanentError as error:
        return error.code
    return None


def test_names_tell_the_format():
    assert of_hdf5(gate(GOOD)) == RawKind.MRD
    assert of_hdf5(gate(fastmri())) == RawKind.FASTMRI


@pytest.mark.parametrize("libver", ["earliest", "v110", "latest"])
@pytest.mark.parametrize("userblock", [0, 512, 4096])
@pytest.mark.parametrize("track_order", [False, True])
def test_every_version_of_the_file_format_passes(libver, userblock, track_order):
    out = io.BytesIO()
    with h5py.File(out, "w", libver=libver, userblock_size=userblock, track_order=track_order) as h5:
        rows = h5.create_dataset("dataset/data", data=readouts(), chunks=(3,), maxshape=(None,))
        rows.attrs["unit"] = "none"
        h5.create_dataset("dataset/xml", data=["<a/>"], dtype=h5py.string_dtype())
        h5["named type"] = np.dtype("f4")
    data = out.getvalue()
    assert of_hdf5(gate(data)) == RawKind.MRD
    assert code_of(data[:-1]) == Code.TRUNCATED


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"chunks": (5,)},
        {"chunks": (5,), "compression": "gzip"},
        {"chunks": (5,), "shuffle": True},
        {"chunks": (5,), "compression": "gzip", "shuffle": True, "fletcher32": True},
    ],
    ids=["contiguous", "chunked", "gzip", "shuffle", "all"],
)
def test_lengths_are_read_from_any_layout(options):
    """The gate lets pass exactly what fits: with one byte less allowed, the same file is refused."""
    lengths = [1, 0, 17, 256, 3, 8, 8, 8]

    def write(h5: h5py.File) -> None:
        kind = np.dtype(
            [("a", "u1"), ("s", h5py.string_dtype()), ("v", h5py.vlen_dtype(np.float64)), ("z", "u2")]
        )
        rows = h5.create_dataset("rows", (len(lengths),), kind, **options)
        for number, length in enumerate(lengths):
            rows[number] = (number, "x" * length, np.arange(length, dtype=float), 7)

    data = h5_with(write)
    claimed = sum(lengths) * 9 + 0
    with h5py.File(io.BytesIO(data)) as h5:
        dataset = h5["rows"].id
        measured = h5vlen.claimed(io.BytesIO(data), len(data), dataset, dataset.get_type())
    assert measured == claimed


def test_a_length_beyond_the_file_is_refused_wherever_it_stands():
    length = struct.pack("<I", 4 * MATRIX)
    places = [at for at in range(len(GOOD) - 16) if GOOD[at : at + 4] == length]
    refused = 0
    for at in places:
        spoiled = GOOD[:at] + struct.pack("<I", 0x7FFFFFFF) + GOOD[at + 4 :]
        refused += code_of(spoiled) == Code.H5_CORRUPT
    assert refused >= MATRIX


def test_a_real_scanners_sparse_chunk_is_no_bomb():
    """A GE ScanArchive declares one chunk 83 times the stored bytes; that much is allowed."""

    def write(h5: h5py.File) -> None:
        rng = np.random.default_rng(0)
        values = np.zeros(96 * MIB, np.uint8)
        values[: MIB + MIB // 4] = rng.integers(0, 256, MIB + MIB // 4, np.uint8)
        h5.create_dataset("dataset/x", data=values, chunks=(values.size,), compression="gzip")
        h5["dataset/data"] = 1

    data = h5_with(write)
    assert len(data) * 60 < 96 * MIB
    assert code_of(data) is None


@pytest.mark.parametrize(
    ("limit", "code"),
    [
        ({"max_h5_objects": 2}, Code.TOO_LARGE),
        ({"max_raw_bytes": 1000}, Code.TOO_LARGE),
        ({"max_h5_attributes": 1}, Code.TOO_LARGE),
        ({"max_h5_depth": 1}, Code.TOO_LARGE),
    ],
)
def test_every_budget_counts(limit, code):
    def more(h5: h5py.File) -> None:
        h5.create_group("dataset/deep/deeper")
        h5["dataset"].attrs.update(a=1, b=2)

    data = mrd(more)
    assert code_of(data) is None
    assert code_of(data, Limits(**limit)) == code


def test_vlen_inside_vlen_is_refused():
    def write(h5: h5py.File) -> None:
        inner = h5py.h5t.vlen_create(h5py.h5t.IEEE_F32LE)
        outer = h5py.h5t.vlen_create(inner)
        h5py.h5d.create(h5.id, b"x", outer, h5py.h5s.create_simple((2,)))

    assert code_of(h5_with(write)) == Code.H5_SCHEMA


@pytest.mark.parametrize(
    ("kind", "code"), [(h5py.string_dtype(), None), (h5py.vlen_dtype("f4"), Code.H5_SCHEMA)]
)
def test_strings_may_be_compact_and_nothing_else_of_variable_length(kind, code):
    def write(h5: h5py.File) -> None:
        plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plan.set_layout(h5py.h5d.COMPACT)
        space = h5py.h5s.create_simple((1,))
        h5py.h5d.create(h5.id, b"x", h5py.h5t.py_create(np.dtype(kind), logical=True), space, plan)

    assert code_of(h5_with(write)) == code


def test_empty_and_null_data_sets_pass():
    def write(h5: h5py.File) -> None:
        h5["dataset/data"] = h5py.Empty("f4")
        h5.create_dataset("dataset/none", (0,), "f4")
        h5.create_dataset("dataset/later", (0, 5), h5py.vlen_dtype("f4"), maxshape=(None, 5))

    assert code_of(h5_with(write)) is None


def test_the_file_is_not_written():
    file = io.BytesIO(GOOD)
    h5gate.inspect(file, len(GOOD), Limits())
    assert file.getvalue() == GOOD


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, len(GOOD) - 1), st.integers(0, 255)), min_size=1, max_size=3), st.data()
)
def test_a_spoiled_file_gets_a_verdict(changes, data):
    """Bytes overwritten anywhere but in the first object headers, where loops end only in the sandbox."""
    spoiled = bytearray(GOOD)
    for place, value in changes:
        if 96 <= place < 2048:
            continue
        spoiled[place] = value
    verdict: Code | None = None
    try:
        gate(bytes(spoiled))
    except MrireconError as error:
        verdict = error.code
    assert verdict in {
        None,
        Code.H5_CORRUPT,
        Code.TRUNCATED,
        Code.H5_LINKS,
        Code.H5_EXTERNAL,
        Code.H5_FILTER,
        Code.TOO_LARGE,
        Code.H5_SCHEMA,
    }


@given(st.binary(max_size=400))
def test_any_bytes_behind_a_signature_get_a_verdict(tail: bytes):
    assert code_of(superblock.SIGNATURE + tail) in {Code.H5_CORRUPT, Code.TRUNCATED}
