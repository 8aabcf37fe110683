"""Redrive: dead letters back into their own lane, by reason, by scan or all, bounded, never lost."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import Any

import pytest

from mrirecon.aws import redrive
from mrirecon.aws.clock import ServerClock
from mrirecon.aws.redrive import lane
from mrirecon.cloud.operators.operator import Operator
from mrirecon.contract import environment as names
from mrirecon.contract import states
from mrirecon.contract.codes import RetryableError
from mrirecon.contract.environment import SettingError
from mrirecon.contract.keys import Priority
from mrirecon.contract.messages import ReconRequest
from mrirecon.contract.states import Stage
from tests.lambdas.lambda_kit import REGION, fail, load, recorder, session, watch

QUEUES = {
    Stage.DECOMPRESS: (
        names.DECOMPRESS_STAT_QUEUE_URL,
        names.DECOMPRESS_ROUTINE_QUEUE_URL,
        names.DECOMPRESS_DEAD_LETTER_QUEUE_URL,
    ),
    Stage.RECON: (
        names.RECON_STAT_QUEUE_URL,
        names.RECON_ROUTINE_QUEUE_URL,
        names.RECON_DEAD_LETTER_QUEUE_URL,
    ),
}


def scan_id(n: int) -> str:
    return f"{n:016x}"


def request(n: int, priority: str = "routine") -> str:
    return ReconRequest(
        scan_id=scan_id(n),
        recon_id="01234567",
        profile="routine",
        site="north",
        priority=priority,
        kspace_key="k",
        kspace_sha256="s",
        kspace_bytes=1,
    ).dumps()


def delivery(n: int, priority: str = "routine") -> str:
    thing = {"key": f"incoming/north/{priority}/{n}.tar", "versionId": f"v{n}", "size": 1}
    return json.dumps(
        {"Records": [{"eventName": "ObjectCreated:Put", "s3": {"bucket": {"name": "raw"}, "object": thing}}]}
    )


def gateway_delivery(n: int, priority: str = "routine") -> str:
    """As a file gateway announces it: neither version nor ETag."""
    detail = {"bucket-name": "raw", "object-key": f"incoming/north/{priority}/{n}.tar", "object-size": 1}
    return json.dumps(
        {
            "source": "aws.storagegateway",
            "detail-type": "Storage Gateway Object Upload Event",
            "time": "2026-11-22T03:00:00Z",
            "detail": detail,
        }
    )


@dataclass
class Stand:
    module: Any
    settings: Any
    sqs: Any
    ledger: Any
    s3: Any

    def die(self, stage: Stage, body: str, *, group: str | None = None) -> None:
        more = {"MessageGroupId": group} if group else {}
        self.sqs.send_message(QueueUrl=os.environ[QUEUES[stage][2]], MessageBody=body, **more)

    def failed(self, stage: Stage, n: int, code: str) -> None:
        if stage is Stage.RECON:
            self.put(states.scan_pk(scan_id(n)), states.recon_sk("01234567"), state="failed", code=code)
        else:
            pk = states.delivery_pk("raw", f"incoming/north/routine/{n}.tar", f"v{n}")
            self.put(pk, states.DELIVERY_SK, state="claimed", scan_id=scan_id(n))
            self.put(states.scan_pk(scan_id(n)), states.INTAKE_SK, state="failed", code=code)

    def put(self, pk: str, sk: str, **values: str) -> None:
        item = {"pk": pk, "sk": sk, **values}
        self.ledger.put_item(TableName="ledger", Item={name: {"S": value} for name, value in item.items()})

    def state_of_intake(self, n: int) -> str:
        key = {"pk": {"S": states.scan_pk(scan_id(n))}, "sk": {"S": states.INTAKE_SK}}
        state: str = self.ledger.get_item(TableName="ledger", Key=key)["Item"]["state"]["S"]
        return state

    def call(self, stage: Stage, **more: Any) -> dict[str, Any]:
        request = self.module.Request.from_event({"stage": stage.value, **more})
        clients = self.module.Clients(self.sqs, self.s3, self.ledger, ServerClock())
        with recorder("redrive", {names.RAW_BUCKET: "raw"}).during(self.sqs, self.s3, self.ledger):
            told: dict[str, Any] = self.module.run(self.settings, clients, request)
        return told

    def command(self, stage: Stage, **more: Any) -> dict[str, Any]:
        """Do the same by ``mrirecon redrive``."""
        operator = Operator()
        seen = operator.dead_letters(stage).redrive({}, dry_run=True).seen
        return {"seen": seen, "given_back": operator.redrive(stage=stage, **more)[stage.value]}

    def bodies(self, name: str) -> list[str]:
        """Take everything out of a queue."""
        found: list[str] = []
        while told := self.sqs.receive_message(
            QueueUrl=os.environ[name], MaxNumberOfMessages=10, MessageSystemAttributeNames=["All"]
        ).get("Messages"):
            self.groups = [one["Attributes"].get("MessageGroupId") for one in told]
            found += [one["Body"] for one in told]
        return sorted(found)


@pytest.fixture
def stand(ledger: Any, monkeypatch: pytest.MonkeyPatch) -> Stand:
    sqs = session().client("sqs")
    for name in (name for queues in QUEUES.values() for name in queues):
        monkeypatch.setenv(name, sqs.create_queue(QueueName=name)["QueueUrl"])
    monkeypatch.setenv(names.LEDGER_TABLE, "ledger")
    monkeypatch.setattr(redrive, "WAIT_SECONDS", 0)  # moto has one server, and really waits
    module = load("redrive")
    settings = module.Settings.from_environ(os.environ)
    return Stand(module, settings, sqs, ledger, session().client("s3"))


@pytest.mark.parametrize("stage", list(Stage))
def test_every_letter_goes_back_to_its_own_lane(stand: Stand, stage: Stage) -> None:
    make = request if stage is Stage.RECON else delivery
    for n in range(25):
        stand.die(stage, make(n, "stat" if n % 5 == 0 else "routine"))
    told = stand.call(stage)
    assert told["given_back"] == 25
    assert told["limited"] is False
    stat, routine, dead = QUEUES[stage]
    assert stand.bodies(stat) == sorted(make(n, "stat") for n in range(0, 25, 5))
    assert len(stand.bodies(routine)) == 20
    assert stand.bodies(dead) == []


@pytest.mark.parametrize("stage", list(Stage))
def test_by_reason(stand: Stand, stage: Stage) -> None:
    make = request if stage is Stage.RECON else delivery
    for n, code in enumerate(["disk_full", "timed_out", "disk_full", "worker_lost"]):
        stand.die(stage, make(n))
        stand.failed(stage, n, code)
    stand.die(stage, make(9))
    told = stand.call(stage, reason="disk_full")
    assert told["given_back"] == 2
    assert told["seen"] == {"disk_full": 2, "timed_out": 1, "worker_lost": 1, "unknown": 1}
    assert stand.bodies(QUEUES[stage][1]) == [make(0), make(2)]
    assert len(stand.bodies(QUEUES[stage][2])) == 3  # the rest is there, and visible again


@pytest.mark.parametrize("stage", list(Stage))
def test_by_scan(stand: Stand, stage: Stage) -> None:
    make = request if stage is Stage.RECON else delivery
    for n in range(3):
        stand.die(stage, make(n))
        stand.failed(stage, n, "timed_out")
    assert stand.call(stage, scan_id=scan_id(1))["given_back"] == 1
    assert stand.bodies(QUEUES[stage][1]) == [make(1)]


@pytest.mark.parametrize("stage", list(Stage))
def test_what_is_given_back_is_queued_again_in_the_ledger(stand: Stand, stage: Stage) -> None:
    make = request if stage is Stage.RECON else delivery
    sk = states.recon_sk("01234567") if stage is Stage.RECON else states.INTAKE_SK
    for n, code in enumerate(["silent", "timed_out"]):
        stand.die(stage, make(n))
        stand.failed(stage, n, code)
    stand.call(stage, dry_run=True)
    stand.call(stage, reason="silent")
    states_now = [
        stand.ledger.get_item(
            TableName="ledger", Key={"pk": {"S": states.scan_pk(scan_id(n))}, "sk": {"S": sk}}
        )
        for n in range(2)
    ]
    assert [it["Item"]["state"]["S"] for it in states_now] == ["queued", "failed"]


@pytest.fixture(params=["versioned", "not versioned"])
def gateway_letters(stand: Stand, request: pytest.FixtureRequest) -> Stand:
    """Two dead letters of a site behind a file gateway, and the rows that the workers' tries left."""
    s3 = stand.s3
    s3.create_bucket(Bucket="raw", CreateBucketConfiguration={"LocationConstraint": REGION})
    if request.param == "versioned":
        s3.put_bucket_versioning(Bucket="raw", VersioningConfiguration={"Status": "Enabled"})
    for n, code in enumerate(["disk_full", "timed_out"]):
        key = f"incoming/north/routine/{n}.tar"
        put = s3.put_object(Bucket="raw", Key=key, Body=b"raw")
        pk = states.delivery_pk("raw", key, put.get("VersionId") or put["ETag"].strip('"'))
        stand.put(pk, states.DELIVERY_SK, state="failed", code=code, scan_id=scan_id(n))
        stand.put(states.scan_pk(scan_id(n)), states.INTAKE_SK, state="failed", code=code)
        stand.die(Stage.DECOMPRESS, gateway_delivery(n))
    return stand


