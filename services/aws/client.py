"""boto3 clients with sane time-outs, and the translation of their errors into ours."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, TypedDict, Unpack, overload

from ..contract.codes import Code, MrireconError, RetryableError
from .clock import ServerClock

if TYPE_CHECKING:
    from boto3.session import Session
    from mypy_boto3_batch import BatchClient
    from mypy_boto3_cloudwatch import CloudWatchClient
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_ecs import ECSClient
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_secretsmanager import SecretsManagerClient
    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_storagegateway import StorageGatewayClient

_DENIED = frozenset(
    {
        "AccessDenied",
        "AccessDeniedException",
        "403",
        "AllAccessDisabled",
        "InvalidAccessKeyId",
        "UnrecognizedClientException",
        "SignatureDoesNotMatch",
        "ExpiredToken",
    }
)


class Times(TypedDict, total=False):
    """How patient a client is."""

    connect_timeout: float
    """Seconds."""
    read_timeout: float
    """Seconds."""
    attempts: int
    """Calls in all, the first one included, before an error that may pass is raised."""


@overload
def client(service: Literal["s3"], clock: ServerClock | None = None, **times: Unpack[Times]) -> S3Client: ...
@overload
def client(
    service: Literal["sqs"], clock: ServerClock | None = None, **times: Unpack[Times]
) -> SQSClient: ...
@overload
def client(
    service: Literal["dynamodb"], clock: ServerClock | None = None, **times: Unpack[Times]
) -> DynamoDBClient: ...
@overload
def client(
    service: Literal["ecs"], clock: ServerClock | None = None, **times: Unpack[Times]
) -> ECSClient: ...
@overload
def client(
    service: Literal["batch"], clock: ServerClock | None = None, **times: Unpack[Times]
) -> BatchClient: ...
@overload
def client(
    service: Literal["cloudwatch"], clock: ServerClock | None = None, **times: Unpack[Times]
) -> CloudWatchClient: ...
@overload
def client(
    service: Literal["storagegateway"], clock: ServerClock | None = None, **times: Unpack[Times]
) -> StorageGatewayClient: ...
@overload
def client(
    service: Literal["secretsmanager"], clock: ServerClock | None = None, **times: Unpack[Times]
) -> SecretsManagerClient: ...
@overload
def client(service: Literal["lambda"], clock: ServerClock | None = None, **times: Unpack[Times]) -> Any: ...
def client(service: Any, clock: ServerClock | None = None, **times: Unpack[Times]) -> Any:
    """Return a client; region, credentials and emulator endpoints come by boto3's own environment names.

    Parameters
    ----------
    service
        Name of the service.
    clock
        Hears the ``Date`` of every answer.
    times
        See :class:`Times`; 5 s to connect, 60 s to answer and 5 attempts unless given.
    """
    from botocore.config import Config

    made = _session().client(
        service,
        config=Config(
            connect_timeout=times.get("connect_timeout", 5.0),
            read_timeout=times.get("read_timeout", 60.0),
            tcp_keepalive=True,
            max_pool_connections=16,
            retries={"mode": "standard", "total_max_attempts": times.get("attempts", 5)},
        ),
    )
    if clock is not None:
        _listen(made, clock)
    return made


@functools.cache
def _session() -> Session:
    # One for all clients: a session reads its service descriptions and finds its credentials once.
    import boto3

    return boto3.session.Session()


def _listen(made: Any, clock: ServerClock) -> None:
    def hear(parsed: dict[str, Any], **_: Any) -> None:
        headers = parsed.get("ResponseMetadata", {}).get("HTTPHeaders", {})
        clock.hear(headers.get("date"))

    made.meta.events.register("after-call", hear)


def error_code(error: BaseException) -> str:
    """Return AWS's code of a client error (``NoSuchKey``, ``412`` …), empty when it is none."""
    response = getattr(error, "response", None)
    if not isinstance(response, dict):
        return ""
    return str(response.get("Error", {}).get("Code", ""))


def status(error: BaseException) -> int:
    """Return the HTTP status of a client error, 0 when it is none."""
    response = getattr(error, "response", None)
    if not isinstance(response, dict):
        return 0
    return int(response.get("ResponseMetadata", {}).get("HTTPStatusCode") or 0)


def is_denied(error: BaseException) -> bool:
    """Whether AWS refused for want of a permission."""
    return error_code(error) in _DENIED or status(error) == 403


def is_absent(error: BaseException) -> bool:
    """Whether the object, version, queue or table does not exist."""
    return status(error) == 404 or error_code(error) in {
        "NoSuchKey",
        "NoSuchVersion",
        "404",
        "ResourceNotFoundException",
        "QueueDoesNotExist",
        "AWS.SimpleQueueService.NonExistentQueue",
        "NoSuchBucket",
    }


@contextmanager
def translated(what: str) -> Iterator[None]:
    """Raise what boto3 raises inside as a :class:`RetryableError` that says which service failed, not more.

    boto3's own text may hold an object key, so it is dropped; its code is kept.
    """
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import (
        BotoCoreError,
        ClientError,
        FlexibleChecksumError,
        HTTPClientError,
        IncompleteReadError,
        ResponseStreamingError,
    )

    try:
        yield
    except MrireconError:
        raise
    except ClientError as error:
        reason = "refused it for want of a permission" if is_denied(error) else "failed"
        code = error_code(error)
        told = f" ({code})" if code.isascii() and code.replace(".", "").isalnum() else ""
        raise RetryableError(Code.STORAGE, f"{what} {reason}{told}; it is tried again.") from None
    except (FlexibleChecksumError, IncompleteReadError, ResponseStreamingError):
        raise RetryableError(
            Code.STORAGE, f"{what}: what arrived is not what was stored, by its length or checksum."
        ) from None
    except (BotoCoreError, HTTPClientError, Boto3Error) as error:
        raise RetryableError(
            Code.STORAGE, f"{what} did not answer as it should ({type(error).__name__}); it is tried again."
        ) from None
