"""Every minute: read the queues and workers of both stages, decide, set. Neither stage depends on the other.

What is needed to decide (queue depths, workers, the last change) must be read, or the stage is left as it is
and the failure counted; what is only good to know (ages, the measured time of a scan, dead letters) may be
missing. A read or write that fails for one stage never touches the other.
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from aws_lambda_powertools import Logger
from aws_lambda_powertools.metrics import EphemeralMetrics, MetricUnit
from botocore.exceptions import BotoCoreError, ClientError
from scaler_aws import (
    BatchWorkers,
    CloudWatchReader,
    Depth,
    FargateService,
    Queues,
    Reading,
    ScalerState,
    TickedAlreadyError,
    UnexpectedAnswerError,
    WorkerCount,
    Workers,
)
from scaler_settings import Settings, StageSettings

from mrirecon.aws import client as aws
from mrirecon.aws.table import Table
from mrirecon.contract import metrics
from mrirecon.contract.scaling import Decision, Observation, decide

logger = Logger(service="scaler")
Thing = TypeVar("Thing")
FAULTS = (ClientError, BotoCoreError, UnexpectedAnswerError)


@dataclass(frozen=True)
class Adapters:
    """The services, one object each."""

    queues: Queues
    state: ScalerState
    cloudwatch: CloudWatchReader
    decompress: Workers
    recon: Workers


@functools.cache
def settings() -> Settings:
    """Return the settings of this function."""
    return Settings.from_environ(os.environ)


@functools.cache
def adapters() -> Adapters:
    """Return the adapters of this function; made once and kept while it is warm."""
    # A minute is soon over: better one look missed than two that overlap.
    times: aws.Times = {"connect_timeout": 3, "read_timeout": 8, "attempts": 3}
    told = settings()
    return Adapters(
        Queues(aws.client("sqs", **times)),
        ScalerState(Table(aws.client("dynamodb", **times), told.table)),
        CloudWatchReader(aws.client("cloudwatch", **times)),
        FargateService(aws.client("ecs", **times), told.cluster, told.service),
        BatchWorkers(aws.client("batch", **times), told.job_queue, told.job_definition),
    )


@logger.inject_lambda_context
def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Take the scheduler's beat; what came with it does not matter."""
    return run(settings(), adapters(), time.time())


def run(settings: Settings, services: Adapters, now: float) -> dict[str, Any]:
    """Look at both stages and return, by stage, what was decided and why (or what failed)."""
    first = StageLook(settings.decompress, services, services.decompress, settings.spacing, now)
    answer = {"decompress": first.act(coming=0)}
    second = StageLook(settings.recon, services, services.recon, settings.spacing, now)
    answer["recon"] = second.act(coming=first.here)
    return answer


class StageLook:
    """One look at one stage. ``here`` is the number of scans found in it."""

    def __init__(
        self, stage: StageSettings, services: Adapters, workers: Workers, spacing: float, now: float
    ) -> None:
        self.stage, self.services, self.workers, self.spacing, self.now = (
            stage,
            services,
            workers,
            spacing,
            now,
        )
        self.here = 0
        self.errors = 0
        self.values: dict[str, float] = {}

    def act(self, *, coming: int) -> dict[str, Any]:
        """Look, decide, set, tell."""
        name = self.stage.stage.value
        try:
            decision = self._decide_and_set(coming)
            answer: dict[str, Any] = {"wanted": decision.wanted, "reason": decision.reason}
            logger.info("decided", stage=name, wanted=decision.wanted, reason=decision.reason)
        except TickedAlreadyError:
            answer = {"skipped": "looked at a moment ago"}
            logger.info("skipped: looked at a moment ago", stage=name)
        except FAULTS as error:
            self._count(error, "nothing was changed" if not self.values else "not all was set")
            answer = {"error": _name(error)}
        self._emit()
        return answer

    def _decide_and_set(self, coming: int) -> Decision:
        stage, services = self.stage, self.services
        # The depth first, whatever comes of the rest: the next stage wants it.
        depth = services.queues.depth(stage.lanes[0]) + services.queues.depth(stage.lanes[1])
        self.here = depth.visible + depth.in_flight + depth.delayed
        history = services.state.begin(stage.stage, self.now, self.spacing)
        there = self.workers.look()
        reading = self._good_to_know(
            lambda: services.cloudwatch.read(stage.stage, stage.lanes, self.now), Reading()
        )
        dead = self._good_to_know(lambda: services.queues.depth(stage.dead_letters), None)
        # CloudWatch silent for a while must not swing the decision: the last measured time is remembered.
        scan_seconds = reading.scan_seconds or history.scan_seconds
        seen = Observation(
            visible=depth.visible,
            in_flight=depth.in_flight,
            delayed=depth.delayed,
            running=there.running,
            starting=there.starting,
            coming=coming,
            now=self.now,
            last_change=history.last_change,
            oldest_seconds=reading.oldest,
            measured_scan_seconds=scan_seconds,
        )
        decision = decide(stage.policy, seen)
        self._note(depth, there, reading, decision, dead)
        changed = self._set(there, decision.wanted)
        services.state.record(
            stage.stage,
            self.now,
            changed=changed,
            scan_seconds=reading.scan_seconds if reading.scan_seconds != history.scan_seconds else None,
        )
        return decision

    def _set(self, there: WorkerCount, wanted: int) -> bool:
        count = there.running + there.starting
        if wanted > count:
            return self.workers.add(there, wanted) > 0
        if wanted < count:
            return self.workers.remove(there, wanted) > 0
        return False

    def _good_to_know(self, read: Callable[[], Thing], otherwise: Thing) -> Thing:
        try:
            return read()
        except FAULTS as error:
            self._count(error, "decided without it")
            return otherwise

    def _count(self, error: Exception, consequence: str) -> None:
        self.errors += 1
        logger.error(
            "a call failed: %s",
            consequence,
            stage=self.stage.stage.value,
            error=_name(error),
            operation=getattr(error, "operation_name", None),
        )

    def _note(
        self, depth: Depth, there: WorkerCount, reading: Reading, decision: Decision, dead: Depth | None
    ) -> None:
        self.values = {
            metrics.VISIBLE: depth.visible,
            metrics.IN_FLIGHT: depth.in_flight,
            metrics.DELAYED: depth.delayed,
            metrics.WORKERS_RUNNING: there.running,
            metrics.WORKERS_STARTING: there.starting,
            metrics.WORKERS_WANTED: decision.wanted,
        }
        if reading.oldest is not None:
            self.values[metrics.OLDEST_SECONDS] = reading.oldest
        elif depth.visible == 0:
            self.values[metrics.OLDEST_SECONDS] = 0
        if dead is not None:
            self.values[metrics.DEAD_LETTERS] = dead.visible + dead.in_flight

    def _emit(self) -> None:
        # An empty service name: powertools would make it a dimension, and the dashboard knows only Stage.
        emf = EphemeralMetrics(namespace=metrics.NAMESPACE, service="")
        emf.add_dimension(metrics.STAGE, self.stage.stage.value)
        for name, value in {**self.values, metrics.SCALER_ERRORS: self.errors}.items():
            unit = MetricUnit.Seconds if name == metrics.OLDEST_SECONDS else MetricUnit.Count
            emf.add_metric(name, unit, value)
        emf.flush_metrics()


def _name(error: Exception) -> str:
    """Return the name of what went wrong, without the text a service wrote."""
    return aws.error_code(error) or type(error).__name__
