"""Deliveries that come twice, at once, again, unfinished, replaced or not at all."""

import json
import threading
import time

import pytest
from boto3.s3.transfer import TransferConfig

from mrirecon.aws.store import S3Store
from mrirecon.contract.keys import Priority
from tests.support import small_stages
from tests.support.cloud_world import make_tar, scan_of
from tests.support.waiting import wait_until


def both_at_once(*workers):
    threads = [threading.Thread(target=worker.step) for worker in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_message_delivered_twice_at_once(world):
    archive = make_tar(b"twice at once", "do-nap")
    world.put(archive, announce=2)
    workers = [world.worker("decompress"), world.worker("decompress")]
    both_at_once(*workers)
    world.drain(*workers, world.worker("recon"))
    world.assert_done_once(archive)
    assert len(world.attempts(scan_of(archive), "decompress")) == 1


def test_request_delivered_twice_at_once(world):
    archive = make_tar(b"recon-slow")
    world.put(archive)
    world.worker("decompress").step()
    body = world.sqs.receive_message(QueueUrl=world.queues["recon-routine"], VisibilityTimeout=0)["Messages"][
        0
    ]
    world.send("recon-routine", body["Body"])
    workers = [world.worker("recon"), world.worker("recon")]
    both_at_once(*workers)
    world.drain(*workers)
    world.assert_done_once(archive)
    assert len(world.attempts(scan_of(archive), "recon")) == 1


def test_same_bytes_under_two_keys_are_one_scan_and_both_are_released(world):
    archive = make_tar(b"copied file")
    first = world.put(archive, "one.tar")
    second = world.put(archive, "two.tar", lane="stat", site="b")
    world.drain()
    world.assert_done_once(archive)
    assert world.is_tagged(*first)
    assert world.is_tagged(*second)


def test_a_copy_delivered_after_the_end_is_released_at_once(world):
    archive = make_tar(b"late copy")
    world.put(archive, "one.tar")
    world.drain()
    late = world.put(archive, "two.tar")
    world.drain(world.worker("decompress"))  # no worker with a GPU is needed for it
    assert world.is_tagged(*late)
    world.assert_done_once(archive)


def test_event_twice_per_upload(world):
    """moto announces a multipart upload twice, as Put and as CompleteMultipartUpload."""
    world.notify()
    archive = make_tar(bytes(6 << 20))
    path = world.scratch / "upload"
    path.write_bytes(archive)
    world.s3.upload_file(
        str(path),
        world.buckets["raw"],
        "incoming/a/routine/a b+ü.tar",
        Config=TransferConfig(multipart_threshold=5 << 20, multipart_chunksize=5 << 20),
    )
    path.unlink()
    assert world.depths()["decompress-routine"] >= 2
    world.drain()
    world.assert_done_once(archive)


def test_visibility_expiring_mid_work(world):
    """The heartbeat never reaches SQS: the message shows again while its worker is still at it."""
    archive = make_tar(b"visibility")
    world.put(archive)
    slow = world.worker("decompress")
    slow._lanes[1].extend = lambda *_: True
    seen_by_another = threading.Event()
    slow.handler.failpoints.reach = lambda point, _check: point == "decompressed" and seen_by_another.wait(30)
    other = world.worker("decompress")
    thread = threading.Thread(target=slow.step)
    thread.start()
    wait_until(lambda: world.in_flight("decompress-routine"))
    wait_until(lambda: world.visible("decompress-routine"))
    assert other.step()  # sees the message, finds the scan claimed, waits
    seen_by_another.set()
    thread.join()
    world.drain(other, world.worker("recon"))
    world.assert_done_once(archive)
    assert len(world.attempts(scan_of(archive), "decompress")) == 1


def test_a_worker_that_lost_its_token_cannot_publish(world):
    """A worker stands still before it publishes; another takes the scan over; then the first goes on."""
    archive = make_tar(b"zombie")
    world.put(archive)
    world.worker("decompress").step()
    zombie, other = world.worker("recon"), world.worker("recon")
    woken, stopped = threading.Event(), threading.Event()

    def stand_still(point, check):
        if point == "uploaded":
            stopped.set()
            woken.wait(30)

    zombie.handler.failpoints.reach = stand_still
    zombie.world.ledger.renew = lambda *_: True  # it does not notice: as if its process had been stopped
    zombie._lanes[1].extend = lambda *_: True
    thread = threading.Thread(target=zombie.step)
    thread.start()
    assert stopped.wait(30)
    deadline = time.monotonic() + 30
    while not world.records() and time.monotonic() < deadline:
        other.step()
        time.sleep(0.1)
    del zombie.world.ledger.renew
    published = world.read("images", world.records()[0])
    files = {
        key: world.s3.head_object(Bucket=world.buckets["images"], Key=key)["ETag"]
        for key in world.keys_in("images")
    }
    woken.set()
    thread.join()
    assert world.read("images", world.records()[0]) == published
    assert files == {
        key: world.s3.head_object(Bucket=world.buckets["images"], Key=key)["ETag"]
        for key in world.keys_in("images")
    }
    world.drain(other)
    world.assert_done_once(archive)


def test_upload_overwritten_mid_read(make_world):
    """On a bucket without versions: what was begun is dropped, what is there now is read from its start."""
    world = make_world(versioned=False)
    old, new = make_tar(b"old" * 100), make_tar(b"new" * 200)
    world.put(old)
    worker = world.worker("decompress")
    real = S3Store._stream
    overwritten = []

    def overwrite_first(self, *args):
        if not overwritten:
            overwritten.append(True)
            world.put(new)
        return real(self, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(S3Store, "_stream", overwrite_first)
        world.drain(worker, world.worker("recon"))
    world.assert_done_once(new)


def test_both_versions_of_an_overwritten_object_are_scans(world):
    old, new = make_tar(b"first scan"), make_tar(b"second scan")
    world.put(old)
    world.put(new)
    world.drain()
    world.assert_done_once(old, new)


def test_an_unfinished_archive_waits_for_its_next_version(make_world):
    world = make_world(MRIRECON_SETTLE_SECONDS="3")
    whole = make_tar(b"slow copy")
    part = whole[:700]
    world.put(part)
    worker = world.worker("decompress")
    assert worker.step()
    assert world.states_of(scan_of(part)) == {"intake": "waiting"}
    world.put(whole)
    world.drain(worker, world.worker("recon"))
    assert world.states_of(scan_of(part)) == {"intake": "superseded"}
    assert world.states_of(scan_of(whole)) == {"intake": "done", "recon": "done"}
    assert len(world.records()) == 1
    assert world.all_ended()


def test_an_archive_that_never_ends_is_rejected_when_it_has_settled(make_world):
    world = make_world(MRIRECON_SETTLE_SECONDS="2")
    part = make_tar(b"cut off")[:700]
    key, version = world.put(part)
    world.drain()
    row = next(item for item in world.items() if item["sk"] == "intake")
    assert (row["state"], row["code"]) == ("rejected", "truncated")
    assert world.read("quarantine", f"quarantine/{scan_of(part)}/archive") == part
    assert world.is_tagged(key, version)


def test_an_archive_removed_before_it_was_read_is_rejected(world):
    key, version = world.put(make_tar())
    world.s3.delete_object(Bucket=world.buckets["raw"], Key=key, VersionId=version)
    world.drain()
    (row,) = [item for item in world.items() if item["pk"].startswith("delivery#")]
    assert (row["state"], row["code"]) == ("rejected", "gone")


def test_an_archive_in_deep_archive_fails_with_a_sentence_and_is_redriven(make_world):
    world = make_world(max_receives=2)
    archive = make_tar(b"cold")
    bucket, key = world.buckets["raw"], "incoming/a/routine/cold.tar"
    version = world.s3.put_object(Bucket=bucket, Key=key, Body=archive, StorageClass="DEEP_ARCHIVE")[
        "VersionId"
    ]
    world.announce(key, version)
    worker = world.worker("decompress")
    deadline = time.monotonic() + 30
    while not world.dead()["decompress"] and time.monotonic() < deadline:
        worker.step()
    (row,) = [item for item in world.items() if item["pk"].startswith("delivery#")]
    assert row["state"] == "failed"
    assert "restore the object" in row["message"]
    world.s3.restore_object(Bucket=bucket, Key=key, VersionId=version, RestoreRequest={"Days": 1})
    with world.operator() as operator:
        assert operator.redrive() == {"decompress": 1, "recon": 0}
    world.drain(worker, world.worker("recon"))
    world.assert_done_once(archive)
    assert sum(world.dead().values()) == 0


@pytest.mark.parametrize("body", ["DOE^JANE", "[]", '{"source": "elsewhere"}', '{"source": "aws.s3"'])
def test_poison_message_reaches_the_dead_letters(make_world, body, capfd):
    world = make_world(max_receives=2)
    archive = make_tar(b"beside poison")
    world.send("decompress-routine", body)
    world.put(archive)
    workers = [world.worker("decompress"), world.worker("recon")]
    deadline = time.monotonic() + 30
    while world.outstanding() and time.monotonic() < deadline:
        for worker in workers:
            worker.step()
    world.assert_done_once(archive)
    assert world.dead() == {"decompress": 1, "recon": 0}
    assert workers[0].world.dead_letters.redrive({}, dry_run=True).seen == {"poison": 1}
    assert "DOE" not in "".join(capfd.readouterr())


def test_a_dead_letter_of_one_scan_is_redriven_alone(make_world):
    world = make_world(max_receives=1)
    bad = [make_tar(b"bad 1", "do-retryable"), make_tar(b"bad 2", "do-retryable")]
    for number, archive in enumerate(bad):
        world.put(archive, f"{number}.tar")
    worker = world.worker("decompress")
    deadline = time.monotonic() + 30
    while world.dead()["decompress"] < 2 and time.monotonic() < deadline:
        worker.step()
    assert [world.states_of(scan_of(archive)) for archive in bad] == [{"intake": "failed"}] * 2
    assert worker.world.dead_letters.redrive({}, dry_run=True).seen == {"storage": 2}
    with world.operator() as operator:
        assert operator.redrive(scan_id=scan_of(bad[0])) == {"decompress": 1, "recon": 0}
    assert world.states_of(scan_of(bad[0])) == {"intake": "queued"}
    healed = world.worker("decompress", work=small_stages_healed)
    world.drain(healed, world.worker("recon"))
    world.assert_done_once_and_failed(bad[:1], bad[1:])


def test_a_redrive_that_dies_before_it_deletes_the_letter_fails_no_scan(make_world):
    """The copy waits in its lane, and the letter still lies there: an idle worker looks at it."""
    world = make_world(max_receives=1)
    archive = make_tar(b"redriven by half", "do-retryable")
    world.put(archive)
    worker = world.worker("decompress")
    deadline = time.monotonic() + 30
    while not world.dead()["decompress"] and time.monotonic() < deadline:
        worker.step()
    dead_letters = worker.world.dead_letters
    lanes = {lane: world.queues[f"decompress-{lane.value}"] for lane in Priority}

    class DiesBeforeItDeletes:
        def __init__(self, client):
            self._client = client

        def __getattr__(self, name):
            return getattr(self._client, name)

        def delete_message(self, **_):
            raise KeyboardInterrupt

    dead_letters._sqs = DiesBeforeItDeletes(dead_letters._sqs)
    with pytest.raises(KeyboardInterrupt):
        dead_letters.redrive(lanes)
    assert world.dead()["decompress"] == 1
    assert dead_letters.record() == []
    assert world.states_of(scan_of(archive)) == {"intake": "queued"}


def small_stages_healed(job, progress):
    small_stages._misfortune = lambda *_: None
    return small_stages.decompress(job, progress)


def test_a_message_of_gateway_form_and_one_of_s3_form_are_one_delivery(world):
    archive = make_tar(b"two senders")
    key, _ = world.put(archive)
    world.send(
        "decompress-routine",
        {
            "source": "aws.storagegateway",
            "detail-type": "Storage Gateway Object Upload Event",
            "time": "2026-01-01T00:00:00Z",
            "detail": {"bucket-name": world.buckets["raw"], "object-key": key, "object-size": len(archive)},
        },
    )
    world.drain()
    world.assert_done_once(archive)
    assert len([item for item in world.items() if item["pk"].startswith("delivery#")]) == 1
    assert json.dumps(world.items()).count("scan.tar") == 0
