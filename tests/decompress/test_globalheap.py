"""Samples straight from the global heap: the same as the library's bit for bit, or left to the library."""

from __future__ import annotations

import io
import struct
from contextlib import contextmanager

import h5py
import ismrmrd
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mrirecon.contract.codes import Code, PermanentError
from mrirecon.contract.progress import silent
from mrirecon.decompress.acquisitions import allocate
from mrirecon.decompress.archive.members import Member, RawKind, Window
from mrirecon.decompress.preparation import prepare as readers
from mrirecon.decompress.readers import bulk_reads as stretches
from mrirecon.decompress.readers import hdf5_heap as globalheap
from mrirecon.decompress.readers import mrd
from mrirecon.decompress.readers import mrd_rows as mrdrows
from mrirecon.decompress.readers import mrd_samples as mrdsamples
from mrirecon.decompress.readers.hdf5_heap import DESCRIPTOR, UnusualHeapError
from mrirecon.phantom.mrd import HEAD
from tests.support.feature_scans import LIMITS, Scan, member, write, xml

SMALL = Scan(matrix=(1, 16, 12), coils=2, noise=4)
FLOATS = h5py.vlen_dtype(np.float32)
ROW = np.dtype([("head", HEAD), ("traj", FLOATS), ("data", FLOATS)])


def of_bytes(blob: bytes) -> Member:
    return Member(0, len(blob), RawKind.MRD, lambda: io.BytesIO(blob))


@contextmanager
def reach(bytes_: int):
    """Let stretches be so short, so that small files have many."""
    usual = stretches.STRETCH
    stretches.STRETCH = globalheap.STRETCH = bytes_
    try:
        yield
    finally:
        stretches.STRETCH = globalheap.STRETCH = usual


def both_ways(source: Member) -> tuple[bool, list[np.ndarray], list[np.ndarray]]:
    """Return whether the heap was read, what it gave, and what the library gives."""
    with mrd.open_h5(source) as file:
        data = file["dataset/data"]
        rows = mrdrows.read(data, source)
        table = mrd._table(rows.heads)
        ours, theirs = allocate(table, 1 << 30), allocate(table, 1 << 30)
        for store in ours:
            store.fill(7)
        taken = rows.elements is not None and mrdsamples.from_heap(rows.elements, source, table, ours, silent)
        mrdsamples.by_library(data, table, theirs, silent)
    return taken, ours, theirs


def check_the_same(source: Member) -> None:
    taken, ours, theirs = both_ways(source)
    assert taken
    for one, other in zip(ours, theirs, strict=True):
        assert one.tobytes() == other.tobytes()


@st.composite
def scan_files(draw) -> bytes:
    """An MRD table of any shapes, layout and neighbours, as h5py writes it."""
    shapes = draw(st.lists(st.tuples(st.integers(1, 5), st.integers(1, 700)), min_size=1, max_size=4))
    count = draw(st.integers(1, 40))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    rows = np.zeros(count, ROW)
    for number in range(count):
        channels, samples = shapes[rng.integers(len(shapes))]
        rows["head"][number]["active_channels"] = channels
        rows["head"][number]["number_of_samples"] = samples
        values = rng.standard_normal(2 * channels * samples).astype(np.float32)
        values[rng.random(values.size) < 0.1] = rng.choice(np.array([-0.0, 1e-42, -1e14], np.float32))
        rows["data"][number] = values
        rows["traj"][number] = np.zeros(draw(st.sampled_from([0, 0, 3, 50])), np.float32)
    chunks = draw(st.sampled_from([None, (1,), (3,), (64,)]))
    step = draw(st.integers(1, count))
    in_order = draw(st.booleans())
    out = io.BytesIO()
    with h5py.File(
        out,
        "w",
        libver=draw(st.sampled_from(["earliest", "v110", "latest"])),
        userblock_size=draw(st.sampled_from([0, 512])),
    ) as file:
        data = file.create_dataset(
            "dataset/data", (count,), ROW, chunks=chunks, maxshape=(None,) if chunks else None
        )
        others = file.create_dataset("dataset/waveforms", (count,), FLOATS, chunks=(2,), maxshape=(None,))
        starts = list(range(0, count, step))
        for start in starts if in_order else rng.permutation(starts).tolist():
            data[start : start + step] = rows[start : start + step]
            if draw(st.booleans()):
                others[start] = np.arange(start, dtype=np.float32)
    return out.getvalue()


