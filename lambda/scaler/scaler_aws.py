"""What the scaler reads and sets, through boto3: queues, the Fargate service, Batch jobs, its own item."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, Protocol

from mrirecon.aws.clock import iso
from mrirecon.aws.table import Table
from mrirecon.contract import metrics
from mrirecon.contract.states import UPDATED_AT, Stage

if TYPE_CHECKING:
    from mypy_boto3_batch import BatchClient
    from mypy_boto3_batch.literals import JobStatusType
    from mypy_boto3_batch.type_defs import ListJobsRequestTypeDef
    from mypy_boto3_cloudwatch import CloudWatchClient
    from mypy_boto3_cloudwatch.type_defs import DimensionTypeDef, MetricDataQueryTypeDef
    from mypy_boto3_ecs import ECSClient
    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_sqs.literals import QueueAttributeNameType

STARTING_STATUSES: Final[Sequence[JobStatusType]] = ("SUBMITTED", "PENDING", "RUNNABLE", "STARTING")
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

    def __init__(self, client: SQSClient) -> None:
        self._sqs = client

    def depth(self, url: str) -> Depth:
        """Return the counts of a queue: approximate, as all counts of SQS are."""
        counts: Sequence[QueueAttributeNameType] = (
            "ApproximateNumberOfMessages",
            "ApproximateNumberOfMessagesNotVisible",
            "ApproximateNumberOfMessagesDelayed",
        )
        found = self._sqs.get_queue_attributes(QueueUrl=url, AttributeNames=counts)["Attributes"]
        return Depth(*(int(found[name]) for name in counts))


@dataclass(frozen=True)
class WorkerCount:
    """Workers of a stage: those that can take scans, and those asked for that cannot yet."""

    running: int
    starting: int


class Workers(Protocol):
    """The workers of a stage."""

    def look(self) -> WorkerCount:
        """Count them."""
        ...

    def add(self, there: WorkerCount, wanted: int) -> int:
        """Ask for more, ``wanted`` in all; return how many were asked for."""
        ...

    def remove(self, there: WorkerCount, wanted: int) -> int:
        """Give some back until ``wanted`` are left; return how many."""
        ...


class FargateService:
    """The decompress workers: an ECS service whose desired count is set here and nowhere else."""

    def __init__(self, client: ECSClient, cluster: str, service: str) -> None:
        self._ecs, self._cluster, self._service = client, cluster, service

    def look(self) -> WorkerCount:
        """Count running tasks and those that the service still has to start."""
        found = self._ecs.describe_services(cluster=self._cluster, services=[self._service])["services"]
        if not found:
            raise UnexpectedAnswerError("ECS knows no such service in the cluster.")
        service = found[0]
        if service.get("status", "ACTIVE") != "ACTIVE":
            raise UnexpectedAnswerError("The ECS service is being deleted.")
        running = int(service["runningCount"])
        return WorkerCount(running, max(int(service["desiredCount"]) - running, 0))

    def add(self, there: WorkerCount, wanted: int) -> int:
        """Raise the desired count."""
        self._set(wanted)
        return wanted - there.running - there.starting

    def remove(self, there: WorkerCount, wanted: int) -> int:
        """Lower the desired count; a task that works on a scan is protected and outlives it."""
        self._set(wanted)
        return there.running + there.starting - wanted

    def _set(self, count: int) -> None:
        self._ecs.update_service(cluster=self._cluster, service=self._service, desiredCount=count)


class BatchWorkers:
    """The reconstruct workers: Batch jobs that take scans until their queues have been empty a while."""

    def __init__(self, client: BatchClient, job_queue: str, job_definition: str) -> None:
        self._batch, self._queue, self._definition = client, job_queue, job_definition

    def look(self) -> WorkerCount:
        """Count our jobs in the queue, each status by itself: ListJobs asks for one at a time."""
        # Those nearest to running are read first and the running last: a job that moves on between two
        # calls is then counted twice rather than not at all, and nothing is asked for twice.
        starting = sum(self._count(status) for status in STARTING_STATUSES)
        return WorkerCount(self._count("RUNNING"), starting)

    def add(self, there: WorkerCount, wanted: int) -> int:
        """Submit the missing jobs. One that fails ends it: the next minute counts anew."""
        missing = wanted - there.running - there.starting
        for _ in range(missing):
            self._batch.submit_job(jobName=JOB_NAME, jobQueue=self._queue, jobDefinition=self._definition)
        return missing

    def remove(self, there: WorkerCount, wanted: int) -> int:
        """Do nothing: workers leave by themselves, and none is called back from its way up."""
        return 0

    def _count(self, status: JobStatusType) -> int:
        request: ListJobsRequestTypeDef = {"jobQueue": self._queue, "jobStatus": status}
        count = 0
        while True:
            page = self._batch.list_jobs(**request)
            count += sum(job["jobName"] == JOB_NAME for job in page["jobSummaryList"])
            if not page.get("nextToken"):
                return count
            request["nextToken"] = page["nextToken"]


@dataclass(frozen=True)
class StageHistory:
    """What earlier looks at a stage left: when it was last changed, the time a scan took (seconds)."""

    last_change: float | None = None
    scan_seconds: float | None = None


class ScalerState:
    """One item a stage in the ledger's table. It has no ``state``, so that no listing of scans shows it."""

    def __init__(self, table: Table) -> None:
        self._table = table

    def begin(self, stage: Stage, now: float, spacing: float) -> StageHistory:
        """Note that the stage is looked at, and return what earlier looks left.

        Raises
        ------
        TickedAlreadyError
            When the last look was less than ``spacing`` seconds ago.
        """
        item = self._table.update(
            *_keys(stage),
            {"looked_at": now},
            condition="attribute_not_exists(#looked_at) OR #looked_at <= :before",
            values={"before": now - spacing},
        )
        if item is None:
            raise TickedAlreadyError
        return StageHistory(item.get("last_change"), item.get("scan_seconds"))

    def record(self, stage: Stage, now: float, *, changed: bool, scan_seconds: float | None) -> None:
        """Keep that the stage was changed now, and the time a scan was last seen to take."""
        values: dict[str, Any] = {}
        if changed:
            values["last_change"] = now
        if scan_seconds is not None:
            values["scan_seconds"] = scan_seconds
        if values:
            self._table.update(*_keys(stage), {**values, UPDATED_AT: iso(now)})


