"""The archive walk, by properties: no archive escapes, exceeds its budgets or ends without a verdict."""

from __future__ import annotations

import io
import os
import stat
import tarfile
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mrirecon.contract.codes import Code, IncompleteError, MrireconError, PermanentError
from mrirecon.decompress.archive.members import Member, RawKind, Window
from mrirecon.decompress.archive.walk import Walked, names, walk
from mrirecon.decompress.limits import KIB, MIB, Limits
from tests.support.hostile_build import PACKERS, SENTINEL, file, header, long_name, pax, pax_records, tar

SMALL = Limits(
    max_raw_bytes=256 * KIB,
    ratio_floor_bytes=64 * KIB,
    max_members=12,
    max_header_bytes=4 * KIB,
    memory_bytes=1 << 30,
)


_in_use: list[int] = []


def walked(data: bytes, folder: Path, limits: Limits = SMALL) -> Walked:
    """Walk ``data``; its descriptor stays open until the next walk, for the windows in it."""
    while _in_use:
        os.close(_in_use.pop())
    (folder / "archive").write_bytes(data)
    work = folder / "work"
    work.mkdir(mode=0o700)
    _in_use.append(os.open(folder / "archive", os.O_RDONLY))
    return walk(_in_use[0], limits, work)


# ---------------------------------------------------------------------------------- archives at random

kinds = st.sampled_from(
    [b"0", b"0", b"0", b"0", b"\0", b"7", b"5", b"1", b"2", b"3", b"4", b"6", b"S", b"V", b"Z"]
)
plain_names = st.from_regex(r"[a-z]{1,8}(/[a-z]{1,8}){0,3}(\.[a-z]{1,4})?", fullmatch=True).map(str.encode)
any_names = st.one_of(
    plain_names,
    plain_names,
    st.binary(max_size=100).filter(lambda name: b"\0" not in name),
    st.text(max_size=30).map(lambda text: text.encode("utf-8", "surrogatepass").replace(b"\0", b"")),
    st.lists(st.sampled_from(["..", ".", "a", "/", "C:", "\\", "meas.h5"]), max_size=6).map(
        lambda parts: "/".join(parts).encode()
    ),
)


@st.composite
def members(draw: st.DrawFn) -> bytes:
    name = draw(any_names)
    kind = draw(kinds)
    data = draw(st.one_of(st.binary(max_size=1500), st.integers(0, 80_000).map(bytes)))
    leads = [b"", b"", b"", pax(pax_records(path=name)), long_name(name), pax(pax_records(comment="x"), b"g")]
    leads += [pax(pax_records(size=str(len(data) + more))) for more in (0, 1)] + [pax(b"12 broken")]
    lead = draw(st.sampled_from(leads))
    said = len(data) + draw(st.sampled_from([0, 0, 0, 0, 0, 1, 512, -1, 1 << 30]))
    body = b"" if kind in b"12" and kind else data
    off_by = draw(st.sampled_from([0, 0, 0, 0, 0, 0, 1]))
    head = header(name, max(0, said), kind, link=b"/etc/passwd", checksum_off_by=off_by)
    return lead + head + body + bytes(-len(body) % 512)


@st.composite
def archives(draw: st.DrawFn) -> bytes:
    """Archives from sound to spoiled: members at random, then cut, overwritten, extended or packed."""
    data = b"".join(draw(st.lists(members(), max_size=15)))
    data += bytes(draw(st.sampled_from([1024, 1024, 1024, 0, 512, 10240])))
    if pack := draw(st.sampled_from([None, None, *PACKERS])):
        data = PACKERS[pack](data)
    spoil = draw(st.sampled_from(["", "", "", "cut", "bytes", "more"]))
    at = draw(st.integers(0, max(0, len(data) - 1)))
    if spoil == "cut":
        data = data[:at]
    elif spoil == "bytes":
        data = data[:at] + draw(st.binary(min_size=1, max_size=20)) + data[at + 20 :]
    elif spoil == "more":
        data += draw(st.binary(max_size=600))
    return data


