"""The two workers over emulated S3, SQS and DynamoDB, without faults."""

import json

import pytest

from tests.support.cloud_world import make_tar, scan_of


def test_an_archive_becomes_published_images(world, capfd):
    archive = make_tar(b"one scan")
    key, version = world.put(archive)
    world.drain()
    world.assert_done_once(archive)
    scan = scan_of(archive)
    assert world.is_tagged(key, version)
    assert world.keys_in("kspace") == [f"kspace/{scan}/kspace.h5"]
    (first,) = world.attempts(scan, "decompress")
    (second,) = world.attempts(scan, "recon")
    points = [
        first[f"at_{name}"] for name in ("announced", "received", "claimed", "read", "decompressed", "queued")
    ]
    points += [
        second[f"at_{name}"]
        for name in (
            "recon_received",
            "recon_claimed",
            "recon_read",
            "reconstructed",
            "uploaded",
            "published",
        )
    ]
    assert points[1:] == sorted(points[1:])
    assert first["outcome"] == second["outcome"] == "done"
    assert first["bytes"] == len(archive)
    assert first["cost_usd"] >= 0
    row = next(item for item in world.items() if item["sk"].startswith("recon#"))
    assert json.loads(row["body"])["method"] == "grappa"
    told = capfd.readouterr()
    metrics = [json.loads(line) for line in told.out.splitlines()]
    assert {line["Stage"] for line in metrics} == {"decompress", "recon"}
    assert all("_aws" in line for line in metrics)
    published = next(json.loads(line) for line in told.err.splitlines() if "images published" in line)
    assert published["scan_id"] == scan


def test_stat_goes_before_routine(world):
    for number in range(3):
        world.put(make_tar(b"r%d" % number), f"r{number}.tar")
    urgent = make_tar(b"urgent")
    world.put(urgent, "u.tar", lane="stat")
    worker = world.worker("decompress")
    assert worker.step()
    assert world.states_of(scan_of(urgent)) == {"intake": "done", "recon": "queued"}
    assert world.depths()["recon-stat"] == 1


def test_a_rejected_archive_is_kept_with_its_reason(world):
    key, version = world.put(b"no archive at all" * 100)
    world.drain()
    scan = scan_of(b"no archive at all" * 100)
    assert world.states_of(scan) == {"intake": "rejected"}
    assert world.read("quarantine", f"quarantine/{scan}/archive") == b"no archive at all" * 100
    reason = json.loads(world.read("quarantine", f"quarantine/{scan}/reason.json"))
    assert reason["code"] == "not_an_archive"
    assert world.is_tagged(key, version)
    assert world.records() == []
    assert world.all_ended()


def test_a_reconstruction_may_reject_too(world):
    archive = make_tar(b"few-acs")
    key, version = world.put(archive)
    world.drain()
    assert world.states_of(scan_of(archive)) == {"intake": "done", "recon": "rejected"}
    assert world.read("quarantine", f"quarantine/{scan_of(archive)}/archive") == archive
    assert world.is_tagged(key, version)


def test_a_key_of_another_form_is_rejected_unread(world):
    world.s3.put_object(Bucket=world.buckets["raw"], Key="incoming/DOE^JANE.tar", Body=make_tar())
    world.announce("incoming/DOE^JANE.tar")
    world.drain()
    (row,) = [item for item in world.items() if item["pk"].startswith("delivery#")]
    assert (row["state"], row["code"]) == ("rejected", "bad_name")
    assert "DOE" not in json.dumps(world.items())


def test_an_unknown_profile_is_rejected_and_a_known_one_used(world):
    good, bad = make_tar(b"p1", ("profile", b"fast")), make_tar(b"p2", ("profile", b"DOE^JANE"))
    world.put(good, "good.tar")
    world.put(bad, "bad.tar")
    world.drain()
    assert world.states_of(scan_of(bad)) == {"intake": "rejected"}
    record = json.loads(world.read("images", world.records()[0]))
    assert record["profile"]["name"] == "fast"
    assert world.records()[0].split("/")[1] == scan_of(good)


def test_the_recon_worker_reads_from_lustre_when_it_holds_these_bytes(make_world, tmp_path):
    mount = tmp_path / "fsx"
    mount.mkdir()
    world = make_world(MRIRECON_LUSTRE_MOUNT=mount)
    right, wrong = make_tar(b"on lustre"), make_tar(b"stale on lustre")
    for name, archive in (("right", right), ("wrong", wrong)):
        world.put(archive, f"{name}.tar")
        (mount / scan_of(archive)).mkdir()
    (mount / scan_of(right) / "kspace.h5").write_bytes(b"KSPACEon lustre")
    (mount / scan_of(wrong) / "kspace.h5").write_bytes(b"KSPACEstale on lustrf")
    decompress = world.worker("decompress")
    while decompress.step():
        pass
    # Only what does not lie on Lustre, bit by bit, is read from S3.
    world.s3.delete_object(Bucket=world.buckets["kspace"], Key=f"kspace/{scan_of(right)}/kspace.h5")
    world.drain(world.worker("recon"))
    world.assert_done_once(right, wrong)


def test_leaves_when_idle_or_old(make_world):
    world = make_world(MRIRECON_IDLE_SECONDS="0.2")
    assert world.worker("recon").run() == 0
    old = make_world(MRIRECON_LIFETIME_SECONDS="0.001")
    old.put(make_tar(b"a"), "a.tar")
    old.put(make_tar(b"b"), "b.tar")
    assert old.worker("decompress").run() == 0
    assert old.depths()["decompress-routine"] == 1  # it took one more scan, not two


@pytest.mark.parametrize("body", ['{"Event": "s3:TestEvent"}', '{"Records": []}'])
def test_messages_that_announce_nothing_are_deleted(world, body):
    world.send("decompress-routine", body)
    assert world.worker("decompress").step()
    assert not world.outstanding()


@pytest.mark.parametrize("failpoint", ["", "decompressed:error"])
def test_the_record_tells_what_the_intake_measured_and_warned_of(world, failpoint):
    archive = make_tar(b"warned scan")
    world.put(archive)
    if failpoint:  # the next attempt finds the k-space file made
        world.worker("decompress", failpoint=failpoint).step()
        assert world.keys_in("kspace")
    world.drain()
    record = json.loads(world.read("images", world.records()[0]))
    assert record["seconds"] == {"decompress": 0.125, "train": 0.25}
    assert record["warnings"] == ["Part of the slice is empty."]
