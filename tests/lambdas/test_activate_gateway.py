"""The gateway's custom resource: boots are waited for, every step may be done again, nothing stays behind."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from tests.lambdas.lambda_kit import REGION, load, session

KEY = "29AV1-3OFV9-VVIUB-NKT0I-LRO6V"
ADDRESS = "127.0.0.1"
PREFIX = f"arn:aws:storagegateway:{REGION}:123456789012:gateway/"


class Server:
    """A loopback server whose answers a test's function gives."""

    def __init__(self) -> None:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def _answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                status, headers, payload = outer.answer(self.path, self.headers, body)
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(payload)))
                self.end_headers()
                self.wfile.write(payload)

            do_GET = do_POST = _answer

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]
        Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def answer(self, path: str, headers: Any, body: bytes) -> tuple[int, dict[str, str], bytes]:
        raise NotImplementedError

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


class Machine(Server):
    """A gateway's machine: silent while it boots, then it gives its key until it has been activated."""

    def __init__(self) -> None:
        self.boots_for = 0
        self.style = "bare"
        self.activated = False
        self.asked: list[str] = []
        super().__init__()

    def answer(self, path: str, headers: Any, body: bytes) -> tuple[int, dict[str, str], bytes]:
        query = parse_qs(urlsplit(path).query, keep_blank_values=True)
        self.asked.append(query["activationRegion"][0])
        assert "no_redirect" in query
        if self.boots_for > 0:
            self.boots_for -= 1
            return 503, {}, b"booting"
        if self.activated:
            return 200, {}, b"<html>nothing here</html>"
        if self.style == "redirect":
            return 302, {"Location": f"https://console.invalid/?a=b&activationKey={KEY}"}, b""
        return 200, {}, KEY.encode() + b"\n"


