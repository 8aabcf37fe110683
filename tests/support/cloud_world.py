"""An emulated cloud for tests: moto's server on loopback, and worlds of buckets, queues, a ledger in it."""

import contextlib
import io
import json
import os
import subprocess
import sys
import tarfile
import time
import urllib.request
from itertools import count
from pathlib import Path
from unittest import mock

from mrirecon.aws import client as aws
from mrirecon.aws.table import Table
from mrirecon.cloud.operators.operator import Operator
from mrirecon.cloud.stages import decompress_worker, recon_worker
from mrirecon.cloud.worker.failpoints import Failpoints
from mrirecon.cloud.worker.hold import Drain
from mrirecon.cloud.worker.loop import Times, Worker, logs
from mrirecon.cloud.worker.service import connect
from mrirecon.cloud.worker.settings import DecompressSettings, ReconSettings
from mrirecon.contract import environment as env
from mrirecon.contract import keys, states
from mrirecon.contract.ids import scan_id_from_digest
from mrirecon.contract.states import Stage, State
from tests.support import aws_calls, small_stages, sqs_tally

ROOT = Path(__file__).resolve().parents[2]
REGION = "us-east-1"
_NUMBERS = count()
_CLIENT = aws.client


class Moto:
    """The server, until :meth:`stop`."""

    def __init__(self):
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.moto_server"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.port = int(self._process.stdout.readline())
        self.url = f"http://localhost:{self.port}"

    def stop(self):
        self._process.stdin.close()
        self._process.wait(60)  # it ends at once, but a busy machine may let it wait


def credentials(url):
    return {
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": REGION,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_EC2_METADATA_DISABLED": "true",
    }


