"""A folder served without a cloud: settled files only, stat first, restartable at any moment."""

import contextlib
import hashlib
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from mrirecon.contract.codes import PermanentError
from mrirecon.local.watch import QUARANTINE_FOLDER, Watch


@dataclass
class Told:
    status: str
    code: str = ""
    message: str = ""
    scan_id: str | None = None
    archive: str = ""


class Runner:
    """A small honest runner: reads the file, publishes a folder by rename; ends as the content says."""

    def __init__(self):
        self.runs = []
        self.dies = False

    def __call__(self, archive, out):
        body = archive.read_bytes()
        self.runs.append(body)
        if self.dies:
            raise KeyboardInterrupt
        scan = hashlib.sha256(body).hexdigest()[:16]
        if not body.endswith(b"."):
            return Told("incomplete", "incomplete", "No end.", scan)
        if body.startswith(b"bad"):
            return Told("rejected", "no_raw_data", "Nothing in it.", scan)
        if body.startswith(b"flaky") and self.runs.count(body) < 3:
            return Told("failed", "internal", "Passing.", scan)
        if body.startswith(b"broken"):
            return Told("failed", "internal", "For good.", scan)
        place = out / scan
        if not place.exists():
            part = out / f".part-{scan}"
            part.mkdir()
            (part / "scan.json").write_text("{}")
            part.rename(place)
        return Told("done", scan_id=scan)


class Time:
    def __init__(self):
        self.now = 1e9

    def __call__(self):
        return self.now


@pytest.fixture
def place(tmp_path):
    share, out = tmp_path / "share", tmp_path / "out"
    share.mkdir()
    return share, out


def results(out):
    return sorted(
        path.name for path in out.iterdir() if not path.name.startswith(".") and path.name != "quarantine"
    )


def scan_of(body):
    return hashlib.sha256(body).hexdigest()[:16]


def make(place, runner=None, time=None, **more):
    runner, time = runner or Runner(), time or Time()
    return Watch(*place, runner, settle=10, retry_after=60, clock=time, **more), runner, time


def test_a_file_is_read_only_when_it_has_settled(place):
    watch, runner, time = make(place)
    (place[0] / "a.tar").write_bytes(b"first hal")
    assert watch.step() is None
    time.now += 9
    (place[0] / "a.tar").write_bytes(b"first half, whole.")
    assert watch.step() is None
    time.now += 9
    assert watch.step() is None
    assert runner.runs == []
    time.now += 2
    assert watch.step().status == "done"
    assert results(place[1]) == [scan_of(b"first half, whole.")]
    assert watch.step() is None
    assert len(runner.runs) == 1


def test_stat_goes_first_then_the_oldest(place):
    watch, runner, time = make(place)
    for number, name in enumerate(["site/routine/a", "site/routine/b", "site/stat/c"]):
        (place[0] / name).parent.mkdir(parents=True, exist_ok=True)
        (place[0] / name).write_bytes(name.encode() + b".")
        os.utime(place[0] / name, (100 + number, 100 + number))
    watch.step()
    time.now += 11
    while watch.step():
        pass
    assert [body[-2:-1] for body in runner.runs] == [b"c", b"a", b"b"]


def test_a_rejected_archive_is_kept_with_its_reason_and_the_share_is_not_touched(place):
    watch, _, time = make(place)
    file = place[0] / "DOE^JANE.tar"
    file.write_bytes(b"bad.")
    before = file.stat()
    watch.step()
    time.now += 11
    assert watch.step().status == "rejected"
    kept = place[1] / QUARANTINE_FOLDER / scan_of(b"bad.")
    assert (kept / "archive").read_bytes() == b"bad."
    assert json.loads((kept / "reason.json").read_text())["code"] == "no_raw_data"
    assert (file.stat().st_mtime_ns, file.read_bytes()) == (before.st_mtime_ns, b"bad.")
    assert "DOE" not in " ".join(str(path) for path in place[1].rglob("*"))


