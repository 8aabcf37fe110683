"""A file gateway's steps: boots are waited for, any step may be repeated, what awaits upload stays."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from unittest.mock import Mock
from urllib.parse import parse_qs, urlsplit

import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from mrirecon.cli.main import main
from mrirecon.cloud.operators.gateway import GatewayError, GatewaySteps, choose_disk
from mrirecon.contract import activation
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
        self.asked: list[dict[str, list[str]]] = []
        super().__init__()

    def answer(self, path: str, headers: Any, body: bytes) -> tuple[int, dict[str, str], bytes]:
        query = parse_qs(urlsplit(path).query, keep_blank_values=True)
        self.asked.append(query)
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
        self.shares: list[dict[str, str]] = []
        self.dirty: float | None = 0.0
        self.directory: dict[str, Any] = {"ActiveDirectoryStatus": "DETACHED"}
        self.joins: list[str] = []
        self.joined: list[dict[str, Any]] = []
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
        known = self.gateways.get(told["GatewayARN"])
        if known is None:
            return "GatewayNotFound"
        return {
            "GatewayARN": told["GatewayARN"],
            "GatewayName": known["name"],
            "GatewayState": "RUNNING",
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

    def on_DescribeSMBSettings(self, told: dict[str, Any]) -> Any:
        if self.joins:
            self.directory["ActiveDirectoryStatus"] = self.joins.pop(0)
        return {"GatewayARN": told["GatewayARN"], **self.directory}

    def on_JoinDomain(self, told: dict[str, Any]) -> Any:
        self.joined.append(told)
        self.directory["DomainName"] = told["DomainName"]
        return {"GatewayARN": told["GatewayARN"], "ActiveDirectoryStatus": "JOINING"}

    def on_ListFileShares(self, told: dict[str, Any]) -> Any:
        return (
            {"FileShareInfoList": self.shares} if told["GatewayARN"] in self.gateways else "GatewayNotFound"
        )

    def on_DescribeCache(self, told: dict[str, Any]) -> Any:
        return "GatewayNotConnected" if self.dirty is None else {"CacheDirtyPercentage": self.dirty}

    def on_DeleteGateway(self, told: dict[str, Any]) -> Any:
        if self.gateways.pop(told["GatewayARN"], None) is None:
            return "GatewayNotFound"
        return {"GatewayARN": told["GatewayARN"]}


class Secrets:
    def __init__(self) -> None:
        self.text = "a password"

    def get_secret_value(self, **told: str) -> dict[str, str]:
        return {"SecretString": self.text}


class Stand:
    def __init__(self) -> None:
        self.machine = Machine()
        self.service = StorageGateway(self.machine)
        self.secrets, self.functions = Secrets(), Mock()
        self.client = session().client(
            "storagegateway",
            endpoint_url=f"http://127.0.0.1:{self.service.port}",
            config=Config(retries={"max_attempts": 0}),
        )
        self.slept = 0.0
        self.timeout = 840.0

    def sleep(self, seconds: float) -> None:
        self.slept += seconds

    @property
    def steps(self) -> GatewaySteps:
        return GatewaySteps(
            self.client,
            self.secrets,
            self.functions,
            timeout=self.timeout,
            sleep=self.sleep,
            now=lambda: self.slept,
        )

    def activate(self, endpoint: str = "") -> str:
        ask = self.steps.key_of_machine(f"{ADDRESS}:{self.machine.port}", REGION, endpoint)
        arn = self.steps.activate("mrirecon-test", REGION, ask)
        self.steps.add_cache(arn)
        return arn

    def ask_by_function(self, seconds: float = 840.0) -> dict[str, str]:
        environ = {
            activation.ADDRESS: f"{ADDRESS}:{self.machine.port}",
            activation.REGION: REGION,
            activation.ENDPOINT: "vpce-1.storagegateway.example",
        }
        told: dict[str, str] = load("activate_gateway").run(environ, lambda: seconds - self.slept, self.sleep)
        return told


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
    arn = stand.activate()
    assert stand.service.gateways[arn] == {"name": "mrirecon-test", "address": ADDRESS, "cache": True}
    assert {asked["activationRegion"][0] for asked in stand.machine.asked} == {REGION}
    assert stand.slept == 15 * 10


def test_a_gateway_behind_an_endpoint_is_activated_for_that_endpoint(stand: Stand) -> None:
    stand.activate("vpce-1.storagegateway.example")
    assert stand.machine.asked[-1]["vpcEndpoint"] == ["vpce-1.storagegateway.example"]
    assert stand.machine.asked[-1]["gatewayType"] == ["FILE_S3"]


def test_without_an_endpoint_none_is_asked_for(stand: Stand) -> None:
    stand.activate()
    assert "vpcEndpoint" not in stand.machine.asked[-1]


def test_the_function_in_the_vpc_waits_for_the_machine_and_names_the_endpoint(stand: Stand) -> None:
    stand.machine.boots_for = 3
    assert stand.ask_by_function() == {"key": KEY}
    assert stand.machine.asked[-1]["vpcEndpoint"] == ["vpce-1.storagegateway.example"]
    assert stand.slept == 30


def test_the_function_says_what_the_machine_answers(stand: Stand) -> None:
    stand.machine.boots_for = 10**6
    with pytest.raises(RuntimeError, match="answers 503"):
        stand.ask_by_function(seconds=60)


def test_a_key_from_the_function_activates(stand: Stand) -> None:
    stand.functions.invoke.return_value = {"Payload": io.BytesIO(json.dumps({"key": KEY}).encode())}
    arn = stand.steps.activate("mrirecon-test", REGION, stand.steps.key_of_function("asks"))
    assert arn in stand.service.gateways
    stand.functions.invoke.assert_called_once_with(FunctionName="asks")


def test_a_function_that_fails_is_told(stand: Stand) -> None:
    answer = {"errorMessage": "answers 503"}
    stand.functions.invoke.return_value = {
        "FunctionError": "Unhandled",
        "Payload": io.BytesIO(json.dumps(answer).encode()),
    }
    with pytest.raises(GatewayError, match="answers 503"):
        stand.steps.activate("mrirecon-test", REGION, stand.steps.key_of_function("asks"))


def test_a_machine_that_never_answers_ends_with_a_sentence(stand: Stand) -> None:
    stand.machine.boots_for = 10**6
    with pytest.raises(GatewayError, match=r"activation key in time.*answers 503"):
        stand.activate()
    assert stand.slept <= stand.timeout
    assert stand.service.gateways == {}


def test_nothing_listening_is_a_machine_that_boots(stand: Stand) -> None:
    stand.machine.close()
    stand.timeout = 30
    with pytest.raises(GatewayError, match="does not answer yet"):
        stand.activate()


@pytest.mark.parametrize("operation", ["ListGateways", "ActivateGateway", "ListLocalDisks", "AddCache"])
def test_a_step_that_failed_at_any_call_is_finished_by_the_next_try(stand: Stand, operation: str) -> None:
    stand.service.gateways[f"{PREFIX}sgw-x"] = {"name": "other", "address": "10.9.9.9", "cache": True}
    stand.service.errors[operation] = ["InternalError"]
    with pytest.raises(ClientError):
        stand.activate()
    arn = stand.activate()
    assert [one for one, known in stand.service.gateways.items() if known["address"] == ADDRESS] == [arn]
    assert stand.service.gateways[arn]["cache"]


def test_activation_twice_makes_one_gateway_with_one_cache(stand: Stand) -> None:
    assert stand.activate() == stand.activate()
    assert stand.service.calls.count("ActivateGateway") == 1
    assert stand.service.calls.count("AddCache") == 1


def test_a_gateway_not_connected_yet_is_waited_for(stand: Stand) -> None:
    stand.service.errors["ListLocalDisks"] = ["GatewayNotConnected"] * 3
    stand.activate()
    assert stand.slept == 30


def test_a_disk_that_never_shows_ends_with_a_sentence(stand: Stand) -> None:
    stand.service.disks_after = 10**6
    with pytest.raises(GatewayError, match="no free disk"):
        stand.activate()


def test_the_machines_renamed_only_disk_is_taken_but_none_is_guessed_of_two(stand: Stand) -> None:
    stand.service.disks[0]["DiskPath"] = "/dev/nvme1n1"
    assert stand.service.gateways[stand.activate()]["cache"]
    two = [{"DiskId": name, "DiskPath": f"/dev/{name}", "DiskAllocationType": "AVAILABLE"} for name in "ab"]
    assert choose_disk(two, "/dev/sdb") is None
    assert choose_disk(two, "/dev/b") is two[1]
    used = {"DiskId": "u", "DiskPath": "/dev/sdb", "DiskAllocationType": "UPLOAD BUFFER"}
    assert choose_disk([used], "/dev/sdb") is None


def test_a_gateway_joins_a_domain_once(stand: Stand) -> None:
    arn = stand.activate()
    stand.secrets.text = json.dumps({"username": "joiner", "password": "secret"})
    stand.service.joins = ["DETACHED", "JOINING", "JOINED"]
    for _ in range(2):
        stand.steps.join(arn, "hospital.example", "arn:secret", controllers=("10.10.1.4",))
    (asked,) = stand.service.joined
    assert (asked["DomainName"], asked["UserName"]) == ("hospital.example", "joiner")
    assert asked["DomainControllers"] == ["10.10.1.4"]


@pytest.mark.parametrize("status", ["ACCESS_DENIED", "NETWORK_ERROR", "TIMEOUT", "UNKNOWN_ERROR"])
def test_a_domain_that_refuses_is_told_without_the_password(stand: Stand, status: str) -> None:
    arn = stand.activate()
    stand.secrets.text = json.dumps({"username": "joiner", "password": "secret-word"})
    stand.service.joins = ["DETACHED", status]
    with pytest.raises(GatewayError, match=r"did not join hospital\.example") as told:
        stand.steps.join(arn, "hospital.example", "arn:secret")
    assert "secret-word" not in str(told.value)


def test_a_secret_of_another_form_is_told(stand: Stand) -> None:
    arn = stand.activate()
    stand.secrets.text = json.dumps(["joiner"])
    with pytest.raises(GatewayError, match="JSON with username and password"):
        stand.steps.join(arn, "hospital.example", "arn:secret")


def test_guests_get_the_password_of_the_secret(stand: Stand) -> None:
    arn = stand.activate()
    stand.steps.set_guest_password(arn, "arn:secret")
    assert stand.service.passwords == ["a password"]


@pytest.mark.parametrize(
    ("dirty", "shares", "why"),
    [
        (12.5, [], "12.5 % of the gateway's cache"),
        (None, [], "does not say"),
        (0.0, [{"FileShareId": "share-1"}], "1 share"),
    ],
)
def test_a_gateway_is_kept_while_data_may_await_upload(
    stand: Stand, dirty: float | None, shares: list[dict[str, str]], why: str
) -> None:
    arn = stand.activate()
    stand.service.dirty, stand.service.shares = dirty, shares
    with pytest.raises(GatewayError, match=why):
        stand.steps.remove(arn)
    assert arn in stand.service.gateways


def test_a_clean_gateway_is_removed_and_a_second_removal_is_content(stand: Stand) -> None:
    arn = stand.activate()
    for _ in range(2):
        stand.steps.remove(arn)
    assert stand.service.gateways == {}
    with pytest.raises(GatewayError, match="There is no gateway"):
        stand.steps.look(arn)


def test_the_command_line_activates_and_tells(
    stand: Stand, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_STORAGE_GATEWAY", f"http://127.0.0.1:{stand.service.port}")
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    address = f"{ADDRESS}:{stand.machine.port}"
    assert (
        main(["gateway", "activate", "--address", address, "--name", "mrirecon-test", "--region", REGION])
        == 0
    )
    arn = capsys.readouterr().out.strip()
    assert arn in stand.service.gateways
    stand.service.dirty = 3.0
    assert main(["gateway", "status", "--gateway", arn]) == 0
    assert "3 % of the cache" in capsys.readouterr().out
    assert main(["gateway", "remove", "--gateway", arn]) == 1
    assert "it is kept" in capsys.readouterr().err