def make_tar(content=b"raw", *extra, cut=0):
    """Bytes of an archive: ``raw.bin``, further members by name, ``cut`` bytes short."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, body in (
            ("raw.bin", content),
            *((item, b"") if isinstance(item, str) else item for item in extra),
        ):
            info = tarfile.TarInfo(name)
            info.size = len(body)
            tar.addfile(info, io.BytesIO(body))
    whole = file.getvalue()
    return whole[: len(whole) - cut]


def scan_of(archive):
    import hashlib

    return scan_id_from_digest(hashlib.sha256(archive).hexdigest())


class World:
    """Buckets, queues with dead letters, a ledger; ``url`` may lead through a fault proxy."""

    def __init__(self, moto_url, scratch, *, url=None, max_receives=4, versioned=True, **settings):
        self.moto_url = moto_url
        self.name = f"w{os.getpid()}n{next(_NUMBERS)}"
        self.scratch = Path(scratch)
        with mock.patch.dict(os.environ, credentials(moto_url)):
            self.s3, self.sqs, self.db = aws.client("s3"), aws.client("sqs"), aws.client("dynamodb")
        self.buckets = {kind: f"{self.name}-{kind}" for kind in ("raw", "kspace", "images", "quarantine")}
        for bucket in self.buckets.values():
            self.s3.create_bucket(Bucket=bucket)
        if versioned:
            self.s3.put_bucket_versioning(
                Bucket=self.buckets["raw"], VersioningConfiguration={"Status": "Enabled"}
            )
        self.queues = {}
        for stage in ("decompress", "recon"):
            dead = self._queue(f"{stage}-dead", {})
            arn = self.sqs.get_queue_attributes(QueueUrl=dead, AttributeNames=["QueueArn"])["Attributes"][
                "QueueArn"
            ]
            policy = json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": max_receives})
            for lane in ("stat", "routine"):
                self._queue(f"{stage}-{lane}", {"RedrivePolicy": policy})
        self.table = f"{self.name}-ledger"
        self.db.create_table(
            TableName=self.table,
            BillingMode="PAY_PER_REQUEST",
            AttributeDefinitions=[
                {"AttributeName": name, "AttributeType": "S"}
                for name in (states.PK, states.SK, states.STATE, states.UPDATED_AT)
            ],
            KeySchema=[
                {"AttributeName": states.PK, "KeyType": "HASH"},
                {"AttributeName": states.SK, "KeyType": "RANGE"},
            ],
            GlobalSecondaryIndexes=[
                {
                    "IndexName": states.BY_STATE,
                    "Projection": {"ProjectionType": "ALL"},
                    "KeySchema": [
                        {"AttributeName": states.STATE, "KeyType": "HASH"},
                        {"AttributeName": states.UPDATED_AT, "KeyType": "RANGE"},
                    ],
                }
            ],
        )
        self.environ = {
            **credentials(url or moto_url),
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": "1",
            "HOME": str(scratch),
            env.RAW_BUCKET: self.buckets["raw"],
            env.KSPACE_BUCKET: self.buckets["kspace"],
            env.IMAGES_BUCKET: self.buckets["images"],
            env.QUARANTINE_BUCKET: self.buckets["quarantine"],
            env.LEDGER_TABLE: self.table,
            env.SCRATCH_DIR: str(scratch),
            env.POLL_SECONDS: "0",
            env.VISIBILITY_SECONDS: "2",
            env.SETTLE_SECONDS: "0",
            env.DRAIN_SECONDS: "20",
            env.SCAN_SECONDS: "60",
            env.SILENCE_SECONDS: "30",
            env.RETRY_SECONDS: "0.2",
            env.PRICE_PER_HOUR: "0.5",
            env.DECOMPRESS_STAT_QUEUE_URL: self.queues["decompress-stat"],
            env.DECOMPRESS_ROUTINE_QUEUE_URL: self.queues["decompress-routine"],
            env.DECOMPRESS_DEAD_LETTER_QUEUE_URL: self.queues["decompress-dead"],
            env.RECON_STAT_QUEUE_URL: self.queues["recon-stat"],
            env.RECON_ROUTINE_QUEUE_URL: self.queues["recon-routine"],
            env.RECON_DEAD_LETTER_QUEUE_URL: self.queues["recon-dead"],
            **{name: str(value) for name, value in settings.items()},
        }
        self._closers = []

    def _queue(self, name, attributes):
        url = self.sqs.create_queue(QueueName=f"{self.name}-{name}", Attributes=attributes)["QueueUrl"]
        self.queues[name] = url
        return url

    # what the scanner's side does

    def notify(self):
        """Let the bucket announce by itself, as S3 does (moto: two events per multipart upload)."""
        configurations = []
        for lane in ("stat", "routine"):
            arn = self.sqs.get_queue_attributes(
                QueueUrl=self.queues[f"decompress-{lane}"], AttributeNames=["QueueArn"]
            )["Attributes"]["QueueArn"]
            configurations.append(
                {
                    "QueueArn": arn,
                    "Events": ["s3:ObjectCreated:*"],
                    "Filter": {"Key": {"FilterRules": [{"Name": "prefix", "Value": f"incoming/a/{lane}/"}]}},
                }
            )
        self.s3.put_bucket_notification_configuration(
            Bucket=self.buckets["raw"], NotificationConfiguration={"QueueConfigurations": configurations}
        )

    def put(self, archive, name="scan.tar", lane="routine", site="a", announce=1):
        """Upload an archive and announce it so many times; return (key, version)."""
        key = f"incoming/{site}/{lane}/{name}"
        version = self.s3.put_object(Bucket=self.buckets["raw"], Key=key, Body=archive).get("VersionId")
        for _ in range(announce):
            self.announce(key, version, lane)
        return key, version

    def announce(self, key, version=None, lane="routine"):
        thing = {"key": key, **({"version-id": version} if version else {})}
        self.send(
            f"decompress-{lane}",
            {
                "source": "aws.s3",
                "detail-type": "Object Created",
                "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                "detail": {"bucket": {"name": self.buckets["raw"]}, "object": thing},
            },
        )

    def send(self, queue, body):
        text = body if isinstance(body, str) else json.dumps(body)
        self.sqs.send_message(QueueUrl=self.queues[queue], MessageBody=text)

    # workers

    @contextlib.contextmanager
    def environment(self, **more):
        with mock.patch.dict(os.environ, {**self.environ, **more}, clear=True):
            yield

    @contextlib.contextmanager
    def recorded(self, role):
        """Record the calls of the clients that are made meanwhile, as those of ``role``."""
        recorder = aws_calls.Recorder(aws_calls.recorded_to(), role, self.environ)

        def recorded(*given, **named):
            client = _CLIENT(*given, **named)
            recorder.attach(client)
            return client

        with mock.patch.object(aws, "client", recorded):
            yield

    @contextlib.contextmanager
    def operator(self):
        """What an operator's commands use, its calls recorded."""
        with self.environment(), self.recorded("operator"):
            yield Operator()

    def worker(self, stage, work=None, *, failpoint="", **more):
        """A worker in this process; drive it by ``step()``."""
        logs.configure(stage)
        with self.environment(**more), self.recorded(stage):
            if stage == "decompress":
                settings = DecompressSettings.load()
                world = connect(settings, Stage.DECOMPRESS)
                handler, close = decompress_worker.make_handler(
                    settings, world, Failpoints(failpoint), work or small_stages.decompress
                )
            else:
                settings = ReconSettings.load()
                world = connect(settings, Stage.RECON)
                handler, close = recon_worker.make_handler(
                    settings, world, Failpoints(failpoint), work or small_stages.reconstruct
                )
        self._closers.append(close)
        drain = Drain(settings.drain_seconds)
        worker = Worker(
            handler,
            world.own_lanes,
            world.ledger,
            drain=drain,
            times=Times(
                visibility=settings.visibility_seconds,
                total=settings.scan_seconds,
                poll=settings.poll_seconds,
                retry_base=settings.retry_seconds,
                idle=settings.idle_seconds,
                lifetime=settings.lifetime_seconds,
            ),
            record_dead=world.dead_letters.record,
            heartbeat_file=settings.heartbeat_file,
        )
        worker.world, worker.handler, worker.drain = world, handler, drain
        return worker

    def process(self, stage, *, failpoint="", **more):
        """A worker as a process of its own."""
        environ = {**self.environ, **more}
        environ |= aws_calls.environment(aws_calls.recorded_to(), stage, environ)
        if failpoint:
            environ[env.FAILPOINT] = failpoint
        return subprocess.Popen(
            [sys.executable, "-m", "tests.support.run_worker", stage],
            env=environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def close(self):
        for close in self._closers:
            close()

    def drain(self, *workers, seconds=60):
        """Step workers (both stages by default) until nothing waits and nothing is in flight."""
        mine = workers or (self.worker("decompress"), self.worker("recon"))
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if not sum(worker.step() for worker in mine) and not self.outstanding():
                return
        raise AssertionError(f"not drained in {seconds} s: {self.depths()}")

    # what is there in the end

    def depths(self):
        names = [
            "ApproximateNumberOfMessages",
            "ApproximateNumberOfMessagesNotVisible",
            "ApproximateNumberOfMessagesDelayed",
        ]
        told = {}
        for name, url in self.queues.items():
            got = self.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"]
            told[name] = sum(int(got[item]) for item in names)
        return told

    def visible(self, queue):
        """Return how many messages a worker could receive now."""
        name = "ApproximateNumberOfMessages"
        told = self.sqs.get_queue_attributes(QueueUrl=self.queues[queue], AttributeNames=[name])
        return int(told["Attributes"][name])

    def in_flight(self, queue):
        """Return how many messages a worker holds now."""
        name = "ApproximateNumberOfMessagesNotVisible"
        told = self.sqs.get_queue_attributes(QueueUrl=self.queues[queue], AttributeNames=[name])
        return int(told["Attributes"][name])

    def outstanding(self):
        # The emulator counts visible and hidden messages one after the other: one that turns visible between
        # is in neither count, but not twice running.
        for _ in range(2):
            if found := sum(depth for name, depth in self.depths().items() if not name.endswith("-dead")):
                return found
        return 0

    def dead(self):
        return {
            name.removesuffix("-dead"): depth
            for name, depth in self.depths().items()
            if name.endswith("-dead")
        }

    def items(self):
        table = Table(self.db, self.table)
        found, start = [], {}
        while True:
            told = self.db.scan(TableName=self.table, **start)
            found += [table.plain(item) for item in told["Items"]]
            if not told.get("LastEvaluatedKey"):
                return found
            start = {"ExclusiveStartKey": told["LastEvaluatedKey"]}

    def states_of(self, scan):
        """The states of a scan's items: {"intake": …, "recon#…": …}."""
        return {
            item["sk"].partition("#")[0]: item["state"]
            for item in self.items()
            if item["pk"] == states.scan_pk(scan) and "state" in item
        }

    def attempts(self, scan, stage):
        items = [item for item in self.items() if item["pk"] == states.scan_pk(scan)]
        return [item for item in items if item["sk"].startswith(f"attempt#{stage}#")]

    def keys_in(self, kind):
        told = self.s3.list_objects_v2(Bucket=self.buckets[kind])
        return [item["Key"] for item in told.get("Contents", [])]

    def messages(self):
        """Every message that was ever sent to this world's queues, as the emulator's door counted it."""
        with urllib.request.urlopen(self.moto_url + sqs_tally.PATH) as answer:
            told = json.load(answer)
        prefix = f"{self.name}-"
        # What a bucket itself announced (``notify``) came past no door: nothing is known but its receives.
        mine = [item for item in told["messages"].values() if item.get("queue", "").startswith(prefix)]
        for item in mine:
            item["queue"] = item["queue"].removeprefix(prefix)
            item["received"] = {name.removeprefix(prefix): n for name, n in item["received"].items()}
        return mine

    def records(self):
        return [key for key in self.keys_in("images") if key.endswith("/" + keys.RECORD_FILE)]

    def versions_of_records(self):
        return len(self.records())

    def read(self, kind, key):
        return self.s3.get_object(Bucket=self.buckets[kind], Key=key)["Body"].read()

    def is_tagged(self, key, version=None):
        more = {"VersionId": version} if version else {}
        tags = self.s3.get_object_tagging(Bucket=self.buckets["raw"], Key=key, **more)["TagSet"]
        return {"Key": keys.DONE_TAG[0], "Value": keys.DONE_TAG[1]} in tags

    def assert_done_once(self, *archives, killed=False):
        """Each of these scans is done, with one published record and all its files; nothing else is."""
        wanted = sorted({scan_of(archive) for archive in archives})
        found = sorted(key.split("/")[1] for key in self.records())
        assert found == wanted, f"{self.depths()}; {[self.states_of(scan) for scan in wanted]}"
        for scan in wanted:
            assert self.states_of(scan) == {"intake": "done", "recon": "done"}
            folder = next(key for key in self.records() if key.split("/")[1] == scan).rpartition("/")[0]
            mine = [key for key in self.keys_in("images") if key.startswith(folder)]
            assert sorted(key.removeprefix(folder + "/") for key in mine) == [
                "dicom/0001.dcm",
                "image.h5",
                "report.html",
                "scan.json",
            ]
            record = json.loads(self.read("images", f"{folder}/scan.json"))
            assert record["status"] == "done"
            assert record["scan_id"] == scan
        assert self.all_ended()
        assert not self.outstanding()
        assert (
            killed or self.leftovers() == []
        )  # what a killed worker leaves, the next to start there removes

    def assert_done_once_and_failed(self, done, failed):
        """These are done with one record each, those failed with none."""
        assert sorted(key.split("/")[1] for key in self.records()) == sorted(map(scan_of, done))
        for archive in done:
            assert self.states_of(scan_of(archive)) == {"intake": "done", "recon": "done"}
        for archive in failed:
            assert self.states_of(scan_of(archive)) == {"intake": "failed"}
        assert self.all_ended()

    def all_ended(self):
        return [
            item for item in self.items() if "state" in item and State(item["state"]) not in states.ENDED
        ] == []

    def leftovers(self):
        return [path.name for path in self.scratch.iterdir() if path.name.startswith(("intake-", "recon-"))]


@contextlib.contextmanager
def emulator():
    moto = Moto()
    try:
        yield moto
    finally:
        moto.stop()
