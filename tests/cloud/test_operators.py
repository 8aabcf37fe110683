"""What an operator sees and does."""

import json
import threading
import time
from dataclasses import replace

import pytest

from mrirecon.cloud.operators.operator import Operator, ScanStatus, as_json
from mrirecon.contract.codes import PermanentError, RetryableError
from mrirecon.contract.keys import Priority
from tests.support.cloud_world import make_tar, scan_of


@pytest.fixture
def operator(world):
    with world.operator() as operator:
        yield operator


def test_submit_is_followed_to_its_end(world, operator, tmp_path):
    world.notify()
    archive = make_tar(b"submitted")
    file = tmp_path / "DOE^JANE.tar"
    file.write_bytes(archive)
    sent = operator.submit(file, site="a", priority=Priority.STAT)
    assert sent.scan_id == scan_of(archive)
    workers = [world.worker("decompress"), world.worker("recon")]
    ready = threading.Thread(target=lambda: world.drain(*workers))
    ready.start()
    seen = list(operator.follow(sent.scan_id, every=0.05, timeout=60))
    ready.join()
    assert (seen[-1].stage, seen[-1].state) == ("recon", "done")
    assert seen[-1].record["method"] == "grappa"
    assert operator.submit(file, site="a", priority=Priority.STAT) == sent  # the same bytes are there already
    world.assert_done_once(archive)
    assert "DOE" not in "".join(world.keys_in("raw")) + as_json(seen)


def test_a_scan_that_nobody_announced_is_told_once(operator, tmp_path):
    """The bucket announces nothing here, as for a site whose gateway should."""
    file = tmp_path / "scan.tar"
    file.write_bytes(make_tar(b"unannounced"))
    sent, told = operator.submit(file, site="a"), []
    with pytest.raises(RetryableError, match="not ended within"):
        list(operator.follow(sent.scan_id, every=0.05, timeout=1, notice=told.append, unseen_seconds=0.2))
    assert len(told) == 1
    assert "nobody announced it" in told[0]


def test_status_shows_one_row_a_scan_and_all_rows_of_one(world, operator):
    done, bad, waiting = make_tar(b"done"), b"no archive" * 60, make_tar(b"waits")
    world.put(done, "1")
    world.put(bad, "2")
    world.drain()
    world.put(waiting, "3")
    world.worker("decompress").step()
    rows = {row.scan_id: row for row in operator.status()}
    assert {scan: (row.stage, row.state) for scan, row in rows.items()} == {
        scan_of(done): ("recon", "done"),
        scan_of(bad): ("decompress", "rejected"),
        scan_of(waiting): ("recon", "queued"),
    }
    assert rows[scan_of(bad)].code == "not_an_archive"
    one = operator.status(scan_of(done))
    assert [(row.stage, row.state) for row in one] == [("decompress", "done"), ("recon", "done")]
    assert [attempt["outcome"] for attempt in operator.attempts(scan_of(done))] == ["done", "done"]
    assert len(json.loads(as_json(one))) == 2
    assert operator.status("0" * 16) == []


def test_queues_show_depth_and_dead_letters_and_redrive_empties_them(make_world):
    world = make_world(max_receives=1)
    world.put(make_tar(b"q1"), "1")
    world.put(make_tar(b"q2", "do-retryable"), "2", lane="stat")
    with world.operator() as operator:
        before = {row.stage: row for row in operator.queues()}
        assert {lane: told["visible"] for lane, told in before["decompress"].lanes.items()} == {
            "stat": 1,
            "routine": 1,
        }
        worker = world.worker("decompress")
        deadline = time.monotonic() + 30
        while world.dead()["decompress"] == 0 and time.monotonic() < deadline:
            worker.step()
        after = {row.stage: row for row in operator.queues()}
        assert after["decompress"].dead_letters == 1
        assert after["recon"].lanes["routine"]["visible"] == 1
        assert after["recon"].oldest_seconds >= 0
        assert operator.redrive(reason="no such reason") == {"decompress": 0, "recon": 0}
        assert operator.redrive(reason="storage") == {"decompress": 1, "recon": 0}
        assert world.depths()["decompress-stat"] == 1
        assert world.dead()["decompress"] == 0


def test_following_a_scan_that_never_comes_ends_with_a_sentence(operator):
    with pytest.raises(RetryableError, match="has not ended within"):
        list(operator.follow("0" * 16, every=0.01, timeout=0.05))


def test_a_missing_setting_is_a_sentence():
    with pytest.raises(PermanentError, match="MRIRECON_LEDGER_TABLE is not set"):
        Operator({}).status()


def test_the_list_of_scans_shows_labels_where_there_are_any():
    from rich.console import Console

    from mrirecon.cli.operate import scan_table

    row = ScanStatus(
        scan_id="0" * 16,
        recon_id="1" * 8,
        stage="recon",
        state="done",
        code="",
        message="",
        site="a",
        priority="stat",
        announced_at="",
        updated_at="2026-11-25T00:00:00",
        tries=1,
    )

    def shown(*rows):
        console = Console(width=120)
        with console.capture() as text:
            console.print(scan_table(list(rows)))
        return text.get()

    assert "knee 7" in shown(row, replace(row, label="knee 7"))
    assert "label" not in shown(row)