@settings(max_examples=200, deadline=None)
@given(archives())
def test_no_archive_escapes_exceeds_its_budgets_or_ends_without_a_verdict(data: bytes):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        found, sentence = None, "Sound."
        try:
            found = walked(data, folder)
        except (PermanentError, IncompleteError) as verdict:
            sentence = verdict.message
        assert sentence.isprintable()
        assert {path.name for path in folder.iterdir()} == {"archive", "work"}
        drained = list((folder / "work").iterdir())
        assert sum(path.stat().st_size for path in drained) <= SMALL.max_raw_bytes
        for path in drained:
            assert path.name.removesuffix(".bin").isdigit()
            assert stat.S_ISREG(path.lstat().st_mode)
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
        if found is not None:
            assert len(found.entries) <= SMALL.max_members
            assert sum(entry.size for entry in found.entries) <= SMALL.max_raw_bytes


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=3000))
def test_any_bytes_end_in_a_verdict(data: bytes):
    with tempfile.TemporaryDirectory() as name:
        verdict = None
        try:
            walked(data, Path(name))
        except MrireconError as error:
            verdict = error.code
        assert verdict in {
            Code.INCOMPLETE,
            Code.NOT_AN_ARCHIVE,
            Code.CORRUPT_ARCHIVE,
            Code.TRAILING_DATA,
            Code.TOO_LARGE,
            Code.NESTED_ARCHIVE,
            None,
        }
        assert verdict is not None or not data.strip(b"\0")


contents = st.lists(st.binary(max_size=3000), min_size=1, max_size=8)


