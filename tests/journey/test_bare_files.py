"""A bare raw file, a BART pair or a folder is taken as an archive of one scan; a typo is no rejected scan."""

from __future__ import annotations

import json
import shutil
import tarfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from mrirecon.cli.main import main
from mrirecon.decompress.stage import inspect
from mrirecon.local.bare import archive_of
from mrirecon.local.watch import Watch
from mrirecon.phantom.scanner import Protocol, simulate

SMALL = Protocol(matrix=(32, 32), n_slices=1, n_coils=2, acceleration=1, n_acs=0)
NAME = "DOE^JANE_19700101"


@pytest.fixture
def mrd(tmp_path: Path) -> Path:
    path = tmp_path / f"{NAME}.h5"
    simulate(path, SMALL)
    return path


@pytest.fixture
def pair(tmp_path: Path) -> Path:
    """Return the header of a BART pair of one coil."""
    rng = np.random.default_rng(1)
    y, x = np.meshgrid(np.arange(32) - 16, np.arange(32) - 16, indexing="ij")
    lines = np.exp(-((x - 2) ** 2 + y**2) / 20 + 0.3j * x) + 1e-3 * rng.normal(size=(32, 32))
    (tmp_path / f"{NAME}.hdr").write_text("# Dimensions\n32 32 1 1\n")
    lines.T.astype(np.complex64).ravel(order="F").tofile(tmp_path / f"{NAME}.cfl")
    return tmp_path / f"{NAME}.hdr"


def packed(path: Path, folder: Path) -> Path:
    folder.mkdir()
    return archive_of(path, folder)


def test_the_same_file_gives_the_same_archive_without_its_name(mrd, tmp_path) -> None:
    other = tmp_path / "elsewhere" / "scan.h5"
    other.parent.mkdir()
    shutil.copyfile(mrd, other)
    one, two = packed(mrd, tmp_path / "one"), packed(other, tmp_path / "two")
    assert one.read_bytes() == two.read_bytes()
    assert NAME.encode() not in one.read_bytes()
    assert inspect(one)["scan_id"] == inspect(two)["scan_id"]


def test_a_folder_is_a_scan(mrd, tmp_path) -> None:
    folder = tmp_path / "folder"
    (folder / "raw").mkdir(parents=True)
    shutil.copyfile(mrd, folder / "raw" / mrd.name)
    (folder / "scan.json").write_text('{"profile": "fast"}')
    (folder / ".DS_Store").write_bytes(b"litter")
    (folder / "link.dat").symlink_to(mrd)
    found = inspect(packed(folder, tmp_path / "one"))
    assert (found["format"], found["profile"], found["files"]) == ("mrd", "fast", 1)
    assert found["acquisitions_digest"] == inspect(packed(mrd, tmp_path / "two"))["acquisitions_digest"]


@pytest.mark.parametrize("suffix", [".hdr", ".cfl"])
def test_a_bart_pair_is_found_by_either_file(suffix, pair, tmp_path) -> None:
    found = inspect(packed(pair.with_suffix(suffix), tmp_path / "one"))
    assert (found["format"], found["files"]) == ("bart", 2)


def test_a_tar_and_what_is_no_raw_data_stay_as_they_are(mrd, tmp_path) -> None:
    archive, notes = tmp_path / "scan.tar", tmp_path / "notes.txt"
    with tarfile.open(archive, "w") as tar:
        tar.add(mrd, "scan.h5")
    notes.write_text("call the referring physician " * 50)
    for path in (archive, notes, tmp_path / "nothing"):
        assert archive_of(path, tmp_path) == path


def test_inspect_takes_a_bare_file(mrd, capsys) -> None:
    assert main(["inspect", "--json", str(mrd)]) == 0
    assert json.loads(capsys.readouterr().out)["format"] == "mrd"


@pytest.mark.parametrize("command", ["inspect", "run"])
def test_a_missing_path_is_a_usage_error(command, tmp_path, capsys) -> None:
    out = ["--out", str(tmp_path / "out")] if command == "run" else []
    assert main([command, str(tmp_path / "no.tar"), *out]) == 2
    assert "there is nothing at path 1" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
@pytest.mark.parametrize("command", ["watch", "run"])
def test_a_missing_device_is_a_usage_error(command, mrd, tmp_path, capsys) -> None:
    what = mrd if command == "run" else mrd.parent
    out = tmp_path.parent / f"{tmp_path.name}-out"
    assert main([command, str(what), "--out", str(out), "--device", "cuda"]) == 2
    assert "no CUDA device" in capsys.readouterr().err
    assert not out.exists()


@dataclass(frozen=True)
class Ended:
    archive: str
    status: str = "rejected"
    code: str = "unsupported"
    message: str = "Refused."
    scan_id: str | None = "0123456789abcdef"


def test_watch_takes_a_bart_pair_as_one_scan_once_both_files_settled(pair, tmp_path) -> None:
    share, out = tmp_path / "share", tmp_path / "out"
    share.mkdir()
    now, seen = [0.0], []

    def run(path: Path, _out: Path) -> Ended:
        seen.append(path.suffix)
        return Ended(str(path))

    watch = Watch(share, out, run, settle=10, clock=lambda: now[0])
    shutil.copyfile(pair.with_suffix(".cfl"), share / "a.cfl")
    assert watch.step() is None
    now[0] = 8.0
    shutil.copyfile(pair, share / "a.hdr")
    assert watch.step() is None
    now[0] = 12.0
    assert watch.step() is None, "the header came a moment ago"
    now[0] = 20.0
    assert watch.step() is not None
    now[0] = 60.0
    assert watch.step() is None
    assert seen == [".cfl"]
    kept = out / "quarantine" / "0123456789abcdef" / "archive"
    assert inspect(kept)["format"] == "bart"
    assert [p.name for p in kept.parent.iterdir() if p.name.startswith(".")] == []
