"""The start-up probe: can this worker reach and use everything its settings name?

Each call is one the worker needs anyway, so a worker that may do its work passes.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import urlparse

from ...aws import client as aws
from ...aws.queue import SqsQueue
from ...contract.codes import MrireconError
from ...contract.states import PK, SK
from .settings import SettingsError

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_sqs import SQSClient


def probe(
    s3: S3Client,
    sqs: SQSClient,
    db: DynamoDBClient,
    *,
    buckets: dict[str, str],
    queues: dict[str, str],
    table: tuple[str, str],
    lanes: list[SqsQueue],
) -> None:
    """Ask every bucket, queue and the table once. ``buckets`` … map the variable's name to its value.

    Raises
    ------
    SettingsError
        With a sentence for each that does not answer as it should.
    """
    faults: list[str] = []

    def ask(name: str, what: str, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except MrireconError as error:
            faults.append(f"{name}: {error.message}")
        except Exception as error:
            faults.append(f"{name}: {_reason(error, what)}")
        return None

    for name, bucket in buckets.items():
        told = ask(name, "bucket", partial(s3.head_bucket, Bucket=bucket))
        region = (told or {}).get("BucketRegion")
        if region and region != s3.meta.region_name:
            faults.append(f"{name}: the bucket is in {region}, this worker runs in {s3.meta.region_name}.")
    for name, url in queues.items():
        wrong = _queue_region(url, sqs.meta.region_name)
        if wrong:
            faults.append(f"{name}: {wrong}")
            continue
        ask(name, "queue", partial(sqs.get_queue_attributes, QueueUrl=url, AttributeNames=["QueueArn"]))
    key = {PK: {"S": "probe"}, SK: {"S": "probe"}}
    ask(table[0], "table", lambda: db.get_item(TableName=table[1], Key=key))
    if not faults:
        for lane in lanes:
            ask(lane.name, "queue", lane.load_policy)
    if faults:
        raise SettingsError(faults)


def require_region() -> None:
    """End with a sentence when no region is known: every client would fail in its own words."""
    import boto3

    if not boto3.session.Session().region_name:
        raise SettingsError(
            ["AWS_REGION is not set; the worker cannot tell where its buckets and queues are."]
        )


def _queue_region(url: str, region: str) -> str:
    host = urlparse(url).hostname or ""
    parts = host.split(".")
    if not url.startswith(("http://", "https://")) or not host:
        return "that is no queue URL; it begins with https://."
    if parts[0] == "sqs" and len(parts) > 2 and "amazonaws" in parts and parts[1] != region:
        return f"the queue is in {parts[1]}, this worker runs in {region}."
    return ""


def _reason(error: Exception, what: str) -> str:
    kind = type(error).__name__
    if aws.is_denied(error):
        return f"this worker's role may not use the {what}; grant it the permission."
    if aws.is_absent(error):
        return f"there is no such {what} in this account and region."
    if aws.status(error) in {301, 307, 400} and what == "bucket":
        return "the bucket does not answer in this region; check AWS_REGION."
    if kind in {
        "EndpointConnectionError",
        "ConnectTimeoutError",
        "ConnectionClosedError",
        "ReadTimeoutError",
        "ProxyConnectionError",
        "SSLError",
        "HTTPClientError",
    }:
        custom = any(name.startswith("AWS_ENDPOINT_URL") for name in os.environ)
        hint = "check AWS_ENDPOINT_URL" if custom else "check the network, its endpoints and security groups"
        return f"the {what}'s service cannot be reached; {hint}."
    if kind in {"NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError"}:
        return "there are no AWS credentials; give this worker a role."
    return f"the {what} did not answer as it should ({aws.error_code(error) or kind})."
