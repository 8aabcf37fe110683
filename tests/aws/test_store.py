"""Files that go up in parts: whole, checksummed, only where they may, and nothing left behind."""

from __future__ import annotations

import hashlib
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from mrirecon.aws import client as aws
from mrirecon.aws.ports import ObjectInfo
from mrirecon.aws.store import PART_BYTES, S3Store
from mrirecon.contract.codes import Code, RetryableError

BUCKET, KEY = "kspace", "kspace/0123456789abcdef/kspace.h5"
PART = 5 * 1024 * 1024  # S3 takes no smaller ones
SIZE = 2 * PART + 12_345


class Stand:
    """A bucket, a store that uploads in small parts, and the calls that it made."""

    def __init__(self) -> None:
        self.s3 = aws.client("s3", attempts=1)
        self.s3.create_bucket(Bucket=BUCKET)
        self.store = S3Store(self.s3, part_bytes=PART)
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.s3.meta.events.register("provide-client-params.s3.*", self._note)

    def _note(self, params: dict[str, Any], model: Any, **_: Any) -> None:
        self.calls.append((model.name, dict(params)))

    def of(self, operation: str) -> list[dict[str, Any]]:
        return [params for name, params in self.calls if name == operation]

    def before(self, operation: str, do: Any) -> None:
        self.s3.meta.events.register(f"before-call.s3.{operation}", do)

    def head(self) -> ObjectInfo:
        info = self.store.head(BUCKET, KEY)
        assert info is not None
        return info

    def body(self) -> bytes:
        return self.s3.get_object(Bucket=BUCKET, Key=KEY)["Body"].read()

    def unfinished(self) -> list[Any]:
        return list(self.s3.list_multipart_uploads(Bucket=BUCKET).get("Uploads", []))


@pytest.fixture
def stand(emulated: None) -> Stand:
    return Stand()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "kspace.h5"
    path.write_bytes(random.Random(1).randbytes(SIZE))
    return path


def test_a_large_file_goes_up_in_parts_and_comes_back_whole(stand: Stand, file: Path, tmp_path: Path) -> None:
    assert stand.store.upload(file, BUCKET, KEY, metadata={"profile": "routine"}) is True
    parts = {params["PartNumber"]: len(params["Body"]) for params in stand.of("UploadPart")}
    assert parts == {1: PART, 2: PART, 3: 12_345}
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    info = stand.head()
    assert (info.size, info.sha256, info.metadata["profile"]) == (SIZE, digest, "routine")
    assert info.etag.endswith("-3")
    assert not info.plain_md5
    assert stand.store.download(BUCKET, KEY, tmp_path / "back", info) == digest
    assert (tmp_path / "back").read_bytes() == file.read_bytes()
    assert stand.unfinished() == []


def test_every_part_carries_its_checksum(stand: Stand, file: Path) -> None:
    sent: list[set[str]] = []

    def note(request: Any, **_: Any) -> None:
        # Over https the checksum follows the body, and a header names it.
        trailer = request.headers.get("x-amz-trailer", b"")
        named = trailer.decode() if isinstance(trailer, bytes) else trailer
        sent.append({name.lower() for name in request.headers} | {named})

    stand.s3.meta.events.register_first("before-send.s3.UploadPart", note)
    stand.store.upload(file, BUCKET, KEY)
    assert stand.of("CreateMultipartUpload")[0]["ChecksumAlgorithm"] == "SHA256"
    assert len(sent) == 3
    assert all("x-amz-checksum-sha256" in names for names in sent)
    (complete,) = stand.of("CompleteMultipartUpload")
    assert [part["PartNumber"] for part in complete["MultipartUpload"]["Parts"]] == [1, 2, 3]


def test_what_comes_back_otherwise_is_not_taken(stand: Stand, file: Path, tmp_path: Path) -> None:
    """S3's checksum of such an object is one of its parts' checksums: the digest in its metadata counts."""
    stand.store.upload(file, BUCKET, KEY)
    info = replace(stand.head(), sha256=hashlib.sha256(b"other").hexdigest())
    with pytest.raises(RetryableError, match="not what was stored"):
        stand.store.download(BUCKET, KEY, tmp_path / "back", info)
    assert not (tmp_path / "back").exists()


