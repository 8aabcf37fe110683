"""Send many small scans through emulated S3, SQS and DynamoDB while the workers die at random.

    python bench/chaos.py --scans 2000            # writes bench/results/chaos.md
    python bench/chaos.py --scans 200 --report -  # prints it
    python bench/chaos.py --judge FILE            # judges again what --evidence FILE kept

Real worker processes, the real adapters over HTTP, small honest stage functions.  A share of the archives is
announced twice, some are copied under a second key, some are no archives, some crash their process in every
try.  Workers are killed (``kill -9``), or told to stop, at random moments and replaced.  At the end every
scan must have exactly one end state and every done scan exactly one published record (``chaos_judge.py``).
"""

import argparse
import contextlib
import json
import os
import platform
import random
import shutil
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "tests" / "cloud")]

import chaos_judge  # noqa: E402
from cloud_world import World, emulator, make_tar, scan_of  # noqa: E402

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
                        [sys.executable, str(HERE.parent / "tests/cloud/run_worker.py"), stage],
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
        return chaos_judge.judge(found)


def evidence_of(world, wanted, keys, fleet):
    """Collect what there is to judge by."""
    told = world.s3.get_paginator("list_object_versions").paginate(Bucket=world.buckets["images"])
    records = [
        (item["Key"].split("/")[1], item["VersionId"])
        for page in told
        for item in page.get("Versions", [])
        if item["Key"].endswith("/scan.json")
    ]
    return chaos_judge.Evidence(
        wanted=wanted,
        scan_of_key=keys,
        items=world.items(),
        records=records,
        messages=world.messages(),
        dead=world.dead(),
        max_receives=MAX_RECEIVES,
        hurt=fleet.hurt_pids,
    )


def machine():
    """Return this machine in a few words."""
    names = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{len(os.sched_getaffinity(0))} cores ({names[0] if names else platform.machine()}), "
        f"{memory:.0f} GiB, Python {platform.python_version()}, moto {version('moto')}, "
        f"boto3 {version('boto3')}"
    )


def report(facts, arguments):
    return f"""# Workers dying at random

`python bench/chaos.py --scans {facts["scans"]} --seed {arguments.seed} --workers {arguments.workers} \
--every {arguments.every:g}`: real worker processes, S3, SQS and DynamoDB
emulated over HTTP, small honest stage functions; 10 % of the archives announced twice, 5 % copied under a
second key, 4 % no archives, 3 % rejected by the reconstruction, 3 % crashing their process in every try;
every {arguments.every:g} s on average one worker killed (`kill -9`, three of four) or told to stop with half
a second to finish, at a random moment, and replaced. A message is handed out at most {MAX_RECEIVES} times.

{machine()};
the emulator runs on the same cores.

| what | |
|---|---|
{chaos_judge.rows(facts)}

Every scan has exactly one end state; every `done` one has exactly one version of exactly one record.

How it is counted: *attempts* are the ledger's attempt items (one each time a worker holds the scan's
claim and has told so), *retries* those beyond the first of a scan and stage. *Messages* are counted at the
emulator's door, from its own answers: each message by its identifier, each time it was handed out, each
deletion; the looks into the dead-letter queues are not among them. *Passed on* is a copy that a worker sends
when another worker holds the scan and one receive more would make a dead letter of it. Each message must be
deleted or dead in the end. *Failed* is accepted of scans that crash in every try; of any other only when its
message was handed out {MAX_RECEIVES} times and every attempt ended by the death or the stop of a worker that
was killed or told to stop here.
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scans", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=4, help="processes of each stage")
    parser.add_argument("--every", type=float, default=5.0, help="mean seconds between two misfortunes")
    parser.add_argument("--patience", type=float, default=5400, help="seconds until it is given up")
    parser.add_argument("--evidence", type=Path, help="keep what was judged in this file (JSON)")
    parser.add_argument("--judge", type=Path, help="run nothing: judge what --evidence kept")
    parser.add_argument("--report", default=str(HERE / "results" / "chaos.md"))
    arguments = parser.parse_args()
    if arguments.judge is not None:
        facts = chaos_judge.judge(chaos_judge.Evidence.kept(arguments.judge))
    else:
        facts = run(
            arguments.scans,
            seed=arguments.seed,
            workers=arguments.workers,
            every=arguments.every,
            patience=arguments.patience,
            evidence=arguments.evidence,
            say=lambda text: print(text, file=sys.stderr, flush=True),
        )
    text = report(facts, arguments)
    if arguments.report == "-":
        print(text)
    else:
        Path(arguments.report).write_text(text, encoding="utf-8")
        print(json.dumps(facts))


if __name__ == "__main__":
    main()
