"""boto3 clients with sane time-outs, and the translation of their errors into ours."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..contract.codes import Code, MrireconError, RetryableError
from .clock import ServerClock

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


def client(service: str, clock: ServerClock | None = None, *, read_timeout: float = 60.0) -> Any:
    """Return a client; region, credentials and emulator endpoints come by boto3's own environment names.

    ``clock`` hears the ``Date`` of every answer.
    """
    from botocore.config import Config

    made = _session().client(
        service,
        config=Config(
            connect_timeout=5,
            read_timeout=read_timeout,
            tcp_keepalive=True,
            max_pool_connections=16,
            retries={"mode": "standard", "total_max_attempts": 5},
        ),
    )
    if clock is not None:
        _listen(made, clock)
    return made


@functools.cache
def _session() -> Any:
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
