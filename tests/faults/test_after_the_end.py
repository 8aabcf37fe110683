"""What is promised of scans that have ended, failed or expired, held by moments made to order.

Workers, queues, ledger and store are those of :mod:`tests.support.interleaving`: in memory, and a worker
can be stopped between any two operations.
"""

import json
import threading
import time

import pytest

from mrirecon.aws.ports import Message
from mrirecon.cloud.worker import metrics
from mrirecon.cloud.worker.hold import Drain, Hold
from mrirecon.contract import keys
from mrirecon.contract.codes import Code, PermanentError, RetryableError
from mrirecon.contract.messages import NotAMessageError, announcement
from mrirecon.contract.states import INTAKE_SK, State, scan_pk
from tests.support.cloud_world import make_tar, scan_of
from tests.support.interleaving import LEASE, Actor, Cloud, go_on, go_to


@pytest.fixture(autouse=True)
def _quiet(monkeypatch):
    monkeypatch.setattr(metrics, "emit", lambda *_: None)


@pytest.fixture
def cloud():
    machine = Cloud()
    yield machine
    for actor in machine.living():
        while not actor.finished:
            actor.advance("die")
    machine.folder.cleanup()


def deliver(cloud, archive, name, lane="routine"):
    """Put an archive on the share and announce it; return where it lies."""
    key = f"incoming/a/{lane}/{name}.tar"
    version = cloud.store.scanner_puts(key, archive)
    thing = {"bucket": {"name": "raw"}, "object": {"key": key, "version-id": version}}
    event = {"source": "aws.s3", "detail-type": "Object Created", "time": "2027-01-01T00:00:00Z"}
    cloud.lanes[f"d-{lane}"].send(json.dumps({**event, "detail": thing}), group="a")
    return ("raw", key, version)


def work(cloud, stage):
    cloud.make_worker(stage, f"{stage}-by-hand", Drain(100)).step()


def recon_row(cloud, archive):
    rows, _ = cloud.ledger.scan(scan_of(archive))
    return next(row for row in rows if row.sk.startswith("recon#"))


def fail_the_reconstruction(cloud, archive):
    """Spend all tries of a scan's reconstruction."""
    for _ in range(4):
        work(cloud, "recon")
        cloud.clock.time += 300
    assert recon_row(cloud, archive).state is State.FAILED


def records(cloud):
    return [key for bucket, key, _ in cloud.store.history if bucket == "images" and key.endswith("scan.json")]


@pytest.fixture
def failed(cloud, monkeypatch):
    """A scan whose reconstruction has failed for a reason that is then removed; its archive and its place."""
    archive = make_tar(b"failed once")
    place = deliver(cloud, archive, "one")
    work(cloud, "decompress")
    broken = {"now": True}
    download = cloud.store.download

    def failing(bucket, *arguments, **named):
        if bucket == "kspace" and broken["now"]:
            raise RetryableError(Code.STORAGE, "An injected fault.")
        return download(bucket, *arguments, **named)

    monkeypatch.setattr(cloud.store, "download", failing)
    fail_the_reconstruction(cloud, archive)
    broken["now"] = False
    return archive, place


def test_a_copy_of_a_scan_whose_reconstruction_failed_is_tried_again_and_both_are_released(cloud, failed):
    archive, first = failed
    second = deliver(cloud, archive, "two")
    work(cloud, "decompress")
    work(cloud, "recon")
    assert recon_row(cloud, archive).state is State.DONE
    assert len(records(cloud)) == 1
    assert second in cloud.store.tagged
    third = deliver(cloud, archive, "three")
    work(cloud, "decompress")
    assert third in cloud.store.tagged
    assert first[0] == "raw"


def test_kspace_that_expired_before_its_images_were_made_is_made_anew(cloud, failed):
    """The sentence tells an operator to submit the archive again; then that must help."""
    archive, _ = failed
    for name in [name for name in cloud.store.objects if name[0] == "kspace"]:
        del cloud.store.objects[name]
    again = deliver(cloud, archive, "again")
    work(cloud, "decompress")  # finds that the k-space file is gone, and lets the intake begin anew
    cloud.clock.time += 5
    work(cloud, "decompress")
    work(cloud, "recon")
    assert recon_row(cloud, archive).state is State.DONE
    assert cloud.ledger.get(scan_pk(scan_of(archive)), INTAKE_SK).state is State.DONE
    assert len(records(cloud)) == 1
    assert again in cloud.store.tagged


def test_expired_kspace_of_a_published_scan_is_not_made_anew(cloud):
    archive = make_tar(b"published")
    deliver(cloud, archive, "one")
    work(cloud, "decompress")
    work(cloud, "recon")
    for name in [name for name in cloud.store.objects if name[0] == "kspace"]:
        del cloud.store.objects[name]
    again = deliver(cloud, archive, "again")
    work(cloud, "decompress")
    assert again in cloud.store.tagged
    assert not any(name[0] == "kspace" for name in cloud.store.objects)
    assert len(records(cloud)) == 1


