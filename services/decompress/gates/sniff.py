"""What a file of the archive is, told by its content.

Only BART's ``.cfl`` has no content to tell it by: it is what lies beside a BART header of the same stem, or
bears that suffix and nothing else known.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import StrEnum
from typing import BinaryIO

from ..archive import tar_header as tarheader
from ..archive.compression import compression_of
from ..archive.members import RawKind
from ..archive.signatures import container_of
from .hdf5 import Contents
from .hdf5_superblock import find_signature

HEAD = 4096

_MAX_VB_HEADER = 64 * 1024 * 1024
_VD_FIRST_ENTRY = 8
_MAX_VD_OFFSET = 1 << 40


class Foreign(StrEnum):
    """Known, but not read: the value is what the sentence calls it."""

    GE_PFILE = "a GE P-file"
    GE_SCAN_ARCHIVE = "a GE ScanArchive"
    PHILIPS = "Philips raw data"
    BRUKER = "Bruker ParaVision data"
    MRD2 = "an MRD version 2 stream"
    PULSEQ = "a Pulseq sequence"
    DICOM = "DICOM images"
    NIFTI = "a NIfTI image"


class Other(StrEnum):
    """Neither raw nor known."""

    ARCHIVE = "archive"
    HDF5 = "hdf5"
    """HDF5, to be told by its contents once the gate let it through."""
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class _Signature:
    offset: int
    magic: bytes
    kind: RawKind | Foreign


_SIGNATURES = (
    _Signature(0, b"# Dimensions", RawKind.HDR),
    _Signature(0, b"yardl", Foreign.MRD2),
    _Signature(0, b"# Pulseq", Foreign.PULSEQ),
    _Signature(0, b"[VERSION]", Foreign.PULSEQ),
    _Signature(0, b"##TITLE=", Foreign.BRUKER),
    _Signature(0, b"# === DATA DESCRIPTION FILE", Foreign.PHILIPS),
    _Signature(128, b"DICM", Foreign.DICOM),
    _Signature(344, b"n+1\0", Foreign.NIFTI),
    _Signature(344, b"ni1\0", Foreign.NIFTI),
)
_PHILIPS_SUFFIXES = frozenset({".lab", ".sin", ".list"})


def sniff(file: BinaryIO, size: int, suffix: str = "") -> RawKind | Foreign | Other:
    """Return what the first bytes of ``file`` say; ``suffix`` decides only where they say nothing."""
    file.seek(0)
    head = file.read(HEAD)
    # Before HDF5: a tar of an HDF5 file looks like an HDF5 file behind a user block of 512 bytes.
    if (
        compression_of(head) is not None
        or container_of(head) is not None
        or tarheader.looks_like_tar(head[: tarheader.BLOCK])
    ):
        return Other.ARCHIVE
    if find_signature(file, size) is not None:
        return Other.HDF5
    for signature in _SIGNATURES:
        if head[signature.offset : signature.offset + len(signature.magic)] == signature.magic:
            return signature.kind
    if _is_twix(head):
        return RawKind.TWIX
    if suffix == ".cfl":
        return RawKind.CFL
    if suffix in _PHILIPS_SUFFIXES:
        return Foreign.PHILIPS
    return Foreign.GE_PFILE if _is_pfile(head, size) else Other.UNKNOWN


def of_hdf5(contents: Contents) -> RawKind | Foreign | Other:
    """Return what an HDF5 file holds, by its names."""
    if b"Acquisition" in contents.root or b"DownloadData.xml" in contents.root:
        return Foreign.GE_SCAN_ARCHIVE
    if any(names & {b"xml", b"data"} for names in contents.groups.values()):
        return RawKind.MRD
    if b"kspace" in contents.root:
        return RawKind.FASTMRI
    return Other.HDF5


def _is_twix(head: bytes) -> bool:
    """Tell Siemens raw data: VD and later begin with a table of measurements, VB with its header's length."""
    if len(head) < 32:
        return False
    first, second = struct.unpack_from("<II", head)
    if first < 10_000 and 1 <= second <= 64:
        # The length of a measurement may be 0: scanners leave it so.  It lies behind the table, whose entries
        # take 152 bytes each.
        offset = struct.unpack_from("<Q", head, _VD_FIRST_ENTRY + 8)[0]
        return bool(_VD_FIRST_ENTRY + 152 * second <= offset < _MAX_VD_OFFSET)
    if 32 <= first <= _MAX_VB_HEADER and 1 <= second <= 32:
        name = head[8:72].split(b"\0", 1)[0]
        return 0 < len(name) < 64 and name.isascii() and name.replace(b"_", b"").isalnum()
    return False


def _is_pfile(head: bytes, size: int) -> bool:
    """Tell a GE P-file by its revision (7 to 30), a float with at most three decimals at its begin."""
    if size < 60_000:
        return False
    for order in ("<", ">"):
        revision = struct.unpack_from(order + "f", head)[0]
        if 7 <= revision <= 30 and abs(revision * 1000 - round(revision * 1000)) < 0.01:
            return True
    return False
