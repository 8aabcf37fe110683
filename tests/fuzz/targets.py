"""What is fuzzed: archive walk, HDF5 gate and heap. Anything but a verdict of ours is a finding."""

from __future__ import annotations

import io
import os
import struct
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mrirecon.contract.codes import MrireconError
from mrirecon.decompress.archive.compression import compression_of
from mrirecon.decompress.archive.walk import walk
from mrirecon.decompress.gates import hdf5 as h5gate
from mrirecon.decompress.gates import hdf5_superblock as superblock
from mrirecon.decompress.gates.sniff import of_hdf5, sniff
from mrirecon.decompress.limits import KIB, MIB, Limits
from mrirecon.decompress.readers import hdf5_heap as globalheap

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer as Buffer

# Small, so that a few bytes of input can reach every budget.
WALK = Limits(
    max_raw_bytes=4 * MIB,
    ratio_floor_bytes=MIB,
    max_members=20,
    max_header_bytes=8 * KIB,
    memory_bytes=2 << 30,
)
GATE = Limits(max_raw_bytes=64 * MIB, ratio_floor_bytes=MIB, max_h5_objects=500, memory_bytes=2 << 30)
_BLOCK = 512


class Finding(AssertionError):
    """A guarantee did not hold."""


def walk_archive(data: bytes) -> str:
    """Walk ``data``; return the code it ended with, or ``ok``. Checks the budgets and what lies on disk."""
    descriptor = os.memfd_create("archive")
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
        try:
            os.write(descriptor, data)
            try:
                found = walk(descriptor, WALK, Path(folder))
            except MrireconError as error:
                _check(folder)
                return error.code.value
            _check(folder)
            if len(found.entries) > WALK.max_members:
                raise Finding("more members than allowed")
            for entry in found.entries:
                with entry.open() as file:
                    if len(file.read()) != entry.size:
                        raise Finding("a member is not as long as it was said to be")
                    sniff(file, entry.size, entry.suffix)
            return "ok"
        finally:
            os.close(descriptor)


def gate_hdf5(data: bytes) -> str:
    """Pass ``data`` through the gate; return the code it ended with, or what it was taken for."""
    try:
        return of_hdf5(h5gate.inspect(io.BytesIO(data), len(data), GATE)).value
    except MrireconError as error:
        return error.code.value


def heap_elements(data: bytes) -> str:
    """Find variable-length data in an HDF5 file that its descriptors follow; check what is said of them."""
    wanted = (
        np.frombuffer(data, globalheap.DESCRIPTOR, *_told(data))
        if data
        else np.zeros(0, globalheap.DESCRIPTOR)
    )
    stream = _Counted(data)
    found: list[int] = []
    try:
        for stretch in globalheap.stretches(stream, len(data), wanted, 1):
            found += stretch.which.tolist()
            ends = stretch.at + wanted["length"][stretch.which].astype(np.int64)
            if (stretch.at < 0).any() or (ends > stretch.raw.size).any():
                raise Finding("data outside of what was read")
    except globalheap.UnusualHeapError:
        return "unusual"
    except MrireconError as error:
        return error.code.value
    finally:
        if stream.read_bytes > len(data) + 16 * (wanted.size + 1):
            raise Finding("bytes were read more than once")
    if sorted(found) != list(range(wanted.size)):
        raise Finding("an element was found twice or not at all")
    return "ok"


def followed_by_elements(raw: bytes) -> bytes:
    """Return an HDF5 file followed by descriptors of the first objects of its heap, and their number."""
    told = b""
    at = raw.find(b"GCOL")
    while at >= 0 and len(told) < 16 * 15:
        index, _, _, size = struct.unpack_from("<HHIQ", raw, at + 16)
        told += struct.pack("<IQI", size % 2**32, at, index)
        at = raw.find(b"GCOL", at + 4)
    return raw + told + bytes([len(told) // 16])


def _told(data: bytes) -> tuple[int, int]:
    """Return how many descriptors end ``data`` and where they begin."""
    count = min(data[-1] % 16, (len(data) - 1) // 16) if data else 0
    return count, max(0, len(data) - 1 - 16 * count)


class _Counted(io.BytesIO):
    read_bytes = 0

    def readinto(self, buffer: Buffer) -> int:
        done = super().readinto(buffer)
        self.read_bytes += done
        return done


def mended(data: bytes) -> bytes:
    """Return ``data`` with the checksum of every tar header set right, so that what follows is reached."""
    if compression_of(data) is not None:
        return data
    out = bytearray(data)
    at = 0
    while at + _BLOCK <= len(out):
        block = out[at : at + _BLOCK]
        if any(block):
            block[148:156] = b" " * 8
            out[at + 148 : at + 156] = b"%06o\0 " % sum(block)
        digits = bytes(block[124:135]).strip(b" \0")
        size = int(digits, 8) if digits and set(digits) <= set(b"01234567") else 0
        at += _BLOCK + -(-size // _BLOCK) * _BLOCK
    return bytes(out)


def sized(data: bytes) -> bytes:
    """Return ``data`` with the end address of an HDF5 superblock (version 0) set to its length."""
    if data[:8] != superblock.SIGNATURE or len(data) < 96 or data[8] != 0:
        return data
    return data[:40] + struct.pack("<Q", len(data)) + data[48:]


def _check(folder: str) -> None:
    files = list(Path(folder).iterdir())
    if sum(path.stat().st_size for path in files) > WALK.max_raw_bytes:
        raise Finding("more on disk than the budget")
    if not all(path.name.removesuffix(".bin").isdigit() for path in files):
        raise Finding("a name of the archive on disk")
