"""CloudFormation custom resource ``Custom::FileGateway``: what CloudFormation itself cannot do for a gateway.

Create and update: ask the machine for its key, activate it, wait for its cache disk, add the cache, set the
SMB guests' password if there are guests. Each step first looks whether it has been done, so that the whole
may run again after any failure. Delete: delete the gateway, and be content when it is gone already.

Works behind the CDK provider framework as its ``on_event`` handler. The machine takes minutes to boot, so the
function waits within its own time (14 minutes of Lambda's 15).

Properties: ``Address`` (of the machine), ``GatewayName``, ``Region``, and optionally ``Timezone`` (``GMT``),
``CacheDevice`` (``/dev/sdb``), ``SmbGuestSecretArn``. Attributes: ``GatewayARN``, ``GatewayId``.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from appliance import NotReadyError, activation_key
from aws_lambda_powertools import Logger
from botocore.exceptions import ClientError

from mrirecon.aws import client as aws

if TYPE_CHECKING:
    from mypy_boto3_secretsmanager import SecretsManagerClient
    from mypy_boto3_storagegateway import StorageGatewayClient
    from mypy_boto3_storagegateway.type_defs import DiskTypeDef, ListGatewaysInputTypeDef

logger = Logger(service="activate_gateway")
POLL_SECONDS = 10.0
MARGIN_SECONDS = 30.0
"""Left of the function's time to answer with a sentence instead of being cut off."""
GONE = ("GatewayNotFound", "InvalidGateway")


class ActivationError(RuntimeError):
    """The gateway could not be made. The sentence reaches whoever deploys, through CloudFormation."""


@dataclass(frozen=True)
class Wanted:
    """The gateway that is wanted."""

    address: str
    name: str
    region: str
    timezone: str = "GMT"
    cache_device: str = "/dev/sdb"
    guest_secret: str | None = None

    @classmethod
    def from_properties(cls, properties: Mapping[str, Any]) -> Self:
        """Read the resource's properties.

        Raises
        ------
        ActivationError
            Naming the property that is missing.
        """
        for name in ("Address", "GatewayName", "Region"):
            if not properties.get(name):
                raise ActivationError(f"Custom::FileGateway: the property {name} is missing.")
        return cls(
            address=str(properties["Address"]),
            name=str(properties["GatewayName"]),
            region=str(properties["Region"]),
            timezone=str(properties.get("Timezone") or "GMT"),
            cache_device=str(properties.get("CacheDevice") or "/dev/sdb"),
            guest_secret=properties.get("SmbGuestSecretArn") or None,
        )


@dataclass(frozen=True)
class Clock:
    """Time, and how much of it is left."""

    left: Callable[[], float]
    sleep: Callable[[float], None] = time.sleep

    def wait(self, what: str) -> None:
        """Wait a while.

        Raises
        ------
        ActivationError
            When no time is left; the sentence says for ``what`` was waited.
        """
        if self.left() < POLL_SECONDS + MARGIN_SECONDS:
            raise ActivationError(f"The file gateway was not ready in time: {what}")
        self.sleep(POLL_SECONDS)


@functools.cache
def clients() -> tuple[StorageGatewayClient, SecretsManagerClient]:
    """Return clients of Storage Gateway and Secrets Manager."""
    return aws.client("storagegateway", read_timeout=30), aws.client("secretsmanager", read_timeout=30)


