"""Whether every scan of a chaos run has exactly one end, from what lies in the cloud when it is over.

Four witnesses are asked, none of them a worker's own report of success: the ledger, all *versions* of the
records in the images bucket, the messages as they were counted at the emulator's door, and the process
numbers of the workers that were killed or told to stop.
"""

import collections
import json
from dataclasses import dataclass, field

from mrirecon.contract.messages import ReconRequest, deliveries
from mrirecon.contract.states import ENDED, State

LOST_WORKER = {None, "handed back"}
"""How an attempt ends when its worker is killed, or told to stop and given no time."""


@dataclass
class Evidence:
    """What there is to judge by."""

    wanted: dict  # scan -> the state it must end in
    scan_of_key: dict  # raw key -> scan
    items: list  # the whole ledger
    records: list  # (scan, one version of one record)
    messages: list  # every message: queue, body, received {queue: times}, deleted
    dead: dict  # stage -> messages in its dead-letter queue
    max_receives: int
    hurt: set = field(default_factory=set)  # process numbers of the workers killed or told to stop
    run: dict = field(default_factory=dict)  # how it was run, and how long it took

    def keep(self, file):
        file.write_text(json.dumps(vars(self), default=sorted), encoding="utf-8")

    @classmethod
    def kept(cls, file):
        told = json.loads(file.read_text(encoding="utf-8"))
        return cls(**{**told, "hurt": set(told["hurt"])})


def judge(evidence):
    """Return the facts.

    Raises
    ------
    AssertionError
        When a scan was lost or doubled, ended otherwise than it must, or a message is unaccounted for.
    """
    wanted = evidence.wanted
    ends = collections.defaultdict(lambda: collections.defaultdict(list))
    for item in evidence.items:
        if "state" in item and item["pk"].startswith("scan#"):
            ends[item["pk"].removeprefix("scan#")][item["sk"].partition("#")[0]].append(item["state"])
    states = {scan: ends[scan]["recon"] or ends[scan]["intake"] for scan in wanted}
    final = {scan: told[0] for scan, told in states.items() if told}
    published = collections.Counter(scan for scan, _ in evidence.records)

    lost = [scan for scan in wanted if scan not in final or State(final[scan]) not in ENDED]
    double = [scan for scan, count in published.items() if count > 1]
    double += [scan for scan, told in states.items() if len(told) > 1]
    unwanted = {scan: state for scan, state in final.items() if state != wanted[scan] and scan not in lost}
    stage = {scan: "recon" if ends[scan]["recon"] else "decompress" for scan in unwanted}
    proven = {
        scan
        for scan, state in unwanted.items()
        if state == "failed" and all_tries_lost(evidence, scan, stage[scan])
    }
    wrong = {scan: (wanted[scan], state) for scan, state in unwanted.items() if scan not in proven}
    false = [scan for scan in published if final.get(scan) != "done"]
    false += [scan for scan, state in final.items() if state == "done" and not published[scan]]
    still_open = [
        item["sk"] for item in evidence.items if "state" in item and State(item["state"]) not in ENDED
    ]
    assert not lost, f"lost: {lost}"
    assert not double, f"double: {double}"
    assert not wrong, f"wrong ends: {wrong}"
    assert not false, f"published and not done, or done and not published: {false}"
    assert set(ends) == set(wanted), "scans that nobody uploaded"
    assert not still_open, still_open
    attempts = [item for item in evidence.items if item["sk"].startswith("attempt#")]
    tried = {(item["pk"], item["sk"].split("#")[1]) for item in attempts}
    outcomes = collections.Counter(item.get("outcome", "no outcome: its worker died") for item in attempts)
    return {
        **evidence.run,
        "scans": len(wanted),
        "end states": len(final),
        "ends": dict(collections.Counter(final.values())),
        "records published (all versions)": len(evidence.records),
        "lost": len(lost),
        "double": len(double),
        "failed because workers were lost in every try": len(proven),
        "attempts": len(attempts),
        "retries": len(attempts) - len(tried),
        "outcomes": dict(outcomes),
        **messages_of(evidence),
        "dead letters": evidence.dead,
    }


def all_tries_lost(evidence, scan, stage):
    """Whether the scan's message was handed out as often as the queue allows, and its workers were hurt.

    Every attempt that the ledger knows of must have ended by its worker's death or hand-back, and that worker
    must be one that was killed or told to stop.
    """
    attempts = [
        item
        for item in evidence.items
        if item["pk"] == f"scan#{scan}" and item["sk"].startswith(f"attempt#{stage}#")
    ]
    hurt = all(
        item.get("outcome") in LOST_WORKER and int(item["owner"].rsplit("-", 2)[1]) in evidence.hurt
        for item in attempts
    )
    spent = [
        message
        for message in evidence.messages
        if message["queue"].startswith(stage)
        and not message["deleted"]
        and lane_receives(message) >= evidence.max_receives
        and scan in scans_of(message, evidence)
    ]
    return bool(attempts and hurt and spent)


def scans_of(message, evidence):
    """Return the scans that a message is about."""
    if message["queue"].startswith("recon"):
        return {ReconRequest.loads(message["body"]).scan_id}
    return {evidence.scan_of_key[delivery.key] for delivery in deliveries(message["body"])}


def lane_receives(message):
    """Return how often a message was handed out to workers (and not to who looks at dead letters)."""
    return sum(times for queue, times in message["received"].items() if not queue.endswith("-dead"))


def messages_of(evidence):
    """Return the counts of each stage's messages; every one must be deleted or dead.

    When a run is over all dead letters are looked at, which is how they are known here.
    """
    told = {}
    for stage, sent in (("decompress", "announcements"), ("recon", "k-space messages")):
        mine = [message for message in evidence.messages if message["queue"].startswith(stage)]
        receives = [lane_receives(message) for message in mine]
        # One that was moved while its last worker was still deleting it counts as dead.
        dead = [message for message in mine if f"{stage}-dead" in message["received"]]
        deleted = [message for message in mine if message["deleted"] and message not in dead]
        assert len(mine) == len(deleted) + len(dead), f"{stage}: messages unaccounted for"
        assert len(dead) == evidence.dead[stage], f"{stage}: dead letters unaccounted for"
        passed_on = sum(message["delayed"] for message in mine)
        told[f"messages: {stage}"] = {
            f"{sent} sent": len(mine) - passed_on,
            "passed on as fresh copies": passed_on,
            "handed out": sum(receives),
            "of these again": sum(max(0, times - 1) for times in receives),
            "most times one was": max(receives, default=0),
            "deleted": len(deleted),
            "dead": len(dead),
        }
    return told


def rows(facts):
    """Return the facts as the rows of a table."""

    def cell(value):
        if not isinstance(value, dict):
            return str(value)
        return ", ".join(f"{name}: {number}" for name, number in value.items())

    return "\n".join(f"| {name} | {cell(value)} |" for name, value in facts.items())