@pytest.mark.parametrize("by", ["call", "command"])
@pytest.mark.parametrize("chosen", [{"reason": "disk_full"}, {"scan_id": scan_id(0)}])
def test_what_a_gateway_announced_is_redriven(
    gateway_letters: Stand, by: str, chosen: dict[str, str]
) -> None:
    """A gateway tells neither version nor ETag; the ledger's keys hold what the worker found there."""
    told = getattr(gateway_letters, by)(Stage.DECOMPRESS, **chosen)
    assert told["seen"] == {"disk_full": 1, "timed_out": 1}
    assert told["given_back"] == 1
    assert gateway_letters.bodies(names.DECOMPRESS_ROUTINE_QUEUE_URL) == [gateway_delivery(0)]
    assert gateway_letters.state_of_intake(0) == "queued"
    assert gateway_letters.state_of_intake(1) == "failed"


def test_a_bucket_that_may_not_be_read_is_an_error_not_an_unknown_reason(gateway_letters: Stand) -> None:
    fail(gateway_letters.s3, "HeadObject", "403")
    with pytest.raises(RetryableError, match="want of a permission"):
        gateway_letters.call(Stage.DECOMPRESS)
    assert len(gateway_letters.bodies(names.DECOMPRESS_DEAD_LETTER_QUEUE_URL)) == 2


