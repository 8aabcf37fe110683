"""What wakes somebody, and the page that says what to do. No alarm without a page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from aws_cdk import ArnFormat, Stack
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_cloudwatch_actions as actions
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_sns as sns
from aws_cdk import aws_sns_subscriptions as subscriptions
from aws_cdk import aws_sqs as sqs
from constructs import Construct

from mrirecon.contract import metrics
from mrirecon.contract.states import Stage

from . import signals
from .config import Environment
from .resources import DataResources

RUNBOOK = Path(__file__).resolve().parent.parent / "docs" / "runbook"
ABOVE = cloudwatch.ComparisonOperator.GREATER_THAN_THRESHOLD
BELOW = cloudwatch.ComparisonOperator.LESS_THAN_THRESHOLD
QUIET = cloudwatch.TreatMissingData.NOT_BREACHING
SILENCE_IS_WRONG = cloudwatch.TreatMissingData.BREACHING


class AlarmTopic(Construct):
    """Where alarms go: an encrypted topic that mail addresses subscribe to."""

    def __init__(self, scope: Construct, name: str, *, key: kms.IKey, emails: Sequence[str]) -> None:
        super().__init__(scope, name)
        self.topic = sns.Topic(
            self, "Topic", master_key=key, enforce_ssl=True, display_name="mrirecon alarms"
        )
        # Any policy of ours takes the place of SNS's default one, which let the account's services publish.
        self.topic.add_to_resource_policy(
            iam.PolicyStatement(
                sid="AlarmsPublish",
                actions=["sns:Publish"],
                resources=[self.topic.topic_arn],
                principals=[iam.ServicePrincipal("cloudwatch.amazonaws.com")],
                conditions={
                    "StringEquals": {"aws:SourceAccount": Stack.of(self).account},
                    "ArnLike": {
                        "aws:SourceArn": Stack.of(self).format_arn(
                            service="cloudwatch",
                            resource="alarm",
                            resource_name="*",
                            arn_format=ArnFormat.COLON_RESOURCE_NAME,
                        )
                    },
                },
            )
        )
        for email in emails:
            self.topic.add_subscription(subscriptions.EmailSubscription(email))


class Alarms(Construct):
    """All alarms of the pipeline."""

    def __init__(
        self,
        scope: Construct,
        name: str,
        *,
        topic: sns.ITopic,
        env: Environment,
        data: DataResources,
        functions: dict[str, lambda_.IFunction],
        function_dead_letters: sqs.IQueue,
    ) -> None:
        super().__init__(scope, name)
        self._topic = topic
        self.all: list[cloudwatch.Alarm] = []
        self._dead_letters(data, function_dead_letters)
        self._waiting(data, env)
        self._workers(computed=not env.lacks("metric_math_alarms"))
        self._functions(functions)

    def add(
        self,
        name: str,
        metric: cloudwatch.IMetric,
        *,
        page: str,
        what: str,
        threshold: float,
        periods: int,
        of: int | None = None,
        comparison: cloudwatch.ComparisonOperator = ABOVE,
        missing: cloudwatch.TreatMissingData = QUIET,
    ) -> cloudwatch.Alarm:
        """Add an alarm whose description ends in the name of its page.

        It comes when ``threshold`` is passed in ``periods`` of the metric's periods, out of the last ``of``.
        """
        if not (RUNBOOK / page).is_file():
            raise FileNotFoundError(f"alarm {name}: expected its page docs/runbook/{page}, found none")
        alarm = cloudwatch.Alarm(
            self,
            name,
            metric=metric,
            alarm_description=f"{what} What to do: docs/runbook/{page}",
            threshold=threshold,
            comparison_operator=comparison,
            treat_missing_data=missing,
            evaluation_periods=of or periods,
            datapoints_to_alarm=periods,
        )
        alarm.add_alarm_action(actions.SnsAction(self._topic))
        alarm.add_ok_action(actions.SnsAction(self._topic))
        self.all.append(alarm)
        return alarm

    def watch_gateway(self, gateway: signals.Gateway) -> None:
        """Add the alarms of a file gateway, whose metrics come every five minutes."""
        self.add(
            "GatewayCacheDirty",
            signals.of_gateway(gateway, "CachePercentDirty"),
            page="gateway.md",
            threshold=80,
            periods=3,
            what="The gateway uploads more slowly than scanners write; its cache fills.",
        )
        self.add(
            "GatewayUnwell",
            signals.of_gateway(gateway, "HealthNotifications"),
            page="gateway.md",
            threshold=0,
            periods=1,
            what="The gateway reports a fault.",
        )

    def watch_lustre(self, file_system_id: str, capacity_gib: int) -> None:
        """Add the alarm of the k-space cache."""
        free = cloudwatch.Metric(
            namespace="AWS/FSx",
            metric_name="FreeDataStorageCapacity",
            dimensions_map={"FileSystemId": file_system_id},
            statistic="Sum",
            period=signals.MINUTE,
        )
        self.add(
            "LustreFull",
            free,
            page="lustre.md",
            comparison=BELOW,
            threshold=capacity_gib * 2**30 * 0.1,
            periods=15,
            what="Less than a tenth of the k-space cache is free.",
        )

    def _dead_letters(self, data: DataResources, functions: sqs.IQueue) -> None:
        for name, queue, what in (
            (
                "DeadLettersDecompress",
                data.decompress.dead_letters,
                "An archive could not be read after all retries.",
            ),
            (
                "DeadLettersRecon",
                data.recon.dead_letters,
                "A scan could not be reconstructed after all retries.",
            ),
            (
                "DeadLettersRefresh",
                data.refresh_dead_letters,
                "Published images were not shown on the share.",
            ),
            ("DeadLettersFunctions", functions, "A Lambda failed on an event and its retries."),
        ):
            self.add(name, signals.waiting(queue), page="dead-letters.md", threshold=0, periods=1, what=what)

    def _waiting(self, data: DataResources, env: Environment) -> None:
        operations = env.operations
        lanes = (
            ("StatWaitsDecompress", data.decompress.stat, operations.oldest_stat_minutes),
            ("StatWaitsRecon", data.recon.stat, operations.oldest_stat_minutes),
            ("RoutineWaitsDecompress", data.decompress.routine, operations.oldest_routine_minutes),
            ("RoutineWaitsRecon", data.recon.routine, operations.oldest_routine_minutes),
        )
        for name, queue, minutes in lanes:
            self.add(
                name,
                signals.age(queue),
                page="scans-wait.md",
                threshold=minutes * 60,
                periods=3,
                what=f"A scan has waited in its queue for more than {minutes} minutes.",
            )

    def _workers(self, *, computed: bool) -> None:
        for stage, page in ((Stage.DECOMPRESS, "no-tasks.md"), (Stage.RECON, "no-machines.md")):
            label = stage.value.title()
            if computed:
                self.add(
                    f"WorkersMissing{label}",
                    signals.missing_workers(stage),
                    page=page,
                    threshold=0,
                    periods=25,
                    of=30,
                    what=f"{label} workers were asked for and have not come for half an hour.",
                )
            self.add(
                f"ScalerSilent{label}",
                signals.of_stage(metrics.WORKERS_WANTED, stage, statistic="SampleCount"),
                page="scaler.md",
                comparison=BELOW,
                threshold=1,
                periods=10,
                missing=SILENCE_IS_WRONG,
                what="The scaler has decided nothing for ten minutes: queues may grow unseen.",
            )
            self.add(
                f"ScalerErrors{label}",
                signals.of_stage(metrics.SCALER_ERRORS, stage, statistic="Sum"),
                page="scaler.md",
                threshold=0,
                periods=5,
                of=10,
                what="The scaler could not read or set something; it changed nothing then.",
            )

    def _functions(self, functions: dict[str, lambda_.IFunction]) -> None:
        for name, function in sorted(functions.items()):
            self.add(
                f"Errors{name}",
                function.metric_errors(period=signals.FIVE_MINUTES),
                page="functions.md",
                threshold=0,
                periods=2,
                of=3,
                what=f"The {name} Lambda fails.",
            )
            self.add(
                f"Throttles{name}",
                function.metric_throttles(period=signals.FIVE_MINUTES),
                page="functions.md",
                threshold=10,
                periods=3,
                what=f"The {name} Lambda is throttled.",
            )