@settings(max_examples=80, deadline=None)
@given(
    contents,
    st.sampled_from([tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
    st.sampled_from(["", "gz", "zst", "xz", "bz2"]),
    st.sampled_from(["m", "scan/m", "s" * 140 + "/m"]),
)
def test_what_a_sound_archive_holds_comes_out_unchanged(files, form, packer, stem):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as packed:
        for number, data in enumerate(files):
            info = tarfile.TarInfo(f"{stem}{number}.h5")
            info.size = len(data)
            packed.addfile(info, io.BytesIO(data))
    data = PACKERS.get(packer, bytes)(out.getvalue())
    with tempfile.TemporaryDirectory() as name:
        found = walked(data, Path(name))
        read = []
        for entry in found.entries:
            with entry.open() as opened:
                read.append(opened.read())
        assert read == files
        assert {entry.suffix for entry in found.entries} == {".h5"}
        assert len({entry.stem for entry in found.entries}) == len(files)


@settings(max_examples=60, deadline=None)
@given(contents, st.sampled_from(["", "gz", "zst", "xz", "bz2"]), st.data())
def test_a_cut_archive_is_incomplete_wherever_it_is_cut(files, packer, data):
    whole = tar(*(file(f"m{number}", content) for number, content in enumerate(files)), record=512)
    stored = PACKERS.get(packer, bytes)(whole)
    cut = data.draw(st.integers(0, len(stored) - 1))
    if packer == "":
        cut = min(cut, len(whole.rstrip(b"\0")) + 1000)  # behind it only padding is missing
    with tempfile.TemporaryDirectory() as name, pytest.raises(IncompleteError):
        walked(stored[:cut], Path(name))


# ---------------------------------------------------------------------------------- names


@given(st.binary(max_size=120), st.booleans())
def test_a_name_is_judged_without_being_repeated(raw: bytes, is_folder: bool):
    refused = None
    try:
        name = names.judge(raw, Limits(), is_folder=is_folder)
    except PermanentError as error:
        refused = error
    if refused is not None:
        assert refused.code in {Code.BAD_NAME, Code.UNSAFE_PATH}
        assert len(raw) < 12 or raw.decode("utf-8", "replace") not in refused.message
    else:
        assert not name.key.startswith("/")
        assert ".." not in name.key.split("/")
        assert (
            name.key == names.judge(raw.upper() if raw.isascii() else raw, Limits(), is_folder=is_folder).key
        )


@given(st.text(min_size=1, max_size=20))
def test_names_that_a_file_system_takes_for_the_same_have_one_key(text: str):
    import unicodedata

    keys = set()
    for form in ("NFC", "NFD"):
        try:
            raw = unicodedata.normalize(form, text).encode()
            keys.add(names.judge(raw, Limits(), is_folder=False).key)
        except (PermanentError, UnicodeEncodeError):
            return
    assert len(keys) == 1


# ---------------------------------------------------------------------------------- windows and members


@settings(max_examples=100)
@given(
    st.binary(max_size=200),
    st.integers(0, 60),
    st.integers(0, 60),
    st.lists(st.tuples(st.sampled_from([0, 1, 2]), st.integers(-30, 90), st.integers(0, 50)), max_size=12),
)
def test_a_window_reads_as_a_file_of_its_bytes_would(data, start, size, steps):
    held = data[start : start + size]
    with tempfile.TemporaryFile() as stored:
        stored.write(data)
        stored.flush()
        window, model = Window(stored.fileno(), start, len(held)), io.BytesIO(held)
        for whence, offset, count in steps:
            base = {0: 0, 1: model.tell(), 2: len(held)}[whence]
            if base + offset >= 0:
                assert window.seek(offset, whence) == base + offset
                model.seek(base + offset)
            assert window.read(count) == model.read(count)
            assert window.tell() == model.tell()
        with pytest.raises(ValueError, match="negative"):
            window.seek(-1)


@pytest.mark.parametrize("pack", [bytes, PACKERS["gz"]], ids=["plain", "gz"])
def test_a_member_can_be_laid_down_under_a_suffix(tmp_path: Path, pack):
    (entry,) = walked(pack(tar(file("meas.dat", b"abc" * 1000))), tmp_path).entries
    member = Member(0, entry.size, RawKind.TWIX, entry.open, entry.path, work_dir=tmp_path / "work")
    laid = member.as_file(".dat")
    assert laid.read_bytes() == b"abc" * 1000
    assert laid.suffix == ".dat"
    assert member.as_file(".dat") == laid
    assert stat.S_IMODE(laid.stat().st_mode) == 0o600


def test_a_plain_tar_takes_no_second_copy_on_disk(tmp_path: Path):
    (entry,) = walked(tar(file("meas.h5", b"x" * 100_000)), tmp_path).entries
    assert entry.path is None
    assert list((tmp_path / "work").iterdir()) == []


def test_stems_tell_files_of_one_name_without_it(tmp_path: Path):
    found = walked(tar(file("a/k.hdr", b"h"), file("b/k.cfl", b"x"), file("a/K.CFL", b"c")), tmp_path)
    first, other, partner = found.entries
    assert first.stem == partner.stem != other.stem
    assert SENTINEL not in repr(found)


@pytest.mark.parametrize(
    ("limit", "code"),
    [
        ({"max_archive_bytes": 5000}, Code.TOO_LARGE),
        ({"max_raw_bytes": 5000}, Code.TOO_LARGE),
        ({"max_members": 1}, Code.TOO_MANY_MEMBERS),
        ({"max_name_bytes": 4}, Code.BAD_NAME),
        ({"max_name_depth": 1}, Code.BAD_NAME),
        ({"max_header_bytes": 10}, Code.TOO_LARGE),
    ],
)
@pytest.mark.parametrize("pack", [bytes, PACKERS["gz"], PACKERS["zst"]], ids=["plain", "gz", "zst"])
def test_every_budget_counts(tmp_path: Path, limit, code, pack):
    data = tar(
        pax(pax_records(path="a/b.h5")), file("x", os.urandom(4000)), file("c/long.h5", os.urandom(4000))
    )
    assert len(walked(pack(data), tmp_path, Limits()).entries) == 2
    (tmp_path / "work").rename(tmp_path / "former")
    with pytest.raises(PermanentError) as caught:
        walked(pack(data), tmp_path, Limits(**limit))
    assert caught.value.code == code


def test_a_ratio_counts_only_above_its_floor(tmp_path: Path):
    data = PACKERS["gz"](tar(file("x", bytes(MIB))))
    assert walked(data, tmp_path, Limits(ratio_floor_bytes=2 * MIB)).entries[0].size == MIB
    (tmp_path / "work").rename(tmp_path / "former")
    with pytest.raises(PermanentError) as caught:
        walked(data, tmp_path, Limits(ratio_floor_bytes=MIB // 2))
    assert caught.value.code == Code.TOO_LARGE