def test_an_archive_that_never_ends_is_truncated_and_one_that_does_is_done(place):
    watch, _, time = make(place)
    (place[0] / "a.tar").write_bytes(b"no end")
    watch.step()
    time.now += 11
    assert watch.step() is None
    time.now += 11
    told = watch.step()
    assert (told.status, told.code) == ("rejected", "truncated")
    reason = json.loads((place[1] / QUARANTINE_FOLDER / scan_of(b"no end") / "reason.json").read_text())
    assert reason["code"] == "truncated"
    (place[0] / "a.tar").write_bytes(b"no end, but now.")
    watch.step()
    time.now += 11
    assert watch.step().status == "done"


def test_a_passing_failure_is_tried_again_and_a_lasting_one_ends(place):
    watch, runner, time = make(place, retries=3)
    (place[0] / "f.tar").write_bytes(b"flaky.")
    (place[0] / "b.tar").write_bytes(b"broken.")
    ends = []
    for _ in range(40):
        time.now += 11
        if outcome := watch.step():
            ends.append((outcome.scan_id, outcome.status))
    assert sorted(ends) == sorted([(scan_of(b"flaky."), "done"), (scan_of(b"broken."), "failed")])
    assert runner.runs.count(b"broken.") == 4


def test_the_results_must_not_lie_in_the_share(place):
    with pytest.raises(PermanentError):
        Watch(place[0], place[0] / "results", Runner())


def test_needs_no_boto3():
    code = "import sys; import mrirecon.local.watch; sys.exit(any('boto' in name for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


class Restarts(RuleBasedStateMachine):
    """Files come, grow, go, are copied; the watch is killed and started anew at any moment."""

    def __init__(self):
        super().__init__()
        import tempfile

        self.folder = tempfile.TemporaryDirectory()
        self.place = (Path(self.folder.name, "share"), Path(self.folder.name, "out"))
        self.place[0].mkdir()
        self.time, self.runner = Time(), Runner()
        self.ended = []
        self.bodies = set()
        self.start()

    def teardown(self):
        self.runner.dies = False
        for _ in range(60):
            self.time.now += 61
            self.look()
        assert self.watch.step() is None
        for path in self.place[0].iterdir():
            body = path.read_bytes()
            kept = self.place[1] / QUARANTINE_FOLDER / scan_of(body) / "reason.json"
            published = self.place[1] / scan_of(body) / "scan.json"
            if body.startswith(b"broken") and body.endswith(b"."):
                assert not kept.exists()
                assert not published.exists()
            else:
                assert kept.exists() != published.exists(), body
        self.folder.cleanup()

    @rule()
    def start(self):
        self.watch = Watch(*self.place, self.runner, settle=10, retry_after=60, clock=self.time)

    @rule(
        name=st.sampled_from("abc"),
        body=st.sampled_from([b"x", b"x.", b"bad.", b"broken.", b"flaky.", b"y."]),
    )
    def write(self, name, body):
        (self.place[0] / name).write_bytes(body)
        self.bodies.add(body)

    @precondition(lambda self: any(self.place[0].iterdir()))
    @rule()
    def remove(self):
        next(self.place[0].iterdir()).unlink()

    @rule(seconds=st.sampled_from([1, 11, 61]))
    def wait(self, seconds):
        self.time.now += seconds

    @rule()
    def look(self):
        if outcome := self.watch.step():
            self.ended.append(outcome)

    @rule()
    def killed(self):
        self.runner.dies = True
        with contextlib.suppress(KeyboardInterrupt):
            self.watch.step()
        self.runner.dies = False
        self.start()

    @invariant()
    def only_whole_results(self):
        if not self.place[1].exists():
            return
        allowed = {scan_of(body) for body in self.bodies if body.endswith(b".")}
        assert set(results(self.place[1])) <= allowed
        for name in results(self.place[1]):
            assert (self.place[1] / name / "scan.json").exists()


TestRestarts = Restarts.TestCase
TestRestarts.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
