"""The cache refresh: published records in, one request a share out, never a third, nothing lost."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest
from botocore.exceptions import ClientError
from hypothesis import given
from hypothesis import strategies as st

from mrirecon.aws.table import Table
from mrirecon.contract import environment as names
from mrirecon.contract import keys, metrics, publications, states
from mrirecon.contract.messages import NotAMessageError
from mrirecon.contract.publications import MOST_FOLDERS, REFRESH_DONE, Publication, RefreshDone
from tests.lambdas.lambda_kit import emitted, fail, load, recorder, session, values

SHARES = tuple(
    f"arn:aws:storagegateway:eu-central-1:123456789012:share/share-{letter * 8}" for letter in "AB"
)
NOW = 1_800_000_000.0


class GatewayStub:
    """Storage Gateway on loopback: it takes two refreshes of a share at a time and refuses the third."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.running: dict[str, list[str]] = {}
        self.error: str | None = None
        self.broken = False
        self.calls = 0
        stub = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                assert self.headers["X-Amz-Target"].endswith(".RefreshCache")
                status, answer = stub.refresh(body)
                payload = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/x-amz-json-1.1")
                self.send_header("Content-Length", str(len(payload)))
                self.end_headers()
                self.wfile.write(payload)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def refresh(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        self.calls += 1
        if self.broken:
            return 500, {"__type": "InternalServerError", "message": "no"}
        if self.error:
            return 400, {"__type": self.error, "message": "no"}
        running = self.running.setdefault(body["FileShareARN"], [])
        if len(running) >= 2:
            return 400, {"__type": "InvalidGatewayRequestException", "message": "too many"}
        self.requests.append(body)
        running.append(f"n{len(self.requests)}")
        return 200, {"FileShareARN": body["FileShareARN"], "NotificationId": running[-1]}


@pytest.fixture
def gateway() -> Iterator[GatewayStub]:
    stub = GatewayStub()
    yield stub
    stub.server.shutdown()
    stub.server.server_close()


@dataclass
class Stand:
    module: Any
    settings: Any
    adapters: Any
    ledger: Any
    sqs: Any
    gateway: GatewayStub
    client: Any
    now: float = NOW

    def batch(self, *bodies: str) -> dict[str, str]:
        """Put bodies into the queue and take them out as the event source would; return id by body."""
        for body in bodies:
            self.sqs.send_message(QueueUrl=os.environ[names.REFRESH_QUEUE_URL], MessageBody=body)
        self.records = []
        while len(self.records) < len(bodies):
            told = self.sqs.receive_message(
                QueueUrl=os.environ[names.REFRESH_QUEUE_URL], MaxNumberOfMessages=10, VisibilityTimeout=360
            )
            self.records += [
                {"messageId": one["MessageId"], "receiptHandle": one["ReceiptHandle"], "body": one["Body"]}
                for one in told["Messages"]
            ]
        return {record["body"]: record["messageId"] for record in self.records}

    def run(self) -> set[str]:
        with recorder("refresh_cache").during(self.sqs, self.ledger, self.client):
            told = self.module.run(self.settings, self.adapters, self.records, self.now)
        return {item["itemIdentifier"] for item in told["batchItemFailures"]}

    def publish(self, *bodies: str) -> set[str]:
        """Run one batch and return the bodies that must come again."""
        by_body = self.batch(*bodies)
        failed = self.run()
        return {body for body, message in by_body.items() if message in failed}

    def point(self, scan: str, token: int) -> str | None:
        key = {"pk": {"S": states.scan_pk(scan)}, "sk": {"S": states.attempt_sk(states.Stage.RECON, token)}}
        item = self.ledger.get_item(TableName="ledger", Key=key).get("Item", {})
        return item.get("at_share_refreshed", {}).get("S")


@pytest.fixture
def stand(ledger: Any, gateway: GatewayStub, monkeypatch: pytest.MonkeyPatch) -> Stand:
    module, adapters = load("refresh_cache"), load("refresh_cache", "refresh_aws")
    sqs = session().client("sqs")
    monkeypatch.setenv(names.REFRESH_QUEUE_URL, sqs.create_queue(QueueName="refresh")["QueueUrl"])
    monkeypatch.setenv(names.FILE_SHARE_ARNS, ",".join(SHARES))
    monkeypatch.setenv(names.LEDGER_TABLE, "ledger")
    settings = module.Settings.from_environ(os.environ)
    client = session().client("storagegateway", endpoint_url=gateway.url)
    made = module.Adapters(
        adapters.Gateway(client),
        adapters.ShareRefreshTable(
            Table(ledger, "ledger"), spacing=settings.spacing, running=settings.running
        ),
        adapters.RefreshQueue(sqs, settings.queue),
    )
    return Stand(module, settings, made, ledger, sqs, gateway, client)


def put(key: str) -> str:
    return json.dumps(
        {
            "source": "aws.s3",
            "detail-type": "Object Created",
            "time": "2026-11-22T10:00:00Z",
            "detail": {"bucket": {"name": "images"}, "object": {"key": key, "size": 1, "etag": "e"}},
        }
    )


def record(scan: str, recon: str = "01234567") -> str:
    return put(keys.record(scan, recon))


def plain(scan: str, recon: str = "01234567") -> str:
    thing = {"key": keys.record(scan, recon).replace("/", "%2F"), "size": 1}
    return json.dumps(
        {
            "Records": [
                {"eventName": "ObjectCreated:Put", "s3": {"bucket": {"name": "images"}, "object": thing}}
            ]
        }
    )


def done(notification: str) -> str:
    return json.dumps(
        {
            "source": "aws.storagegateway",
            "detail-type": REFRESH_DONE,
            "detail": {
                "event-type": "refresh-complete",
                "notification-id": notification,
                "folderList": ["/"],
            },
        }
    )


def test_many_records_become_one_request_a_share(stand: Stand, capsys: pytest.CaptureFixture[str]) -> None:
    assert stand.publish(record("aa"), plain("bb"), record("aa"), record("aa", "89abcdef")) == set()
    assert [request["FileShareARN"] for request in stand.gateway.requests] == list(SHARES)
    for request in stand.gateway.requests:
        assert request["Recursive"] is False
        assert request["FolderList"] == [
            "/images",
            "/images/aa",
            "/images/bb",
            "/images/aa/01234567",
            "/images/aa/89abcdef",
            "/images/bb/01234567",
        ]
    told = [values(line) for line in emitted(capsys.readouterr().out)]
    assert told == [{metrics.REFRESHED_FOLDERS: 6}] * 2


def test_objects_that_are_no_record_refresh_nothing(stand: Stand) -> None:
    other = keys.images("aa", "01234567", "preview.png")
    assert stand.publish(put(other), json.dumps({"Event": "s3:TestEvent"})) == set()
    assert stand.gateway.requests == []


def test_a_message_that_is_none_of_ours_comes_again_alone(stand: Stand) -> None:
    assert stand.publish("nonsense", record("aa")) == {"nonsense"}
    assert len(stand.gateway.requests) == 2


def test_a_second_batch_waits_its_minute_and_is_not_lost(stand: Stand) -> None:
    assert stand.publish(record("aa")) == set()
    stand.now += 20
    assert stand.publish(record("bb")) == {record("bb")}
    assert len(stand.gateway.requests) == 2
    stand.now += 41
    assert stand.run() == set()
    assert len(stand.gateway.requests) == 4
    assert "/images/bb/01234567" in stand.gateway.requests[-1]["FolderList"]


def test_never_a_third_while_two_run(stand: Stand) -> None:
    stand.adapters.shares._running = 600.0  # refreshes that take longer than the time between two
    for scan in ("aa", "bb"):
        assert stand.publish(record(scan)) == set()
        stand.now += 61
    asked = len(stand.gateway.requests)
    assert stand.publish(record("cc")) == {record("cc")}
    assert len(stand.gateway.requests) == asked == 4  # known to run: the gateway is not even asked
    for share in SHARES:
        stand.gateway.running[share].pop(0)
    assert stand.publish(done("n1"), done("n2")) == set()
    assert stand.publish(record("dd")) == set()
    assert len(stand.gateway.requests) == asked + 2


def test_a_refresh_whose_end_was_never_told_does_not_block_for_ever(stand: Stand) -> None:
    for scan in ("aa", "bb"):
        stand.publish(record(scan))
        stand.now += 61
    for share in SHARES:
        stand.gateway.running[share].clear()
    stand.now += 120
    assert stand.publish(record("cc")) == set()


def test_the_gateways_refusal_defers_the_batch(stand: Stand, capsys: pytest.CaptureFixture[str]) -> None:
    stand.gateway.running = {SHARES[1]: ["x", "y"]}
    assert stand.publish(record("aa"), record("bb")) == {record("aa"), record("bb")}
    assert {metrics.REFRESH_DEFERRED: 2} in [values(line) for line in emitted(capsys.readouterr().out)]
    # One share took it; the other is tried again, and so the scan's journey has not ended yet.
    assert [request["FileShareARN"] for request in stand.gateway.requests] == [SHARES[0]]


def test_deferred_messages_come_again_when_it_may_work(stand: Stand) -> None:
    stand.gateway.error = "InvalidGatewayRequestException"
    seen: list[dict[str, Any]] = []
    stand.sqs.meta.events.register(
        "provide-client-params.sqs.ChangeMessageVisibilityBatch", lambda params, **_: seen.append(params)
    )
    stand.publish(*(record(f"{n:02x}") for n in range(12)))
    times = [entry["VisibilityTimeout"] for call in seen for entry in call["Entries"]]
    assert len(times) == 12
    assert set(times) == {61}


@pytest.mark.parametrize(
    "operation", ["GetItem", "UpdateItem", "RefreshCache", "ChangeMessageVisibilityBatch"]
)
def test_a_failed_call_defers_and_is_logged(
    stand: Stand, operation: str, capsys: pytest.CaptureFixture[str]
) -> None:
    clients = {
        "GetItem": stand.ledger,
        "UpdateItem": stand.ledger,
        "RefreshCache": stand.adapters.gateway._gateway,
        "ChangeMessageVisibilityBatch": stand.sqs,
    }
    if operation == "ChangeMessageVisibilityBatch":
        stand.gateway.error = "InternalServerError"
    fail(clients[operation], operation, "InternalServerError")
    assert stand.publish(record("aa")) == {record("aa")}
    said = capsys.readouterr().out
    assert "InternalServerError" in said
    assert "Jane Doe" not in said


def test_a_running_refresh_that_cannot_be_noted_is_not_asked_for_again(stand: Stand) -> None:
    shares = stand.adapters.shares
    original = shares.started

    def started(*_: Any) -> None:
        from botocore.exceptions import ClientError

        raise ClientError({"Error": {"Code": "ThrottlingException"}}, "UpdateItem")

    shares.started = started
    assert stand.publish(record("aa")) == set()
    shares.started = original
    assert len(stand.gateway.requests) == 2


def test_two_runs_at_once_ask_once(stand: Stand) -> None:
    """The turn is taken by a conditional write: of two runs with the same view of the share, one goes on."""
    shares = stand.adapters.shares
    module = load("refresh_cache", "refresh_aws")
    client = stand.ledger
    seen = client.get_item
    other = module.ShareRefreshTable(Table(client, "ledger"), spacing=60.0, running=120.0)

    def get_item(**told: Any) -> Any:
        answer = seen(**told)
        client.get_item = seen  # the other run slips in between the read and the write
        other.take_turn(SHARES[0], NOW)
        return answer

    client.get_item = get_item
    with pytest.raises(module.BusyError):
        shares.take_turn(SHARES[0], NOW)


def test_a_turn_follows_one_that_was_written_with_all_digits(stand: Stand) -> None:
    """The turn is taken only if the item is as it was read: its time must come back as it was written."""
    shares, share = stand.adapters.shares, SHARES[0]
    shares.take_turn(share, NOW)
    (item,) = stand.ledger.scan(TableName="ledger")["Items"]
    stand.ledger.put_item(TableName="ledger", Item={**item, "asked_at": {"N": "1799999900.1234567"}})
    shares.take_turn(share, NOW)
    with pytest.raises(load("refresh_cache", "refresh_aws").BusyError):
        shares.take_turn(share, NOW)


def test_a_refresh_whose_answer_is_lost_is_not_asked_for_twice(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may run, and the gateway takes two at a time: the queue tries again, not the client."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_STORAGE_GATEWAY", stand.gateway.url)
    stand.gateway.broken = True
    gateway = stand.module.adapters.__wrapped__().gateway
    with pytest.raises(ClientError, match="InternalServerError"):
        gateway.refresh(SHARES[0], ["/"], 60.0)
    assert stand.gateway.calls == 1


def test_the_time_point_is_appended_once_to_the_attempt_that_published(stand: Stand) -> None:
    for scan, token in (("aa", 3), ("bb", 1)):
        stand.ledger.put_item(
            TableName="ledger",
            Item={
                "pk": {"S": states.scan_pk(scan)},
                "sk": {"S": states.recon_sk("01234567")},
                "token": {"N": str(token)},
                "state": {"S": "done"},
            },
        )
    stand.ledger.put_item(
        TableName="ledger",
        Item={"pk": {"S": states.scan_pk("aa")}, "sk": {"S": states.attempt_sk(states.Stage.RECON, 3)}},
    )
    assert stand.publish(record("aa"), record("bb"), record("cc")) == set()
    first = stand.point("aa", 3)
    assert first is not None
    assert first.startswith("2027-01-15T")
    assert stand.point("bb", 1) is None  # there is no such attempt: none is made up
    stand.now += 200
    stand.publish(record("aa"))
    assert stand.point("aa", 3) == first


def test_without_a_share_there_is_nothing_to_do(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(names.FILE_SHARE_ARNS, "")
    stand.settings = stand.module.Settings.from_environ(os.environ)
    assert stand.publish(record("aa")) == set()
    assert stand.gateway.requests == []


def test_the_handler_answers_the_event_source(
    stand: Stand, context: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_STORAGE_GATEWAY", stand.gateway.url)
    stand.module.settings.cache_clear()
    stand.module.adapters.cache_clear()
    stand.batch(record("aa"), "nonsense")
    told = stand.module.handler({"Records": stand.records}, context)
    assert len(told["batchItemFailures"]) == 1
    assert len(stand.gateway.requests) == 2
    stand.module.settings.cache_clear()
    stand.module.adapters.cache_clear()


ids = st.text("0123456789abcdef", min_size=16, max_size=16)
many = st.lists(st.builds(Publication, ids, st.text("0123456789abcdef", min_size=8, max_size=8)), min_size=1)


@given(many)
def test_folders_are_few_and_hold_every_scan_or_their_parent(published: list[Publication]) -> None:
    folders = publications.folders(published)
    assert 1 <= len(folders) <= MOST_FOLDERS
    assert len(set(folders)) == len(folders)
    assert "/images" in folders
    scans = {f"/images/{item.scan_id}" for item in published}
    assert scans <= set(folders) or folders == ["/images"]
    assert all(folder.startswith("/images") and not folder.endswith("/") for folder in folders)


def test_a_flood_of_publications_falls_back_to_parents() -> None:
    def some(n: int) -> list[Publication]:
        return [Publication(f"{number:016x}", "01234567") for number in range(n)]

    assert len(publications.folders(some(24))) == 49
    assert len(publications.folders(some(25))) == 26
    assert len(publications.folders(some(49))) == 50
    assert publications.folders(some(50)) == ["/images"]


@pytest.mark.parametrize("body", ["", "[]", "{}", json.dumps({"detail-type": REFRESH_DONE, "detail": None})])
def test_what_is_no_message_is_told_from_one(body: str) -> None:
    with pytest.raises(NotAMessageError):
        publications.read(body)


def test_the_end_of_a_refresh_is_read() -> None:
    assert publications.read(done("x")) == RefreshDone("x")
