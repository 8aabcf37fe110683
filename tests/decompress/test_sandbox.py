"""The sandbox: every way a parser can end becomes one error of ours, and nothing stays behind."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from mrirecon.contract.codes import Code, IncompleteError, MrireconError, PermanentError, RetryableError
from mrirecon.contract.progress import silent
from mrirecon.decompress.limits import GIB, MIB, Limits
from mrirecon.decompress.sandbox import landlock, seccomp
from mrirecon.decompress.sandbox import parent as sandbox

ROOT = Path(__file__).resolve().parents[2]
SECRET = "PHI-SENTINEL"


def run(name: str, work_dir: Path, limits: Limits | None = None, **arguments: object) -> sandbox.Returned:
    return sandbox.run(
        f"tests.support.sandboxed:{name}",
        arguments,
        limits=limits or Limits(),
        work_dir=work_dir,
        answer=lambda: "an answer",
    )


def failure(name: str, work_dir: Path, limits: Limits | None = None, **arguments: object) -> MrireconError:
    with pytest.raises(MrireconError) as caught:
        run(name, work_dir, limits, **arguments)
    assert SECRET not in str(caught.value)
    assert caught.value.message.isprintable()
    return caught.value


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def gone_within(pid: int, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while alive(pid) and time.monotonic() < end:
        time.sleep(0.02)
    return not alive(pid)


def test_values_progress_and_an_answer_pass(tmp_path):
    told = []
    returned = sandbox.run(
        "tests.support.sandboxed:echo",
        {"a": [1, "b"]},
        limits=Limits(),
        work_dir=tmp_path,
        progress=lambda *step: told.append(step),
        answer=lambda: "later",
    )
    assert returned.value == {"got": {"a": [1, "b"]}, "answer": "later", "number": 3}
    assert returned.peak_memory > MIB
    assert told == [("read", 0.5, "half"), ("read", 1.0, "whole")]


def test_the_child_has_limits_and_none_of_the_parents_secrets(tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    limits = Limits(memory_bytes=3 * GIB, max_raw_bytes=GIB, cpu_seconds=77)
    seen = run("environment", tmp_path, limits).value
    assert SECRET not in seen["variables"].values()
    assert seen["variables"]["HDF5_PLUGIN_PRELOAD"] == "::"
    assert seen["variables"]["HOME"] == seen["variables"]["TMPDIR"] == seen["cwd"] == str(tmp_path)
    assert seen["limits"]["CORE"] == [0, 0]
    assert seen["limits"]["FSIZE"][0] == 2 * GIB
    assert seen["limits"]["DATA"][0] <= 4 * GIB
    assert seen["limits"]["CPU"][0] == 77
    assert "torch" not in seen["modules"]


@pytest.mark.parametrize(
    ("name", "family", "code"),
    [
        ("reject", PermanentError, Code.NON_FINITE),
        ("wait", IncompleteError, Code.INCOMPLETE),
        ("unknown", PermanentError, Code.PARSER_CRASH),
        ("segfault", PermanentError, Code.PARSER_CRASH),
        ("silent_exit", PermanentError, Code.PARSER_CRASH),
        ("flood", PermanentError, Code.PARSER_CRASH),
        ("killed", RetryableError, Code.OUT_OF_MEMORY),
        ("disk_full", RetryableError, Code.DISK_FULL),
        ("disk_full_wrapped", RetryableError, Code.DISK_FULL),
        ("broken_disk", RetryableError, Code.STORAGE),
        ("called_damaged_by_a_broken_disk", RetryableError, Code.STORAGE),
        ("absurd_offset", PermanentError, Code.H5_CORRUPT),
        ("not_installed", RetryableError, Code.INTERNAL),
    ],
)
def test_every_end_of_a_child_is_one_error(tmp_path, name, family, code):
    error = failure(name, tmp_path)
    assert type(error) is family
    assert error.code == code


def test_a_crash_on_a_full_disk_is_not_the_scans_fault(tmp_path, monkeypatch):
    monkeypatch.setattr(sandbox.shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    error = failure("segfault", tmp_path)
    assert (type(error), error.code) == (RetryableError, Code.DISK_FULL)
    assert failure("reject", tmp_path).code == Code.NON_FINITE


def test_memory_over_the_limit_is_refused_in_the_child(tmp_path):
    error = failure("memory", tmp_path, Limits(memory_bytes=GIB))
    assert (type(error), error.code) == (PermanentError, Code.TOO_LARGE)


def test_a_file_over_the_limit_is_refused_in_the_child(tmp_path):
    assert failure("large_file", tmp_path, folder=str(tmp_path)).code == Code.TOO_LARGE


def test_processor_time_ends(tmp_path):
    error = failure("spin", tmp_path, Limits(cpu_seconds=2))
    assert (type(error), error.code) == (PermanentError, Code.PARSER_CRASH)
    assert "2 seconds" in error.message


def test_wall_time_ends_and_is_tried_again(tmp_path):
    error = failure("sleep", tmp_path, Limits(wall_seconds=2))
    assert (type(error), error.code) == (RetryableError, Code.TIMED_OUT)


def test_what_the_child_prints_is_lost(tmp_path, capfd):
    run("chatter", tmp_path)
    out, err = capfd.readouterr()
    assert SECRET not in out + err


@pytest.fixture
def targets(tmp_path):
    """What a parser that was taken over would like to reach, as arguments of ``sandboxed.reach``."""
    outside, inside = tmp_path / "outside", tmp_path / "inside"
    outside.mkdir()
    inside.mkdir()
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams,
        socket.socket(socket.AF_UNIX) as by_path,
        socket.socket(socket.AF_UNIX) as abstract,
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as other,
    ):
        datagrams.bind(("127.0.0.1", 0))
        by_path.bind(str(inside / "socket"))
        name = f"mrirecon-sandbox-{os.getpid()}"
        abstract.bind(f"\0{name}")
        by_path.listen()
        abstract.listen()
        yield {
            "outside": str(outside),
            "inside": str(inside),
            "port": server.getsockname()[1],
            "abstract": name,
            "udp": datagrams.getsockname()[1],
            "pid": other.pid,
        }
        other.kill()


@pytest.mark.skipif(
    landlock.version() < 6 or not seccomp.version(), reason="this machine lacks Landlock 6 or libseccomp"
)
def test_a_parser_that_was_taken_over_reaches_nothing(targets):
    """It may write into its own folder and start threads; nothing else that is tried works."""
    reached = run("reach", Path(targets["inside"]), **targets).value
    assert reached["worked"] == ["write inside", "start a thread"]
    assert list(Path(targets["outside"]).iterdir()) == []


def reached_under(layer: str, targets: dict) -> set[str]:
    """Return what works in a plain process that takes away its rights by one layer alone."""
    program = (
        "import json, sys; from mrirecon.decompress.sandbox import child, landlock, seccomp\n"
        "from tests.support import sandboxed\n"
        "targets = json.loads(sys.argv[1])\n"
        f"assert {layer}\n"
        "print(json.dumps(sandboxed.reach(None, **targets)['worked']))"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", program, json.dumps(targets)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout))


@pytest.mark.skipif(landlock.version() < 6, reason="this machine lacks Landlock 6")
def test_landlock_alone_keeps_files_programs_signals_and_tcp(targets):
    layer = "landlock.restrict(read=child._program_folders(), write={targets['inside']})"
    reached = reached_under(layer, targets)
    assert "write inside" in reached
    kept = {"read outside", "write outside", "connect", "start a program", "become a program"}
    assert not reached & (kept | {"connect to an abstract socket", "signal another process"})


@pytest.mark.skipif(not seccomp.version(), reason="this machine lacks libseccomp")
def test_seccomp_alone_keeps_all_but_files(targets):
    reached = reached_under("seccomp.restrict()", targets)
    assert reached == {"read outside", "write outside", "write inside", "start a thread"}


@pytest.mark.parametrize(
    "line",
    [
        "not json",
        "[1, 2]",
        "{}" * 3,
        '{"result": 3}',
        '{"error": "x"}',
        '{"result": {"a": NaN}} x',
        '{"error": {"family": "permanent", "code": "no_such_code", "message": "x", "where": []}}',
        '{"error": {"family": "permanent", "code": 3, "message": "x", "where": []}}',
        "[" * 100_000,
    ],
)
def test_what_is_no_report_is_a_crash(tmp_path, line):
    assert failure("forge", tmp_path, line=line).code == Code.PARSER_CRASH


def test_a_forged_sentence_is_cut_and_cleaned(tmp_path):
    report = {"family": "permanent", "code": "geometry", "message": "a\x1b\n" * 5000, "where": ["\x1b"]}
    error = failure("forge", tmp_path, line=json.dumps({"error": report}))
    assert error.code == Code.GEOMETRY
    assert len(error.message) <= 600


def test_a_process_the_child_started_goes_with_it(tmp_path):
    sandbox.run("tests.support.forking:nothing", {}, limits=Limits(), work_dir=tmp_path)
    assert gone_within(int((tmp_path / "pid").read_text()), 5)


def test_an_interrupt_takes_the_child_along(tmp_path):
    started = tmp_path / "started"

    def when_started() -> None:
        while not started.exists() or not started.read_text():
            time.sleep(0.02)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    interrupt = threading.Thread(target=when_started)
    interrupt.start()
    with pytest.raises(KeyboardInterrupt):
        run("sleep", tmp_path, started=str(started))
    interrupt.join()
    assert gone_within(int(started.read_text()), 5)


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGKILL])
def test_the_child_dies_with_its_parent(tmp_path, sent):
    started = tmp_path / "started"
    program = (
        "from pathlib import Path\n"
        "from mrirecon.decompress.sandbox import parent as sandbox\n"
        "from mrirecon.decompress.limits import Limits\n"
        f"sandbox.run('tests.support.sandboxed:sleep', {{'started': {str(started)!r}}}, limits=Limits(), "
        f"work_dir=Path({str(tmp_path)!r}))"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    parent = subprocess.Popen([sys.executable, "-c", program], env=environment, stderr=subprocess.DEVNULL)
    try:
        end = time.monotonic() + 30
        while (not started.exists() or not started.read_text()) and time.monotonic() < end:
            time.sleep(0.05)
        child = int(started.read_text())
        parent.send_signal(sent)
        assert parent.wait(10) != 0
        assert gone_within(child, 5)
    finally:
        parent.kill()
        parent.wait()


def test_a_handler_for_termination_is_left_alone(tmp_path):
    def mine(*_: object) -> None:
        raise AssertionError

    before = signal.signal(signal.SIGTERM, mine)
    try:
        run("echo", tmp_path)
        assert signal.getsignal(signal.SIGTERM) is mine
    finally:
        signal.signal(signal.SIGTERM, before)
    run("echo", tmp_path)
    assert signal.getsignal(signal.SIGTERM) is before


def test_it_works_from_other_threads(tmp_path):
    values = []

    def work(number: int) -> None:
        folder = tmp_path / str(number)
        folder.mkdir()
        values.append(
            sandbox.run(
                "tests.support.sandboxed:echo",
                {"n": number},
                limits=Limits(),
                work_dir=folder,
                progress=silent,
            ).value["got"]["n"]
        )

    threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(values) == [0, 1, 2]
