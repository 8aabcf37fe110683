"""Many small scans through emulated S3, SQS and DynamoDB while the workers die at random.

Real worker processes, the real adapters over HTTP, small honest stage functions.  A share of the archives is
announced twice, some are copied under a second key, some are no archives, some crash their process in every
try.  Workers are killed (``kill -9``), or told to stop, at random moments and replaced.  At the end every
scan must have exactly one end state and every done scan exactly one published record (``chaos_judge.py``).
"""

import contextlib
import random
import shutil
import subprocess
import sys
import tempfile
import time

from tests.support.chaos_judge import Evidence, judge
from tests.support.cloud_world import World, emulator, make_tar, scan_of

KINDS = {"good": 90, "rejected": 4, "few-acs": 3, "crashing": 3}
ENDS = {"good": "done", "rejected": "rejected", "few-acs": "rejected", "crashing": "failed"}
MAX_RECEIVES = 6


def upload(world, number, chance):
    """Put scans of every kind; return what each must end as, and which scan lies under which key."""
    wanted, keys = {}, {}
    # So that a record that was published over another is seen: it leaves two versions.
    world.s3.put_bucket_versioning(
        Bucket=world.buckets["images"], VersioningConfiguration={"Status": "Enabled"}
    )
    for index in range(number):
        kind = chance.choices(list(KINDS), KINDS.values())[0]
        content = f"scan {index} ".encode()
        extra = ["do-abort"] if kind == "crashing" else []
        archive = make_tar(content + (b"few-acs" if kind == "few-acs" else b""), *extra)
        if kind == "rejected":
            archive = content * 100
        scan = scan_of(archive)
        wanted[scan] = ENDS[kind]
        lane = "stat" if chance.random() < 0.1 else "routine"
        names = [(f"{index}.tar", 2 if chance.random() < 0.1 else 1)]
        if chance.random() < 0.05:
            names.append((f"{index}-copy.tar", 1))
        for name, times in names:
            key, _ = world.put(archive, name, lane=lane, announce=times)
            keys[key] = scan
    return wanted, keys


class Fleet:
    """Worker processes that are replaced when they die."""

    def __init__(self, world, sizes):
        self.world, self.sizes = world, sizes
        self.workers = {stage: [] for stage in sizes}
        self.killed = self.stopped = self.started = 0
        self.hurt_pids = set()

    def mend(self):
        for stage, size in self.sizes.items():
            self.workers[stage] = [worker for worker in self.workers[stage] if worker.poll() is None]
            while len(self.workers[stage]) < size:
                environ = {
                    **self.world.environ,
                    "MRIRECON_POLL_SECONDS": "1",
                    "MRIRECON_DRAIN_SECONDS": "0.5",
                }
                self.workers[stage].append(
                    subprocess.Popen(
                        [sys.executable, "-m", "tests.support.run_worker", stage],
                        env=environ,
                        stdout=subprocess.DEVNULL,
                        stderr=subprocess.DEVNULL,
                    )
                )
                self.started += 1

    def hurt(self, chance):
        alive = [worker for workers in self.workers.values() for worker in workers if worker.poll() is None]
        if not alive:
            return
        victim = chance.choice(alive)
        self.hurt_pids.add(victim.pid)
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


def run(scans, *, seed=1, every=6.0, workers=2, patience=3600, evidence=None, say=lambda text: None):
    """Do it; return the facts (and raise AssertionError when a scan was lost or doubled).

    ``every``: mean seconds between two misfortunes; ``workers``: processes of each stage;
    ``evidence``: a file to keep what is judged in.
    """
    chance = random.Random(seed)
    scratch = tempfile.mkdtemp(prefix="chaos-")
    with emulator() as moto, contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, scratch, True)
        world = World(moto.url, scratch, max_receives=MAX_RECEIVES)
        wanted, keys = upload(world, scans, chance)
        begun = said_at = time.monotonic()
        fleet = Fleet(world, {"decompress": workers, "recon": workers})
        stack.callback(fleet.end)
        hurt_at, look_at = begun + every, begun
        while True:
            fleet.mend()
            time.sleep(0.5)
            now = time.monotonic()
            if now >= hurt_at:
                fleet.hurt(chance)
                hurt_at = now + chance.expovariate(1 / every)
            if now >= look_at:  # moto counts by walking through all messages: not too often
                look_at = now + 3
                if not world.outstanding():
                    break
            if now - said_at > 30:
                said_at = now
                say(f"{now - begun:.0f} s, {fleet.killed + fleet.stopped} hurt, {world.depths()}")
            assert now - begun < patience, f"not drained: {world.depths()}"
        seconds = time.monotonic() - begun
        with world.environment():
            from mrirecon.cloud.operators.operator import Operator

            time.sleep(2.5)  # the leases of the last to die
            Operator().queues()  # records those whose worker was killed in the last try
        found = evidence_of(world, wanted, keys, fleet)
        found.run = {
            "seconds": round(seconds, 1),
            "workers of each stage": workers,
            "killed": fleet.killed,
            "told to stop": fleet.stopped,
            "workers started": fleet.started,
        }
        if evidence is not None:
            found.keep(evidence)
        return judge(found)


def evidence_of(world, wanted, keys, fleet):
    """Collect what there is to judge by."""
    told = world.s3.get_paginator("list_object_versions").paginate(Bucket=world.buckets["images"])
    records = [
        (item["Key"].split("/")[1], item["VersionId"])
        for page in told
        for item in page.get("Versions", [])
        if item["Key"].endswith("/scan.json")
    ]
    return Evidence(
        wanted=wanted,
        scan_of_key=keys,
        items=world.items(),
        records=records,
        messages=world.messages(),
        dead=world.dead(),
        max_receives=MAX_RECEIVES,
        hurt=fleet.hurt_pids,
    )
