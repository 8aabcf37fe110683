"""The object store: S3 through boto3. What is written is checksummed, what is read is verified."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import shutil
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, TYPE_CHECKING, TypedDict

from ..contract.causes import ours
from ..contract.codes import Code, PermanentError, RetryableError
from ..contract.keys import DONE_TAG
from . import client as aws
from .ports import Check, ObjectInfo, never

if TYPE_CHECKING:
    from botocore.response import StreamingBody
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import CompletedPartTypeDef, CopySourceTypeDef


class ReplacedError(RetryableError):
    """The object was replaced, in a bucket without versions, before it was read to its end."""

    def __init__(self) -> None:
        super().__init__(
            Code.STORAGE, "The object was replaced before it was read; what is there now is read."
        )


_BLOCK = 4 * 1024 * 1024
PART_BYTES = 32 * 1024 * 1024
"""Larger files go up in parts of this size. S3 allows 10,000 parts: files up to 312 GiB."""
_TRIES = 3
SHA256 = "sha256"
"""User metadata of what we write: hex digest of the whole object, whatever way it was uploaded."""


def file_sha256(path: Path, check: Check = never) -> str:
    """Return the SHA-256 of a file, hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
            check()
    return digest.hexdigest()


def require_free(folder: Path, need: int, what: str) -> None:
    """Refuse before the first byte when ``folder`` has not ``need`` bytes free.

    Raises
    ------
    RetryableError
        ``disk_full``; the sentence tells a disk that is full now from one that is too small.
    """
    usage = shutil.disk_usage(folder)
    if usage.free >= need:
        return
    cure = (
        "it will be tried again when other scans have left"
        if usage.total > need
        else "give the worker a larger scratch disk"
    )
    raise RetryableError(
        Code.DISK_FULL,
        f"{what} needs {need / 1e9:.2f} GB of scratch space and {usage.free / 1e9:.2f} GB of "
        f"{usage.total / 1e9:.2f} GB are free: {cure}.",
    )


class _Place(TypedDict):
    Bucket: str
    Key: str


class _Version(TypedDict, total=False):
    VersionId: str


class _Condition(TypedDict, total=False):
    IfMatch: str
    IfNoneMatch: str


