"""Bricks of hostile archives: tar headers written byte by byte, small raw files, and ways to spoil them."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import struct
import zipfile
from collections.abc import Callable

import h5py
import numpy as np
import zstandard

from mrirecon.phantom.mrd import HEAD

NAMESPACE = "http://www.ismrm.org/ISMRMRD"
SENTINEL = "PHI-SENTINEL"
"""Stands wherever a scanner or a sender writes; may appear in no sentence."""
MATRIX = 16


# ------------------------------------------------------------------------------------------------- tar


def header(
    name: str | bytes,
    size: int | bytes = 0,
    kind: bytes = b"0",
    *,
    link: bytes = b"",
    magic: bytes = b"ustar\x0000",
    prefix: bytes = b"",
    mode: bytes = b"0000644\0",
    tail: bytes = b"",
    checksum_off_by: int = 0,
) -> bytes:
    """Return one 512-byte header; ``size`` may be the 12 raw bytes of the field."""
    raw = name.encode() if isinstance(name, str) else name
    field = size if isinstance(size, bytes) else b"%011o\0" % size
    block = bytearray(
        raw[:100].ljust(100, b"\0")
        + mode
        + b"0001750\0"
        + b"0001750\0"
        + field
        + b"14524723000\0"
        + b" " * 8
        + kind
        + link[:100].ljust(100, b"\0")
        + magic
        + b"user".ljust(32, b"\0")
        + b"group".ljust(32, b"\0")
        + b"0000000\0" * 2
        + (prefix.ljust(155, b"\0") + b"\0" * 12)
    )
    if tail:
        block[345 : 345 + len(tail)] = tail
    assert len(block) == 512
    block[148:156] = b"%06o\0 " % (sum(block) + checksum_off_by)
    return bytes(block)


def padded(data: bytes) -> bytes:
    """Return ``data`` filled up to whole blocks."""
    return data + bytes(-len(data) % 512)


def file(name: str | bytes, data: bytes, **fields: object) -> bytes:
    """Return a regular member."""
    return header(name, len(data), **fields) + padded(data)  # type: ignore[arg-type]


def pax_records(**records: str | bytes) -> bytes:
    """Return records ``<length> <key>=<value>``."""
    out = b""
    for key, value in records.items():
        body = b" " + key.replace("__", ".").encode() + b"="
        body += (value.encode() if isinstance(value, str) else value) + b"\n"
        length = len(body)
        while length != len(body) + len(str(length)):
            length = len(body) + len(str(length))
        out += str(length).encode() + body
    return out


def pax(data: bytes, kind: bytes = b"x") -> bytes:
    """Return an extended header."""
    return file("PaxHeaders/x", data, kind=kind)


def long_name(name: bytes) -> bytes:
    """Return a GNU long name."""
    return file("././@LongLink", name + b"\0", kind=b"L", magic=b"ustar  \0")


def tar(*parts: bytes, end: int = 1024, record: int = 10240) -> bytes:
    """Return members with ``end`` zero bytes behind, filled to a record."""
    body = b"".join(parts) + bytes(end)
    return body + bytes(-len(body) % record) if end else body


def gz(data: bytes) -> bytes:
    return gzip.compress(data, 6, mtime=0)


def zst(data: bytes, **options: object) -> bytes:
    return zstandard.ZstdCompressor(write_checksum=True, **options).compress(data)  # type: ignore[arg-type]


def xz(data: bytes) -> bytes:
    return lzma.compress(data, preset=0)


PACKERS: dict[str, Callable[[bytes], bytes]] = {"gz": gz, "zst": zst, "xz": xz, "bz2": bz2.compress}


def xz_huge_dictionary() -> bytes:
    """Return an xz stream whose block header asks for a dictionary of 3 GiB (checksum right)."""
    stream = bytearray(lzma.compress(tar(), check=lzma.CHECK_CRC32, preset=0))
    size = (stream[12] + 1) * 4
    block = stream[12 : 12 + size - 4]
    at = block.index(b"\x21\x01") + 2
    block[at] = 39
    stream[12 : 12 + size] = block + struct.pack("<I", lzma_crc(bytes(block)))
    return bytes(stream)


def lzma_crc(data: bytes) -> int:
    import zlib

    return zlib.crc32(data)


def zip_file(data: bytes = b"x" * 500) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as packed:
        packed.writestr("meas.h5", data)
    return out.getvalue()


# --------------------------------------------------------------------------------------------- raw files


def xml_header(extra: str = "", prolog: str = '<?xml version="1.0"?>') -> bytes:
    space = (
        f"<matrixSize><x>{MATRIX}</x><y>{MATRIX}</y><z>1</z></matrixSize>"
        "<fieldOfView_mm><x>160</x><y>160</y><z>5</z></fieldOfView_mm>"
    )
    return (
        f'{prolog}<ismrmrdHeader xmlns="{NAMESPACE}"><subjectInformation>'
        f"<patientName>{SENTINEL}</patientName></subjectInformation>{extra}<experimentalConditions><H1resonanceFrequency_Hz>63500000"
        "</H1resonanceFrequency_Hz></experimentalConditions><encoding>"
        f"<encodedSpace>{space}</encodedSpace><reconSpace>{space}</reconSpace><encodingLimits>"
        f"<kspace_encoding_step_1><minimum>0</minimum><maximum>{MATRIX - 1}</maximum>"
        f"<center>{MATRIX // 2}</center></kspace_encoding_step_1></encodingLimits>"
        "<trajectory>cartesian</trajectory></encoding></ismrmrdHeader>"
    ).encode()


ACQUISITION = np.dtype(
    [("head", HEAD), ("traj", h5py.vlen_dtype(np.float32)), ("data", h5py.vlen_dtype(np.float32))]
)


def readouts(coils: int = 2) -> np.ndarray:
    """Return a fully sampled scan of one slice."""
    random = np.random.default_rng(1)
    rows = np.zeros(MATRIX, ACQUISITION)
    head = rows["head"]
    head["version"], head["measurement_uid"], head["number_of_samples"] = 1, 7, MATRIX
    head["available_channels"], head["active_channels"] = coils, coils
    head["center_sample"], head["sample_time_us"] = MATRIX // 2, 5.0
    head["read_dir"], head["phase_dir"], head["slice_dir"] = (1, 0, 0), (0, 1, 0), (0, 0, 1)
    head["idx"]["kspace_encode_step_1"] = head["scan_counter"] = np.arange(MATRIX)
    for row in range(MATRIX):
        rows["traj"][row] = np.zeros(0, np.float32)
        rows["data"][row] = random.normal(size=2 * coils * MATRIX).astype(np.float32)
    return rows


def mrd(
    change: Callable[[h5py.File], None] | None = None,
    *,
    xml: bytes | None = None,
    chunk: int | None = 1,
    filters: dict[str, object] | None = None,
    userblock: int = 0,
) -> bytes:
    """Return a small MRD file, changed by ``change`` before it is closed."""
    out = io.BytesIO()
    with h5py.File(out, "w", userblock_size=userblock) as h5:
        group = h5.create_group("dataset")
        group.create_dataset("xml", data=[xml or xml_header()], dtype=h5py.string_dtype())
        rows = readouts()
        extra = {"maxshape": (None,), "chunks": (chunk,), **(filters or {})} if chunk else {}
        group.create_dataset("data", shape=rows.shape, dtype=ACQUISITION, **extra)
        for n, row in enumerate(rows):
            group["data"][n] = row
        if change is not None:
            change(h5)
    return out.getvalue()


def fastmri(change: Callable[[h5py.File], None] | None = None) -> bytes:
    out = io.BytesIO()
    random = np.random.default_rng(2)
    with h5py.File(out, "w") as h5:
        samples = random.normal(size=(1, 2, MATRIX, MATRIX)) + 1j * random.normal(size=(1, 2, MATRIX, MATRIX))
        h5["kspace"] = samples.astype(np.complex64)
        h5["ismrmrd_header"] = xml_header()
        h5["reconstruction_rss"] = np.zeros((1, MATRIX, MATRIX), np.float32)
        h5.attrs["patient_id"] = SENTINEL
        if change is not None:
            change(h5)
    return out.getvalue()


def h5_with(write: Callable[[h5py.File], None]) -> bytes:
    """Return an HDF5 file of what ``write`` puts in."""
    out = io.BytesIO()
    with h5py.File(out, "w") as h5:
        write(h5)
    return out.getvalue()


def bart(dims: str = "16 16 1 2 1", values: int = 512) -> dict[str, bytes]:
    samples = np.random.default_rng(3).normal(size=2 * values).astype(np.float32)
    return {"k.hdr": f"# Dimensions\n{dims}\n".encode(), "k.cfl": samples.tobytes()}


def flipped(data: bytes, *places: int) -> bytes:
    """Return ``data`` with the bits at byte positions (negative from the end) turned over."""
    changed = bytearray(data)
    for place in places:
        changed[place] ^= 0xFF
    return bytes(changed)


def patched(data: bytes, old: bytes, new: bytes) -> bytes:
    """Return ``data`` with the one occurrence of ``old`` replaced."""
    assert data.count(old) >= 1, "nothing to patch"
    return data.replace(old, new, 1)


def half_zeros(data: bytes) -> bytes:
    """Return what a copy holds that reserved its space and was stopped half-way."""
    return data[: len(data) // 2] + bytes(len(data) - len(data) // 2)