def test_an_archive_outside_the_prefix_is_not_looked_at(gateway_letters: Stand) -> None:
    """Nobody has the right to, and it must not keep the other letters from going back."""
    calls = watch(gateway_letters.s3, "HeadObject")
    gateway_letters.die(Stage.DECOMPRESS, gateway_delivery(3).replace("incoming/", "elsewhere/"))
    assert gateway_letters.call(Stage.DECOMPRESS)["seen"] == {"disk_full": 1, "timed_out": 1, "unknown": 1}
    assert {call["Key"].partition("/")[0] for call in calls} == {"incoming"}


def test_what_is_no_message_of_ours_stays_unless_asked_for(stand: Stand) -> None:
    stand.die(Stage.RECON, "nonsense")
    stand.die(Stage.RECON, request(1))
    assert stand.call(Stage.RECON)["given_back"] == 1
    assert stand.call(Stage.RECON)["seen"] == {"poison": 1}
    assert stand.call(Stage.RECON, reason="poison")["given_back"] == 1


def test_a_letter_that_can_be_read_in_part_goes_by_its_scan(stand: Stand) -> None:
    """The worker does what it can read of such an event; a failed scan in it is found, the rest is poison."""
    for n in range(2):
        records = [{"eventName": "ObjectCreated:Put"}, *json.loads(delivery(n))["Records"]]
        stand.die(Stage.DECOMPRESS, json.dumps({"Records": records}))
    stand.failed(Stage.DECOMPRESS, 1, "disk_full")
    told = stand.call(Stage.DECOMPRESS)
    assert told["seen"] == {"poison": 1, "disk_full": 1}
    assert told["given_back"] == 1
    assert stand.state_of_intake(1) == "queued"


def test_a_limit_is_kept(stand: Stand) -> None:
    for n in range(15):
        stand.die(Stage.RECON, request(n))
    told = stand.call(Stage.RECON, limit=4)
    assert (told["given_back"], told["limited"]) == (4, True)
    assert len(stand.bodies(names.RECON_ROUTINE_QUEUE_URL)) == 4
    assert len(stand.bodies(names.RECON_DEAD_LETTER_QUEUE_URL)) == 11


