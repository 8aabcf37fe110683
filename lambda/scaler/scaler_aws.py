"""What the scaler reads and sets, through boto3: queues, the Fargate service, Batch jobs, its own memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Protocol

from mrirecon.contract import metrics
from mrirecon.contract.states import PK, SK, UPDATED_AT, Stage

STARTING_STATUSES: Final = ("SUBMITTED", "PENDING", "RUNNABLE", "STARTING")
JOB_NAME: Final = "mrirecon-recon-worker"
MEASURED_HOURS: Final = 1
MEASURED_AT_LEAST: Final = 10
"""Scans in the last hour from which their mean time is believed."""


class UnexpectedAnswerError(RuntimeError):
    """A service answered, but not with what was asked for."""


class TickedAlreadyError(RuntimeError):
    """Another run looked at this stage a moment ago: the beat came twice."""


@dataclass(frozen=True)
class Depth:
    """Messages of a queue."""

    visible: int
    in_flight: int
    delayed: int

    def __add__(self, other: Depth) -> Depth:
        return Depth(
            self.visible + other.visible, self.in_flight + other.in_flight, self.delayed + other.delayed
        )


class Queues:
    """SQS."""

    def __init__(self, client: Any) -> None:
        self._sqs = client

    def depth(self, url: str) -> Depth:
        """Return the counts of a queue: approximate, as all counts of SQS are."""
        wanted = (
            "ApproximateNumberOfMessages",
            "ApproximateNumberOfMessagesNotVisible",
            "ApproximateNumberOfMessagesDelayed",
        )
        told = self._sqs.get_queue_attributes(QueueUrl=url, AttributeNames=list(wanted))["Attributes"]
        return Depth(*(int(told[name]) for name in wanted))


@dataclass(frozen=True)
class Crew:
    """Workers of a stage: those that can take scans, and those asked for that cannot yet."""

    running: int
    starting: int


class Workers(Protocol):
    """The workers of a stage."""

    leaves_by_itself: bool

    def look(self) -> Crew:
        """Count them."""
        ...

    def add(self, crew: Crew, wanted: int) -> int:
        """Ask for more, ``wanted`` in all; return how many were asked for."""
        ...

    def remove(self, crew: Crew, wanted: int) -> int:
        """Give some back until ``wanted`` are left; return how many."""
        ...


class FargateService:
    """The decompress workers: an ECS service whose desired count is set here and nowhere else."""

    leaves_by_itself = False

    def __init__(self, client: Any, cluster: str, service: str) -> None:
        self._ecs, self._cluster, self._service = client, cluster, service

    def look(self) -> Crew:
        """Count running tasks and those that the service still has to start."""
        told = self._ecs.describe_services(cluster=self._cluster, services=[self._service])
        if not told.get("services"):
            raise UnexpectedAnswerError("ECS knows no such service in the cluster.")
        service = told["services"][0]
        if service.get("status", "ACTIVE") != "ACTIVE":
            raise UnexpectedAnswerError("The ECS service is being deleted.")
        running = int(service["runningCount"])
        return Crew(running, max(int(service["desiredCount"]) - running, 0))

    def add(self, crew: Crew, wanted: int) -> int:
        """Raise the desired count."""
        self._set(wanted)
        return wanted - crew.running - crew.starting

    def remove(self, crew: Crew, wanted: int) -> int:
        """Lower the desired count; a task that works on a scan is protected and outlives it."""
        self._set(wanted)
        return crew.running + crew.starting - wanted

    def _set(self, count: int) -> None:
        self._ecs.update_service(cluster=self._cluster, service=self._service, desiredCount=count)


class BatchWorkers:
    """The reconstruct workers: Batch jobs that take scans until their queues have been empty a while."""

    leaves_by_itself = True

    def __init__(self, client: Any, job_queue: str, job_definition: str) -> None:
        self._batch, self._queue, self._definition = client, job_queue, job_definition

    def look(self) -> Crew:
        """Count our jobs in the queue, each status by itself: ListJobs asks for one at a time."""
        # Those nearest to running are read first and the running last: a job that moves on between two
        # calls is then counted twice rather than not at all, and nothing is asked for twice.
        starting = sum(self._count(status) for status in STARTING_STATUSES)
        return Crew(self._count("RUNNING"), starting)

    def add(self, crew: Crew, wanted: int) -> int:
        """Submit the missing jobs. One that fails ends it: the next minute counts anew."""
        missing = wanted - crew.running - crew.starting
        for _ in range(missing):
            self._batch.submit_job(jobName=JOB_NAME, jobQueue=self._queue, jobDefinition=self._definition)
        return missing

    def remove(self, crew: Crew, wanted: int) -> int:
        """Do nothing: workers leave by themselves, and none is called back from its way up."""
        return 0

    def _count(self, status: str) -> int:
        count, page = 0, {}
        while True:
            told = self._batch.list_jobs(jobQueue=self._queue, jobStatus=status, **page)
            count += sum(job["jobName"] == JOB_NAME for job in told["jobSummaryList"])
            if not told.get("nextToken"):
                return count
            page = {"nextToken": told["nextToken"]}


@dataclass(frozen=True)
class Memory:
    """What the scaler remembers of a stage between two looks."""

    last_change: float | None = None
    scan_seconds: float | None = None


class Notebook:
    """One item a stage in the ledger's table. It has no ``state``, so that no listing of scans shows it."""

    def __init__(self, client: Any, table: str) -> None:
        self._db, self._table = client, table

    def open(self, stage: Stage, now: float, spacing: float) -> Memory:
        """Note that the stage is looked at, and return what is remembered.

        Raises
        ------
        TickedAlreadyError
            When the last look was less than ``spacing`` seconds ago.
        """
        try:
            told = self._update(
                stage,
                "SET looked_at = :now",
                {":now": now, ":before": now - spacing},
                condition="attribute_not_exists(looked_at) OR looked_at <= :before",
            )
        except self._db.exceptions.ConditionalCheckFailedException:
            raise TickedAlreadyError from None
        return Memory(_number(told, "last_change"), _number(told, "scan_seconds"))

    def close(self, stage: Stage, now: float, *, changed: bool, scan_seconds: float | None) -> None:
        """Remember a change made now, and the time a scan was last seen to take."""
        values: dict[str, float] = {}
        if changed:
            values["last_change"] = now
        if scan_seconds is not None:
            values["scan_seconds"] = scan_seconds
        if values:
            parts = ", ".join(f"{name} = :{name}" for name in values)
            self._update(
                stage,
                f"SET {parts}, {UPDATED_AT} = :text",
                {f":{name}": value for name, value in values.items()},
                text=datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds"),
            )

    def _update(
        self,
        stage: Stage,
        expression: str,
        numbers: Mapping[str, float],
        *,
        condition: str = "",
        text: str = "",
    ) -> dict[str, Any]:
        values: dict[str, Any] = {name: {"N": repr(round(value, 3))} for name, value in numbers.items()}
        if text:
            values[":text"] = {"S": text}
        told = self._db.update_item(
            TableName=self._table,
            Key={PK: {"S": f"scaler#{stage.value}"}, SK: {"S": "scaler"}},
            UpdateExpression=expression,
            ExpressionAttributeValues=values,
            ReturnValues="ALL_NEW",
            **({"ConditionExpression": condition} if condition else {}),
        )
        attributes: dict[str, Any] = told["Attributes"]
        return attributes


