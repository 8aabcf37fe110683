"""Send many small scans through emulated S3, SQS and DynamoDB while the workers die at random.

    python bench/chaos.py --scans 2000            # writes bench/results/chaos.md
    python bench/chaos.py --scans 200 --report -  # prints it

Real worker processes, the real adapters over HTTP, small honest stage functions.  A share of the archives is
announced twice, some are copied under a second key, some are no archives, some crash their process in every
try.  Workers are killed (``kill -9``), or told to stop, at random moments and replaced.  At the end every
scan must have exactly one end state and every done scan exactly one published record.
"""

import argparse
import collections
import contextlib
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests" / "cloud"))

from cloud_world import World, emulator, make_tar, scan_of  # noqa: E402

from mrirecon.contract.states import ENDED, State  # noqa: E402

KINDS = {"good": 90, "rejected": 4, "few-acs": 3, "crashing": 3}


def upload(world, number, chance):
    """Put scans of every kind; return what each must end as."""
    wanted = {}
    for index in range(number):
        kind = chance.choices(list(KINDS), KINDS.values())[0]
        content = f"scan {index} ".encode()
        extra = ["do-abort"] if kind == "crashing" else []
        archive = make_tar(content + (b"few-acs" if kind == "few-acs" else b""), *extra)
        if kind == "rejected":
            archive = content * 100
        wanted[scan_of(archive)] = {"good": "done", "rejected": "rejected", "few-acs": "rejected",
                                    "crashing": "failed"}[kind]  # fmt: skip
        lane = "stat" if chance.random() < 0.1 else "routine"
        world.put(archive, f"{index}.tar", lane=lane, announce=2 if chance.random() < 0.1 else 1)
        if chance.random() < 0.05:
            world.put(archive, f"{index}-copy.tar", lane=lane)
    return wanted


class Fleet:
    """Worker processes that are replaced when they die."""

    def __init__(self, world, sizes):
        self.world, self.sizes = world, sizes
        self.workers = {stage: [] for stage in sizes}
        self.killed = self.stopped = self.started = 0

    def mend(self):
        for stage, size in self.sizes.items():
            self.workers[stage] = [worker for worker in self.workers[stage] if worker.poll() is None]
            while len(self.workers[stage]) < size:
                environ = {
                    **self.world.environ,
                    "MRIRECON_POLL_SECONDS": "1",
                    "MRIRECON_DRAIN_SECONDS": "0.5",
                }
                self.workers[stage].append(subprocess.Popen(
                    [sys.executable, str(HERE.parent / "tests/cloud/run_worker.py"), stage], env=environ,
                    stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))  # fmt: skip
                self.started += 1

    def hurt(self, chance):
        alive = [worker for workers in self.workers.values() for worker in workers if worker.poll() is None]
        if not alive:
            return
        victim = chance.choice(alive)
        if chance.random() < 0.75:
            victim.kill()
            self.killed += 1
        else:
            victim.terminate()
            self.stopped += 1

    def end(self):
        for workers in self.workers.values():
            for worker in workers:
                worker.kill()
                worker.wait()


def run(scans, *, seed=1, every=6.0, sizes=None, patience=3600):
    """Do it; return the facts (and raise AssertionError when a scan was lost or doubled)."""
    chance = random.Random(seed)
    scratch = tempfile.mkdtemp(prefix="chaos-")
    with emulator() as moto, contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, scratch, True)
        world = World(moto.url, scratch, max_receives=6)
        wanted = upload(world, scans, chance)
        begun = time.monotonic()
        fleet = Fleet(world, sizes or {"decompress": 2, "recon": 2})
        stack.callback(fleet.end)
        hurt_at = begun + every
        while True:
            fleet.mend()
            time.sleep(0.5)
            if time.monotonic() >= hurt_at:
                fleet.hurt(chance)
                hurt_at = time.monotonic() + chance.expovariate(1 / every)
            if not world.outstanding():
                break
            assert time.monotonic() - begun < patience, f"not drained: {world.depths()}"
        seconds = time.monotonic() - begun
        with world.environment():
            from mrirecon.cloud.operators import Operator

            time.sleep(2.5)  # the leases of the last to die
            Operator().queues()  # records those whose worker was killed in the last try
        return judge(world, wanted, fleet, seconds)


def judge(world, wanted, fleet, seconds):
    items = world.items()
    ends = collections.defaultdict(dict)
    for item in items:
        if "state" in item and item["pk"].startswith("scan#"):
            ends[item["pk"].removeprefix("scan#")][item["sk"].partition("#")[0]] = item["state"]
    attempts = [item for item in items if item["sk"].startswith("attempt#")]
    told = world.s3.get_paginator("list_objects_v2").paginate(Bucket=world.buckets["images"])
    published = collections.Counter(
        item["Key"].split("/")[1] for page in told for item in page.get("Contents", [])
        if item["Key"].endswith("/scan.json")
    )  # fmt: skip
    final = {scan: ends[scan].get("recon") or ends[scan].get("intake") for scan in wanted}
    lost = [scan for scan, state in final.items() if state is None or State(state) not in ENDED]
    wrong = {
        scan: (wanted[scan], state) for scan, state in final.items()
        # A scan whose workers were killed in all of its tries has failed: an end, and it can be redriven.
        if state != wanted[scan] and state != "failed" and scan not in lost
    }  # fmt: skip
    doubled = [scan for scan, count in published.items() if count > 1]
    false = [scan for scan in published if final.get(scan) != "done"]
    false += [scan for scan, state in final.items() if state == "done" and published[scan] != 1]
    assert not lost, f"lost: {lost}"
    assert not doubled, f"double: {doubled}"
    assert not wrong, f"wrong ends: {wrong}"
    assert not false, f"published and not done, or done and not published: {false}"
    assert set(ends) == set(wanted)
    open_items = [item["sk"] for item in items if "state" in item and State(item["state"]) not in ENDED]
    assert not open_items, open_items
    outcomes = collections.Counter(item.get("outcome", "no outcome: its worker died") for item in attempts)
    return {
        "scans": len(wanted), "seconds": round(seconds, 1), "ends": dict(collections.Counter(final.values())),
        "killed": fleet.killed, "stopped": fleet.stopped, "workers_started": fleet.started,
        "attempts": len(attempts), "outcomes": dict(outcomes), "dead_letters": world.dead(),
        "records": sum(published.values()), "lost": len(lost), "double": len(doubled),
    }  # fmt: skip


def report(facts, seed):
    rows = "\n".join(f"| {name.replace('_', ' ')} | {json.dumps(value)} |" for name, value in facts.items())
    return f"""# Workers dying at random

`python bench/chaos.py --scans {facts["scans"]} --seed {seed}`: real worker processes, S3, SQS and DynamoDB
emulated over HTTP, small honest stage functions; 10 % of the archives announced twice, 5 % copied under a
second key, 4 % no archives, 3 % rejected by the reconstruction, 3 % crashing their process in every try;
workers killed or told to stop at random moments.

| what | |
|---|---|
{rows}

Every scan has exactly one end state; every `done` one has exactly one published record.
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scans", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--report", default=str(HERE / "results" / "chaos.md"))
    arguments = parser.parse_args()
    facts = run(arguments.scans, seed=arguments.seed)
    text = report(facts, arguments.seed)
    if arguments.report == "-":
        print(text)
    else:
        Path(arguments.report).write_text(text, encoding="utf-8")
        print(json.dumps(facts))


if __name__ == "__main__":
    main()
