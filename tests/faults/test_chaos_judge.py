"""The judge of the chaos runs: it must pass what is right and catch what is planted."""

import copy
import json
import random
from types import SimpleNamespace

import pytest

from tests.support import chaos
from tests.support.chaos_judge import Evidence, judge

PID = 4711
GOOD, VICTIM = "a" * 16, "b" * 16


def announcement(number, received=1, deleted=True):
    detail = {"bucket": {"name": "raw"}, "object": {"key": f"incoming/a/routine/{number}.tar"}}
    body = {"source": "aws.s3", "detail-type": "Object Created", "time": "2027-01-01T00:00:00Z"}
    return {
        "queue": "decompress-routine",
        "body": json.dumps({**body, "detail": detail}),
        "delayed": False,
        "received": {"decompress-routine": received} | ({} if deleted else {"decompress-dead": 1}),
        "deleted": deleted,
    }


def attempt(scan, token, outcome=None, pid=PID, stage="decompress"):
    more = {"outcome": outcome} if outcome else {}
    return {
        "pk": f"scan#{scan}",
        "sk": f"attempt#{stage}#{token:04}",
        "owner": f"a-host-{pid}-c0ffee",
        **more,
    }


def evidence(**changes):
    """One scan that is done, and one whose workers were killed in all of its three tries."""
    told = {
        "wanted": {GOOD: "done", VICTIM: "done"},
        "scan_of_key": {"incoming/a/routine/0.tar": GOOD, "incoming/a/routine/1.tar": VICTIM},
        "items": [
            {"pk": f"scan#{GOOD}", "sk": "intake", "state": "done"},
            {"pk": f"scan#{GOOD}", "sk": "recon#01234567", "state": "done"},
            attempt(GOOD, 1, "done"),
            attempt(GOOD, 1, "done", stage="recon"),
            {"pk": f"scan#{VICTIM}", "sk": "intake", "state": "failed"},
            attempt(VICTIM, 1),
            attempt(VICTIM, 2, "handed back"),
            attempt(VICTIM, 3),
        ],
        "records": [(GOOD, "v1")],
        "messages": [announcement(0), announcement(1, received=3, deleted=False)],
        "dead": {"decompress": 1, "recon": 0},
        "max_receives": 3,
        "hurt": {PID},
    }
    return Evidence(**{**told, **changes})


def test_what_is_right_passes():
    facts = judge(evidence())
    assert facts["scans"] == facts["end states"] == 2
    assert facts["failed because workers were lost in every try"] == 1
    assert facts["retries"] == 2
    assert facts["messages: decompress"] == {
        "announcements sent": 2,
        "passed on as fresh copies": 0,
        "handed out": 4,
        "of these again": 2,
        "most times one was": 3,
        "deleted": 1,
        "dead": 1,
    }


def test_evidence_that_was_kept_is_judged_alike(tmp_path):
    told = evidence(run={"seconds": 1.5})
    told.keep(tmp_path / "evidence.json")
    assert judge(Evidence.kept(tmp_path / "evidence.json")) == judge(told)


def without(items, scan, sk):
    return [item for item in items if not (item["pk"] == f"scan#{scan}" and item["sk"].startswith(sk))]


PLANTED = {
    "lost": lambda it: {"items": without(it.items, VICTIM, "intake")},
    "lost: ": lambda it: {
        "items": [
            {**item, "state": "queued"} if item["sk"] == "recon#01234567" else item for item in it.items
        ]
    },
    "double": lambda it: {"records": [(GOOD, "v1"), (GOOD, "v2")]},
    "double: ": lambda it: {
        "items": [*it.items, {"pk": f"scan#{GOOD}", "sk": "recon#76543210", "state": "done"}]
    },
    "done and not published": lambda it: {"records": []},
    "published and not done": lambda it: {"records": [*it.records, (VICTIM, "v1")]},
    "nobody uploaded": lambda it: {"wanted": {GOOD: "done"}},
    "messages unaccounted": lambda it: {"messages": [*it.messages, {**announcement(0), "deleted": False}]},
    "dead letters unaccounted": lambda it: {"dead": {"decompress": 2, "recon": 0}},
    "wrong ends": lambda it: {"wanted": {GOOD: "rejected", VICTIM: "done"}},
    # The victim's failure is not proven to be its workers' death:
    "wrong ends: .*failed": lambda it: {"hurt": set()},
    "wrong ends: {'b": lambda it: {"items": [*it.items, attempt(VICTIM, 4, "tried again")]},
    "wrong ends: {'bb": lambda it: {"messages": [announcement(0), announcement(1, 2, deleted=False)]},
    "wrong ends: {'bbb": lambda it: {"items": without(it.items, VICTIM, "attempt")},
}


@pytest.mark.parametrize("verdict", PLANTED)
def test_what_is_planted_is_caught(verdict):
    right = evidence()
    with pytest.raises(AssertionError, match=verdict):
        judge(evidence(**PLANTED[verdict](right)))


def test_a_record_put_over_another_is_seen_in_a_real_run(make_world):
    world = make_world(max_receives=chaos.MAX_RECEIVES)
    wanted, keys = chaos.upload(world, 4, random.Random(3))
    world.drain()

    def collect():
        return chaos.evidence_of(world, wanted, keys, SimpleNamespace(hurt_pids=set()))

    good = collect()
    facts = judge(good)
    assert facts["records published (all versions)"] == facts["ends"]["done"] > 0
    assert facts["messages: decompress"]["announcements sent"] >= 4
    assert facts["messages: recon"]["k-space messages sent"] >= facts["ends"]["done"]
    lost = copy.deepcopy(good)
    lost.items = [item for item in lost.items if item["pk"] != f"scan#{next(iter(wanted))}"]
    with pytest.raises(AssertionError, match="lost"):
        judge(lost)
    key = world.records()[0]
    world.s3.put_object(Bucket=world.buckets["images"], Key=key, Body=world.read("images", key))
    with pytest.raises(AssertionError, match="double"):
        judge(collect())