@dataclass(frozen=True)
class Reading:
    """What CloudWatch knows: age of the oldest message, mean time of a scan. ``None``: nothing yet."""

    oldest: float | None = None
    scan_seconds: float | None = None


class Gauges:
    """CloudWatch."""

    def __init__(self, client: Any) -> None:
        self._cloudwatch = client

    def read(self, stage: Stage, lanes: tuple[str, str], now: float) -> Reading:
        """Read both lanes' ages and the stage's time a scan, in one call."""
        end = datetime.fromtimestamp(now, UTC)
        seconds = {
            "Namespace": metrics.NAMESPACE,
            "MetricName": metrics.STAGE_SECONDS,
            "Dimensions": [{"Name": metrics.STAGE, "Value": stage.value}],
        }
        queries = [
            _query(
                f"age{index}",
                {
                    "Namespace": "AWS/SQS",
                    "MetricName": "ApproximateAgeOfOldestMessage",
                    "Dimensions": [{"Name": "QueueName", "Value": url.rsplit("/", 1)[1]}],
                },
                60,
                "Maximum",
            )
            for index, url in enumerate(lanes)
        ]
        hours = MEASURED_HOURS * 3600
        queries += [_query("sum", seconds, hours, "Sum"), _query("count", seconds, hours, "SampleCount")]
        told = self._cloudwatch.get_metric_data(
            MetricDataQueries=queries,
            StartTime=end - timedelta(seconds=hours),
            EndTime=end,
            ScanBy="TimestampDescending",
        )["MetricDataResults"]
        found = {
            result["Id"]: list(zip(result["Timestamps"], result["Values"], strict=True)) for result in told
        }
        recent = end - timedelta(minutes=5)
        ages = [value for name in ("age0", "age1") for at, value in found.get(name, [])[:1] if at >= recent]
        count = sum(value for _, value in found.get("count", []))
        total = sum(value for _, value in found.get("sum", []))
        believed = count >= MEASURED_AT_LEAST
        return Reading(max(ages, default=None), total / count if believed else None)


def _query(name: str, metric: dict[str, Any], period: int, statistic: str) -> dict[str, Any]:
    return {"Id": name, "MetricStat": {"Metric": metric, "Period": period, "Stat": statistic}}


def _number(item: Mapping[str, Any], name: str) -> float | None:
    return float(item[name]["N"]) if name in item else None
