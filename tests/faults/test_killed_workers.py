"""``kill -9`` of a worker at each time-point, an unforeseen error there, and SIGTERM there."""

import signal

import pytest

from mrirecon.contract.states import TimePoint
from tests.support.cloud_world import make_tar, scan_of
from tests.support.waiting import wait_until

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
    wait_until(lambda: world.in_flight(f"{stage}-routine") == 1)
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(60) == 0
    world.drain()
    world.assert_done_once(archive)


def test_sigterm_lets_a_scan_finish_within_the_drain_time(world):
    archive = make_tar(b"finishes", "do-nap")
    world.put(archive)
    worker = world.process("decompress")
    wait_until(lambda: world.states_of(scan_of(archive)) == {"intake": "claimed"})
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
        wait_until(lambda: world.visible("decompress-routine") == 1)
    worker = world.worker("decompress")

    def ended():
        worker._dead_at = -1e9
        worker.step()
        return world.all_ended()

    wait_until(ended)
    assert world.states_of(scan_of(archive)) == {"intake": "failed"}
    assert world.dead() == {"decompress": 1, "recon": 0}
    assert world.records() == []


def test_nothing_survives_a_killed_worker(world):
    import psutil

    archive = make_tar(b"left behind", "do-hang")
    world.put(archive)
    worker = world.process("decompress")
    wait_until(lambda: world.states_of(scan_of(archive)) == {"intake": "claimed"})
    seen = set()

    def settled():
        """Whether the family is complete: at least four, and the same as at the last look."""
        nonlocal seen
        before, seen = seen, set(psutil.Process(worker.pid).children(recursive=True))
        return len(seen) >= 4 and seen == before

    wait_until(settled, every=0.2)
    family = list(seen)
    worker.kill()
    worker.wait()
    gone, alive = psutil.wait_procs(family, timeout=10)
    assert alive == []
    assert gone