class StorageGateway(Server):
    """The service: gateways by ARN, disks that show after a while, errors on demand."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.gateways: dict[str, dict[str, Any]] = {}
        self.calls: list[str] = []
        self.errors: dict[str, list[str]] = {}
        self.disks_after = 0
        self.disks = [{"DiskId": "d0", "DiskPath": "/dev/sdb", "DiskAllocationType": "AVAILABLE"}]
        self.passwords: list[str] = []
        super().__init__()

    def answer(self, path: str, headers: Any, body: bytes) -> tuple[int, dict[str, str], bytes]:
        operation = headers["X-Amz-Target"].split(".")[1]
        self.calls.append(operation)
        told = json.loads(body)
        if self.errors.get(operation):
            return self._error(self.errors[operation].pop(0))
        answer = getattr(self, f"on_{operation}")(told)
        return self._error(answer) if isinstance(answer, str) else (200, {}, json.dumps(answer).encode())

    def _error(self, code: str) -> tuple[int, dict[str, str], bytes]:
        told = {"__type": "InvalidGatewayRequestException", "message": "m", "error": {"errorCode": code}}
        return 400, {"Content-Type": "application/x-amz-json-1.1"}, json.dumps(told).encode()

    def on_ActivateGateway(self, told: dict[str, Any]) -> Any:
        if told["ActivationKey"] != KEY or self.machine.activated:
            return "ActivationKeyInvalid"
        assert told["GatewayType"] == "FILE_S3"
        assert told["GatewayRegion"] == REGION
        self.machine.activated = True
        arn = f"{PREFIX}sgw-{len(self.gateways):08d}"
        self.gateways[arn] = {"name": told["GatewayName"], "address": ADDRESS, "cache": False}
        return {"GatewayARN": arn}

    def on_ListGateways(self, told: dict[str, Any]) -> Any:
        arns = sorted(self.gateways)
        begin = int(told.get("Marker", 0))
        page = arns[begin : begin + 1]
        more = {"Marker": str(begin + 1)} if begin + 1 < len(arns) else {}
        return {
            "Gateways": [{"GatewayARN": a, "GatewayName": self.gateways[a]["name"]} for a in page],
            **more,
        }

    def on_DescribeGatewayInformation(self, told: dict[str, Any]) -> Any:
        known = self.gateways[told["GatewayARN"]]
        return {
            "GatewayARN": told["GatewayARN"],
            "GatewayNetworkInterfaces": [{"Ipv4Address": known["address"]}],
        }

    def on_ListLocalDisks(self, told: dict[str, Any]) -> Any:
        if self.disks_after > 0:
            self.disks_after -= 1
            return {"GatewayARN": told["GatewayARN"], "Disks": []}
        return {"GatewayARN": told["GatewayARN"], "Disks": self.disks}

    def on_AddCache(self, told: dict[str, Any]) -> Any:
        (disk,) = [disk for disk in self.disks if disk["DiskId"] in told["DiskIds"]]
        if disk["DiskAllocationType"] != "AVAILABLE":
            return "DiskAlreadyAllocated"
        disk["DiskAllocationType"] = "CACHE STORAGE"
        self.gateways[told["GatewayARN"]]["cache"] = True
        return {"GatewayARN": told["GatewayARN"]}

    def on_SetSMBGuestPassword(self, told: dict[str, Any]) -> Any:
        self.passwords.append(told["Password"])
        return {"GatewayARN": told["GatewayARN"]}

    def on_UpdateGatewayInformation(self, told: dict[str, Any]) -> Any:
        self.gateways[told["GatewayARN"]]["name"] = told["GatewayName"]
        return {"GatewayARN": told["GatewayARN"], "GatewayName": told["GatewayName"]}

    def on_DeleteGateway(self, told: dict[str, Any]) -> Any:
        if self.gateways.pop(told["GatewayARN"], None) is None:
            return "GatewayNotFound"
        return {"GatewayARN": told["GatewayARN"]}


class Secrets:
    def get_secret_value(self, **told: str) -> dict[str, str]:
        return {"SecretString": f"password of {told['SecretId']}"}


class Stand:
    def __init__(self) -> None:
        self.module = load("activate_gateway")
        self.machine = Machine()
        self.service = StorageGateway(self.machine)
        self.client = session().client(
            "storagegateway",
            endpoint_url=f"http://127.0.0.1:{self.service.port}",
            config=Config(retries={"max_attempts": 0}),
        )
        self.slept = 0.0
        self.seconds = 840.0

    def sleep(self, seconds: float) -> None:
        self.slept += seconds

    @property
    def properties(self) -> dict[str, Any]:
        return {"Address": f"{ADDRESS}:{self.machine.port}", "GatewayName": "mrirecon-test", "Region": REGION}

    def request(self, kind: str, **event: Any) -> dict[str, Any]:
        told = {"RequestType": kind, "ResourceProperties": self.properties, **event}
        clock = self.module.Clock(lambda: self.seconds - self.slept, self.sleep)
        answer: dict[str, Any] = self.module.run(told, self.client, Secrets(), clock)
        return answer


@pytest.fixture
def stand() -> Iterator[Stand]:
    made = Stand()
    yield made
    made.machine.close()
    made.service.close()


@pytest.mark.parametrize("style", ["bare", "redirect"])
def test_a_machine_that_boots_becomes_a_gateway_with_a_cache(stand: Stand, style: str) -> None:
    stand.machine.boots_for = 12
    stand.machine.style = style
    stand.service.disks_after = 3
    answer = stand.request("Create")
    arn = answer["PhysicalResourceId"]
    assert answer["Data"] == {"GatewayARN": arn, "GatewayId": arn.rsplit("/", 1)[1]}
    assert stand.service.gateways[arn] == {"name": "mrirecon-test", "address": ADDRESS, "cache": True}
    assert set(stand.machine.asked) == {REGION}
    assert stand.slept == 15 * stand.module.POLL_SECONDS


def test_a_machine_that_never_answers_ends_with_a_sentence(stand: Stand) -> None:
    stand.machine.boots_for = 10**6
    with pytest.raises(stand.module.ActivationError, match=r"was not ready in time.*answers 503"):
        stand.request("Create")
    assert stand.slept < stand.seconds
    assert stand.service.gateways == {}


def test_nothing_listening_is_a_machine_that_boots(stand: Stand) -> None:
    stand.machine.close()
    stand.seconds = 60
    with pytest.raises(stand.module.ActivationError, match="does not answer yet"):
        stand.request("Create")


def test_an_answer_that_is_no_key_activates_nothing(stand: Stand) -> None:
    stand.machine.activated = True
    stand.seconds = 60
    with pytest.raises(stand.module.ActivationError, match="no activation key"):
        stand.request("Create")
    assert "ActivateGateway" not in stand.service.calls


@pytest.mark.parametrize(
    "operation",
    [
        "ListGateways",
        "ActivateGateway",
        "ListLocalDisks",
        "AddCache",
        "SetSMBGuestPassword",
        "DescribeGatewayInformation",
    ],
)
def test_creation_that_failed_at_any_call_is_finished_by_the_next_try(stand: Stand, operation: str) -> None:
    if operation == "DescribeGatewayInformation":
        stand.service.gateways[f"{PREFIX}sgw-x"] = {
            "name": "mrirecon-test",
            "address": "10.9.9.9",
            "cache": True,
        }
    properties = {**stand.properties, "SmbGuestSecretArn": "arn:secret"}
    stand.service.errors[operation] = ["InternalError"]
    with pytest.raises(ClientError):
        stand.request("Create", ResourceProperties=properties)
    answer = stand.request("Create", ResourceProperties=properties)
    ours = [arn for arn, known in stand.service.gateways.items() if known["address"] == ADDRESS]
    assert ours == [answer["PhysicalResourceId"]]
    assert stand.service.gateways[ours[0]]["cache"]
    assert stand.service.calls.count("ActivateGateway") <= 2
    assert stand.service.passwords == ["password of arn:secret"]


def test_creation_twice_makes_one_gateway_with_one_cache(stand: Stand) -> None:
    first = stand.request("Create")
    assert stand.request("Create") == first
    assert stand.service.calls.count("ActivateGateway") == 1
    assert stand.service.calls.count("AddCache") == 1


def test_a_gateway_not_connected_yet_is_waited_for(stand: Stand) -> None:
    stand.service.errors["ListLocalDisks"] = ["GatewayNotConnected"] * 3
    stand.request("Create")
    assert stand.slept == 3 * stand.module.POLL_SECONDS


def test_a_disk_that_never_shows_ends_with_a_sentence(stand: Stand) -> None:
    stand.service.disks_after = 10**6
    with pytest.raises(stand.module.ActivationError, match="no free disk"):
        stand.request("Create")


def test_the_machines_renamed_only_disk_is_taken_but_none_is_guessed_of_two(stand: Stand) -> None:
    stand.service.disks[0]["DiskPath"] = "/dev/nvme1n1"
    assert stand.service.gateways[stand.request("Create")["PhysicalResourceId"]]["cache"]
    choose = stand.module._choose
    two = [{"DiskId": name, "DiskPath": f"/dev/{name}", "DiskAllocationType": "AVAILABLE"} for name in "ab"]
    assert choose(two, "/dev/sdb") is None
    assert choose(two, "/dev/b") is two[1]
    used = {"DiskId": "u", "DiskPath": "/dev/sdb", "DiskAllocationType": "UPLOAD BUFFER"}
    assert choose([used], "/dev/sdb") is None


def test_an_update_of_the_name_keeps_the_gateway(stand: Stand) -> None:
    arn = stand.request("Create")["PhysicalResourceId"]
    answer = stand.request(
        "Update",
        PhysicalResourceId=arn,
        OldResourceProperties=stand.properties,
        ResourceProperties={**stand.properties, "GatewayName": "new"},
    )
    assert answer["PhysicalResourceId"] == arn
    assert stand.service.gateways[arn]["name"] == "new"
    assert stand.service.calls.count("ActivateGateway") == 1


def test_an_update_to_another_machine_is_another_gateway(stand: Stand) -> None:
    arn = stand.request("Create")["PhysicalResourceId"]
    stand.service.gateways[arn]["address"] = "10.9.9.9"
    stand.machine.activated = False
    stand.service.disks = [{"DiskId": "d1", "DiskPath": "/dev/sdb", "DiskAllocationType": "AVAILABLE"}]
    old = {**stand.properties, "Address": "10.9.9.9"}
    answer = stand.request("Update", PhysicalResourceId=arn, OldResourceProperties=old)
    # CloudFormation sees another physical id and deletes the old one afterwards.
    assert answer["PhysicalResourceId"] != arn
    assert len(stand.service.gateways) == 2


def test_deletion_and_a_second_deletion(stand: Stand) -> None:
    arn = stand.request("Create")["PhysicalResourceId"]
    for _ in range(2):
        assert stand.request("Delete", PhysicalResourceId=arn) == {"PhysicalResourceId": arn}
    assert stand.service.gateways == {}


def test_a_deletion_that_fails_is_told(stand: Stand) -> None:
    arn = stand.request("Create")["PhysicalResourceId"]
    stand.service.errors["DeleteGateway"] = ["InternalError"]
    with pytest.raises(ClientError):
        stand.request("Delete", PhysicalResourceId=arn)


def test_a_rolled_back_creation_leaves_no_gateway_behind(stand: Stand) -> None:
    stand.service.disks_after = 10**6
    with pytest.raises(stand.module.ActivationError):
        stand.request("Create")
    assert len(stand.service.gateways) == 1
    marker = "AWSCDK::CustomResourceProviderFramework::CREATE_FAILED"
    stand.request("Delete", PhysicalResourceId=marker)
    assert stand.service.gateways == {}
    assert stand.request("Delete", PhysicalResourceId=marker) == {"PhysicalResourceId": marker}


@pytest.mark.parametrize("name", ["Address", "GatewayName", "Region"])
def test_a_missing_property_is_named(stand: Stand, name: str) -> None:
    properties = {key: value for key, value in stand.properties.items() if key != name}
    with pytest.raises(stand.module.ActivationError, match=name):
        stand.request("Create", ResourceProperties=properties)


def test_the_handler_answers_the_provider(
    stand: Stand, context: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_STORAGE_GATEWAY", f"http://127.0.0.1:{stand.service.port}")
    stand.module.clients.cache_clear()
    event = {"RequestType": "Create", "ResourceProperties": stand.properties}
    assert stand.module.handler(event, context)["Data"]["GatewayId"] == "sgw-00000000"
    stand.module.clients.cache_clear()
