"""What the loop does with a message is the same in both stages; so are an operator's commands."""

import pytest

from mrirecon.contract.messages import ReconRequest
from tests.support.cloud_world import make_tar, scan_of

STAGES = ("decompress", "recon")


def request(scan):
    return ReconRequest(
        scan_id=scan,
        recon_id="01234567",
        profile="routine",
        site="a",
        priority="routine",
        kspace_key=f"kspace/{scan}/kspace.h5",
        kspace_sha256="0",
        kspace_bytes=1,
    ).dumps()


@pytest.mark.parametrize("stage", STAGES)
def test_a_scan_that_another_worker_holds_goes_to_the_end_of_its_own_lane(world, stage):
    worker = world.worker(stage)
    lane = worker.world.own_lanes[1]
    lane.send("held by another", group="a")
    message = lane.receive(0)
    worker._pass_on(lane, message, 0)
    again = lane.receive(0)
    assert (again.body, again.receives) == (message.body, 1)
    assert world.depths()[f"{stage}-routine"] == 1


@pytest.mark.parametrize("stage", STAGES)
def test_dead_letters_are_recorded_and_given_back(world, stage):
    archive = make_tar(b"dead in one stage")
    scan = scan_of(archive)
    if stage == "decompress":
        world.put(archive, announce=0)
        world.announce("incoming/a/routine/scan.tar")
        body = world.sqs.receive_message(QueueUrl=world.queues["decompress-routine"])["Messages"][0]["Body"]
    else:
        body = request(scan)
    world.send(f"{stage}-dead", body)
    (row,) = world.worker(stage).world.dead_letters.record()
    assert row.state.value in {"queued", "failed"}
    with world.operator() as operator:
        given = operator.redrive()
    assert given == {"decompress": 0, "recon": 0, stage: 1}
    assert world.dead() == {"decompress": 0, "recon": 0}
