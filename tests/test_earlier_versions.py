"""What earlier versions wrote is still read: k-space files, records, messages and ledger rows."""

import json
from pathlib import Path

import boto3
import jsonschema
import numpy as np
import pytest
from moto import mock_aws

from mrirecon.aws.ledger import DynamoLedger
from mrirecon.aws.ports import Claim, Row
from mrirecon.aws.references import body_of
from mrirecon.contract import states
from mrirecon.contract.messages import ReconRequest
from mrirecon.contract.profiles import profile
from mrirecon.contract.record import schema
from mrirecon.contract.states import Stage, State
from mrirecon.kspace.file import open_kspace
from mrirecon.local import runner
from mrirecon.recon.stage import reconstruct

DATA = Path(__file__).parent / "data" / "0.1"
RECORD = json.loads((DATA / "scan.json").read_text())
SCAN, RECON = RECORD["scan_id"], RECORD["recon_id"]


def test_its_kspace_file_is_read():
    with open_kspace(DATA / "kspace.h5") as file:
        assert file.shape == (1, 1, 3, 1, 32, 20)
        assert file.info.scan_id == SCAN
        assert (file.info.format, file.info.whitened) == ("mrd", True)
        assert file.info.acquisitions_digest == RECORD["acquisitions_digest"]
        assert int(file.mask.sum()) == RECORD["sampling"]["acquired_lines"]
        lines = file.read(0, 0)
        assert (np.abs(lines).sum(axis=(0, 1, 3)) > 0).tolist() == file.mask[0, 0, 0].tolist()


def test_its_kspace_file_makes_images(tmp_path):
    made = reconstruct(
        DATA / "kspace.h5", tmp_path / "out", scan_id=SCAN, profile=profile("fast"), device="cpu"
    )
    assert made["status"] == "done"
    for key in ("format", "acquisitions_digest", "acceleration", "acs_lines", "method"):
        assert made[key] == RECORD[key]
    for key, value in RECORD["geometry"].items():
        assert made["geometry"][key] == value


def test_its_record_is_valid_but_for_keys_that_came_later():
    later = schema() | {"required": sorted(RECORD)}
    jsonschema.validate(RECORD, later)


def test_its_results_are_found_by_the_local_runner(tmp_path):
    place = tmp_path / SCAN
    place.mkdir()
    (place / "scan.json").write_text((DATA / "scan.json").read_text())
    assert runner._published(tmp_path, SCAN, RECON) == (RECORD, place)


def test_its_message_is_read():
    request = ReconRequest.loads((DATA / "recon-request.json").read_text())
    assert (request.scan_id, request.recon_id, request.profile) == (SCAN, RECON, "fast")
    assert (request.site, request.priority) == ("site-a", "stat")
    assert request.raw.version == "v1"
    assert request.intake_warnings == ["A warning."]
    assert request.kspace_bytes == (DATA / "kspace.h5").stat().st_size


class Clock:
    def now(self):
        return 1793530800.0


@pytest.fixture
def ledger(monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    with mock_aws():
        client = boto3.client("dynamodb", region_name="us-east-1")
        keys = [states.PK, states.SK, states.STATE, states.UPDATED_AT]
        client.create_table(
            TableName="ledger",
            BillingMode="PAY_PER_REQUEST",
            AttributeDefinitions=[{"AttributeName": name, "AttributeType": "S"} for name in keys],
            KeySchema=[
                {"AttributeName": states.PK, "KeyType": "HASH"},
                {"AttributeName": states.SK, "KeyType": "RANGE"},
            ],
            GlobalSecondaryIndexes=[
                {
                    "IndexName": states.BY_STATE,
                    "Projection": {"ProjectionType": "ALL"},
                    "KeySchema": [
                        {"AttributeName": states.STATE, "KeyType": "HASH"},
                        {"AttributeName": states.UPDATED_AT, "KeyType": "RANGE"},
                    ],
                }
            ],
        )
        for item in json.loads((DATA / "ledger-rows.json").read_text()):
            client.put_item(TableName="ledger", Item=item)
        yield DynamoLedger(client, "ledger", Clock())


def test_its_ended_scans_stay_ended(ledger):
    for pk, sk in (
        (states.delivery_pk("raw", "incoming/site-a/stat/a.tar", "v1"), states.DELIVERY_SK),
        (states.scan_pk(SCAN), states.INTAKE_SK),
        (states.scan_pk(SCAN), states.recon_sk(RECON)),
    ):
        found = ledger.claim(pk, sk, "new worker", 60)
        assert isinstance(found, Row)
        assert (found.state, found.ended) == (State.DONE, True)


def test_its_rows_and_attempts_are_shown(ledger):
    rows, attempts = ledger.scan(SCAN)
    assert {row.state for row in rows} == {State.DONE}
    (made,) = [row for row in rows if row.sk == states.recon_sk(RECON)]
    assert body_of(made) == RECORD
    assert [attempt["outcome"] for attempt in attempts] == ["done"]
    assert [row.get("code") for row in ledger.rows(State.REJECTED)] == ["no_raw_data"]


def test_its_failed_scan_is_tried_again(ledger):
    (failed,) = ledger.rows(State.FAILED)
    assert failed.get("code") == "out_of_memory"
    assert ledger.requeue(failed.pk, failed.sk)
    claim = ledger.claim(failed.pk, failed.sk, "new worker", 60)
    assert isinstance(claim, Claim)
    ledger.attempt("e" * 16, Stage.RECON, claim.token, owner="new worker")
    assert ledger.release(claim, State.DONE)
