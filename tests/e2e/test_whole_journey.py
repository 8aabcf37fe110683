"""Real scans through the deployed stacks: what comes out is scored, and each archive has one end.

The stacks are deployed once; then archives of several kinds are uploaded as a gateway would, some twice, and
the deployed events, queues, Lambdas and ledger and the real workers bring each to its end.
"""

import io
import json
import tarfile
import time
from pathlib import Path

import h5py
import pytest

from emulator.emulated_cloud import EmulatedCloud
from mrirecon.contract import keys, states
from mrirecon.contract.ids import scan_id
from tests.support.wrapping import wrap

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
REAL = ("brain7_labmidas", "phantom16_pulseq128")
FLOOR = {"brain7_labmidas": 32.4, "phantom16_pulseq128": 35.7}
MINUTES = 15


@pytest.fixture(scope="module")
def archives(shared_data, evaluate, tmp_path_factory):
    """Name, path and expected end of every archive that is sent."""
    folder = tmp_path_factory.mktemp("archives")
    made = {}
    for name in REAL:
        full = evaluate.load_scan(str(shared_data / "scans" / "multicoil" / f"{name}.npz"))
        _, lines, _ = evaluate.undersample(full, 4, 40)
        made[name] = (wrap(full, lines, folder / f"DOE-JANE-{name}.tar", 4), "done", full)
    for name, raw in (
        ("twix", "siemens_twix/twixtools_gre.dat"),
        ("shepp", "ismrmrd/shepp_oblique_5sl.h5"),
        ("epi", "ismrmrd_from_siemens/twixtools_epi.h5"),
    ):
        path = folder / f"DOE-JANE-{name}.tar"
        with tarfile.open(path, "w") as tar:
            tar.add(shared_data / "scans" / raw, arcname=Path(raw).name)
        made[name] = (path, "rejected" if name == "epi" else "done", None)
    made["hostile"] = (shared_data / "hostile" / "link_sym_file.tar", "rejected", None)
    return evaluate, made


@pytest.fixture(scope="module")
def ends(archives, tmp_path_factory):
    """Send everything through one deployed cloud; return it with the record and image of every scan."""
    _, made = archives
    with EmulatedCloud(tmp_path_factory.mktemp("cloud")) as cloud:
        cloud.deploy()
        cloud.work()
        s3 = cloud.client("s3")
        raw = cloud.outputs["RawBucket"]
        for name, (path, _, _) in made.items():
            lane = keys.Priority.STAT if name == REAL[0] else keys.Priority.ROUTINE
            s3.upload_file(str(path), raw, keys.incoming("main", lane, path.name))
        twice = made[REAL[0]][0]
        s3.upload_file(str(twice), raw, keys.incoming("main", keys.Priority.ROUTINE, "again.tar"))
        yield cloud, {name: _follow(cloud, path) for name, (path, _, _) in made.items()}


def _follow(cloud, path):
    with path.open("rb") as file:
        scan = scan_id(file)
    db, table = cloud.client("dynamodb"), cloud.outputs["LedgerTable"]
    deadline = time.monotonic() + MINUTES * 60
    while time.monotonic() < deadline:
        rows = db.query(
            TableName=table,
            KeyConditionExpression="pk = :pk",
            ExpressionAttributeValues={":pk": {"S": states.scan_pk(scan)}},
        )["Items"]
        told = {row["sk"]["S"]: row.get(states.STATE, {}).get("S") for row in rows}
        recons = [state for sk, state in told.items() if sk.startswith("recon#")]
        ended = recons or ([told.get(states.INTAKE_SK)] if told.get(states.INTAKE_SK) != "done" else [])
        if ended and all(state in {"done", "rejected", "failed"} for state in ended):
            return scan, told
        time.sleep(1)
    logs = cloud.runner.logs()
    raise AssertionError(f"{scan} has not ended: {told}; {[text[-800:] for text in logs.values()]}")


def _published(cloud, scan):
    s3, bucket = cloud.client("s3"), cloud.outputs["ImagesBucket"]
    found = s3.list_objects_v2(Bucket=bucket, Prefix=f"{keys.IMAGES}{scan}/").get("Contents", [])
    return {one["Key"]: s3.get_object(Bucket=bucket, Key=one["Key"])["Body"].read() for one in found}


@pytest.mark.parametrize("name", [*REAL, "twix", "shepp", "epi", "hostile"])
def test_each_archive_has_the_end_it_must_have(archives, ends, name):
    cloud, told = ends
    scan, rows = told[name]
    wanted = archives[1][name][1]
    last = [state for sk, state in rows.items() if sk.startswith("recon#")] or [rows[states.INTAKE_SK]]
    assert last == [wanted]
    records = [key for key in _published(cloud, scan) if key.endswith(keys.RECORD_FILE)]
    assert len(records) == (wanted == "done"), "published once, and only what was done"


@pytest.mark.parametrize("name", REAL)
def test_the_image_of_a_real_scan_is_good(archives, ends, name):
    evaluate, made = archives
    cloud, told = ends
    files = _published(cloud, told[name][0])
    record = json.loads(next(body for key, body in files.items() if key.endswith(keys.RECORD_FILE)))
    assert record["method"] == "pics"
    assert record["holdout_errors"]["pics"] < record["holdout_errors"]["grappa"]
    body = next(body for key, body in files.items() if key.endswith("image.h5"))
    with h5py.File(io.BytesIO(body)) as file:
        image = file["image"][0, 0]
    assert evaluate.score(image, made[name][2])["psnr"] >= FLOOR[name]


def test_a_rejected_archive_is_kept_with_its_reason(ends):
    cloud, told = ends
    s3, bucket = cloud.client("s3"), cloud.outputs["QuarantineBucket"]
    for name, code in (("hostile", "link_member"), ("epi", "unsupported")):
        scan = told[name][0]
        reason = json.loads(
            s3.get_object(Bucket=bucket, Key=keys.quarantine(scan, "reason.json"))["Body"].read()
        )
        assert reason["code"] == code
        assert s3.head_object(Bucket=bucket, Key=keys.quarantine(scan))["ContentLength"] > 0


def test_the_share_was_refreshed_and_nothing_is_left_in_a_queue(ends):
    cloud, _ = ends
    deadline = time.monotonic() + 120
    while not cloud.refreshes and time.monotonic() < deadline:
        time.sleep(1)
    assert cloud.refreshes
    sqs = cloud.client("sqs")
    for name in ("DecompressDeadLetters", "ReconDeadLetters"):
        attributes = sqs.get_queue_attributes(QueueUrl=cloud.outputs[name], AttributeNames=["All"])[
            "Attributes"
        ]
        assert attributes["ApproximateNumberOfMessages"] == "0"


def test_no_name_of_a_file_is_in_the_ledger_or_the_results(ends):
    cloud, told = ends
    items = cloud.client("dynamodb").scan(TableName=cloud.outputs["LedgerTable"])["Items"]
    text = json.dumps(items)
    assert "DOE-JANE" not in text
    for scan, _ in told.values():
        for key, body in _published(cloud, scan).items():
            assert "DOE-JANE" not in key
            assert b"DOE-JANE" not in body, key
