"""Random interleavings of workers, deaths, errors and time, and the moments that they meet too seldom."""

import pytest
from hypothesis import HealthCheck, settings

from mrirecon.cloud.worker import metrics
from tests.support.interleaving import LEASE, Actor, Cloud, Publication, go_on, go_to, records_in, take_over

# Directed: the moments that the machines above meet too seldom.


@pytest.fixture
def scene():
    """One scan that waits for its images, and workers that stand where they are told to."""
    machine = Publication()
    Publication.begin(machine)
    yield machine
    for actor in machine.living():
        while not actor.finished:
            actor.advance("die")
    machine.folder.cleanup()


def test_two_workers_before_the_same_record_publish_it_once(scene):
    first = take_over(scene)
    go_to(first, "put_if_absent")  # its token was confirmed a moment ago
    second = take_over(scene)
    go_to(second, "put_if_absent")
    go_on(second)
    (record,) = records_in(scene)
    published = scene._folder(record)
    go_on(first)
    assert records_in(scene) == [record]
    assert scene._folder(record) == published
    scene.what_is_published_never_changes()


def test_who_lost_its_token_before_publishing_does_not_publish(scene):
    first = take_over(scene)
    go_to(first, "renew")  # the confirmation
    second = take_over(scene)
    go_to(second, "upload")  # it makes the images anew
    go_on(first)
    assert records_in(scene) == []
    go_on(second)
    assert len(records_in(scene)) == 1
    scene.what_is_published_never_changes()


def test_who_lost_its_token_replaces_no_file_of_the_next(scene):
    dead = take_over(scene)
    go_to(dead, "renew")  # all its files lie there, unpublished
    dead.advance("die")
    first = take_over(scene)
    go_to(first, "upload")
    for _ in range(3):  # every file lies there; the first two are the same, the third it would replace
        first.advance()
        go_to(first, "head")
    second = take_over(scene)
    go_to(second, "put_if_absent")  # it has replaced them
    files = list(scene.store.history)
    go_on(first)
    assert scene.store.history == files
    go_on(second)
    assert len(records_in(scene)) == 1


def test_who_lost_its_token_asks_for_no_images(scene):
    Cloud.upload(scene, "scan 1", "routine", "")
    waiting = len(scene.lanes["r-routine"].messages)
    scene.actors.append(Actor(scene, "decompress"))
    first = scene.actors[-1]
    go_to(first, "renew")
    scene.clock.time += LEASE + 1
    for item in scene.lanes["d-routine"].messages:
        item["visible_at"] = 0
    scene.actors.append(Actor(scene, "decompress"))
    second = scene.actors[-1]
    go_to(second, "renew")
    go_on(first)
    assert len(scene.lanes["r-routine"].messages) == waiting
    go_on(second)
    assert len(scene.lanes["r-routine"].messages) == waiting + 1


@pytest.fixture(autouse=True)
def _quiet(monkeypatch):
    monkeypatch.setattr(metrics, "emit", lambda *_: None)


TestCloud, TestPublication = Cloud.TestCase, Publication.TestCase
TestCloud.settings = TestPublication.settings = settings(
    max_examples=80, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
