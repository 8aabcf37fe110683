"""Every archive of our own making, and every one of the shared corpus, ends as it must."""

from __future__ import annotations

import json
import os
import re
import resource
import stat
from pathlib import Path

import pytest

from mrirecon.contract.codes import Code, MrireconError
from mrirecon.contract.progress import silent
from mrirecon.decompress import in_child as intake
from mrirecon.decompress.limits import GIB, Limits
from mrirecon.decompress.sandbox.child import Tools, describe
from mrirecon.decompress.stage import decompress
from tests.support.hostile_build import SENTINEL
from tests.support.hostile_cases import CASES, Case

DECIDED_AT_INTAKE = """
unsafe_path link_member special_member bad_name duplicate_member too_large too_many_members nested_archive
not_an_archive corrupt_archive trailing_data no_raw_data h5_external h5_links h5_filter h5_corrupt h5_schema
non_finite no_acquisitions length_mismatch index_range incomplete_kspace mixed_scans xml_forbidden
xml_invalid xml_too_large truncated unsupported incomplete bad_settings
"""
"""What is left is decided by the sorter (channels, noise, geometry) and tested with it."""


def check_sentence(message: str) -> None:
    assert SENTINEL not in message
    assert message.isprintable()
    assert message[0].isupper() or message[0].isdigit()
    assert message.endswith(".")
    assert not re.search(r"meas\.|passwd|/tmp|scan/|\.h5\b|readme", message)


def check_drained(folder: Path) -> None:
    """Only files of our own naming, mode and owner lie in the work folder."""
    for path in folder.rglob("*"):
        assert re.fullmatch(r"\d+(-copy)?\.(bin|dat)", path.name)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert path.stat().st_uid == os.getuid()


@pytest.mark.parametrize("one", CASES, ids=lambda one: one.name)
def test_an_archive_ends_as_it_must(tmp_path: Path, one: Case) -> None:
    archive, work = tmp_path / "archive", tmp_path / "work"
    work.mkdir(mode=0o700)
    archive.write_bytes(one.build())
    descriptor = os.open(archive, os.O_RDONLY)
    code = None
    try:
        intake.inspect(Tools(Limits(), silent, str), archive=descriptor, work_dir=str(work))
    except Exception as error:
        told = describe(error)
        code = Code(told["code"])
        check_sentence(told["message"])
    finally:
        os.close(descriptor)
    assert code == one.code
    assert {path.name for path in tmp_path.iterdir()} == {"archive", "work"}
    check_drained(work)


def test_the_corpus_covers_every_code_of_the_intake():
    assert {one.code.value for one in CASES if one.code} == set(DECIDED_AT_INTAKE.split())


def test_names_of_cases_are_unique():
    assert len({one.name for one in CASES}) == len(CASES)


@pytest.mark.slow
@pytest.mark.parametrize("group", sorted({one.name.split("_")[0] for one in CASES}))
def test_archives_through_the_sandbox(tmp_path: Path, group: str) -> None:
    """The same through the child: same codes, k-space only where accepted, nothing left, under 2 GB."""
    wrong = []
    for one in (one for one in CASES if one.name.split("_")[0] == group):
        archive, out, temporary = (tmp_path / name for name in ("archive", "out", "temporary"))
        out.mkdir()
        temporary.mkdir()
        archive.write_bytes(one.build())
        code = None
        try:
            found = decompress(archive, out / "kspace.h5", work_dir=temporary)
            assert found.peak_memory_bytes < 2 * GIB
        except MrireconError as error:
            code = error.code
            check_sentence(error.message)
        if code != one.code:
            wrong.append((one.name, code, one.code))
        assert [path.name for path in out.iterdir()] == (["kspace.h5"] if code is None else [])
        assert list(temporary.iterdir()) == []
        for path in (archive, *out.iterdir()):
            path.unlink()
        out.rmdir()
        temporary.rmdir()
    assert not wrong
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 < 2 * GIB


@pytest.mark.slow
def test_the_shared_corpus(shared_data: Path, tmp_path: Path) -> None:
    """Every archive of the shared corpus ends as its manifest says, code included."""
    folder = shared_data / "hostile"
    if not (folder / "manifest.json").is_file():
        pytest.skip("the shared data hold no hostile archives")
    wrong = []
    for entry in json.loads((folder / "manifest.json").read_text()):
        code, end = "", "done"
        try:
            decompress(folder / entry["file"], tmp_path / "kspace.h5", work_dir=tmp_path)
            (tmp_path / "kspace.h5").unlink()
        except MrireconError as error:
            code, end = error.code.value, error.end.value
        wanted = {"reject": "rejected", "wait": "incomplete"}.get(entry["expect"], "done")
        if (code, end) != (entry["code"], wanted):
            wrong.append((entry["id"], code, end))
        assert list(tmp_path.iterdir()) == []
    assert not wrong
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 < 2 * GIB