def test_a_file_as_large_as_a_part_goes_up_at_once(stand: Stand, tmp_path: Path) -> None:
    path = tmp_path / "one"
    path.write_bytes(bytes(PART))
    assert stand.store.upload(path, BUCKET, KEY) is True
    assert stand.of("CreateMultipartUpload") == []
    path.write_bytes(bytes(PART + 1))
    assert stand.store.upload(path, BUCKET, KEY, replace=stand.head().etag) is True
    assert len(stand.of("UploadPart")) == 2


def test_an_object_that_is_there_stays(stand: Stand, file: Path) -> None:
    stand.s3.put_object(Bucket=BUCKET, Key=KEY, Body=b"first")
    assert stand.store.upload(file, BUCKET, KEY) is False
    assert stand.body() == b"first"
    assert stand.unfinished() == []


def test_another_worker_that_is_faster_wins(stand: Stand, file: Path) -> None:
    """It puts its object while our parts go up: the last call decides."""
    other = aws.client("s3")
    stand.before(
        "CompleteMultipartUpload",
        lambda **_: other.put_object(Bucket=BUCKET, Key=KEY, Body=b"faster") and None,
    )
    assert stand.store.upload(file, BUCKET, KEY) is False
    assert stand.body() == b"faster"
    assert stand.unfinished() == []


def test_the_object_that_was_seen_is_replaced(stand: Stand, file: Path) -> None:
    stand.s3.put_object(Bucket=BUCKET, Key=KEY, Body=b"first")
    assert stand.store.upload(file, BUCKET, KEY, replace=stand.head().etag) is True
    assert stand.body() == file.read_bytes()


def test_only_the_object_that_was_seen_is_replaced(stand: Stand, file: Path) -> None:
    """The emulator ignores this condition, so the test plays S3's answer to it."""
    stand.s3.put_object(Bucket=BUCKET, Key=KEY, Body=b"first")
    seen = stand.head().etag

    def refuse(params: dict[str, Any], **_: Any) -> None:
        assert params["headers"]["If-Match"] == f'"{seen}"'
        assert "If-None-Match" not in params["headers"]
        error: Any = {
            "Error": {"Code": "PreconditionFailed", "Message": ""},
            "ResponseMetadata": {"HTTPStatusCode": 412},
        }
        raise ClientError(error, "CompleteMultipartUpload")

    stand.before("CompleteMultipartUpload", refuse)
    assert stand.store.upload(file, BUCKET, KEY, replace=seen) is False
    assert stand.body() == b"first"
    assert stand.unfinished() == []


@pytest.mark.parametrize("operation", ["UploadPart", "CompleteMultipartUpload"])
def test_an_upload_that_fails_leaves_nothing(stand: Stand, file: Path, operation: str) -> None:
    calls: list[int] = []

    def refuse(**_: Any) -> None:
        calls.append(1)
        if len(calls) == len(stand.of("CreateMultipartUpload")) * (2 if operation == "UploadPart" else 1):
            raise ClientError({"Error": {"Code": "InternalError", "Message": ""}}, operation)

    stand.before(operation, refuse)
    with pytest.raises(RetryableError) as caught:
        stand.store.upload(file, BUCKET, KEY)
    assert caught.value.code is Code.STORAGE
    assert stand.store.head(BUCKET, KEY) is None
    assert len(stand.of("AbortMultipartUpload")) == 1
    assert stand.unfinished() == []


def test_a_scan_that_is_stopped_leaves_nothing(stand: Stand, file: Path) -> None:
    class StoppedError(Exception):
        pass

    def check() -> None:
        if stand.of("CreateMultipartUpload"):
            raise StoppedError

    with pytest.raises(StoppedError):
        stand.store.upload(file, BUCKET, KEY, check=check)
    assert stand.store.head(BUCKET, KEY) is None
    assert stand.unfinished() == []


def test_parts_are_as_large_as_documented(stand: Stand, tmp_path: Path) -> None:
    """A file above 32 MiB, with the store as the workers have it."""
    path = tmp_path / "large"
    block = random.Random(2).randbytes(1024 * 1024)
    with path.open("wb") as out:
        for _ in range(33):
            out.write(block)
    store = S3Store(stand.s3)
    assert store.upload(path, BUCKET, KEY) is True
    parts = sorted(len(params["Body"]) for params in stand.of("UploadPart"))
    assert parts == [1024 * 1024, PART_BYTES]
    digest = store.download(BUCKET, KEY, tmp_path / "back", stand.head())
    assert digest == hashlib.sha256(path.read_bytes()).hexdigest()
