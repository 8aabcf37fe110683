"""Services in trouble: S3, SQS and DynamoDB failing, slow, throttled, lossy; a full disk; a wrong clock."""

import time

import pytest

from mrirecon.aws import store as store_module
from mrirecon.aws.clock import ServerClock
from tests.support.cloud_world import make_tar, scan_of


@pytest.fixture
def behind(make_world, proxy):
    def make(**settings):
        return make_world(url=proxy.url, **settings)

    return make


@pytest.mark.slow
@pytest.mark.parametrize("kind", [500, 503])
@pytest.mark.parametrize("method", ["GET", "PUT", "HEAD"])
def test_s3_answering_500_or_503(behind, proxy, kind, method):
    world = behind()
    archive = make_tar(b"s3 in trouble")
    world.put(archive)
    workers = world.worker("decompress"), world.worker("recon")
    fault = proxy.inject(kind, "s3", operation=method, times=4)
    world.drain(*workers)
    assert fault.hits == 4
    world.assert_done_once(archive)


def test_s3_down_for_longer_than_the_client_tries(behind, proxy):
    world = behind()
    archive = make_tar(b"s3 down")
    world.put(archive)
    workers = world.worker("decompress"), world.worker("recon")
    fault = proxy.inject(503, "s3", operation="GET", times=8)  # more than one try of ours can take
    world.drain(*workers)
    assert fault.hits == 8
    world.assert_done_once(archive)


def test_s3_slow(behind, proxy):
    world = behind()
    archive = make_tar(b"s3 slow")
    world.put(archive)
    workers = world.worker("decompress"), world.worker("recon")
    proxy.inject("slow", "s3", operation="GET", times=1, seconds=3)  # longer than the visibility
    world.drain(*workers)
    world.assert_done_once(archive)
    assert len(world.attempts(scan_of(archive), "decompress")) == 1  # the heartbeat held it


@pytest.mark.parametrize("kind", ["cut", "flip"])
def test_corrupt_object_on_the_way(behind, proxy, kind):
    """What arrives is not what was stored: it is never taken for the scan."""
    world = behind()
    archive = make_tar(b"on the way" * 1000)
    world.put(archive)
    workers = world.worker("decompress"), world.worker("recon")
    fault = proxy.inject(kind, "s3", operation="GET", path="scan.tar", times=2)
    world.drain(*workers)
    assert fault.hits == 2
    world.assert_done_once(archive)


def test_corrupt_object_for_good_fails_and_makes_no_images(behind, proxy):
    world = behind(max_receives=2)
    world.put(make_tar(b"rotten" * 1000))
    worker = world.worker("decompress")
    proxy.inject("flip", "s3", operation="GET", path="scan.tar", times=10**6)
    deadline = time.monotonic() + 60
    while not world.dead()["decompress"] and time.monotonic() < deadline:
        worker.step()
    (row,) = [item for item in world.items() if "state" in item]
    assert (row["state"], row["code"]) == ("failed", "storage")
    assert "not what was stored" in row["message"]
    assert world.keys_in("kspace") == []


def test_kspace_corrupted_between_the_stages_is_not_reconstructed(world):
    archive = make_tar(b"between")
    world.put(archive)
    world.worker("decompress").step()
    key = f"kspace/{scan_of(archive)}/kspace.h5"
    world.s3.put_object(Bucket=world.buckets["kspace"], Key=key, Body=b"KSPACEbetweeN")
    world.worker("recon").step()
    assert world.records() == []
    row = next(item for item in world.items() if item["sk"].startswith("recon#"))
    assert (row["state"], row["code"]) == ("queued", "storage")


@pytest.mark.slow
@pytest.mark.parametrize(
    "operation", ["ReceiveMessage", "DeleteMessage", "SendMessage", "ChangeMessageVisibility"]
)
@pytest.mark.parametrize("kind", ["throttle", "lost"])
def test_throttled_sqs(behind, proxy, operation, kind):
    world = behind()
    archives = [make_tar(b"sqs %d" % number) for number in range(2)]
    for number, archive in enumerate(archives):
        world.put(archive, f"{number}.tar")
    workers = world.worker("decompress"), world.worker("recon")
    proxy.inject(kind, "sqs", operation=operation, times=6)
    world.drain(*workers)
    world.assert_done_once(*archives)


@pytest.mark.parametrize("kind", ["throttle", "lost"])
@pytest.mark.parametrize("skip", [0, *(pytest.param(skip, marks=pytest.mark.slow) for skip in (3, 7, 11))])
def test_throttled_dynamodb(behind, proxy, kind, skip):
    world = behind()
    archive = make_tar(b"ledger")
    world.put(archive)
    workers = world.worker("decompress"), world.worker("recon")
    fault = proxy.inject(kind, "dynamodb", operation="UpdateItem", times=7, skip=skip)
    world.drain(*workers)
    assert fault.hits == 7
    world.assert_done_once(archive)


