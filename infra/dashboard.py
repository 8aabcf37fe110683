"""The dashboard of the night: is anything stuck, who works, what failed, what does it cost."""

from __future__ import annotations

from collections.abc import Sequence

from aws_cdk import Duration
from aws_cdk import aws_cloudwatch as cloudwatch
from constructs import Construct

from mrirecon.contract import metrics
from mrirecon.contract.codes import End
from mrirecon.contract.states import Stage

from . import signals
from .queues import StageQueues
from .resources import DataResources

WIDTH = 24
HEIGHT = 6


class PipelineDashboard(Construct):
    """One page, top to bottom in the order of the questions a night operator asks."""

    def __init__(
        self,
        scope: Construct,
        name: str,
        *,
        title: str,
        data: DataResources,
        alarms: Sequence[cloudwatch.IAlarm],
        gateways: Sequence[signals.Gateway],
        lustre_id: str | None,
    ) -> None:
        super().__init__(scope, name)
        self.dashboard = cloudwatch.Dashboard(
            self,
            "Dashboard",
            dashboard_name=title,
            default_interval=Duration.hours(12),
            period_override=cloudwatch.PeriodOverride.INHERIT,
        )
        stages = ((Stage.DECOMPRESS, data.decompress), (Stage.RECON, data.recon))
        self._row(_text("## Is anything wrong?\nEach alarm names its page under `docs/runbook/`."))
        self._row(cloudwatch.AlarmStatusWidget(title="Alarms", alarms=list(alarms), width=WIDTH, height=4))
        self._row(
            *(
                _graph(f"{stage.value}: scans waiting and worked on", _depths(queues))
                for stage, queues in stages
            ),
            _graph(
                "Oldest waiting scan (s)", [line for stage, queues in stages for line in _ages(stage, queues)]
            ),
        )
        self._row(*(_graph(f"{stage.value}: workers", _workers(stage)) for stage, _ in stages))
        self._row(
            _graph("Time of a stage, median and slowest of 20 (s)", _times()),
            _graph("From arrival to images (s)", _journey()),
            _graph("Cost of a scan (US dollars)", _cost()),
        )
        self._row(
            _graph("Rejected scans, by code", [signals.ends_by(End.REJECTED.value)]),
            _graph("Failed attempts, by code", [signals.ends_by(End.FAILED.value)]),
            _graph(
                "Dead letters",
                [signals.waiting(queues.dead_letters, stage.value) for stage, queues in stages]
                + [signals.waiting(data.refresh_dead_letters, "share refresh")],
            ),
        )
        self._row(*_share(data, gateways), *_lustre(lustre_id))

    def _row(self, *widgets: cloudwatch.IWidget) -> None:
        self.dashboard.add_widgets(*widgets)


def _text(markdown: str) -> cloudwatch.TextWidget:
    return cloudwatch.TextWidget(markdown=markdown, width=WIDTH, height=2)


def _graph(title: str, lines: Sequence[cloudwatch.IMetric]) -> cloudwatch.GraphWidget:
    return cloudwatch.GraphWidget(
        title=title,
        left=list(lines),
        width=8,
        height=HEIGHT,
        left_y_axis=cloudwatch.YAxisProps(min=0, show_units=False),
    )


def _depths(queues: StageQueues) -> list[cloudwatch.IMetric]:
    return [
        signals.waiting(queues.stat, "stat waiting"),
        signals.waiting(queues.routine, "routine waiting"),
        signals.worked_on(queues.stat, "stat worked on"),
        signals.worked_on(queues.routine, "routine worked on"),
    ]


def _ages(stage: Stage, queues: StageQueues) -> list[cloudwatch.IMetric]:
    return [
        signals.age(queues.stat, f"{stage.value} stat"),
        signals.age(queues.routine, f"{stage.value} routine"),
    ]


def _workers(stage: Stage) -> list[cloudwatch.IMetric]:
    names = {
        metrics.WORKERS_WANTED: "wanted",
        metrics.WORKERS_RUNNING: "running",
        metrics.WORKERS_STARTING: "starting",
    }
    return [signals.of_stage(name, stage, label=label) for name, label in names.items()]


def _times() -> list[cloudwatch.IMetric]:
    return [
        signals.of_stage(
            metrics.STAGE_SECONDS,
            stage,
            statistic=statistic,
            period=signals.FIVE_MINUTES,
            label=f"{stage.value} {statistic}",
        )
        for stage in Stage
        for statistic in ("p50", "p95")
    ]


def _journey() -> list[cloudwatch.IMetric]:
    return [
        signals.of_stage(
            metrics.JOURNEY_SECONDS,
            Stage.RECON,
            statistic=statistic,
            period=signals.FIVE_MINUTES,
            label=statistic,
        )
        for statistic in ("p50", "p95", "p99")
    ]


def _cost() -> list[cloudwatch.IMetric]:
    return [
        signals.of_stage(metrics.COST, stage, statistic="Average", period=signals.HOUR, label=stage.value)
        for stage in Stage
    ]


def _share(data: DataResources, gateways: Sequence[signals.Gateway]) -> list[cloudwatch.GraphWidget]:
    refresh = _graph("Share refreshes waiting", [signals.waiting(data.refresh, "published results")])
    if not gateways:
        return [refresh]
    lines = [
        signals.of_gateway(gateway, name, statistic="Average", label=label)
        for gateway in gateways
        for name, label in (
            ("CachePercentDirty", "not yet uploaded"),
            ("CacheHitPercent", "read from cache"),
            ("CachePercentUsed", "in use"),
        )
    ]
    return [refresh, _graph("Gateway cache (%)", lines)]


def _lustre(file_system: str | None) -> list[cloudwatch.GraphWidget]:
    if file_system is None:
        return []
    free = cloudwatch.Metric(
        namespace="AWS/FSx",
        metric_name="FreeDataStorageCapacity",
        dimensions_map={"FileSystemId": file_system},
        statistic="Sum",
        period=signals.FIVE_MINUTES,
        label="free",
    )
    return [_graph("K-space cache: free bytes", [free])]
