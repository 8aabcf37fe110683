"""Archives a service must survive, each with the end and code it must have; the same on every run."""

from __future__ import annotations

import bz2
import io
import json
import lzma
import struct
import tarfile
from collections.abc import Callable
from dataclasses import dataclass

import h5py
import numpy as np
import zstandard

from mrirecon.contract.codes import Code
from tests.support.hostile_build import (
    MATRIX,
    PACKERS,
    SENTINEL,
    bart,
    fastmri,
    file,
    flipped,
    gz,
    h5_with,
    half_zeros,
    header,
    long_name,
    mrd,
    patched,
    pax,
    pax_records,
    readouts,
    tar,
    xml_header,
    xz_huge_dictionary,
    zip_file,
    zst,
)

MIB = 1024 * 1024
Build = Callable[[], bytes]


@dataclass(frozen=True)
class Case:
    """One archive. ``code`` is None where the scan must be read, ``incomplete`` where it must wait."""

    name: str
    code: Code | None
    build: Build


CASES: list[Case] = []


def case(name: str, code: Code | None, build: Build) -> None:
    CASES.append(Case(name, code, build))


GOOD = mrd()


def scan(name: str | bytes = "scan/meas.h5", **fields: object) -> bytes:
    return file(name, GOOD, **fields)


def one(data: bytes, name: str = "meas.h5") -> bytes:
    return tar(file(name, data))


# -------------------------------------------------------------------------------- what must be accepted

case("ok_plain", None, lambda: tar(scan()))
for _name, _pack in PACKERS.items():
    case(f"ok_{_name}", None, lambda pack=_pack: pack(tar(scan())))
    case(
        f"ok_{_name}_joined",
        None,
        lambda pack=_pack: pack(tar(scan())[:7000]) + pack(tar(scan())[7000:]),
    )
case("ok_gz_zero_padding", None, lambda: gz(tar(scan())) + bytes(5000))
case("ok_xz_stream_padding", None, lambda: PACKERS["xz"](tar(scan())) + bytes(8) + PACKERS["xz"](b""))
case("ok_zst_skippable", None, lambda: b"\x50\x2a\x4d\x18\x04\0\0\0abcd" + zst(tar(scan())))
case("ok_v7", None, lambda: tar(scan(magic=bytes(8))))
case("ok_contiguous", None, lambda: tar(scan(kind=b"7")))
case("ok_old_regular", None, lambda: tar(scan(kind=b"\0")))
case("ok_setuid", None, lambda: tar(scan(mode=b"0006777\0")))
case("ok_prefix", None, lambda: tar(scan("meas.h5", prefix=b"a/b")))
case(
    "ok_base_256",
    None,
    lambda: tar(header("m.h5", b"\x80" + len(GOOD).to_bytes(11, "big")), GOOD, bytes(-len(GOOD) % 512)),
)
case("ok_pax", None, lambda: tar(pax(pax_records(path="scän/meas.h5", mtime="1.5")), scan("x")))
case("ok_pax_global", None, lambda: tar(pax(pax_records(comment="abc"), b"g"), scan()))
case("ok_pax_size", None, lambda: tar(pax(pax_records(size=str(len(GOOD)))), scan()))
case(
    "ok_gnu_long", None, lambda: tar(long_name(b"scan/" + b"m" * 200 + b".h5"), scan("x", magic=b"ustar  \0"))
)
case("ok_dot_names", None, lambda: tar(header("./", kind=b"5"), scan("./meas.h5")))
case("ok_folders", None, lambda: tar(header("a/", kind=b"5"), header("a/b/", kind=b"5"), scan("a/b/m.h5")))
case("ok_big_record", None, lambda: tar(scan(), record=MIB))
case(
    "ok_bad_padding_bytes", None, lambda: tar(header("m.h5", len(GOOD)), GOOD + b"\xff" * (-len(GOOD) % 512))
)
case(
    "ok_litter",
    None,
    lambda: tar(
        file("._m.h5", b"\0\5\x16\7junk"),
        file("a/.DS_Store", b"Bud1"),
        file("__MACOSX/._x", b"PK\3\4"),
        file("Thumbs.db", b"\xd0\xcf"),
        header("empty/", kind=b"5"),
        scan(),
    ),
)
case("ok_readme", None, lambda: tar(file("readme.txt", b"hello"), scan()))
case("ok_sequence_beside", None, lambda: tar(file("a.seq", b"# Pulseq sequence file\n"), scan()))
case("ok_settings", None, lambda: tar(file("scan.json", b'{"profile": "fast"}'), scan()))
case("ok_userblock", None, lambda: one(mrd(userblock=2048)))
case("ok_prepended_userblock", None, lambda: one(bytes(512) + GOOD))
case("ok_contiguous_rows", None, lambda: one(mrd(chunk=None)))
case(
    "ok_packed_rows",
    None,
    lambda: one(mrd(chunk=4, filters={"compression": "gzip", "shuffle": True, "fletcher32": True})),
)
case("ok_fastmri", None, lambda: one(fastmri()))
case("ok_bart", None, lambda: tar(*(file(n, d) for n, d in bart().items())))
case(
    "ok_bart_like_gzip",
    None,
    lambda: tar(file("k.cfl", b"\x1f\x8b\x08\x00" + bart()["k.cfl"][4:]), file("k.hdr", bart()["k.hdr"])),
)