def test_an_answer_lost_after_publishing_is_no_second_result(behind, proxy):
    world = behind()
    archive = make_tar(b"lost answer")
    world.put(archive)
    workers = world.worker("decompress"), world.worker("recon")
    fault = proxy.inject("lost", "s3", operation="PUT", path="scan.json", times=1)
    world.drain(*workers)
    assert fault.hits == 1
    world.assert_done_once(archive)


def test_disk_full_is_seen_before_the_download(world, proxy, monkeypatch):
    archive = make_tar(b"disk")
    world.put(archive)
    full = True

    def usage(folder):
        free = 1000 if full else 10**12
        return type("usage", (), {"free": free, "total": 10**12})

    monkeypatch.setattr(store_module.shutil, "disk_usage", usage)
    downloads = []
    worker = world.worker("decompress")
    real = worker.world.store.download
    worker.world.store.download = lambda *args: (downloads.append(1), real(*args))[1]
    worker.step()
    (row,) = [item for item in world.items() if "state" in item]
    assert (row["state"], row["code"]) == ("queued", "disk_full")
    assert "GB" in row["message"]
    assert downloads == []
    full = False
    world.drain(worker, world.worker("recon"))
    world.assert_done_once(archive)


def test_disk_full_in_the_midst_of_a_scan(make_world):
    world = make_world(max_receives=2)
    archive = make_tar(b"fills", "do-full")
    world.put(archive)
    worker = world.worker("decompress")
    deadline = time.monotonic() + 30
    while not world.dead()["decompress"] and time.monotonic() < deadline:
        worker.step()
    row = next(item for item in world.items() if item["sk"] == "intake")
    assert (row["state"], row["code"]) == ("failed", "disk_full")
    assert world.leftovers() == []


@pytest.mark.parametrize("hours", [-3, 3])
def test_clock_skew(world, hours):
    """One worker's clock is wrong by hours; leases and settle times are the ledger's, so nobody notices."""
    archives = [make_tar(b"skew %d" % number) for number in range(3)]
    for number, archive in enumerate(archives):
        world.put(archive, f"{number}.tar")
    right = world.worker("decompress")
    wrong = world.worker("decompress")
    clock = ServerClock(lambda: time.time() + 3600 * hours)
    for heard in (wrong.world.ledger._table._db, wrong.world.store._s3):
        heard.meta.events.register(
            "after-call",
            lambda parsed, **_: clock.hear(parsed["ResponseMetadata"]["HTTPHeaders"].get("date")),
        )
    wrong.world.ledger.clock = clock
    wrong.world.ledger.get("a", "b")
    assert abs(clock.now() - time.time()) < 3
    wrong.step()
    world.drain(right, wrong, world.worker("recon"))
    world.assert_done_once(*archives)


@pytest.mark.parametrize(
    ("what", "code"),
    [
        ("abort", "worker_lost"),
        ("segfault", "worker_lost"),
        ("oom-kill", "out_of_memory"),
        ("exit", "worker_lost"),
        ("memory", "out_of_memory"),
        ("unknown", "internal"),
        ("retryable", "storage"),
    ],
)
def test_a_scan_that_crashes_its_process_takes_nobody_with_it(make_world, what, code, capfd):
    world = make_world(max_receives=2)
    bad, good = make_tar(b"bad", f"do-{what}"), make_tar(b"good")
    world.put(bad, "bad.tar")
    world.put(good, "good.tar")
    workers = world.worker("decompress"), world.worker("recon")
    deadline = time.monotonic() + 60
    while world.outstanding() and time.monotonic() < deadline:
        for worker in workers:
            worker.step()
    world.assert_done_once_and_failed([good], [bad])
    row = next(item for item in world.items() if item["sk"] == "intake" and item["state"] == "failed")
    assert row["code"] == code
    assert world.dead()["decompress"] == 1
    assert "DOE" not in "".join(capfd.readouterr())


@pytest.mark.parametrize(
    ("limit", "code"), [("MRIRECON_SILENCE_SECONDS", "silent"), ("MRIRECON_SCAN_SECONDS", "timed_out")]
)
def test_a_hung_scan_is_ended_with_a_sentence(make_world, limit, code):
    world = make_world(max_receives=1, **{limit: "0.7"})
    world.put(make_tar(b"hangs", "do-hang"))
    worker = world.worker("decompress")
    worker.step()
    row = next(item for item in world.items() if item["sk"] == "intake")
    assert (row["state"], row["code"]) == ("failed", code)
    assert "ended" in row["message"]


@pytest.mark.parametrize(
    ("service", "name", "what"),
    [
        ("s3", "MRIRECON_RAW_BUCKET", "bucket"),
        ("dynamodb", "MRIRECON_LEDGER_TABLE", "table"),
        ("sqs", "MRIRECON_RECON_STAT_QUEUE_URL", "queue"),
    ],
)
def test_no_permission_ends_a_worker_at_its_start_with_a_sentence(behind, proxy, service, name, what):
    world = behind()
    proxy.inject(403, service, times=10**6)
    worker = world.process("recon")
    _, told = worker.communicate(timeout=120)
    assert worker.returncode == 2
    assert f"{name}: this worker's role may not use the {what}; grant it the permission." in told.splitlines()