@settings(max_examples=60, deadline=None)
@given(scan_files(), st.sampled_from([64, 5000, 1 << 22]), st.sampled_from([0, 512]))
def test_the_heap_gives_what_the_library_gives(blob: bytes, bytes_: int, in_front: int) -> None:
    with reach(bytes_):
        # a user block may be put before a file that has been written
        check_the_same(of_bytes(bytes(in_front) + blob if blob[:4] == b"\x89HDF" else blob))


def test_a_window_of_a_tar_is_read_in_place(tmp_path) -> None:
    blob = write(SMALL, tmp_path / "a.h5").read_bytes()
    (tmp_path / "tar").write_bytes(bytes(1537) + blob + bytes(1024))
    with (tmp_path / "tar").open("rb") as file:
        check_the_same(Member(0, len(blob), RawKind.MRD, lambda: Window(file.fileno(), 1537, len(blob))))


@pytest.mark.parametrize("samples", [2, 64, 5000])
def test_what_the_ismrmrd_library_writes(samples: int, tmp_path) -> None:
    rng = np.random.default_rng(0)
    dataset = ismrmrd.Dataset(str(tmp_path / "a.h5"), "dataset")
    dataset.write_xml_header(xml(SMALL).encode())
    for _ in range(40):
        values = rng.standard_normal((2, 3, samples)).astype(np.float32)
        dataset.append_acquisition(ismrmrd.Acquisition.from_array(values[0] + 1j * values[1]))
    dataset.close()
    check_the_same(member(tmp_path / "a.h5"))


def test_a_scan_is_read_without_the_library(tmp_path, monkeypatch) -> None:
    path = write(SMALL, tmp_path / "a.h5")
    expected = readers.inspect([member(path)], LIMITS)["acquisitions_digest"]
    monkeypatch.setattr(mrdsamples, "by_library", lambda *_: pytest.fail("the library was asked"))
    many = mrdrows._many_chunks
    monkeypatch.setattr(mrdrows, "_many_chunks", lambda *its: many(*its) or pytest.fail("chunk by chunk"))
    assert readers.inspect([member(path)], LIMITS)["acquisitions_digest"] == expected


def heap_places(blob: bytes) -> list[int]:
    """Return where collections begin."""
    return [at for at in range(len(blob) - 4) if blob[at : at + 4] == b"GCOL"]


