"""The metrics that dashboard and alarms look at, each defined once."""

from __future__ import annotations

from dataclasses import dataclass

from aws_cdk import Duration
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_sqs as sqs

from mrirecon.contract import metrics
from mrirecon.contract.states import Stage

MINUTE = Duration.minutes(1)
FIVE_MINUTES = Duration.minutes(5)
HOUR = Duration.hours(1)


def of_stage(
    name: str,
    stage: Stage,
    *,
    statistic: str = "Maximum",
    period: Duration = MINUTE,
    label: str | None = None,
) -> cloudwatch.Metric:
    """Return one of the pipeline's own metrics of a stage."""
    return cloudwatch.Metric(
        namespace=metrics.NAMESPACE,
        metric_name=name,
        dimensions_map={metrics.STAGE: stage.value},
        statistic=statistic,
        period=period,
        label=label,
    )


def age(queue: sqs.IQueue, label: str | None = None) -> cloudwatch.Metric:
    """Return the age of the oldest message in seconds."""
    return queue.metric_approximate_age_of_oldest_message(period=MINUTE, statistic="Maximum", label=label)


def waiting(queue: sqs.IQueue, label: str | None = None) -> cloudwatch.Metric:
    """Return the number of messages that wait."""
    return queue.metric_approximate_number_of_messages_visible(
        period=MINUTE, statistic="Maximum", label=label
    )


def worked_on(queue: sqs.IQueue, label: str) -> cloudwatch.Metric:
    """Return the number of messages some worker holds."""
    return queue.metric_approximate_number_of_messages_not_visible(
        period=MINUTE, statistic="Maximum", label=label
    )


@dataclass(frozen=True)
class Gateway:
    """A file gateway as its metrics name it: they have both dimensions, and none has only one."""

    id: str
    name: str


def of_gateway(
    gateway: Gateway, metric: str, *, statistic: str = "Maximum", label: str | None = None
) -> cloudwatch.Metric:
    """Return a metric of a file gateway; AWS sends them in periods of five minutes."""
    return cloudwatch.Metric(
        namespace="AWS/StorageGateway",
        metric_name=metric,
        dimensions_map={"GatewayId": gateway.id, "GatewayName": gateway.name},
        statistic=statistic,
        period=FIVE_MINUTES,
        label=label,
    )


def ends_by(status: str) -> cloudwatch.MathExpression:
    """Return the scans that ended with ``status``, one line a code."""
    names = ",".join((metrics.NAMESPACE, metrics.STAGE, metrics.STATUS, metrics.CODE))
    search = f"SEARCH('{{{names}}} MetricName=\"{metrics.ENDS}\" {metrics.STATUS}=\"{status}\"', 'Sum', 300)"
    return cloudwatch.MathExpression(expression=search, using_metrics={}, period=FIVE_MINUTES, label="")


def missing_workers(stage: Stage) -> cloudwatch.MathExpression:
    """Return how many workers were wanted and do not run."""
    return cloudwatch.MathExpression(
        expression="wanted - running",
        using_metrics={
            "wanted": of_stage(metrics.WORKERS_WANTED, stage),
            "running": of_stage(metrics.WORKERS_RUNNING, stage),
        },
        period=MINUTE,
        label=f"{stage.value}: wanted, not running",
    )