@logger.inject_lambda_context
def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Answer the provider framework."""
    return run(event, *clients(), Clock(lambda: context.get_remaining_time_in_millis() / 1000))


def run(
    event: Mapping[str, Any], gateways: StorageGatewayClient, secrets: SecretsManagerClient, clock: Clock
) -> dict[str, Any]:
    """Create, update or delete the gateway that the event is about."""
    request = event["RequestType"]
    if request == "Delete":
        given = str(event["PhysicalResourceId"])
        arn: str | None = given
        if not given.startswith("arn:"):
            # Its creation failed, perhaps after the activation: what was activated must not stay behind.
            arn = find(gateways, Wanted.from_properties(event["ResourceProperties"]))
        if arn is not None:
            delete(gateways, arn)
        return {"PhysicalResourceId": given}
    wanted = Wanted.from_properties(event["ResourceProperties"])
    before = event.get("OldResourceProperties", {}) if request == "Update" else {}
    known = str(event["PhysicalResourceId"]) if before.get("Address") == wanted.address else None
    arn = known or find(gateways, wanted) or activate(gateways, wanted, clock)
    add_cache(gateways, arn, wanted, clock)
    if wanted.guest_secret:
        password = secrets.get_secret_value(SecretId=wanted.guest_secret)["SecretString"]
        gateways.set_smb_guest_password(GatewayARN=arn, Password=password)
    if known and before.get("GatewayName") != wanted.name:
        gateways.update_gateway_information(GatewayARN=arn, GatewayName=wanted.name)
    logger.info("gateway is ready", request=request)
    return {"PhysicalResourceId": arn, "Data": {"GatewayARN": arn, "GatewayId": arn.rsplit("/", 1)[1]}}


def find(gateways: StorageGatewayClient, wanted: Wanted) -> str | None:
    """Return the gateway that an earlier try activated from this very machine, if any.

    A machine that was activated gives no key again. Name and address must both fit: a gateway of the same
    name on another machine is the one that this is to replace, and CloudFormation deletes it afterwards.
    """
    for arn in _named(gateways, wanted.name):
        told = gateways.describe_gateway_information(GatewayARN=arn)
        addresses = {one.get("Ipv4Address") for one in told.get("GatewayNetworkInterfaces", [])}
        if wanted.address.partition(":")[0] in addresses:
            return arn
    return None


def activate(gateways: StorageGatewayClient, wanted: Wanted, clock: Clock) -> str:
    """Get the key from the machine as soon as it gives one, and activate with it."""
    while True:
        try:
            key = activation_key(wanted.address, wanted.region)
        except NotReadyError as error:
            clock.wait(str(error))
            continue
        told = gateways.activate_gateway(
            ActivationKey=key,
            GatewayName=wanted.name,
            GatewayTimezone=wanted.timezone,
            GatewayRegion=wanted.region,
            GatewayType="FILE_S3",
        )
        return str(told["GatewayARN"])


def add_cache(gateways: StorageGatewayClient, arn: str, wanted: Wanted, clock: Clock) -> None:
    """Give the cache disk to the gateway as soon as it shows, unless it has it."""
    while True:
        try:
            disks = gateways.list_local_disks(GatewayARN=arn)["Disks"]
        except ClientError as error:
            if _code(error) not in ("GatewayNotConnected", "InvalidGatewayRequestException"):
                raise
            clock.wait(f"Storage Gateway does not reach it yet ({_code(error)}).")
            continue
        if any(disk.get("DiskAllocationType") == "CACHE STORAGE" for disk in disks):
            return
        disk = _choose(disks, wanted.cache_device)
        if disk is not None:
            gateways.add_cache(GatewayARN=arn, DiskIds=[disk["DiskId"]])
            return
        clock.wait("it shows no free disk for its cache.")


def delete(gateways: StorageGatewayClient, arn: str) -> None:
    """Delete the gateway; one that is gone is deleted."""
    try:
        gateways.delete_gateway(GatewayARN=arn)
    except ClientError as error:
        if _code(error) not in GONE:
            raise
        logger.info("gateway was gone already")


def _choose(disks: Sequence[DiskTypeDef], device: str) -> DiskTypeDef | None:
    """Return the free disk at ``device``, or the only free one: machines rename their devices."""
    free = [disk for disk in disks if disk.get("DiskAllocationType", "AVAILABLE") == "AVAILABLE"]
    named = [disk for disk in free if device in (disk.get("DiskPath"), disk.get("DiskNode"))]
    if named:
        return named[0]
    return free[0] if len(free) == 1 else None


def _named(gateways: StorageGatewayClient, name: str) -> Iterator[str]:
    request: ListGatewaysInputTypeDef = {}
    while True:
        page = gateways.list_gateways(**request)
        for gateway in page["Gateways"]:
            if gateway.get("GatewayName") == name:
                yield gateway["GatewayARN"]
        if not page.get("Marker"):
            return
        request = {"Marker": page["Marker"]}


def _code(error: ClientError) -> str:
    """Return the service's own code inside the exception where it gives one."""
    inner: Any = error.response.get("error") or {}
    return str(inner.get("errorCode") or aws.error_code(error))