class S3Store:
    """See :class:`~mrirecon.aws.ports.ObjectStore`.

    Parameters
    ----------
    client
        Client.
    part_bytes
        Size of the parts in which larger files go up; S3 takes none below 5 MiB, except the last.
    """

    def __init__(self, client: S3Client, *, part_bytes: int = PART_BYTES) -> None:
        self._s3 = client
        self._part_bytes = part_bytes

    def head(self, bucket: str, key: str, version: str | None = None) -> ObjectInfo | None:
        """Return what S3 knows of the object, ``None`` when there is none."""
        with aws.translated("The object store"):
            try:
                told = self._s3.head_object(
                    Bucket=bucket, Key=key, ChecksumMode="ENABLED", **_versioned(version)
                )
            except self._s3.exceptions.ClientError as error:
                if aws.is_absent(error) or aws.error_code(error) in {"405", "MethodNotAllowed"}:
                    return None  # 405: the version is a delete marker
                raise
        checksum = told.get("ChecksumSHA256")
        etag = str(told["ETag"]).strip('"')
        encrypted = told.get("ServerSideEncryption") not in (None, "AES256") or told.get(
            "SSECustomerAlgorithm"
        )
        metadata = dict(told.get("Metadata") or {})
        found = told.get("VersionId")
        return ObjectInfo(
            size=int(told["ContentLength"]),
            etag=etag,
            version=found if found != "null" else None,
            modified=told["LastModified"].timestamp(),
            sha256=metadata.get(SHA256),
            # A multipart object's checksum is one of its parts' checksums, shown as "…-<parts>".
            checksum_sha256=checksum if checksum and "-" not in checksum and "-" not in etag else None,
            archived=told.get("StorageClass") in {"GLACIER", "DEEP_ARCHIVE"}
            and 'ongoing-request="false"' not in (told.get("Restore") or ""),
            plain_md5="-" not in etag and not encrypted,
            metadata=metadata,
        )

    def download(self, bucket: str, key: str, path: Path, info: ObjectInfo, check: Check = never) -> str:
        """Stream the object ``info`` describes to ``path``; return its SHA-256.

        Raises
        ------
        RetryableError
            ``storage`` when it was replaced in between, is archived, or what arrived is not what was stored.
        PermanentError
            ``gone`` when it is no longer there.
        """
        if info.archived:
            raise _archived()
        for left in reversed(range(_TRIES)):
            try:
                return self._stream(bucket, key, path, info, check)
            except RetryableError as error:
                path.unlink(missing_ok=True)
                if not left or isinstance(error, ReplacedError):
                    raise
        raise AssertionError("unreachable")

    def _stream(self, bucket: str, key: str, path: Path, info: ObjectInfo, check: Check) -> str:
        digest, md5, size = hashlib.sha256(), hashlib.md5(usedforsecurity=False), 0
        with aws.translated("Reading from the object store"):
            try:
                answer = self._s3.get_object(
                    Bucket=bucket,
                    Key=key,
                    IfMatch=f'"{info.etag}"',
                    ChecksumMode="ENABLED",
                    **_versioned(info.version),
                )
            except self._s3.exceptions.ClientError as error:
                _explain(error)
                raise
            with path.open("wb") as file:
                for block in _blocks(answer["Body"]):
                    check()
                    _write(file, block)
                    digest.update(block)
                    md5.update(block)
                    size += len(block)
        told = base64.b64encode(digest.digest()).decode()
        wrong = (
            size != info.size
            or (info.checksum_sha256 is not None and info.checksum_sha256 != told)
            or (info.sha256 is not None and info.sha256 != digest.hexdigest())
            or (info.plain_md5 and info.etag != md5.hexdigest())
        )
        if wrong:
            raise RetryableError(
                Code.STORAGE,
                f"What was read ({size} bytes) is not what was stored ({info.size} bytes, by its checksums).",
            )
        return digest.hexdigest()

    def upload(
        self,
        path: Path,
        bucket: str,
        key: str,
        *,
        metadata: Mapping[str, str] | None = None,
        replace: str | None = None,
        check: Check = never,
    ) -> bool:
        """Put a file only if ``key`` is absent (or still holds the ETag ``replace``); tell whether it did."""
        meta = {**(metadata or {}), SHA256: file_sha256(path, check)}
        condition: _Condition = {"IfMatch": f'"{replace}"'} if replace else {"IfNoneMatch": "*"}
        place: _Place = {"Bucket": bucket, "Key": key}
        with aws.translated("Writing to the object store"):
            try:
                if path.stat().st_size <= self._part_bytes:
                    self._s3.put_object(
                        **place,
                        Body=path.read_bytes(),
                        Metadata=meta,
                        ChecksumAlgorithm="SHA256",
                        **condition,
                    )
                else:
                    self._multipart(path, place, meta, condition, check)
            except self._s3.exceptions.ClientError as error:
                if _lost_race(error):
                    return False
                raise
        return True

    def _multipart(
        self, path: Path, place: _Place, meta: dict[str, str], condition: _Condition, check: Check
    ) -> None:
        upload = self._s3.create_multipart_upload(**place, Metadata=meta, ChecksumAlgorithm="SHA256")[
            "UploadId"
        ]

        def put(number: int) -> CompletedPartTypeDef:
            check()
            with path.open("rb") as file:
                file.seek((number - 1) * self._part_bytes)
                part = file.read(self._part_bytes)
            done = self._s3.upload_part(
                **place, UploadId=upload, PartNumber=number, Body=part, ChecksumAlgorithm="SHA256"
            )
            made: CompletedPartTypeDef = {"ETag": done["ETag"], "PartNumber": number}
            if done.get("ChecksumSHA256"):
                made["ChecksumSHA256"] = done["ChecksumSHA256"]
            return made

        count = -(-path.stat().st_size // self._part_bytes)
        try:
            with ThreadPoolExecutor(4) as pool:
                parts = list(pool.map(put, range(1, count + 1)))
            self._s3.complete_multipart_upload(
                **place, UploadId=upload, MultipartUpload={"Parts": parts}, **condition
            )
        except BaseException:
            # Parts of an upload that is never ended cost money; the bucket's lifecycle is the second net.
            with contextlib.suppress(self._s3.exceptions.ClientError):
                self._s3.abort_multipart_upload(**place, UploadId=upload)
            raise

    def put_if_absent(self, bucket: str, key: str, body: bytes) -> bool:
        """Put a small object only if ``key`` is absent; tell whether it did."""
        with aws.translated("Writing to the object store"):
            try:
                self._s3.put_object(
                    Bucket=bucket, Key=key, Body=body, IfNoneMatch="*", ChecksumAlgorithm="SHA256"
                )
            except self._s3.exceptions.ClientError as error:
                if _lost_race(error):
                    return False
                raise
        return True

    def read(self, bucket: str, key: str) -> bytes | None:
        """Return a small object, ``None`` when there is none."""
        with aws.translated("Reading from the object store"):
            try:
                body: bytes = self._s3.get_object(Bucket=bucket, Key=key, ChecksumMode="ENABLED")[
                    "Body"
                ].read()
            except self._s3.exceptions.ClientError as error:
                if aws.is_absent(error):
                    return None
                raise
        return body

    def copy(self, source: tuple[str, str, str | None], bucket: str, key: str) -> None:
        """Copy on the store's side, in parts where it is large (boto3's transfer manager)."""
        origin: CopySourceTypeDef = {"Bucket": source[0], "Key": source[1]}
        if source[2]:
            origin["VersionId"] = source[2]
        with aws.translated("Copying in the object store"):
            try:
                self._s3.copy(
                    origin,
                    bucket,
                    key,
                    ExtraArgs={"ChecksumAlgorithm": "SHA256"},
                )
            except self._s3.exceptions.ClientError as error:
                _explain(error)
                raise

    def tag_ended(self, bucket: str, key: str, version: str | None) -> None:
        """Set :data:`~mrirecon.contract.keys.DONE_TAG`, so that the lifecycle may archive the object."""
        with aws.translated("Tagging in the object store"):
            try:
                self._s3.put_object_tagging(
                    Bucket=bucket,
                    Key=key,
                    **_versioned(version),
                    Tagging={"TagSet": [{"Key": DONE_TAG[0], "Value": DONE_TAG[1]}]},
                )
            except self._s3.exceptions.ClientError as error:
                if not aws.is_absent(error):
                    raise


def _versioned(version: str | None) -> _Version:
    return {"VersionId": version} if version else {}


def _blocks(body: StreamingBody) -> Iterator[bytes]:
    while block := body.read(_BLOCK):
        yield block


def _write(file: IO[bytes], block: bytes) -> None:
    try:
        file.write(block)
    except OSError as error:
        raise ours(error) from error


def _lost_race(error: BaseException) -> bool:
    # 409: another conditional write of the same key is under way; it decides, and we look again later.
    return aws.status(error) in {409, 412} or aws.error_code(error) == "PreconditionFailed"


def _archived() -> RetryableError:
    return RetryableError(
        Code.STORAGE,
        "The archive lies in deep archive storage and cannot be read: restore the object, then redrive "
        "the scan.",
    )


def _explain(error: BaseException) -> None:
    if aws.error_code(error) == "InvalidObjectState":
        raise _archived() from None
    if aws.status(error) == 412:
        raise ReplacedError from None
    if aws.is_absent(error):
        raise PermanentError(
            Code.GONE, "The archive was removed before it was read: drop it on the share again."
        ) from None
