"""Which lane a worker looks into, and what that costs."""

import pytest

from mrirecon.aws.ports import Message
from mrirecon.cloud.worker.hold import Drain
from mrirecon.cloud.worker.loop import Times, Worker, logs
from mrirecon.contract.states import Stage


class Lane:
    """A lane that keeps book of what a receive waited; an empty one waits as long as it is let."""

    max_receives = 4

    def __init__(self, name, waited):
        self.name, self.bodies, self._waited = name, [], waited

    def receive(self, wait):
        if not self.bodies:
            self._waited.append((self.name, wait))
            return None
        return Message(id="i", body=self.bodies.pop(0), receipt="r", receives=1)

    def extend(self, message, seconds):
        return True

    def delete(self, message):
        pass


class Handler:
    stage = Stage.RECON

    def __init__(self):
        self.done = []

    def handle(self, hold):
        self.done.append(hold.message.body)


@pytest.fixture
def lanes():
    logs.configure("test", "CRITICAL")
    waited = []
    return Lane("stat", waited), Lane("routine", waited), waited


def make(lanes, poll=10.0):
    handler = Handler()
    return Worker(handler, lanes[:2], None, drain=Drain(0), times=Times(poll=poll)), handler


def test_an_empty_stat_lane_does_not_slow_a_busy_routine_lane(lanes):
    lanes[1].bodies = [f"routine {number}" for number in range(50)]
    worker, handler = make(lanes)
    while len(handler.done) < 50:
        assert worker.step()
    assert sum(wait for _, wait in lanes[2]) == 0


def test_stat_goes_first_whenever_it_comes(lanes):
    stat, routine, _ = lanes
    routine.bodies = [f"routine {number}" for number in range(4)]
    worker, handler = make(lanes)
    worker.step()
    stat.bodies = ["stat 0", "stat 1"]
    for _ in range(5):
        worker.step()
    assert handler.done == ["routine 0", "stat 0", "stat 1", "routine 1", "routine 2", "routine 3"]


def test_an_idle_worker_waits_at_both_lanes_in_turn(lanes):
    worker, handler = make(lanes)
    for _ in range(4):
        assert not worker.step()
    waits = [(name, wait) for name, wait in lanes[2] if wait]
    assert sorted(waits[:2]) == sorted(waits[2:]) == [("routine", 5.0), ("stat", 5.0)]
    lanes[0].bodies, lanes[1].bodies = ["stat"], ["routine"]
    assert worker.step()
    assert handler.done == ["stat"]


def test_without_a_long_poll_nothing_waits(lanes):
    worker, _ = make(lanes, poll=0)
    assert not worker.step()
    assert lanes[2] == [("stat", 0), ("routine", 0)]
