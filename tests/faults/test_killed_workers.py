"""``kill -9`` of a worker at each time-point, an unforeseen error there, and SIGTERM there."""

import signal
import time

import pytest

from mrirecon.contract.states import TimePoint
from tests.support.cloud_world import make_tar, scan_of

OF_DECOMPRESS = ["announced", "received", "claimed", "read", "decompressed", "queued"]
OF_RECON = [
    "recon_received",
    "recon_claimed",
    "recon_read",
    "reconstructed",
    "uploaded",
    "published",
]
ALL = [
    *(("decompress", TimePoint(point)) for point in OF_DECOMPRESS),
    *(("recon", TimePoint(point)) for point in OF_RECON),
]
QUICK = {TimePoint.DECOMPRESSED, TimePoint.UPLOADED}
POINTS = [
    pytest.param(*pair, marks=() if pair[1] in QUICK else pytest.mark.slow, id=pair[1].value) for pair in ALL
]


def bring_to(world, stage):
    """Put a scan and bring it to the queue of ``stage``."""
    archive = make_tar(b"scan of this test", "do-noise")
    world.put(archive)
    if stage == "recon":
        world.worker("decompress").step()
    return archive


@pytest.mark.parametrize(("stage", "point"), POINTS)
def test_kill_9_of_a_worker_at_each_time_point(world, stage, point):
    archive = bring_to(world, stage)
    victim = world.process(stage, failpoint=f"{point.value}:kill")
    assert victim.wait(60) == -signal.SIGKILL
    world.drain()
    world.assert_done_once(archive, killed=True)
    assert sum(world.dead().values()) == 0


@pytest.mark.parametrize(("stage", "point"), ALL)
def test_unforeseen_error_at_each_time_point(world, stage, point):
    archive = bring_to(world, stage)
    worker = world.worker(stage, failpoint=f"{point.value}:error")
    world.drain(worker, world.worker("recon" if stage == "decompress" else "decompress"))
    world.assert_done_once(archive)


@pytest.mark.parametrize(("stage", "point"), POINTS)
def test_sigterm_at_each_stage_hands_the_scan_back(world, stage, point):
    archive = bring_to(world, stage)
    worker = world.process(stage, failpoint=f"{point.value}:hang", MRIRECON_DRAIN_SECONDS="0.2")
    deadline = time.monotonic() + 60
    queue = f"{stage}-routine"
    names = ["ApproximateNumberOfMessagesNotVisible"]
    while time.monotonic() < deadline:
        told = world.sqs.get_queue_attributes(QueueUrl=world.queues[queue], AttributeNames=names)[
            "Attributes"
        ]
        if told[names[0]] == "1":
            break
        time.sleep(0.05)
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(60) == 0
    world.drain()
    world.assert_done_once(archive)


def test_sigterm_lets_a_scan_finish_within_the_drain_time(world):
    archive = make_tar(b"finishes", "do-nap")
    world.put(archive)
    worker = world.process("decompress")
    deadline = time.monotonic() + 60
    while world.states_of(scan_of(archive)) != {"intake": "claimed"} and time.monotonic() < deadline:
        time.sleep(0.05)
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(60) == 0
    assert world.states_of(scan_of(archive))["intake"] == "done"
    (attempt,) = world.attempts(scan_of(archive), "decompress")
    assert attempt["outcome"] == "done"


@pytest.mark.slow
def test_a_worker_killed_in_its_last_try_leaves_a_failed_scan(make_world):
    world = make_world(max_receives=2)
    archive = bring_to(world, "decompress")
    for _ in range(2):
        victim = world.process("decompress", failpoint="read:kill")
        assert victim.wait(60) == -signal.SIGKILL
        time.sleep(2.1)  # its visibility
    deadline = time.monotonic() + 30
    worker = world.worker("decompress")
    while not world.all_ended() and time.monotonic() < deadline:
        worker._dead_at = -1e9
        worker.step()
        time.sleep(0.3)
    assert world.states_of(scan_of(archive)) == {"intake": "failed"}
    assert world.dead() == {"decompress": 1, "recon": 0}
    assert world.records() == []


def test_nothing_survives_a_killed_worker(world):
    import psutil

    world.put(make_tar(b"left behind", "do-hang"))
    worker = world.process("decompress")
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        family = psutil.Process(worker.pid).children(recursive=True)
        if len(family) >= 4 and world.depths()["decompress-routine"]:
            break
        time.sleep(0.1)
    time.sleep(0.5)
    family = psutil.Process(worker.pid).children(recursive=True)
    worker.kill()
    worker.wait()
    gone, alive = psutil.wait_procs(family, timeout=10)
    assert alive == []
    assert gone
