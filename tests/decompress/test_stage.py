"""The stage: one call from archive to k-space file, in one rename, with nothing left behind."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from mrirecon.contract.codes import Code, IncompleteError, MrireconError, PermanentError, RetryableError
from mrirecon.decompress import stage
from mrirecon.decompress.limits import Limits, machine_memory
from mrirecon.kspace.file import open_kspace
from tests.support.hostile_build import SENTINEL, bart, fastmri, file, gz, mrd, readouts, tar, zst


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "any name"
    path.write_bytes(tar(file("scan/meas.h5", mrd())))
    return path


def decompress(archive: Path, **options: object) -> stage.Intake:
    return stage.decompress(archive, archive.parent / "kspace.h5", work_dir=archive.parent, **options)


def test_a_scan_becomes_a_kspace_file_with_its_id(archive: Path):
    told = []
    found = decompress(archive, progress=lambda *step: told.append(step))
    identity = hashlib.sha256(archive.read_bytes()).hexdigest()[:16]
    assert (found.scan_id, found.archive_bytes, found.format) == (identity, archive.stat().st_size, "mrd")
    assert found.profile is None
    assert {"unpack", "gate", "decompress"} <= set(found.seconds)
    assert all(isinstance(value, float) and value >= 0 for value in found.seconds.values())
    assert {"unpack"} <= {name for name, *_ in told}
    assert found.summary["files"] == 1
    with open_kspace(archive.parent / "kspace.h5") as kspace:
        assert kspace.info.scan_id == identity
        assert kspace.shape == (1, 1, 2, 1, 16, 16)
        acquired = kspace.read(0, 0)[:, 0]
    sent = np.stack(list(readouts()["data"])).view(np.complex64).reshape(16, 2, 16).transpose(1, 0, 2)
    np.testing.assert_allclose(acquired, sent, atol=1e-5)
    assert {path.name for path in archive.parent.iterdir()} == {"any name", "kspace.h5"}


@pytest.mark.parametrize("pack", [gz, zst, bytes], ids=["gz", "zst", "plain"])
def test_the_same_scan_packed_otherwise_has_the_same_acquisitions(archive: Path, pack):
    first = decompress(archive)
    archive.write_bytes(pack(tar(file("other.h5", mrd()), record=20480)))
    second = decompress(archive)
    assert first.scan_id != second.scan_id
    assert first.acquisitions_digest == second.acquisitions_digest != ""


def test_the_same_archive_gives_the_same_bytes(archive: Path):
    decompress(archive)
    first = (archive.parent / "kspace.h5").read_bytes()
    decompress(archive)
    assert (archive.parent / "kspace.h5").read_bytes() == first


@pytest.mark.parametrize("make", [fastmri, mrd], ids=["fastmri", "mrd"])
def test_nothing_a_scanner_wrote_is_in_the_kspace_file(archive: Path, make):
    archive.write_bytes(tar(file(f"{SENTINEL}.h5", make())))
    found = decompress(archive)
    assert SENTINEL not in repr(found)
    assert SENTINEL.encode() not in (archive.parent / "kspace.h5").read_bytes()


def test_inspect_tells_the_same_and_writes_nothing(archive: Path):
    found = decompress(archive)
    (archive.parent / "kspace.h5").unlink()
    told = stage.inspect(archive, work_dir=archive.parent)
    assert told["scan_id"] == found.scan_id
    assert told["acquisitions_digest"] == found.acquisitions_digest
    assert {key: told[key] for key in ("matrix", "coils", "slices", "images")} == {
        key: found.summary[key] for key in ("matrix", "coils", "slices", "images")
    }
    assert [path.name for path in archive.parent.iterdir()] == ["any name"]


def test_the_archive_may_name_its_profile(archive: Path):
    archive.write_bytes(tar(file("scan.json", b'{"profile": "fast"}'), file("m.h5", mrd())))
    assert decompress(archive).profile == "fast"


@pytest.mark.parametrize("label", ["knee 7", "a", "A-z.0_9" * 5 + "abcde"])
def test_the_archive_may_carry_the_sites_label(archive: Path, label: str):
    archive.write_bytes(tar(file("scan.json", json.dumps({"label": label}).encode()), file("m.h5", mrd())))
    found = decompress(archive)
    assert found.label == label
    assert not [warning for warning in found.warnings if "scan.json" in warning]
    assert stage.inspect(archive)["label"] == label
    assert "label" not in found.summary


@pytest.mark.parametrize("label", ["", "x" * 41, "DOE^JANE", "Zoë", "a/b", "a\nb", "<b>", 7, None, ["a"]])
def test_a_label_of_another_form_is_refused_and_not_repeated(archive: Path, label: object):
    archive.write_bytes(tar(file("scan.json", json.dumps({"label": label}).encode()), file("m.h5", mrd())))
    with pytest.raises(PermanentError) as caught:
        decompress(archive)
    assert caught.value.code == Code.BAD_SETTINGS
    assert "1 to 40" in caught.value.message
    assert not isinstance(label, str) or len(label) < 3 or label not in caught.value.message


@pytest.mark.parametrize(
    ("settings", "profile", "warned"),
    [
        (b'{"profile": "fast", "comment": "DOE^JANE"}', "fast", "1 key that"),
        (b'{"a": 1, "DOE^JANE": {"b": null}}', None, "2 keys that"),
        (b"{}", None, None),
    ],
)
def test_a_key_nobody_knows_loses_no_scan(archive: Path, settings: bytes, profile: str, warned: str):
    archive.write_bytes(tar(file("scan.json", settings), file("m.h5", mrd())))
    found = decompress(archive)
    assert found.profile == profile
    about = [warning for warning in found.warnings if "scan.json" in warning]
    assert len(about) == (warned is not None)
    assert all(warned in warning and "profile" in warning for warning in about)
    assert "DOE" not in str(found)


def test_bart_files_find_each_other_by_stem(archive: Path):
    archive.write_bytes(gz(tar(*(file(f"a/{name}", data) for name, data in bart().items()))))
    found = decompress(archive)
    assert (found.format, found.summary["coils"]) == ("bart", 2)


def test_a_refused_scan_has_its_id_and_leaves_nothing(archive: Path):
    archive.write_bytes(tar(file("../x", b"x")))
    with pytest.raises(PermanentError) as caught:
        decompress(archive)
    assert caught.value.code == Code.UNSAFE_PATH
    assert caught.value.scan_id == hashlib.sha256(archive.read_bytes()).hexdigest()[:16]
    assert [path.name for path in archive.parent.iterdir()] == ["any name"]


def test_a_former_kspace_file_stays_when_the_scan_is_refused(archive: Path):
    decompress(archive)
    before = (archive.parent / "kspace.h5").read_bytes()
    archive.write_bytes(b"not an archive" * 100)
    with pytest.raises(PermanentError):
        decompress(archive)
    assert (archive.parent / "kspace.h5").read_bytes() == before


@pytest.mark.parametrize("where", ["missing", "missing/archive"])
def test_a_path_without_an_archive(tmp_path: Path, where: str):
    with pytest.raises(PermanentError) as caught:
        stage.decompress(tmp_path / where, tmp_path / "kspace.h5")
    assert caught.value.code == Code.NOT_AN_ARCHIVE
    for said in ("Expected", "one tar file", "there is nothing", "Check the path"):
        assert said in caught.value.message
    assert "missing" not in caught.value.message


def test_a_pipe_or_folder_is_no_archive_and_does_not_hang(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path):
        with pytest.raises(PermanentError) as caught:
            stage.inspect(path)
        assert caught.value.code == Code.NOT_AN_ARCHIVE


def test_an_archive_that_grows_meanwhile_is_incomplete(archive: Path):
    def grow(*_: object) -> None:
        with archive.open("ab") as end:
            end.write(bytes(512))

    with pytest.raises(IncompleteError):
        decompress(archive, progress=grow)
    assert [path.name for path in archive.parent.iterdir()] == ["any name"]


def test_an_archive_over_the_limit_is_refused_without_hashing(archive: Path):
    with pytest.raises(PermanentError) as caught:
        decompress(archive, limits=Limits(max_archive_bytes=1000))
    assert caught.value.code == Code.TOO_LARGE
    assert caught.value.scan_id is None


def test_limits_come_from_the_environment(archive: Path, monkeypatch):
    monkeypatch.setenv("MRIRECON_LIMIT_MAX_RAW_BYTES", "1000")
    with pytest.raises(PermanentError) as caught:
        decompress(archive)
    assert caught.value.code == Code.TOO_LARGE
    assert Limits.from_env({}).max_raw_bytes > 1000
    assert 0 < Limits().memory_bytes < machine_memory()


@pytest.mark.parametrize(
    "environ",
    [{"MRIRECON_LIMIT_MAX_RAW_BYTES": text} for text in ("", "0", "-1", "1e3", "1 GiB")]
    + [{"MRIRECON_LIMIT_NO_SUCH_THING": "1"}],
)
def test_a_wrong_limit_is_said(environ):
    with pytest.raises(PermanentError) as caught:
        Limits.from_env(environ)
    assert caught.value.code == Code.BAD_SETTINGS


def test_a_missing_folder_is_not_the_scans_fault(archive: Path):
    for folders in (
        {"work_dir": archive.parent / "missing"},
        {"kspace": archive.parent / "missing" / "k.h5"},
    ):
        kspace = folders.pop("kspace", archive.parent / "kspace.h5")
        with pytest.raises(RetryableError) as caught:
            stage.decompress(archive, kspace, **folders)
        assert caught.value.code == Code.STORAGE


def test_scans_at_once_do_not_meet(archive: Path):
    ends: dict[int, object] = {}

    def work(number: int) -> None:
        try:
            ends[number] = stage.decompress(
                archive, archive.parent / f"kspace{number}.h5", work_dir=archive.parent
            ).scan_id
        except MrireconError as error:
            ends[number] = error

    threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(ends.values())) == 1
    files = sorted(path.name for path in archive.parent.iterdir())
    assert files == ["any name", "kspace0.h5", "kspace1.h5", "kspace2.h5"]


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_leaves_nothing_half_done(archive: Path, sent: signal.Signals):
    program = (
        "import sys; from pathlib import Path; from mrirecon.decompress.stage import decompress\n"
        "def told(*step):\n    print('on', flush=True)\n    import time; time.sleep(30)\n"
        f"decompress(Path({str(archive)!r}), Path({str(archive.parent / 'kspace.h5')!r}), "
        f"work_dir=Path({str(archive.parent)!r}), progress=told)"
    )
    running = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        assert running.stdout is not None
        assert running.stdout.readline() == "on\n"
        running.send_signal(sent)
        assert running.wait(20) != 0
        assert [path.name for path in archive.parent.iterdir()] == ["any name"]
    finally:
        running.kill()
        running.wait()
        running.stdout.close()


def test_the_archive_is_never_written(archive: Path):
    archive.chmod(0o400)
    before, bytes_before = archive.stat().st_mtime_ns, archive.read_bytes()
    time.sleep(0.01)
    decompress(archive)
    assert (archive.stat().st_mtime_ns, archive.read_bytes()) == (before, bytes_before)


def test_kspace_is_plain_hdf5(archive: Path):
    decompress(archive)
    with h5py.File(archive.parent / "kspace.h5", "r") as h5:
        assert h5["kspace"].dtype == np.complex64
