"""From settings to a running worker: clients, probe, adapters, loop. The same for both stages."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ...aws import client as aws
from ...aws.clock import ServerClock
from ...aws.dead_letters import DeadLetters
from ...aws.ledger import DynamoLedger
from ...aws.queue import SqsQueue
from ...aws.store import S3Store
from ...contract import environment as env
from ...contract.codes import MrireconError
from ...contract.keys import Priority
from ...contract.states import Stage
from . import logs
from .failpoints import Failpoints
from .hold import Drain
from .loop import StageHandler, Times, Worker, owner_name, stop_on_signals
from .probe import probe, require_region
from .protection import IMDS, SpotNotice, TaskProtection
from .scratch import clean_scratch
from .settings import EXIT_SETTINGS, DecompressSettings, ReconSettings, SettingsError, WorkerSettings


@dataclass(frozen=True)
class World:
    """The adapters a worker works with."""

    store: S3Store
    ledger: DynamoLedger
    own_lanes: list[SqsQueue]
    recon_lanes: dict[Priority, SqsQueue]
    dead_letters: DeadLetters | None
    owner: str


def connect(settings: DecompressSettings | ReconSettings, stage: Stage) -> World:
    """Make the clients, probe everything the settings name, and return the adapters.

    Raises
    ------
    SettingsError
        With a sentence for each thing that is wrong.
    """
    require_region()
    clock = ServerClock()
    s3, sqs, db = aws.client("s3", clock), aws.client("sqs", clock), aws.client("dynamodb", clock)
    clock_of = {"visibility": settings.visibility_seconds}

    def lane(url: str, name: str) -> SqsQueue:
        return SqsQueue(sqs, url, name=name, **clock_of)

    recon = {
        Priority.STAT: lane(settings.recon_stat_queue_url, "recon stat"),
        Priority.ROUTINE: lane(settings.recon_routine_queue_url, "recon routine"),
    }
    buckets = {
        env.KSPACE_BUCKET: settings.kspace_bucket,
        env.QUARANTINE_BUCKET: settings.quarantine_bucket,
        env.RAW_BUCKET: settings.raw_bucket,
    }
    queues = {
        env.RECON_STAT_QUEUE_URL: settings.recon_stat_queue_url,
        env.RECON_ROUTINE_QUEUE_URL: settings.recon_routine_queue_url,
    }
    if isinstance(settings, DecompressSettings):
        own = [
            lane(settings.stat_queue_url, "decompress stat"),
            lane(settings.routine_queue_url, "decompress routine"),
        ]
        queues |= {
            env.DECOMPRESS_STAT_QUEUE_URL: settings.stat_queue_url,
            env.DECOMPRESS_ROUTINE_QUEUE_URL: settings.routine_queue_url,
        }
    else:
        own = list(recon.values())
        buckets[env.IMAGES_BUCKET] = settings.images_bucket
    probe(
        s3,
        sqs,
        db,
        buckets=buckets,
        queues=queues,
        table=(env.LEDGER_TABLE, settings.ledger_table),
        lanes=own,
    )
    store, ledger = S3Store(s3), DynamoLedger(db, settings.ledger_table, clock)
    dead = None
    if settings.dead_letter_queue_url:
        url = settings.dead_letter_queue_url
        dead = DeadLetters(sqs, url, stage=stage, store=store, ledger=ledger, wait=settings.poll_seconds)
    return World(store, ledger, own, recon, dead, owner_name())


def serve(
    stage: Stage,
    kind: type[DecompressSettings] | type[ReconSettings],
    handler: Callable[[Any, World, Failpoints], tuple[StageHandler, Callable[[], None]]],
) -> int:
    """Run a worker until it leaves; return the process's exit code.

    ``handler`` makes the stage's handler from (settings, world, failpoints), and what closes it.
    """
    try:
        settings = kind.load()
        failpoints = Failpoints.from_env()
        logs.configure(stage.value)
        world = connect(settings, stage)
    except SettingsError as error:
        for sentence in error.sentences:
            print(sentence, file=sys.stderr)
        return EXIT_SETTINGS
    except MrireconError as error:
        print(error.message, file=sys.stderr)
        return EXIT_SETTINGS
    if failpoints.armed:
        logs.get().warning("a failpoint is armed: this worker will fail on purpose")
    clean_scratch(settings.scratch_dir)
    drain = Drain(settings.drain_seconds)
    stop_on_signals(drain)
    spot = None
    if settings.spot_notice:
        spot = SpotNotice(drain.begin, endpoint=os.environ.get("AWS_EC2_METADATA_SERVICE_ENDPOINT") or IMDS)
        spot.start()
    try:
        made, close = handler(settings, world, failpoints)
    except SettingsError as error:
        for sentence in error.sentences:
            logs.get().error(sentence)
        if spot is not None:
            spot.stop()
        return EXIT_SETTINGS
    worker = Worker(
        made,
        world.own_lanes,
        world.ledger,
        drain=drain,
        times=_times(settings),
        protection=TaskProtection(settings.ecs_agent),
        heartbeat_file=settings.heartbeat_file,
        record_dead=world.dead_letters.record if world.dead_letters else None,
    )
    logs.get().info("worker ready", owner=world.owner)
    try:
        return worker.run()
    finally:
        close()
        if spot is not None:
            spot.stop()


def _times(settings: WorkerSettings) -> Times:
    return Times(
        visibility=settings.visibility_seconds,
        total=settings.scan_seconds,
        idle=settings.idle_seconds,
        lifetime=settings.lifetime_seconds,
        poll=settings.poll_seconds,
        retry_base=settings.retry_seconds,
    )