def test_a_dry_run_counts_and_changes_nothing(stand: Stand) -> None:
    for n in range(3):
        stand.die(Stage.RECON, request(n))
        stand.failed(Stage.RECON, n, "silent")
    assert stand.call(Stage.RECON, dry_run=True) == {
        "stage": "recon",
        "seen": {"silent": 3},
        "limited": False,
        "would_give_back": 3,
    }
    assert len(stand.bodies(names.RECON_DEAD_LETTER_QUEUE_URL)) == 3


@pytest.mark.parametrize("stage", list(Stage))
def test_a_dry_run_writes_nothing_into_the_ledger(stand: Stand, stage: Stage) -> None:
    stand.die(stage, request(1) if stage is Stage.RECON else delivery(1))  # no worker came so far as a row
    told = stand.call(stage, dry_run=True)
    assert told["seen"] == {"unknown": 1}
    assert stand.ledger.scan(TableName="ledger")["Items"] == []


def test_the_site_stays_the_message_group(stand: Stand) -> None:
    stand.die(Stage.RECON, request(1), group="north")
    stand.call(Stage.RECON)
    stand.bodies(names.RECON_ROUTINE_QUEUE_URL)
    assert stand.groups == ["north"]


@pytest.mark.parametrize(
    ("client", "operation"),
    [("sqs", "ReceiveMessage"), ("sqs", "SendMessage"), ("sqs", "DeleteMessage"), ("ledger", "GetItem")],
)
def test_a_failed_call_loses_no_letter(stand: Stand, client: str, operation: str) -> None:
    for n in range(3):
        stand.die(Stage.RECON, request(n))
    calls = fail(getattr(stand, client), operation, times=1)
    with pytest.raises(RetryableError, match="ThrottlingException"):
        stand.call(Stage.RECON)
    assert calls
    stand.call(Stage.RECON)
    back = stand.bodies(names.RECON_ROUTINE_QUEUE_URL)
    assert set(back) == {request(n) for n in range(3)}
    assert len(back) <= 4  # one sent twice when its deletion failed: it ends once all the same
    assert stand.bodies(names.RECON_DEAD_LETTER_QUEUE_URL) == []


def test_a_letter_that_cannot_be_shown_again_does_not_stop_the_rest(stand: Stand) -> None:
    stand.die(Stage.RECON, request(1))
    fail(stand.sqs, "ChangeMessageVisibility", "ReceiptHandleIsInvalid")
    assert stand.call(Stage.RECON)["given_back"] == 1


@pytest.mark.parametrize(
    ("event", "field"),
    [
        ({}, "stage"),
        ({"stage": "both"}, "stage"),
        ({"stage": "recon", "reason": "bored"}, "reason"),
        ({"stage": "recon", "scan_id": "Jane Doe"}, "scan_id"),
        ({"stage": "recon", "limit": 0}, "limit"),
        ({"stage": "recon", "limit": True}, "limit"),
        ({"stage": "recon", "dry_run": 1}, "dry_run"),
        ({"stage": "recon", "colour": "red"}, "known fields"),
    ],
)
def test_a_bad_request_names_its_field(event: dict[str, Any], field: str) -> None:
    with pytest.raises(load("redrive").RequestError, match=field):
        load("redrive").Request.from_event(event)


def test_the_handler_takes_an_operators_call(stand: Stand, context: Any) -> None:
    stand.module.settings.cache_clear()
    stand.module.clients.cache_clear()
    stand.die(Stage.RECON, request(1))
    assert stand.module.handler({"stage": "recon"}, context)["given_back"] == 1
    stand.module.settings.cache_clear()
    stand.module.clients.cache_clear()


def test_a_missing_variable_is_named(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(names.RECON_STAT_QUEUE_URL)
    with pytest.raises(SettingError, match=names.RECON_STAT_QUEUE_URL):
        stand.module.Settings.from_environ(os.environ)


@pytest.mark.parametrize(
    ("stage", "body", "expected"),
    [
        (Stage.RECON, request(1, "stat"), Priority.STAT),
        (Stage.RECON, request(1, "odd"), Priority.ROUTINE),
        (Stage.RECON, "nonsense", Priority.ROUTINE),
        (Stage.DECOMPRESS, delivery(1, "stat"), Priority.STAT),
        (Stage.DECOMPRESS, delivery(1, "elsewhere"), Priority.ROUTINE),
    ],
)
def test_the_lane_is_read_from_the_body(stage: Stage, body: str, expected: Priority) -> None:
    assert lane(stage, body) is expected
