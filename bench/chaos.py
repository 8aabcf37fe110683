"""Send many small scans through emulated S3, SQS and DynamoDB while the workers die at random.

    python -m bench.chaos --scans 2000            # writes bench/results/chaos.md
    python -m bench.chaos --scans 200 --report -  # prints it
    python -m bench.chaos --judge FILE            # judges again what --evidence FILE kept

``tests/support/chaos.py`` says what is done, ``chaos_judge.py`` beside it what must hold in the end.
"""

import argparse
import json
import os
import platform
import sys
from importlib.metadata import version
from pathlib import Path

from tests.support import chaos_judge
from tests.support.chaos import MAX_RECEIVES, run

HERE = Path(__file__).resolve().parent


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

`python -m bench.chaos --scans {facts["scans"]} --seed {arguments.seed} --workers {arguments.workers} \
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
