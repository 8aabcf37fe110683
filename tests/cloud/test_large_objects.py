"""Objects of many parts: written, copied and given up over an emulated S3, and the calls that takes."""

import functools
import json

import pytest

from mrirecon.aws import client as aws
from mrirecon.aws import store as store_module
from mrirecon.contract import environment as env
from tests.support import aws_calls
from tests.support.cloud_world import make_tar, scan_of

PART = 5 * 2**20
"""The smallest part that S3 takes."""


FOLDERS = {"kspace": "kspace", "images": "images", "raw": "incoming"}


@pytest.fixture
def small_parts(monkeypatch):
    make = store_module.S3Store.__init__
    monkeypatch.setattr(store_module.S3Store, "__init__", functools.partialmethod(make, part_bytes=PART))


def test_k_space_of_many_parts_goes_through_both_stages(world, small_parts):
    archive = make_tar(bytes(range(256)) * (PART // 256 + 1))
    world.put(archive)
    world.drain()
    world.assert_done_once(archive)


@pytest.mark.parametrize("stage", ["decompress", "recon"])
def test_a_large_archive_is_copied_to_quarantine(world, stage):
    body = b"few-acs" + bytes(9 * 2**20)  # boto3 copies from 8 MiB on in parts
    archive = make_tar(body) if stage == "recon" else body
    world.put(archive)
    world.drain()
    scan = scan_of(archive)
    assert world.read("quarantine", f"quarantine/{scan}/archive") == archive
    assert json.loads(world.read("quarantine", f"quarantine/{scan}/reason.json"))["code"]


@pytest.mark.parametrize(
    ("stage", "kind"), [("decompress", "kspace"), ("recon", "images"), ("operator", "raw")]
)
def test_an_upload_that_is_given_up_leaves_no_parts(world, small_parts, tmp_path, stage, kind):
    with world.environment(), world.recorded(stage):
        store = store_module.S3Store(aws.client("s3"))
    file = tmp_path / "large"
    file.write_bytes(bytes(PART + 1))
    looks = []

    def give_up():
        looks.append(1)
        if len(looks) > 2:  # the checksum reads the file in two blocks, then the first part begins
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.upload(file, world.buckets[kind], f"{FOLDERS[kind]}/x", check=give_up)
    assert "Uploads" not in world.s3.list_multipart_uploads(Bucket=world.buckets[kind])
    assert world.keys_in(kind) == []


def test_images_of_many_parts_are_published(world, small_parts, tmp_path):
    file = tmp_path / "image.h5"
    file.write_bytes(bytes(2 * PART))
    store = world.worker("recon").world.store
    assert store.upload(file, world.buckets["images"], "images/x/image.h5")
    assert world.read("images", "images/x/image.h5") == file.read_bytes()


def test_a_call_is_recorded_by_the_names_of_the_contract():
    """No bucket, key or file name is in a recorded call."""
    names = aws_calls.names_of(
        {env.RAW_BUCKET: "b", env.RECON_STAT_QUEUE_URL: "https://sqs/1/q", "HOME": "h"}
    )
    read = aws_calls.described("s3", "GetObject", {"Bucket": "b", "Key": "incoming/DOE^JANE.tar"}, names)
    assert read == {"call": "s3:GetObject", "Bucket": env.RAW_BUCKET, "Key": "incoming/*"}
    sent = aws_calls.described("sqs", "SendMessage", {"QueueUrl": "http://localhost:1/1/q"}, names)
    assert sent == {"call": "sqs:SendMessage", "QueueUrl": env.RECON_STAT_QUEUE_URL}
    assert aws_calls.described("s3", "HeadBucket", {"Bucket": "other"}, names)["Bucket"] == "unknown"


def test_a_call_that_the_table_lacks_is_told():
    odd = {"call": "s3:DeleteBucket", "role": "recon"}
    assert aws_calls.unknown([odd]) == [odd]
    known = json.loads(aws_calls.TABLE.read_text())
    assert aws_calls.unknown(known) == []