def test_who_lost_its_token_quarantines_nothing(cloud):
    """One worker would reject, stalls, and loses the scan to another, which publishes it."""
    archive = make_tar(b"contested")
    deliver(cloud, archive, "one")
    work(cloud, "decompress")

    def take():
        for item in cloud.lanes["r-routine"].messages:
            item.update(visible_at=0, receives=0)
        cloud.actors.append(Actor(cloud, "recon"))
        cloud.actors[-1].advance()
        return cloud.actors[-1]

    first = take()
    go_to(first, "upload")
    handler = first.worker._handler

    def refuse(*_, **__):
        raise PermanentError(Code.NON_FINITE, "This worker finds fault with it.")

    object.__setattr__(handler, "_publish", refuse)
    go_to(first, "release")
    cloud.clock.time += LEASE + 1
    go_on(take())
    go_on(first)
    assert len(records(cloud)) == 1
    assert recon_row(cloud, archive).state is State.DONE
    assert [key for bucket, key, _ in cloud.store.history if bucket == "quarantine"] == []


@pytest.mark.parametrize("operation", ["copy", "put_if_absent", "tag"])
def test_a_rejection_whose_worker_died_half_way_is_completed(cloud, operation):
    """The end is recorded first; who receives the message next keeps the archive and releases it."""
    archive = b"no tar " * 200
    place = deliver(cloud, archive, "bad")
    cloud.actors.append(Actor(cloud, "decompress"))
    dying = cloud.actors[-1]
    dying.advance()
    go_to(dying, operation)
    dying.advance("die")
    cloud.clock.time += 300
    work(cloud, "decompress")
    kept = {key for bucket, key, _ in cloud.store.history if bucket == "quarantine"}
    ident = scan_of(archive)
    assert kept == {keys.quarantine(ident), keys.quarantine(ident, "reason.json")}
    assert place in cloud.store.tagged
    assert not cloud.lanes["d-routine"].messages


def test_a_refused_mark_leaves_the_scan_done_and_is_tried_again(cloud, monkeypatch):
    archive = make_tar(b"not marked")
    place = deliver(cloud, archive, "one")
    work(cloud, "decompress")
    tag, refusals = cloud.store.tag_ended, [1, 1]

    def refused(*arguments):
        if refusals:
            refusals.pop()
            raise RetryableError(Code.STORAGE, "Tagging is refused.")
        tag(*arguments)

    monkeypatch.setattr(cloud.store, "tag_ended", refused)
    work(cloud, "recon")
    assert recon_row(cloud, archive).state is State.DONE
    assert len(records(cloud)) == 1
    for _ in range(3):
        cloud.clock.time += 300
        work(cloud, "recon")
    assert place in cloud.store.tagged
    assert not cloud.lanes["r-routine"].messages
    assert not cloud.lanes["r-routine"].dead


def test_a_mark_that_is_always_refused_makes_no_dead_letter(cloud, monkeypatch):
    archive = make_tar(b"never marked")
    deliver(cloud, archive, "one")
    work(cloud, "decompress")

    def refused(*_):
        raise RetryableError(Code.STORAGE, "Tagging is refused.")

    monkeypatch.setattr(cloud.store, "tag_ended", refused)
    for _ in range(6):
        work(cloud, "recon")
        cloud.clock.time += 300
    assert recon_row(cloud, archive).state is State.DONE
    assert not cloud.lanes["r-routine"].messages
    assert not cloud.lanes["r-routine"].dead


def test_a_queue_that_does_not_answer_lets_no_lease_lapse(cloud):
    """The heartbeat of the lease does not wait for that of the message."""
    answered = threading.Event()

    class Hanging:
        max_receives = 4

        def extend(self, message, seconds):
            answered.wait(20)
            return True

    claim = cloud.ledger.claim("scan#x", "intake", "me", 0.3)
    renewed = []
    renew = cloud.ledger.renew
    cloud.ledger.renew = lambda *arguments: renewed.append(time.monotonic()) or renew(*arguments)
    hold = Hold(Message("1", "", "1", 1), Hanging(), cloud.ledger, Drain(1), lease=0.3)
    try:
        with hold:
            hold.keep(claim)
            deadline = time.monotonic() + 10
            while len(renewed) < 5 and time.monotonic() < deadline:
                time.sleep(0.01)
            assert len(renewed) >= 5
            hold.check()
            answered.set()
    finally:
        answered.set()


def s3_event(*records):
    return json.dumps({"Records": list(records)})


def s3_record(key, version="1"):
    thing = {"bucket": {"name": "raw"}, "object": {"key": key, "versionId": version}}
    return {"eventName": "ObjectCreated:Put", "eventTime": "2027-01-01T00:00:00Z", "s3": thing}


def test_one_malformed_record_does_not_hold_up_the_others_of_its_event(cloud):
    archive = make_tar(b"beside a malformed record")
    key = "incoming/a/routine/good.tar"
    version = cloud.store.scanner_puts(key, archive)
    body = s3_event({"eventName": "ObjectCreated:Put", "s3": {}}, s3_record(key, version))
    cloud.lanes["d-routine"].send(body, group="a")
    for _ in range(5):
        work(cloud, "decompress")
        cloud.clock.time += 300
    work(cloud, "recon")
    assert recon_row(cloud, archive).state is State.DONE
    assert len(cloud.lanes["d-routine"].dead) == 1  # the event itself stays for a person to look at


def test_an_event_of_which_nothing_can_be_read_is_no_message():
    with pytest.raises(NotAMessageError):
        announcement(
            s3_event({"eventName": "ObjectCreated:Put"}, {"eventName": "ObjectCreated:Put", "s3": 3})
        )
    assert announcement(s3_event()).deliveries == ()
    assert announcement(s3_event(s3_record("a"), {"eventName": "ObjectCreated:Put"})).unreadable == 1
