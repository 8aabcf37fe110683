"""Names planted wherever a scanner could leave one appear in no log, key, metric, ledger row or output.

The archive itself is kept as it came (raw bucket, quarantine): that is its purpose.
"""

import json
import re
import subprocess
import sys
import time

import pytest

from tests.support.cloud_world import make_tar, scan_of

NAME = "PLANTED"
FORMS = [NAME, NAME.encode().hex(), "DETNALP"]


def everything_but_raw(world):
    """All that the service wrote, as text."""
    texts = [json.dumps(world.items())]
    for kind in ("kspace", "images", "quarantine"):
        for key in world.keys_in(kind):
            texts.append(key)
            told = world.s3.get_object(Bucket=world.buckets[kind], Key=key)
            texts.append(json.dumps(told["Metadata"]))
            if not key.endswith("/archive") and not key.endswith("kspace.h5"):
                texts.append(told["Body"].read().decode("latin-1"))
    return "\n".join(texts)


def assert_clean(*texts):
    for text in texts:
        assert text
        for form in FORMS:
            assert form.lower() not in text.lower()


@pytest.mark.calls_beyond_policies
def test_planted_names_come_out_nowhere(make_world, capfd):
    world = make_world(max_receives=2)
    name = f"{NAME}^JANE"
    archives = {
        "good": make_tar(b"raw", (f"{name}.dat", b""), "do-noise"),
        "unknown error": make_tar(b"raw2", (f"{name}.dat", b""), "do-noise", "do-unknown"),
        "no archive": f"{name} is no archive ".encode() * 60,
        "bad profile": make_tar(b"raw3", ("profile", name.encode())),
        "unfinished": make_tar(b"raw4", (f"{name}.dat", b""))[:700],
        "recon rejects": make_tar(b"few-acs" + name.encode()),
    }
    for kind, archive in archives.items():
        world.put(archive, f"{name} {kind}.tar")
    world.s3.put_object(Bucket=world.buckets["raw"], Key=f"{name}.tar", Body=make_tar(b"elsewhere"))
    world.announce(f"{name}.tar")
    world.announce(f"incoming/a/routine/{name} gone.tar")
    world.send("decompress-routine", f"{name} is no message")
    workers = [world.worker("decompress"), world.worker("recon")]
    deadline = time.monotonic() + 90
    while world.outstanding() and time.monotonic() < deadline:
        for worker in workers:
            worker.step()
    assert world.all_ended()
    assert world.states_of(scan_of(archives["good"])) == {"intake": "done", "recon": "done"}
    assert {item["state"] for item in world.items() if "state" in item} == {"done", "rejected", "failed"}
    told = capfd.readouterr()
    assert_clean(told.out, told.err, everything_but_raw(world))
    with world.environment():
        from mrirecon.cloud.operators.operator import Operator, as_json

        operator = Operator()
        assert_clean(as_json(operator.status()), as_json(operator.queues()))
        assert_clean(json.dumps([operator.attempts(scan) for scan in map(scan_of, archives.values())]))


@pytest.mark.slow
def test_planted_names_in_a_real_archive_come_out_nowhere(world, shared_data):
    """The true stages, as processes, on an archive whose headers hold names."""
    archive = (shared_data / "hostile" / "phi_header.tar").read_bytes()
    world.put(archive, "real.tar")
    told = []
    for stage in ("decompress", "recon"):
        environ = {
            **world.environ,
            "MRIRECON_IDLE_SECONDS": "3",
            "MRIRECON_SILENCE_SECONDS": "250",
            "MRIRECON_SCAN_SECONDS": "280",
            "MRIRECON_VISIBILITY_SECONDS": "20",
        }
        done = subprocess.run(
            [sys.executable, "-m", f"mrirecon.cloud.stages.{stage}_worker"],
            env=environ,
            capture_output=True,
            text=True,
            timeout=280,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        told += [done.stdout, done.stderr]
    states = world.states_of(scan_of(archive))
    assert states == {"intake": "done", "recon": "done"}, told
    text = "\n".join(told) + everything_but_raw(world)
    for planted in _planted(archive):
        assert planted.lower() not in text.lower(), planted


def _planted(archive):
    """What the raw header of this archive says of a person, read from its bytes."""
    found = re.findall(r"<patient(?:Name|ID|Birthdate)>([^<]+)<", archive.decode("latin-1"))
    assert len(found) >= 3, "the archive holds no planted names"
    return found