@pytest.mark.parametrize("which", ["first", "last"])
@pytest.mark.parametrize("what", ["zeros", "free space of no bytes", "wraps round"])
def test_a_heap_that_sends_the_library_round_in_circles(which: str, what: str, tmp_path) -> None:
    """The first collection of a small file holds the XML header too, the last samples alone."""
    blob = bytearray(write(SMALL, tmp_path / "a.h5").read_bytes())
    at = heap_places(blob)[0 if which == "first" else -1] + 16
    if what == "zeros":  # as a copy with a hole in it
        at += 16 + -(-int.from_bytes(blob[at + 8 : at + 16], "little") // 8) * 8
        blob[at : at + 64] = bytes(64)
    elif what == "wraps round":
        blob[at + 8 : at + 16] = u8(2**64 - 16)
    else:
        blob[at : at + 16] = bytes(16)
    with pytest.raises(PermanentError) as refused:
        readers.inspect([of_bytes(bytes(blob))], LIMITS)
    assert refused.value.code is Code.H5_CORRUPT


# -------------------------------------------------------------------------------------------- hostile heaps


def collection(*objects: tuple[int, bytes], size: int | None = None, free: int = 0) -> bytearray:
    """Return a collection of (index, data), and ``free`` bytes of free space."""
    body = b"".join(
        struct.pack("<HHIQ", index, 0, 0, len(data)) + data + bytes(-len(data) % 8) for index, data in objects
    )
    if free:
        body += struct.pack("<HHIQ", 0, 0, 0, free) + bytes(free - 16)
    return bytearray(b"GCOL\1\0\0\0" + struct.pack("<Q", size or 16 + len(body)) + body)


FRONT = 96


def heap_file(*pieces: bytes, lengths: int = 8) -> bytes:
    """Return a superblock (version 0) and what lies behind it, from byte 96 on."""
    body = b"".join(pieces)
    block = bytearray(FRONT)
    block[:8] = b"\x89HDF\r\n\x1a\n"
    block[13:15] = 8, lengths
    block[40:48] = struct.pack("<Q", FRONT + len(body))
    return bytes(block) + body


def elements(*found: tuple[int, int, int]) -> np.ndarray:
    """Return descriptors of (items, address, index)."""
    return np.array(list(found), DESCRIPTOR)


def take(blob: bytes, wanted: np.ndarray) -> dict[int, bytes]:
    """Return the data of each element."""
    found = {}
    for stretch in globalheap.stretches(io.BytesIO(blob), len(blob), wanted, 4):
        for which, at in zip(stretch.which.tolist(), stretch.at.tolist(), strict=True):
            found[which] = stretch.raw[at : at + 4 * int(wanted["length"][which])].tobytes()
    return found


A, B, C = b"aaaabbbb", b"cccc", b"dddd" * 5
SOUND = collection((1, A), (3, B), (2, C), free=40)
SECOND = FRONT + len(SOUND)


def test_elements_are_found_in_any_order() -> None:
    blob = heap_file(SOUND, SOUND)
    wanted = elements((5, SECOND, 2), (2, FRONT, 1), (1, SECOND, 3), (1, FRONT, 3), (1, FRONT, 3))
    assert take(blob, wanted) == {0: C, 1: A, 2: B, 3: B, 4: B}
    with reach(1):
        assert take(blob, wanted) == {0: C, 1: A, 2: B, 3: B, 4: B}


def test_a_rest_too_small_for_an_object_is_free_space() -> None:
    blob = heap_file(collection((1, A), size=16 + 24 + 8) + bytes(8))
    assert take(blob, elements((2, FRONT, 1))) == {0: A}


def changed(at: int, new: bytes) -> bytes:
    return bytes(SOUND[:at] + new + SOUND[at + len(new) :])


def u8(value: int) -> bytes:
    return struct.pack("<Q", value)


HUGE = 2**64 - 8
LIES = {
    "address behind the end": (heap_file(SOUND), (2, 1 << 40, 1)),
    "undefined address": (heap_file(SOUND), (2, 2**64 - 1, 1)),
    "address of the last bytes": (heap_file(SOUND), (2, SECOND - 4, 1)),
    "address of no collection": (heap_file(SOUND), (2, FRONT + 8, 1)),
    "index missing": (heap_file(SOUND), (2, FRONT, 4)),
    "index of free space": (heap_file(SOUND), (2, FRONT, 0)),
    "index too large": (heap_file(SOUND), (2, FRONT, 1 << 16 | 1)),
    "claims more": (heap_file(SOUND), (3, FRONT, 1)),
    "claims less": (heap_file(SOUND), (1, FRONT, 1)),
    "signature": (heap_file(changed(0, b"X")), (2, FRONT, 1)),
    "version": (heap_file(changed(4, b"\2")), (2, FRONT, 1)),
    "collection of no bytes": (heap_file(changed(8, u8(0))), (2, FRONT, 1)),
    "collection of 15 bytes": (heap_file(changed(8, u8(15))), (2, FRONT, 1)),
    "collection of its head alone": (heap_file(changed(8, u8(16))), (2, FRONT, 1)),
    "collection longer than the file": (heap_file(changed(8, u8(1 << 20))), (2, FRONT, 1)),
    "collection of 16 EiB": (heap_file(changed(8, u8(HUGE))), (2, FRONT, 1)),
    "object longer than its collection": (heap_file(changed(24, u8(4096))), (2, FRONT, 1)),
    "object of 16 EiB": (heap_file(changed(24, u8(HUGE))), (2, FRONT, 1)),
    "padding longer than its collection": (
        heap_file(collection((1, A[:5]), size=16 + 16 + 5) + bytes(16)),
        (1, FRONT, 1),
    ),
    "free space of no bytes": (heap_file(collection((1, A), (0, b""), (2, A))), (2, FRONT, 1)),
    "free space of 16 EiB": (heap_file(changed(len(SOUND) - 32, u8(HUGE))), (2, FRONT, 1)),
    "index twice": (heap_file(collection((1, A), (2, B), (1, A))), (2, FRONT, 1)),
    "free space twice": (
        heap_file(changed(len(SOUND) - 32, u8(16) + struct.pack("<HHIQ", 0, 0, 0, 24))),
        (2, FRONT, 1),
    ),
    "short lengths": (heap_file(SOUND, lengths=4), (2, FRONT, 1)),
    "no superblock": (bytes(FRONT) + bytes(SOUND), (2, FRONT, 1)),
    "file cut": (heap_file(SOUND)[:-1], (2, FRONT, 1)),
}


@pytest.mark.parametrize("lie", LIES)
@pytest.mark.parametrize("neighbour", [False, True], ids=["alone", "beside a sound one"])
def test_a_lie_is_refused_or_left_to_the_library(lie: str, neighbour: bool) -> None:
    blob, element = LIES[lie]
    wanted = elements(element)
    if neighbour and lie not in {"no superblock", "file cut", "short lengths"}:
        wanted = np.append(elements((2, len(blob), 1)), wanted)
        blob = heap_file(blob[FRONT:], SOUND)
    with pytest.raises(PermanentError if lie in CIRCLES else UnusualHeapError):
        take(blob, wanted)


CIRCLES = [
    "object longer than its collection",
    "object of 16 EiB",
    "free space of no bytes",
    "free space of 16 EiB",
    "padding longer than its collection",
]


def test_collections_that_overlap_are_left_to_the_library() -> None:
    inner = collection((1, A))
    outer = collection((1, bytes(inner)))
    blob = heap_file(outer)
    assert take(blob, elements((2, FRONT + 32, 1))) == {0: A}
    with pytest.raises(UnusualHeapError):
        take(blob, elements((len(inner) // 4, FRONT, 1), (2, FRONT + 32, 1)))


def test_what_lies_behind_the_end_the_file_tells_is_not_there() -> None:
    blob = heap_file(SOUND)
    short = blob[:40] + u8(len(blob) - 8) + blob[48:]
    assert take(blob, elements((2, FRONT, 1)))
    with pytest.raises(UnusualHeapError):
        take(short, elements((2, FRONT, 1)))


def test_a_crowd_of_objects_that_no_readout_asks_for_ends_the_walk() -> None:
    crowd = collection(*((index, b"") for index in range(2, 60_000)), (1, A))
    blob = heap_file(crowd)
    with pytest.raises(UnusualHeapError):
        take(blob, elements((2, FRONT, 1)))


class Watched(io.BytesIO):
    """Counts what is read of it."""

    bytes_read = 0

    def readinto(self, buffer) -> int:
        done = super().readinto(buffer)
        self.bytes_read += done
        return done


@st.composite
def crafted(draw) -> tuple[bytes, np.ndarray]:
    """Some collections, most of them sound, some bytes overwritten, and descriptors that may fit."""
    pieces, known = [], []
    at = FRONT
    for _ in range(draw(st.integers(1, 5))):
        gap = bytes(draw(st.sampled_from([0, 0, 8, 3, 300])))
        count = draw(st.integers(1, 5))
        data = [bytes([n]) * 4 * draw(st.integers(1, 6)) for n in range(count)]
        indices = draw(st.permutations(range(1, count + 1)))
        piece = collection(*zip(indices, data, strict=True), free=draw(st.sampled_from([0, 16, 64])))
        at += len(gap)
        known += [(len(one) // 4, at, index) for index, one in zip(indices, data, strict=True)]
        at += len(piece)
        pieces += [gap, piece]
    blob = bytearray(heap_file(*pieces))
    for _ in range(draw(st.integers(0, 2))):
        place = draw(st.integers(FRONT, len(blob) - 1))
        width = draw(st.sampled_from([1, 8]))
        blob[place : place + width] = draw(st.integers(0, 256**width - 1)).to_bytes(width, "little")
    wanted = draw(st.lists(st.sampled_from(known), min_size=1, max_size=20))
    if draw(st.integers(0, 4)) == 0:
        wanted.append((draw(st.integers(1, 9)), draw(st.integers(0, len(blob) + 9)), draw(st.integers(0, 9))))
    return bytes(blob[: at + draw(st.sampled_from([0, 8]))]), elements(*wanted)


def by_the_book(blob: bytes, wanted: np.ndarray) -> dict[int, bytes] | None:
    """Look up each element on its own, plainly; None where one is not to be had."""
    found = {}
    for number, (items, address, index) in enumerate(wanted.tolist()):
        start = address
        if blob[start : start + 5] != b"GCOL\1" or start + 16 > len(blob):
            return None
        end = start + int.from_bytes(blob[start + 8 : start + 16], "little")
        if end > len(blob):
            return None
        at = start + 16
        while at + 16 <= end:
            one, _, _, size = struct.unpack_from("<HHIQ", blob, at)
            if one == index and size == 4 * items and at + 16 + size <= end:
                found[number] = blob[at + 16 : at + 16 + size]
            at += max(16, size if one == 0 else 16 + -(-size // 8) * 8)
        if number not in found:
            return None
    return found


@settings(max_examples=300, deadline=None)
@given(crafted(), st.sampled_from([1, 100, 1 << 22]))
def test_a_crafted_heap_gives_its_data_or_nothing(made: tuple[bytes, np.ndarray], bytes_: int) -> None:
    blob, wanted = made
    stream = Watched(blob)
    found: dict[int, bytes] = {}
    with reach(bytes_):
        try:
            for stretch in globalheap.stretches(stream, len(blob), wanted, 4):
                for which, at in zip(stretch.which.tolist(), stretch.at.tolist(), strict=True):
                    assert which not in found
                    data = stretch.raw[at : at + 4 * int(wanted["length"][which])]
                    found[which] = data.tobytes()
        except (UnusualHeapError, PermanentError):
            pass
        else:
            assert found == by_the_book(blob, wanted)
    # every byte once, and the head of a collection that stands alone
    assert stream.bytes_read <= len(blob) + 16 * wanted.size


def test_small_pieces_are_gathered_wherever_they_lie() -> None:
    blob = np.random.default_rng(0).integers(0, 256, 200_000, np.uint8).tobytes()
    kind = np.dtype((np.void, 24))
    at = np.array([199_976, 5, 5, 0, 100_000, 13, 40_000])
    for bytes_ in (1, 1000, 1 << 22):
        with reach(bytes_):
            found = stretches.gather(io.BytesIO(blob), at, kind)
        assert found is not None
        assert [one.tobytes() for one in found] == [blob[place : place + 24] for place in at]
    assert stretches.gather(io.BytesIO(blob), at + 1, kind) is None
    assert stretches.gather(io.BytesIO(blob), at[:0], kind).size == 0
