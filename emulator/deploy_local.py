"""Deploy the stacks into an emulated AWS on this machine, send one scan through them, look at its images.

``python -m emulator.deploy_local`` (or ``make deploy-local``): emulator up, the command line bootstraps and
deploys environment ``emulated``, an undersampled archive is put to the deployed raw bucket, the deployed
events, queues, schedule and Lambdas move it, workers run as processes, its image is compared with the truth,
and all is stopped again. Exit code 1 when any step fails.
"""

import argparse
import io
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import h5py

from emulator import truth
from emulator.emulated_cloud import EmulatedCloud, ends_on_sigterm
from mrirecon.contract import keys, states
from mrirecon.contract.keys import Priority
from mrirecon.contract.states import State

Found = TypeVar("Found")

MINUTES = 8
WORST_ERROR = 0.1


class JourneyError(RuntimeError):
    """A step of the journey failed; the sentence says which."""


def say(text: str) -> None:
    """Print a line with the time."""
    print(f"{time.strftime('%H:%M:%S')}  {text}", flush=True)


def wait_for(
    what: str,
    look: Callable[[], Found],
    *,
    minutes: float = MINUTES,
    alive: Callable[[], None] = lambda: None,
) -> Found:
    """Return what ``look`` finds as soon as it finds something."""
    deadline = time.monotonic() + minutes * 60
    while True:
        found = look()
        if found:
            return found
        alive()
        if time.monotonic() > deadline:
            raise JourneyError(f"{what}: not within {minutes} minutes")
        time.sleep(1)


def require(holds: bool, sentence: str) -> None:
    """Raise :class:`JourneyError` with a sentence unless what it says holds."""
    if not holds:
        raise JourneyError(sentence)


def journey(cloud: EmulatedCloud, folder: Path) -> dict[str, Any]:
    """Send one scan through and return a summary."""
    s3 = cloud.client("s3")
    raw, images = cloud.outputs["RawBucket"], cloud.outputs["ImagesBucket"]
    archive = truth.make_archive(folder)
    key = keys.incoming("main", Priority.STAT, archive.name)
    started = time.monotonic()
    s3.upload_file(str(archive), raw, key)
    say(f"archive of {archive.stat().st_size / 2**20:.1f} MiB is in the raw bucket")

    def record() -> str:
        found = s3.list_objects_v2(Bucket=images, Prefix=keys.IMAGES).get("Contents", [])
        return next((str(one["Key"]) for one in found if one["Key"].endswith("/" + keys.RECORD_FILE)), "")

    place = wait_for("a published record", record, alive=lambda: no_dead_letters(cloud))
    seconds = time.monotonic() - started
    say(f"images are published after {seconds:.0f} s")
    told = json.loads(s3.get_object(Bucket=images, Key=place)["Body"].read())
    require(told["status"] == State.DONE.value, f"record: expected done, found {told['status']}")

    body = s3.get_object(Bucket=images, Key=place.replace(keys.RECORD_FILE, "image.h5"))["Body"].read()
    with h5py.File(io.BytesIO(body)) as file:
        errors = truth.compare(file["image"][()], archive, folder)
    say(f"method {told['method']}; error {errors.image:.3f} (zero-filled: {errors.zero_filled:.3f})")
    require(
        errors.image < min(WORST_ERROR, 0.5 * errors.zero_filled),
        f"image: error {errors.image:.3f} against the truth; zero-filled has {errors.zero_filled:.3f}",
    )
    settle(cloud, raw, key, told)
    return {
        "seconds": round(seconds, 1),
        "method": told["method"],
        "error": round(errors.image, 4),
        "zero_filled_error": round(errors.zero_filled, 4),
        "jobs": len(cloud.jobs),
        "refreshes": len(cloud.refreshes),
    }


def settle(cloud: EmulatedCloud, raw: str, key: str, told: dict[str, Any]) -> None:
    """Look at what else must be so when a scan has ended."""
    s3, db = cloud.client("s3"), cloud.client("dynamodb")
    wait_for("the share's refresh", lambda: cloud.refreshes, minutes=2)
    folder = f"/{keys.images(told['scan_id'], told['recon_id'])}".rstrip("/")
    asked = [one for refresh in cloud.refreshes for one in refresh.get("FolderList", [])]
    require(folder in asked, f"refresh: expected folder {folder}, found {asked}")

    # The record is the publication; ledger and tag follow it, and a refresh can be quicker than both.
    def ends() -> bool:
        rows = db.query(
            TableName=cloud.outputs["LedgerTable"],
            KeyConditionExpression="pk = :pk",
            ExpressionAttributeValues={":pk": {"S": states.scan_pk(told["scan_id"])}},
        )["Items"]
        found = {row["sk"]["S"]: row.get(states.STATE, {}).get("S") for row in rows}
        both = (states.INTAKE_SK, states.recon_sk(told["recon_id"]))
        return all(found.get(sk) == State.DONE.value for sk in both)

    def tagged() -> bool:
        tags = s3.get_object_tagging(Bucket=raw, Key=key)["TagSet"]
        return {"Key": keys.DONE_TAG[0], "Value": keys.DONE_TAG[1]} in tags

    wait_for("both stages done in the ledger", ends, minutes=1)
    wait_for("the tag that releases the archive to Glacier", tagged, minutes=1)
    no_dead_letters(cloud)
    wait_for("empty queues", lambda: depth(cloud, ("Stat", "Routine")) == 0, minutes=2)
    say("ledger, tag, refresh and queues are as they must be")


def depth(cloud: EmulatedCloud, names: Iterable[str]) -> int:
    """Return the messages in the named queues of both stages."""
    sqs, total = cloud.client("sqs"), 0
    for stage in ("Decompress", "Recon"):
        for name in names:
            url = cloud.outputs[f"{stage}{name}" + ("" if name == "DeadLetters" else "Queue")]
            told = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
            total += int(told["ApproximateNumberOfMessages"])
            total += int(told["ApproximateNumberOfMessagesNotVisible"])
    return total


def no_dead_letters(cloud: EmulatedCloud) -> None:
    """Raise :class:`JourneyError` when a message was given up or a worker failed."""
    require(depth(cloud, ("DeadLetters",)) == 0, "a message is in the dead letters")
    if cloud.runner:
        require(not cloud.runner.faults, f"runner: {cloud.runner.faults[:1]}")


def run(folder: Path) -> dict[str, Any]:
    """Do all of it, logs in ``folder``; return a summary. What was started is stopped, also on failure."""
    cloud = EmulatedCloud(folder, say)
    if cloud.config.emulator:
        say("left out by name, as the emulator lacks it: " + ", ".join(cloud.config.emulator.absent))
    try:
        with cloud:
            cloud.deploy()
            cloud.work()
            return journey(cloud, folder)
    except Exception:
        if cloud.runner:
            for name, text in cloud.runner.logs().items():
                print(f"--- {name}\n{text[-1500:]}", file=sys.stderr)
        raise


def main(arguments: list[str] | None = None) -> int:
    """Run the journey; return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--folder", type=Path, help="where logs are kept; a temporary folder otherwise")
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="mrirecon-deploy-") as temporary:
        folder = given.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        try:
            summary = run(folder)
        except Exception as error:
            say(f"FAILED: {type(error).__name__}: {error}")
            return 1
        say("all is stopped; the journey is done: " + json.dumps(summary))
        return 0


if __name__ == "__main__":
    ends_on_sigterm()
    sys.exit(main())