# ------------------------------------------------------------------------------------------- paths

for _name, _path in {
    "dotdot": "../../x.h5",
    "inner_dotdot": "scan/../../x.h5",
    "tame_dotdot": "a/../x.h5",
    "absolute": "/tmp/x.h5",
    "drive": "C:\\x.h5",
    "drive_slash": "C:/x.h5",
    "drive_relative": "c:x.h5",
    "backslash": "..\\x.h5",
    "unc": "\\\\host\\share\\x.h5",
    "slashes": "//x.h5",
    "ends_in_dotdot": "a/..",
}.items():
    case(f"path_{_name}", Code.UNSAFE_PATH, lambda path=_path: tar(scan(path)))
case("path_pax", Code.UNSAFE_PATH, lambda: tar(pax(pax_records(path="../x.h5")), scan("x.h5")))
case("path_gnu_long", Code.UNSAFE_PATH, lambda: tar(long_name(b"/tmp/x.h5"), scan("x.h5")))
case("path_prefix", Code.UNSAFE_PATH, lambda: tar(scan("x.h5", prefix=b"../..")))
case("path_folder", Code.UNSAFE_PATH, lambda: tar(header("../", kind=b"5"), scan()))
case("path_litter", Code.UNSAFE_PATH, lambda: tar(file("../._x", b"x"), scan()))
case("path_second", Code.UNSAFE_PATH, lambda: tar(scan(), scan("../x.h5")))

# ------------------------------------------------------------------------------------------- links, types

for _name, _kind, _link in (
    ("sym", b"2", b"/etc/passwd"),
    ("sym_up", b"2", b".."),
    ("hard_absolute", b"1", b"/etc/hostname"),
    ("hard_inside", b"1", b"scan/meas.h5"),
    ("loop", b"2", b"l.h5"),
):
    case(
        f"link_{_name}",
        Code.LINK_MEMBER,
        lambda kind=_kind, link=_link: tar(scan(), header("l.h5", kind=kind, link=link)),
    )


def _pathmax() -> bytes:
    """Return the trick of CVE-2025-4517: folders and links whose resolved path grows past PATH_MAX."""
    part, path, out = "d" * 247, "", b""
    for step in "abcdefghijklmnop":
        out += pax(pax_records(path=f"{path}{part}/")) + header("d", kind=b"5")
        out += pax(pax_records(path=f"{path}{step}", linkpath=part)) + header("s", kind=b"2")
        path += part + "/"
    return tar(out, scan())


case("link_pathmax", Code.LINK_MEMBER, _pathmax)
case(
    "link_pax",
    Code.LINK_MEMBER,
    lambda: tar(pax(pax_records(linkpath="/etc/passwd")), header("l", kind=b"2")),
)
case("link_litter", Code.LINK_MEMBER, lambda: tar(header("._l", kind=b"2", link=b"/etc/passwd"), scan()))
for _name, _kind in {
    "fifo": b"6",
    "character": b"3",
    "block": b"4",
    "unknown": b"Z",
    "volume": b"V",
    "dump": b"D",
    "multi": b"M",
    "sparse": b"S",
}.items():
    case(f"type_{_name}", Code.SPECIAL_MEMBER, lambda kind=_kind: tar(header("meas.h5", kind=kind), scan()))
case(
    "type_pax_sparse",
    Code.SPECIAL_MEMBER,
    lambda: tar(
        pax(
            pax_records(
                GNU__sparse__major="1",
                GNU__sparse__minor="0",
                GNU__sparse__name="m.h5",
                GNU__sparse__realsize="4096",
            )
        ),
        file("GNUSparseFile.0/m.h5", b"1\n0\n512\n".ljust(1024)),
    ),
)

# ------------------------------------------------------------------------------------------- names

for _name, _raw in {
    "newline": b"a\nb.h5",
    "escape": b"a\x1b[31m.h5",
    "delete": b"a\x7f.h5",
    "latin1": b"sch\xe4del.h5",
    "c1": "a\x85.h5".encode(),
    "separator": "a\u2028.h5".encode(),
    "mirror": "a\u202e5h.h5".encode(),
    "surrogate": b"a\xed\xa0\x80.h5",
    "overlong": b"a\xc0\xaf.h5",
    "empty": b"",
    "dot": b".",
    "only_slash": b"a/./",
}.items():
    case(f"name_{_name}", Code.BAD_NAME, lambda raw=_raw: tar(scan(raw)))
