"""The steps of a file gateway's life: activate, join a domain, set the guests' password, look, remove.

Each step first looks whether it has been done, so that any of them may be repeated after a failure: a machine
gives its activation key once. No gateway is removed while its cache holds files that are not in S3 yet.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from ...aws import client as aws
from ...contract.activation import NotReadyError, activation_key

T = TypeVar("T")
POLL_SECONDS = 10.0
_GONE = ("GatewayNotFound", "InvalidGateway")
_JOIN_FAULTS = {
    "ACCESS_DENIED": "the domain refused the user or the password of the secret",
    "NETWORK_ERROR": "no domain controller was reached: look at routes, DNS and security groups",
    "TIMEOUT": "the domain controllers did not answer in time",
    "UNKNOWN_ERROR": "the gateway gave no reason",
}


class GatewayError(RuntimeError):
    """A step was not done. The sentence says why, and what to do."""


@dataclass(frozen=True)
class Found:
    """What there is to know of a gateway.

    Attributes
    ----------
    dirty_percent
        Share of the cache that is not in S3 yet, 0 to 100; nothing when the gateway does not say.
    """

    arn: str
    name: str
    state: str
    directory: str
    dirty_percent: float | None


class GatewaySteps:
    """The steps, over clients of Storage Gateway, Secrets Manager and Lambda.

    Parameters
    ----------
    timeout
        Seconds after which a step stops waiting for the machine or the service.
    """

    def __init__(
        self,
        gateways: Any,
        secrets: Any,
        functions: Any,
        *,
        timeout: float = 900,
        sleep: Callable[[float], None] = time.sleep,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._gateways, self._secrets, self._functions = gateways, secrets, functions
        self._timeout, self._sleep, self._now = timeout, sleep, now

    def activate(self, name: str, region: str, ask: Callable[[], str], *, timezone: str = "GMT") -> str:
        """Return the ARN of the gateway ``name``, activated with the key that ``ask`` gets if there is none.

        Raises
        ------
        GatewayError
            When the machine gives no key in time, or two gateways have that name.
        """
        arns = list(self._named(name))
        if len(arns) > 1:
            raise GatewayError(
                f"There are {len(arns)} gateways named {name}: expected one. Remove the others."
            )
        if arns:
            return arns[0]
        key = self._until(ask, "its activation key")
        told = self._gateways.activate_gateway(
            ActivationKey=key,
            GatewayName=name,
            GatewayTimezone=timezone,
            GatewayRegion=region,
            GatewayType="FILE_S3",
        )
        return str(told["GatewayARN"])

    def key_of_machine(self, address: str, region: str, endpoint: str = "") -> Callable[[], str]:
        """Return what asks the machine at ``address`` for its key."""
        return lambda: activation_key(address, region, endpoint=endpoint)

    def key_of_function(self, name: str) -> Callable[[], str]:
        """Return what asks the stack's Lambda, which alone reaches an appliance in the VPC."""

        def ask() -> str:
            told = self._functions.invoke(FunctionName=name)
            answer = json.loads(told["Payload"].read())
            if told.get("FunctionError") or not isinstance(answer, dict) or "key" not in answer:
                reason = answer.get("errorMessage", "") if isinstance(answer, dict) else ""
                raise GatewayError(f"The function {name} got no key from the machine: {reason}")
            return str(answer["key"])

        return ask

    def add_cache(self, arn: str, device: str = "/dev/sdb") -> None:
        """Give the cache disk to the gateway as soon as it shows, unless it has one.

        Raises
        ------
        GatewayError
            When no free disk shows in time, or several do and none is ``device``.
        """

        def done() -> bool:
            disks = self._gateways.list_local_disks(GatewayARN=arn)["Disks"]
            if any(disk.get("DiskAllocationType") == "CACHE STORAGE" for disk in disks):
                return True
            disk = choose_disk(disks, device)
            if disk is None:
                raise NotReadyError("it shows no free disk that could be its cache.")
            self._gateways.add_cache(GatewayARN=arn, DiskIds=[disk["DiskId"]])
            return True

        self._until(done, "a free disk")

    def join(self, arn: str, domain: str, secret_arn: str, *, controllers: tuple[str, ...] = ()) -> None:
        """Join the gateway to the Active Directory ``domain``, unless it is in it.

        The secret holds JSON with ``username`` and ``password`` of a user that may join machines.

        Raises
        ------
        GatewayError
            When the domain refuses or is not reached.
        """
        told = self._gateways.describe_smb_settings(GatewayARN=arn)
        if (
            told.get("ActiveDirectoryStatus") == "JOINED"
            and str(told.get("DomainName")).lower() == domain.lower()
        ):
            return
        user = json.loads(self._secret(secret_arn))
        if not isinstance(user, dict) or not {"username", "password"} <= set(user):
            raise GatewayError("The secret must hold JSON with username and password.")
        more = {"DomainControllers": list(controllers)} if controllers else {}
        self._gateways.join_domain(
            GatewayARN=arn,
            DomainName=domain,
            UserName=str(user["username"]),
            Password=str(user["password"]),
            **more,
        )

        def joined() -> bool:
            status = self._gateways.describe_smb_settings(GatewayARN=arn).get("ActiveDirectoryStatus", "")
            if status in _JOIN_FAULTS:
                raise GatewayError(f"The gateway did not join {domain}: {_JOIN_FAULTS[status]}.")
            if status != "JOINED":
                raise NotReadyError(f"its directory status is {status or 'unknown'}.")
            return True

        self._until(joined, "the domain")

    def set_guest_password(self, arn: str, secret_arn: str) -> None:
        """Set the password of the SMB guest to the text of the secret."""
        self._gateways.set_smb_guest_password(GatewayARN=arn, Password=self._secret(secret_arn))

    def look(self, arn: str) -> Found:
        """Return what the gateway is and how much of its cache is not in S3 yet.

        Raises
        ------
        GatewayError
            When there is no such gateway.
        """
        try:
            told = self._gateways.describe_gateway_information(GatewayARN=arn)
        except Exception as error:
            if _code(error) in _GONE:
                raise GatewayError(f"There is no gateway {arn} in this account and region.") from None
            raise
        return Found(
            arn,
            str(told.get("GatewayName", "")),
            str(told.get("GatewayState", "")),
            self._directory(arn),
            self._dirty(arn),
        )

    def remove(self, arn: str) -> None:
        """Delete the gateway, unless its cache holds files that are not in S3 yet.

        The machine stays as it is. A gateway that is gone counts as deleted.

        Raises
        ------
        GatewayError
            While data await upload, when the gateway cannot say whether they do, or while it has shares.
        """
        try:
            shares = self._gateways.list_file_shares(GatewayARN=arn).get("FileShareInfoList", [])
        except Exception as error:
            if _code(error) in _GONE:
                return
            raise
        if shares:
            raise GatewayError(
                f"The gateway has {len(shares)} share(s): no scanner may write any more. Remove the stack "
                "FileShare first."
            )
        dirty = self._dirty(arn)
        if dirty is None:
            raise GatewayError(
                "The gateway does not say how much of its cache is not in S3 yet: it is kept. Start its "
                "machine, and see that it reaches AWS."
            )
        if dirty > 0:
            raise GatewayError(
                f"{dirty:g} % of the gateway's cache is not in S3 yet: it is kept. Wait until "
                "`mrirecon gateway status` says 0."
            )
        self._gateways.delete_gateway(GatewayARN=arn)

    def _dirty(self, arn: str) -> float | None:
        try:
            told = self._gateways.describe_cache(GatewayARN=arn)
        except Exception as error:
            if _code(error) in ("GatewayNotConnected", "InvalidGatewayRequestException", "GatewayOffline"):
                return None
            raise
        found = told.get("CacheDirtyPercentage")
        return None if found is None else float(found)

    def _directory(self, arn: str) -> str:
        try:
            told = self._gateways.describe_smb_settings(GatewayARN=arn)
        except Exception as error:
            if _code(error) in ("GatewayNotConnected", "InvalidGatewayRequestException", "GatewayOffline"):
                return ""
            raise
        return str(told.get("DomainName") or "") if told.get("ActiveDirectoryStatus") == "JOINED" else ""

    def _secret(self, arn: str) -> str:
        return str(self._secrets.get_secret_value(SecretId=arn)["SecretString"])

    def _named(self, name: str) -> Iterator[str]:
        page: dict[str, str] = {}
        while True:
            told = self._gateways.list_gateways(**page)
            for gateway in told["Gateways"]:
                if gateway.get("GatewayName") == name:
                    yield str(gateway["GatewayARN"])
            if not told.get("Marker"):
                return
            page = {"Marker": told["Marker"]}

    def _until(self, step: Callable[[], T], what: str) -> T:
        """Repeat ``step`` while the machine is not ready for it."""
        end = self._now() + self._timeout
        while True:
            try:
                return step()
            except NotReadyError as error:
                reason = str(error)
            except Exception as error:
                if _code(error) != "GatewayNotConnected":
                    raise
                reason = "Storage Gateway does not reach it yet."
            if self._now() + POLL_SECONDS > end:
                raise GatewayError(
                    f"The file gateway did not give {what} in time: {reason} Run the step again."
                )
            self._sleep(POLL_SECONDS)


@contextmanager
def connected() -> Iterator[GatewaySteps]:
    """Give the steps over clients of this computer's account and region; AWS's errors become ours."""
    with aws.translated("Storage Gateway"):
        yield GatewaySteps(
            aws.client("storagegateway"),
            aws.client("secretsmanager"),
            # The function waits for the machine up to Lambda's quarter of an hour.
            aws.client("lambda", read_timeout=900.0),
        )


def choose_disk(disks: list[dict[str, Any]], device: str) -> dict[str, Any] | None:
    """Return the free disk at ``device``, or the only free one: machines rename their devices."""
    free = [disk for disk in disks if disk.get("DiskAllocationType", "AVAILABLE") == "AVAILABLE"]
    named = [disk for disk in free if device in (disk.get("DiskPath"), disk.get("DiskNode"))]
    if named:
        return named[0]
    return free[0] if len(free) == 1 else None


def _code(error: Exception) -> str:
    """Return the service's own code inside the exception where it gives one."""
    answer = getattr(error, "response", None)
    if not isinstance(answer, dict):
        return ""
    inner = answer.get("error") or {}
    return str(inner.get("errorCode") or answer.get("Error", {}).get("Code", ""))