@dataclass(frozen=True)
class Reading:
    """What CloudWatch knows: age of the oldest message, mean time of a scan. ``None``: nothing yet."""

    oldest: float | None = None
    scan_seconds: float | None = None


class CloudWatchReader:
    """CloudWatch."""

    def __init__(self, client: CloudWatchClient) -> None:
        self._cloudwatch = client

    def read(self, stage: Stage, lanes: tuple[str, str], now: float) -> Reading:
        """Read both lanes' ages and the stage's time a scan, in one call."""
        end = datetime.fromtimestamp(now, UTC)
        queries = [
            _query(
                f"age{index}",
                ("AWS/SQS", "ApproximateAgeOfOldestMessage"),
                {"Name": "QueueName", "Value": url.rsplit("/", 1)[1]},
                60,
                "Maximum",
            )
            for index, url in enumerate(lanes)
        ]
        hours = MEASURED_HOURS * 3600
        seconds = (metrics.NAMESPACE, metrics.STAGE_SECONDS)
        dimension: DimensionTypeDef = {"Name": metrics.STAGE, "Value": stage.value}
        queries += [
            _query("sum", seconds, dimension, hours, "Sum"),
            _query("count", seconds, dimension, hours, "SampleCount"),
        ]
        results = self._cloudwatch.get_metric_data(
            MetricDataQueries=queries,
            StartTime=end - timedelta(seconds=hours),
            EndTime=end,
            ScanBy="TimestampDescending",
        )["MetricDataResults"]
        found = {
            result["Id"]: list(zip(result["Timestamps"], result["Values"], strict=True)) for result in results
        }
        recent = end - timedelta(minutes=5)
        ages = [value for name in ("age0", "age1") for at, value in found.get(name, [])[:1] if at >= recent]
        count = sum(value for _, value in found.get("count", []))
        total = sum(value for _, value in found.get("sum", []))
        believed = count >= MEASURED_AT_LEAST
        return Reading(max(ages, default=None), total / count if believed else None)


def _query(
    name: str, metric: tuple[str, str], dimension: DimensionTypeDef, period: int, statistic: str
) -> MetricDataQueryTypeDef:
    namespace, metric_name = metric
    return {
        "Id": name,
        "MetricStat": {
            "Metric": {"Namespace": namespace, "MetricName": metric_name, "Dimensions": [dimension]},
            "Period": period,
            "Stat": statistic,
        },
    }


def _keys(stage: Stage) -> tuple[str, str]:
    return f"scaler#{stage.value}", "scaler"