case("name_long", Code.BAD_NAME, lambda: tar(pax(pax_records(path="n" * MIB)), scan("x")))
case("name_256", Code.BAD_NAME, lambda: tar(long_name(b"n" * 256), scan("x")))
case("name_gnu_long", Code.BAD_NAME, lambda: tar(long_name(b"n" * MIB), scan("x")))
case("name_deep", Code.BAD_NAME, lambda: gz(tar(pax(pax_records(path="d/" * 3000 + "m.h5")), scan("x"))))
case("name_33_folders", Code.BAD_NAME, lambda: tar(scan("d/" * 33 + "m.h5")))
case("name_nul_inside", Code.BAD_NAME, lambda: tar(pax(pax_records(path=b"a\0b.h5")), scan("x")))
for _name, _first, _second in (
    ("same", "a.h5", "a.h5"),
    ("case", "A.h5", "a.H5"),
    ("unicode", "\u00e9.h5", "e\u0301.h5"),
    ("ligature", "\ufb01.h5", "fi.h5"),
    ("dotted", "a.h5", "./a.h5"),
    ("trailing_dot", "a.h5.", "a.h5"),
    ("file_as_folder", "a", "a/b.h5"),
    ("sharp_s", "STRASSE.h5", "stra\u00dfe.h5"),
):
    case(f"name_twice_{_name}", Code.DUPLICATE_MEMBER, lambda a=_first, b=_second: tar(scan(a), scan(b)))

# ------------------------------------------------------------------------------------------- bombs, nesting


def _zeros(pack: Callable[[bytes], bytes], size: int) -> bytes:
    return pack(header("meas.h5", size) + bytes(size) + bytes(1024))


case("bomb_gz", Code.TOO_LARGE, lambda: _zeros(gz, 70 * MIB))
case("bomb_bz2", Code.TOO_LARGE, lambda: _zeros(bz2.compress, 70 * MIB))
case("bomb_zst", Code.TOO_LARGE, lambda: _zeros(zst, 70 * MIB))
case("bomb_xz", Code.TOO_LARGE, lambda: _zeros(lambda d: lzma.compress(d, preset=0), 70 * MIB))
case("bomb_behind_end", Code.TOO_LARGE, lambda: gz(tar(scan()) + bytes(70 * MIB)))
case("bomb_litter", Code.TOO_LARGE, lambda: gz(tar(header("._x", 70 * MIB), bytes(70 * MIB), scan())))
case("bomb_members", Code.TOO_MANY_MEMBERS, lambda: gz(b"".join(file(f"m{n}", b"") for n in range(20_000))))
case(
    "bomb_folders",
    Code.TOO_MANY_MEMBERS,
    lambda: gz(b"".join(header(f"d{n}/", kind=b"5") for n in range(9000))),
)
case("bomb_headers", Code.TOO_MANY_MEMBERS, lambda: gz(pax(pax_records(comment="x"), b"g") * 5000))
case("bomb_pax", Code.TOO_LARGE, lambda: gz(header("x", 64 * MIB, b"x") + bytes(64 * MIB) + tar(scan())))
case("bomb_gnu_long", Code.TOO_LARGE, lambda: gz(header("x", 64 * MIB, b"L") + bytes(64 * MIB) + tar(scan())))
case(
    "bomb_declared",
    Code.TOO_LARGE,
    lambda: tar(header("m.h5", b"\x80" + (1 << 40).to_bytes(11, "big")), GOOD),
)
case(
    "bomb_sparse",
    Code.TOO_LARGE,
    lambda: tar(
        header(
            "m.h5",
            512,
            b"S",
            magic=b"ustar  \0",
            tail=bytes(483 - 345) + b"\x80" + (1 << 40).to_bytes(11, "big"),
        ),
        bytes(512),
    ),
)
case(
    "bomb_pax_sparse",
    Code.TOO_LARGE,
    lambda: tar(pax(pax_records(GNU__sparse__major="1", GNU__sparse__realsize=str(1 << 40))), scan()),
)
case("bomb_pax_size", Code.TOO_LARGE, lambda: tar(pax(pax_records(size=str(1 << 45))), header("m.h5", 0)))
case("bomb_zst_window", Code.TOO_LARGE, lambda: bytes.fromhex("28b52ffd00a8010000"))
case(
    "bomb_zst_window_second",
    Code.TOO_LARGE,
    lambda: zst(tar(scan())[:512]) + bytes.fromhex("28b52ffd00a8010000"),
)
case("bomb_xz_dictionary", Code.TOO_LARGE, xz_huge_dictionary)
case("nested_tar", Code.NESTED_ARCHIVE, lambda: one(tar(scan()), "scan.tar"))
for _name, _pack in PACKERS.items():
    case(f"nested_{_name}", Code.NESTED_ARCHIVE, lambda pack=_pack: one(pack(GOOD)))
    case(f"nested_{_name}_gz", Code.NESTED_ARCHIVE, lambda pack=_pack: gz(pack(tar(scan()))))
case("nested_zip", Code.NESTED_ARCHIVE, lambda: tar(scan(), file("x.dat", zip_file())))
case("nested_7z", Code.NESTED_ARCHIVE, lambda: tar(scan(), file("x.dat", b"7z\xbc\xaf\x27\x1c" + bytes(99))))

# ------------------------------------------------------------------------------------------- cut

