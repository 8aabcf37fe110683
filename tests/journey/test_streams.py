"""Standard streams that are closed, full, of a poor encoding or left by their reader harm no scan."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mrirecon.phantom.scanner import Protocol, pack, simulate

FULL = "/dev/full"


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    folder = tmp_path_factory.mktemp("streams")
    protocol = Protocol(matrix=(32, 24), fov_mm=(64.0, 48.0), n_slices=1, n_coils=2, acceleration=1, n_acs=0)
    simulate(folder / "scan.h5", protocol)
    pack(folder / "scan.tar", [folder / "scan.h5"])
    return folder / "scan.tar"


def shell(command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a shell line in which ``$MRIRECON`` is the command line of this project."""
    program = f"{sys.executable} -m mrirecon.cli"
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", command.replace("$MRIRECON", program)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        errors="surrogateescape",
        check=False,
    )


@pytest.mark.parametrize("closed", ["<&-", "2>&-", "<&- 2>&-"])
def test_a_closed_stream_harms_no_scan(archive, closed):
    done = shell(f"$MRIRECON inspect {archive} --json {closed}")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["format"] == "mrd"


def test_a_scan_is_done_although_all_streams_are_closed(archive, tmp_path):
    done = shell(f"$MRIRECON run {archive} --out {tmp_path} <&- >&- 2>&-")
    assert done.returncode == 0
    assert list(tmp_path.glob("*/scan.json"))


@pytest.mark.skipif(not Path(FULL).exists(), reason="this system has no /dev/full")
def test_a_full_stderr_fails_no_scan(archive, tmp_path):
    done = shell(f"$MRIRECON run {archive} --out {tmp_path} --json 2>{FULL}")
    assert done.returncode == 0
    assert json.loads(done.stdout)["status"] == "done"


@pytest.mark.skipif(not Path(FULL).exists(), reason="this system has no /dev/full")
def test_a_full_stdout_is_reported_by_a_sentence_and_the_exit_code(archive):
    done = shell(f"$MRIRECON inspect {archive} --json >{FULL}")
    assert done.returncode == 1
    assert "standard output could not be written" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_reader_that_leaves_does_not_hide_a_rejection(tmp_path):
    bad = tmp_path / "bad.tar"
    bad.write_bytes(b"no tar " * 200)
    done = shell(f"$MRIRECON run {bad} {bad} --out {tmp_path / 'out'} --json | true")
    assert done.returncode == 3
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("language", ["en_US.UTF-8", "C"])
@pytest.mark.parametrize("option", ["--json", ""])
def test_a_name_that_no_encoding_knows_stops_no_batch(tmp_path, language, option):
    for name in (b"caf\xe9.tar", b"plain.tar"):
        (tmp_path / os.fsdecode(name)).write_bytes(b"no tar " * 200)
    command = f"$MRIRECON run {tmp_path}/*.tar --out {tmp_path / 'out'} {option}"
    done = shell(command, LC_ALL=language, PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")
    assert done.returncode == 3
    told = done.stdout if option else done.stderr
    assert told.count("not_an_archive") == 2
    assert "Traceback" not in done.stderr


def test_inspect_prints_on_an_ascii_terminal(archive):
    done = shell(f"$MRIRECON inspect {archive}", PYTHONIOENCODING="ascii")
    assert done.returncode == 0
    assert "Traceback" not in done.stderr


def test_a_cache_folder_that_another_prepared_is_not_used(archive, tmp_path):
    """What libraries cache is executed later: nobody else may be able to write there."""
    trap = tmp_path / f"mrirecon-cache-{os.getuid()}"
    trap.mkdir()
    trap.chmod(0o777)
    code = (
        "import os, sys; from mrirecon.cli.main import _set_up_libraries as prepare; prepare(); "
        "print(os.environ['NUMBA_CACHE_DIR'])"
    )
    environment = {name: value for name, value in os.environ.items() if not name.endswith("CACHE_DIR")}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**environment, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    used = Path(done.stdout.strip())
    assert used != trap
    assert used.parent == tmp_path
    assert not used.exists()
