"""Each scan in a child of its own, made ready while the scan before it runs."""

import builtins
import os
import time
from pathlib import Path

import pytest

from mrirecon.cloud.worker.supervisor import Supervisor
from mrirecon.contract.causes import TABLE
from mrirecon.contract.codes import Code, IncompleteError, MrireconError, PermanentError, RetryableError


def work(job, progress):
    progress("work", 0.5, "half")
    what = job["what"]
    if what == "refuse":
        raise PermanentError(Code.NO_RAW_DATA, "Nothing in it.")
    if what == "wait":
        raise IncompleteError("No end.")
    if what == "raise":
        key = job["key"]
        if isinstance(key, int):
            raise OSError(key, "DOE^JANE")
        raise (getattr(builtins, key, None) or type(key, (RuntimeError,), {}))("DOE^JANE")
    if what == "sleep":
        time.sleep(60)
    if what == "talk":
        for _ in range(30):
            time.sleep(0.1)
            progress("work", 0.6)
    return {"pid": os.getpid(), "warmed": WARMED}


WARMED = []


def warm_up():
    WARMED.append(os.getpid())


@pytest.fixture
def make():
    made = []

    def build(**more):
        made.append(Supervisor(work, **{"silence": 0, "total": 0, **more}))
        return made[-1]

    yield build
    for supervisor in made:
        supervisor.close()


def test_each_scan_has_its_own_child_which_was_warmed_before_it(make):
    supervisor = make(warm_up=warm_up)
    supervisor.prepare()
    standby = supervisor._standby._process.pid
    first, second = supervisor.run({"what": ""}), supervisor.run({"what": ""})
    assert first["pid"] == standby  # the one that was made ready did the work
    assert first["pid"] != second["pid"]
    assert first["warmed"] == [first["pid"]]
    assert second["warmed"] == [second["pid"]]
    assert not Path(f"/proc/{first['pid']}").exists()


def test_errors_of_a_stage_come_back_as_they_were_raised(make):
    supervisor = make()
    with pytest.raises(PermanentError) as caught:
        supervisor.run({"what": "refuse"})
    assert (caught.value.code, caught.value.message) == (Code.NO_RAW_DATA, "Nothing in it.")
    with pytest.raises(IncompleteError, match="No end"):
        supervisor.run({"what": "wait"})


KNOWN = [(row.cause, key) for row in TABLE for key in (*sorted(row.types), *sorted(row.errnos))]


@pytest.fixture(scope="module")
def one():
    supervisor = Supervisor(work, silence=0, total=0)
    yield supervisor
    supervisor.close()


@pytest.mark.parametrize(("cause", "key"), KNOWN, ids=lambda value: str(value) * (not hasattr(value, "code")))
def test_foreign_errors_come_back_as_the_table_of_causes_has_them(one, cause, key):
    with pytest.raises(MrireconError) as told:
        one.run({"what": "raise", "key": key})
    expected = cause.error()
    assert (type(told.value), told.value.code, told.value.message) == (
        type(expected),
        expected.code,
        expected.message,
    )


def test_an_error_that_no_row_knows_is_internal_and_says_its_type_only(one):
    with pytest.raises(RetryableError) as told:
        one.run({"what": "raise", "key": "ZeroDivisionError"})
    assert told.value.code is Code.INTERNAL
    assert "ZeroDivisionError" in told.value.message
    assert "DOE" not in told.value.message


def test_progress_is_told_and_keeps_a_scan_from_being_silent(make):
    told = []
    supervisor = make(silence=2, progress=lambda *what: told.append(what))
    supervisor.run({"what": ""})  # the fork server and a standby are there
    assert supervisor.run({"what": "talk"})["pid"]
    assert told[0] == ("work", 0.5, "half")
    with pytest.raises(RetryableError) as caught:
        supervisor.run({"what": "sleep"})
    assert caught.value.code is Code.SILENT


def test_what_stops_the_scan_kills_the_child(make):
    class Stop(Exception):
        pass

    seen = []

    def check():
        seen.append(1)
        if len(seen) > 3:
            raise Stop

    supervisor = make()
    supervisor.prepare()
    pid = supervisor._standby._process.pid
    with pytest.raises(Stop):
        supervisor.run({"what": "sleep"}, check)
    assert not Path(f"/proc/{pid}").exists()


def test_a_standby_that_died_is_replaced(make):
    supervisor = make()
    supervisor.prepare()
    dead = supervisor._standby
    os.kill(dead._process.pid, 9)
    dead._process.join()
    assert supervisor.run({"what": ""})["pid"] != dead._process.pid