_PLAIN = tar(scan())
case("cut_empty", Code.INCOMPLETE, lambda: b"")
for _name, _length in {
    "magic": 1,
    "header": 300,
    "one_block": 512,
    "member": 512 + len(GOOD) // 3,
    "padding": 512 + len(GOOD) + 1,
    "no_end": 512 + len(GOOD) + -len(GOOD) % 512,
    "one_zero_block": 1024 + len(GOOD) + -len(GOOD) % 512,
    "half_end": 1300 + len(GOOD) + -len(GOOD) % 512,
}.items():
    case(f"cut_{_name}", Code.INCOMPLETE, lambda length=_length: _PLAIN[:length])
case("cut_second_header", Code.INCOMPLETE, lambda: tar(scan(), scan("b.h5"))[: 512 + len(GOOD) + 600])
case("cut_pax", Code.INCOMPLETE, lambda: tar(pax(pax_records(path="x.h5")), scan())[:700])
case("cut_reserved", Code.INCOMPLETE, lambda: half_zeros(_PLAIN))
case(
    "cut_reserved_in_header",
    Code.INCOMPLETE,
    lambda: tar(scan(), scan("b.h5"))[: 512 + len(GOOD) + -len(GOOD) % 512 + 50] + bytes(30_000),
)
case("cut_reserved_all", Code.INCOMPLETE, lambda: bytes(MIB))
case(
    "cut_reserved_bart",
    Code.INCOMPLETE,
    lambda: half_zeros(
        tar(
            file("k.hdr", b"# Dimensions\n64 64 1 2 1\n"), file("k.cfl", np.ones(16384, np.float32).tobytes())
        )
    ),
)
for _name, _pack in PACKERS.items():
    case(f"cut_{_name}", Code.INCOMPLETE, lambda pack=_pack: pack(_PLAIN)[: len(pack(_PLAIN)) // 2])
    case(f"cut_{_name}_last", Code.INCOMPLETE, lambda pack=_pack: pack(_PLAIN)[:-1])
    case(f"cut_{_name}_start", Code.INCOMPLETE, lambda pack=_pack: pack(_PLAIN)[:5])
    case(f"cut_{_name}_reserved", Code.INCOMPLETE, lambda pack=_pack: half_zeros(pack(_PLAIN)))
    case(f"cut_{_name}_no_end", Code.INCOMPLETE, lambda pack=_pack: pack(_PLAIN[:-2048][: 512 + len(GOOD)]))
    case(f"cut_{_name}_joined", Code.INCOMPLETE, lambda pack=_pack: pack(_PLAIN) + pack(_PLAIN)[:3])

# ------------------------------------------------------------------------------------------- broken

case("bad_no_members", Code.NO_RAW_DATA, tar)
case("bad_only_text", Code.NO_RAW_DATA, lambda: one(b"hello", "readme.txt"))
case("bad_only_litter", Code.NO_RAW_DATA, lambda: tar(file("._meas.h5", GOOD)))
case("bad_only_empty", Code.NO_RAW_DATA, lambda: one(b""))
case("bad_only_settings", Code.NO_RAW_DATA, lambda: one(b'{"profile": "fast"}', "scan.json"))
case("bad_zip", Code.NOT_AN_ARCHIVE, zip_file)
case("bad_text", Code.NOT_AN_ARCHIVE, lambda: b"This is not an archive.\n" * 100)
case("bad_random", Code.NOT_AN_ARCHIVE, lambda: np.random.default_rng(5).bytes(20_000))
case("bad_h5_bare", Code.NOT_AN_ARCHIVE, lambda: GOOD)
case("bad_gz_of_h5", Code.NOT_AN_ARCHIVE, lambda: gz(GOOD))
case("bad_gz_of_nothing", Code.NOT_AN_ARCHIVE, lambda: gz(b""))
case(
    "bad_first_checksum",
    Code.CORRUPT_ARCHIVE,
    lambda: tar(header("m.h5", len(GOOD), checksum_off_by=1), GOOD),
)
case(
    "bad_second_checksum",
    Code.CORRUPT_ARCHIVE,
    lambda: tar(scan(), header("b.h5", len(GOOD), checksum_off_by=1), GOOD),
)
case("bad_trailing_tar", Code.TRAILING_DATA, lambda: tar(scan()) + tar(scan("hidden.h5")))
case("bad_trailing_byte", Code.TRAILING_DATA, lambda: tar(scan()) + bytes(900) + b"x")
for _name, _pack in PACKERS.items():
    case(
        f"bad_trailing_{_name}", Code.TRAILING_DATA, lambda pack=_pack: pack(_PLAIN) + b"something else here"
    )
    case(
        f"bad_trailing_{_name}_tar",
        Code.TRAILING_DATA,
        lambda pack=_pack: pack(_PLAIN) + pack(tar(scan("b"))),
    )
    case(
        f"bad_middle_{_name}",
        Code.CORRUPT_ARCHIVE,
        lambda pack=_pack: flipped(pack(_PLAIN), *range(len(pack(_PLAIN)) // 2, len(pack(_PLAIN)) // 2 + 40)),
    )
case("bad_gz_checksum", Code.CORRUPT_ARCHIVE, lambda: flipped(gz(_PLAIN), -7))
case("bad_gz_length", Code.CORRUPT_ARCHIVE, lambda: flipped(gz(_PLAIN), -3))
case("bad_zst_checksum", Code.CORRUPT_ARCHIVE, lambda: flipped(zst(_PLAIN), -2))
case("bad_bz2_checksum", Code.CORRUPT_ARCHIVE, lambda: flipped(bz2.compress(_PLAIN), 12))
case("bad_xz_index", Code.CORRUPT_ARCHIVE, lambda: flipped(lzma.compress(_PLAIN), -6))
case("bad_gz_then_zst", Code.TRAILING_DATA, lambda: gz(_PLAIN) + zst(_PLAIN))
case(
    "bad_negative_size", Code.CORRUPT_ARCHIVE, lambda: tar(header("m.h5", b"\xff" * 11 + b"\xfe"), bytes(512))
)
case("bad_size_text", Code.CORRUPT_ARCHIVE, lambda: tar(header("m.h5", b"0x000000f00\0"), GOOD))
case("bad_two_sizes", Code.CORRUPT_ARCHIVE, lambda: tar(pax(pax_records(size="512")), scan()))
case(
    "bad_two_sizes_hidden",
    Code.CORRUPT_ARCHIVE,
    lambda: tar(pax(pax_records(size=str(len(GOOD) + 20_000))), scan(), scan("hidden.h5")),
)
case("bad_pax_length", Code.CORRUPT_ARCHIVE, lambda: tar(pax(b"99 path=x.h5\n"), scan()))
case("bad_pax_text", Code.CORRUPT_ARCHIVE, lambda: tar(pax(b"garbage without a length"), scan()))
case("bad_pax_zero", Code.CORRUPT_ARCHIVE, lambda: tar(pax(b"0 path=x.h5\n"), scan()))
case(
    "bad_pax_path_twice",
    Code.CORRUPT_ARCHIVE,
    lambda: tar(pax(pax_records(path="a.h5") + pax_records(path="b.h5")), scan()),
)
case("bad_pax_global_path", Code.CORRUPT_ARCHIVE, lambda: tar(pax(pax_records(path="a.h5"), b"g"), scan()))
case("bad_pax_global_size", Code.CORRUPT_ARCHIVE, lambda: tar(pax(pax_records(size="1"), b"g"), scan()))
case("bad_pax_dangling", Code.CORRUPT_ARCHIVE, lambda: gz(tar(scan(), pax(pax_records(path="a.h5")))))
case("cut_reserved_behind_pax", Code.INCOMPLETE, lambda: tar(scan(), pax(pax_records(path="a.h5"))))
case(
    "bad_pax_two",
    Code.CORRUPT_ARCHIVE,
    lambda: tar(pax(pax_records(path="a")), pax(pax_records(path="b")), scan()),
)
case("bad_folder_with_bytes", Code.CORRUPT_ARCHIVE, lambda: tar(header("a/", 512, b"5"), b"x" * 512, scan()))
case("bad_end_in_middle", Code.CORRUPT_ARCHIVE, lambda: tar(scan(), bytes(512), scan("b.h5")))
case("bad_settings_text", Code.BAD_SETTINGS, lambda: tar(file("scan.json", b"profile: fast"), scan()))
case("ok_settings_key", None, lambda: tar(file("scan.json", b'{"profile": "fast", "x": {}}'), scan()))
case("bad_settings_list", Code.BAD_SETTINGS, lambda: tar(file("scan.json", b'[{"profile": "fast"}]'), scan()))
case("bad_settings_null", Code.BAD_SETTINGS, lambda: tar(file("scan.json", b'{"profile": null}'), scan()))
case(
    "bad_settings_profile",
    Code.BAD_SETTINGS,
    lambda: tar(file("scan.json", json.dumps({"profile": SENTINEL}).encode()), scan()),
)
case("bad_settings_type", Code.BAD_SETTINGS, lambda: tar(file("scan.json", b'{"profile": ["fast"]}'), scan()))
case(
    "bad_settings_twice",
    Code.BAD_SETTINGS,
    lambda: tar(file("scan.json", b"{}"), file("a/scan.json", b"{}"), scan()),
)
case(
    "bad_settings_key_twice",
    Code.BAD_SETTINGS,
    lambda: tar(file("scan.json", b'{"profile": "fast", "profile": "routine"}'), scan()),
)
case("bad_settings_deep", Code.BAD_SETTINGS, lambda: tar(file("scan.json", b"[" * 50_000), scan()))
case("bad_settings_large", Code.BAD_SETTINGS, lambda: tar(file("scan.json", b" " * 70_000 + b"{}"), scan()))

# ------------------------------------------------------------------------------------------- HDF5


def _virtual(h5: h5py.File) -> None:
    layout = h5py.VirtualLayout((4,), "f4")
    layout[:] = h5py.VirtualSource("/etc/passwd", "x", (4,))
    h5.create_virtual_dataset("dataset/more", layout)


def _external(h5: h5py.File) -> None:
    h5.create_dataset("dataset/more", (4,), "u1", external=[("/etc/passwd", 0, 4)])


def _link(name: str, target: object) -> Callable[[h5py.File], None]:
    return lambda h5: h5.__setitem__(name, target)


def _attribute_reference(h5: h5py.File) -> None:
    h5["dataset"].attrs["r"] = h5["dataset/xml"].ref


def _region(h5: h5py.File) -> None:
    h5["dataset/r"] = np.array([h5["dataset/xml"].regionref[:]], h5py.regionref_dtype)


def _reference(h5: h5py.File) -> None:
    h5["dataset/r"] = np.array([h5["dataset/xml"].ref], h5py.ref_dtype)


def _hidden_reference(h5: h5py.File) -> None:
    h5.create_dataset("dataset/r", (1,), np.dtype([("a", "i4"), ("b", h5py.ref_dtype)]))


def _groups(depth: int) -> Callable[[h5py.File], None]:
    return lambda h5: h5.create_group("/".join("g" * depth)) and None


def _many(h5: h5py.File) -> None:
    group = h5.create_group("many")
    for n in range(10_001):
        group.create_group(str(n))


def _unknown_filter() -> bytes:
    """Return a file whose one data set is packed by a filter that no library here has."""
    return patched(
        mrd(lambda h5: h5.create_dataset("x", (64,), "f4", chunks=(64,), compression="lzf")),
        struct.pack("<H", 32000),
        struct.pack("<H", 40000),
    )


def _vlen_length() -> bytes:
    """Return a file in which one readout's length is 2^31 floats."""
    good = mrd()
    length = struct.pack("<I", 4 * MATRIX)
    heads = [
        at
        for at in range(len(good) - 16)
        if good[at : at + 4] == length and good[at + 12 : at + 16] != bytes(4)
    ]
    at = next(at for at in heads if 0 < int.from_bytes(good[at + 4 : at + 12], "little") < len(good))
    return good[:at] + struct.pack("<I", 1 << 31) + good[at + 4 :]


def _attribute_bomb(h5: h5py.File) -> None:
    h5.attrs.create("a", np.zeros(8_000), dtype="f8")


def _scan_archive(h5: h5py.File) -> None:
    h5["DownloadData.xml"] = b"<!DOCTYPE x>"
    h5.create_group("Acquisition")


def _big_chunk(h5: h5py.File) -> None:
    data = h5.create_dataset(
        "dataset/more", (4, 4), "u1", chunks=(1 << 14, 1 << 13), maxshape=(None, None), compression="gzip"
    )
    data[0, 0] = 1


case(
    "h5_external_link", Code.H5_EXTERNAL, lambda: one(mrd(_link("x", h5py.ExternalLink("/etc/passwd", "/"))))
)
case(
    "h5_external_deep",
    Code.H5_EXTERNAL,
    lambda: one(mrd(_link("dataset/a/b/c", h5py.ExternalLink("other.h5", "/x")))),
)
case("h5_external_storage", Code.H5_EXTERNAL, lambda: one(mrd(_external)))
case(
    "h5_external_kspace",
    Code.H5_EXTERNAL,
    lambda: one(
        h5_with(
            lambda h5: (
                h5.create_dataset("kspace", (1, 1, 4, 4), "c8", external=[("/etc/passwd", 0, 128)]) and None
            )
        )
    ),
)
case("h5_virtual", Code.H5_EXTERNAL, lambda: one(mrd(_virtual)))
case("h5_soft_link", Code.H5_LINKS, lambda: one(mrd(_link("x", h5py.SoftLink("/dataset/data")))))
case("h5_soft_cycle", Code.H5_LINKS, lambda: one(mrd(_link("x", h5py.SoftLink("/x")))))
case("h5_soft_dangling", Code.H5_LINKS, lambda: one(mrd(_link("x", h5py.SoftLink("/nowhere")))))
case(
    "h5_hard_cycle", Code.H5_LINKS, lambda: one(mrd(lambda h5: h5.__setitem__("dataset/self", h5["dataset"])))
)
case("h5_root_cycle", Code.H5_LINKS, lambda: one(mrd(lambda h5: h5.__setitem__("dataset/root", h5["/"]))))
case("h5_two_names", Code.H5_LINKS, lambda: one(mrd(lambda h5: h5.__setitem__("again", h5["dataset/data"]))))
case("h5_reference", Code.H5_LINKS, lambda: one(mrd(_reference)))
case("h5_region_reference", Code.H5_LINKS, lambda: one(mrd(_region)))
case("h5_hidden_reference", Code.H5_LINKS, lambda: one(mrd(_hidden_reference)))
case("h5_attribute_reference", Code.H5_LINKS, lambda: one(mrd(_attribute_reference)))
case(
    "h5_lzf",
    Code.H5_FILTER,
    lambda: one(mrd(lambda h5: h5.create_dataset("x", (9,), "f4", compression="lzf") and None)),
)
case(
    "h5_scale_offset",
    Code.H5_FILTER,
    lambda: one(mrd(lambda h5: h5.create_dataset("x", (9,), "i4", scaleoffset=3) and None)),
)
case("h5_unknown_filter", Code.H5_FILTER, lambda: one(_unknown_filter()))
case(
    "h5_16_tib",
    Code.TOO_LARGE,
    lambda: one(
        h5_with(lambda h5: h5.create_dataset("kspace", (1 << 12, 1 << 10, 1 << 10, 1 << 9), "c8") and None)
    ),
)
case(
    "h5_overflow",
    Code.TOO_LARGE,
    lambda: one(
        h5_with(
            lambda h5: (
                h5.create_dataset("kspace", (1 << 31, 1 << 31, 1 << 20), "c8", chunks=(1, 1, 64)) and None
            )
        )
    ),
)
case(
    "h5_sparse_chunks",
    Code.TOO_LARGE,
    lambda: one(
        h5_with(
            lambda h5: h5.create_dataset("kspace", (64, 64, 512, 512), "c8", chunks=(1, 1, 512, 512)) and None
        )
    ),
)
case(
    "h5_gzip_bomb",
    Code.TOO_LARGE,
    lambda: one(
        h5_with(
            lambda h5: (
                h5.create_dataset(
                    "kspace",
                    data=np.zeros((5, 8, 512, 512), np.complex64),
                    compression="gzip",
                    chunks=(1, 8, 512, 512),
                )
                and None
            )
        )
    ),
)
case("h5_chunk_bomb", Code.TOO_LARGE, lambda: one(mrd(_big_chunk)))
case("h5_deep", Code.TOO_LARGE, lambda: one(mrd(_groups(40))))
case("h5_many", Code.TOO_LARGE, lambda: one(h5_with(_many)))
case("h5_truncated", Code.TRUNCATED, lambda: one(GOOD[: len(GOOD) // 2]))
case("h5_truncated_userblock", Code.TRUNCATED, lambda: one(mrd(userblock=512)[:-100]))
case("h5_short", Code.TRUNCATED, lambda: one(GOOD[:60]))
case("h5_signature_only", Code.H5_CORRUPT, lambda: one(GOOD[:8] + b"\xff" * 3000))
case("h5_root_spoiled", Code.H5_CORRUPT, lambda: one(GOOD[:96] + b"\xa5" * 3000 + GOOD[3096:]))
case("h5_no_signature", Code.H5_CORRUPT, lambda: one(flipped(GOOD, 3)))
case("h5_garbage", Code.H5_CORRUPT, lambda: one(np.random.default_rng(6).bytes(5000)))
case("h5_vlen_length", Code.H5_CORRUPT, lambda: one(_vlen_length()))
case("h5_unknown", Code.H5_SCHEMA, lambda: one(h5_with(lambda h5: h5.__setitem__("x", 1))))
case("h5_no_data", Code.H5_SCHEMA, lambda: one(mrd(lambda h5: h5["dataset"].__delitem__("data"))))
case("h5_no_xml", Code.H5_SCHEMA, lambda: one(mrd(lambda h5: h5["dataset"].__delitem__("xml"))))
case(
    "h5_ge_scan_archive",
    Code.UNSUPPORTED,
    lambda: one(h5_with(_scan_archive)),
)

# ------------------------------------------------------------------------------------------- XML


def _xml(name: str, code: Code, xml: bytes) -> None:
    case(f"xml_{name}", code, lambda: gz(one(mrd(xml=xml))))


_LAUGHS = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 12))
_xml(
    "bomb", Code.XML_FORBIDDEN, xml_header(f"<x>{SENTINEL}</x>", f'<!DOCTYPE x [<!ENTITY l0 "ha">{_LAUGHS}]>')
)
_xml(
    "outside", Code.XML_FORBIDDEN, xml_header(prolog='<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]>')
)
_xml("small_entity", Code.XML_FORBIDDEN, xml_header(prolog='<!DOCTYPE x [<!ENTITY e "x">]>'))
_xml(
    "parameter",
    Code.XML_FORBIDDEN,
    xml_header(prolog='<!DOCTYPE x [<!ENTITY % p SYSTEM "http://127.0.0.1/">%p;]>'),
)
_xml("empty_dtd", Code.XML_FORBIDDEN, xml_header(prolog="<!DOCTYPE ismrmrdHeader>"))
_xml("garbage", Code.XML_INVALID, f"{SENTINEL} is not XML".encode())
_xml("unclosed", Code.XML_INVALID, xml_header()[:-10])
_xml("undefined_entity", Code.XML_INVALID, xml_header("<x>&nothing;</x>"))
_xml("deep", Code.XML_TOO_LARGE, b"<a>" * 200_000 + b"</a>" * 200_000)
_xml("large", Code.XML_TOO_LARGE, xml_header("<!--" + "x" * (4 * MIB) + "-->"))
_xml("many", Code.XML_TOO_LARGE, xml_header("<x/>" * 200_001))

# ------------------------------------------------------------------------------------------- other raw data

for _name, _head in {
    "mrd2": b"yardl\1\0\0\0",
    "pulseq": b"# Pulseq sequence file\n[VERSION]\n",
    "bruker": b"##TITLE=Parameter List\n",
    "philips": b"# === DATA DESCRIPTION FILE ===\n",
    "dicom": bytes(128) + b"DICM",
    "nifti": bytes(344) + b"n+1\0",
    "ge_pfile": struct.pack("<f", 26.002) + bytes(80_000),
}.items():
    case(f"other_{_name}", Code.UNSUPPORTED, lambda head=_head: one(head + bytes(2000), "raw.bin"))
case(
    "twix_short",
    Code.TRUNCATED,
    lambda: one(struct.pack("<IIIIQQ", 0, 1, 1, 1, 10240, 1 << 40).ljust(10240, b"\0"), "meas.dat"),
)
case(
    "cfl_mismatch",
    Code.LENGTH_MISMATCH,
    lambda: tar(*(file(n, d) for n, d in bart("4096 4096 4096 4096").items())),
)
case("cfl_alone", Code.LENGTH_MISMATCH, lambda: one(bart()["k.cfl"], "k.cfl"))
case("hdr_alone", Code.LENGTH_MISMATCH, lambda: one(bart()["k.hdr"], "k.hdr"))


def _not_finite(h5: h5py.File) -> None:
    row = readouts()[3]
    row["data"] = np.full(4 * MATRIX, np.nan, np.float32)
    h5["dataset/data"][3] = row


def _no_rows(h5: h5py.File) -> None:
    h5["dataset/data"].resize((0,))


def _rows(change: Callable[[np.ndarray], np.ndarray]) -> Build:
    """Return the building of an archive whose table of readouts ``change`` replaced."""

    def write(h5: h5py.File) -> None:
        rows = change(readouts())
        h5["dataset/data"].resize((rows.size,))
        for n, row in enumerate(rows):
            h5["dataset/data"][n] = row

    return lambda: one(mrd(write))


def _other_partition(rows: np.ndarray) -> np.ndarray:
    rows["head"]["idx"]["kspace_encode_step_2"][3] = 7
    return rows


def _small(*, header: bytes | None, kspace: np.ndarray) -> Build:
    """Return the building of a file in fastMRI's layout that ends in zeros, as small files and faulty ones
    do.
    """

    def write(h5: h5py.File) -> None:
        if header is not None:
            h5["ismrmrd_header"] = header
        h5["kspace"] = kspace

    return lambda: one(h5_with(write))


_NOTHING = np.zeros((1, 2, 64, MATRIX), np.complex64)
_HALF = np.random.default_rng(7).normal(size=_NOTHING.shape).astype(np.complex64)
_HALF.reshape(-1)[_HALF.size * 2 // 3 :] = 0

case("mrd_partition_of_a_slice", Code.INDEX_RANGE, _rows(_other_partition))
case("mrd_one_line", Code.INCOMPLETE_KSPACE, _rows(lambda rows: rows[MATRIX // 2 :][:1]))
case("mrd_four_lines", Code.INCOMPLETE_KSPACE, _rows(lambda rows: rows[MATRIX // 2 - 2 :][:4]))
case("mrd_first_lines", Code.INCOMPLETE_KSPACE, _rows(lambda rows: rows[:5]))
case("ok_mrd_partial_fourier", None, _rows(lambda rows: rows[MATRIX // 4 :]))
case(
    "h5_ends_in_zeros_no_data",
    Code.H5_SCHEMA,
    lambda: one(h5_with(lambda h5: h5.__setitem__("dataset/xml", xml_header()))),
)
case("h5_ends_in_zeros_no_header", Code.H5_SCHEMA, _small(header=None, kspace=_NOTHING))
case(
    "h5_ends_in_zeros_integers",
    Code.H5_SCHEMA,
    _small(header=xml_header(), kspace=np.zeros((2, 64, 64), np.int16)),
)
case("h5_ends_in_zeros_xml", Code.XML_FORBIDDEN, _small(header=b"<!DOCTYPE x><x/>", kspace=_NOTHING))
case("cut_reserved_fastmri", Code.INCOMPLETE, _small(header=xml_header(), kspace=_HALF))
case(
    "cfl_mismatch_zeros",
    Code.LENGTH_MISMATCH,
    lambda: tar(file("k.hdr", b"# Dimensions\n64 64 1 8\n"), file("k.cfl", bytes(16384))),
)
case(
    "cfl_endless_number",
    Code.LENGTH_MISMATCH,
    lambda: tar(*(file(n, d) for n, d in bart("9" * 5000 + " 1").items())),
)
case("mrd_not_finite", Code.NON_FINITE, lambda: one(mrd(_not_finite)))
case("mrd_no_rows", Code.NO_ACQUISITIONS, lambda: one(mrd(_no_rows)))
case("mixed_formats", Code.MIXED_SCANS, lambda: tar(scan(), file("b.h5", fastmri())))


def _python_tar() -> bytes:
    """Return what the standard library writes, as a check of the bricks themselves."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as packed:
        info = tarfile.TarInfo("scän/" + "m" * 150 + ".h5")
        info.size = len(GOOD)
        packed.addfile(info, io.BytesIO(GOOD))
    return out.getvalue()


case("ok_python_tar", None, _python_tar)
case(
    "ok_zst_long_window",
    None,
    lambda: zstandard.ZstdCompressor(
        compression_params=zstandard.ZstdCompressionParameters(window_log=27)
    ).compress(tar(scan())),
)
