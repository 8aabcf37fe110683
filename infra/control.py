"""The Lambdas that steer: how many workers, what the share shows, what is tried again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from aws_cdk import Duration, Stack
from aws_cdk import aws_events as events
from aws_cdk import aws_events_targets as targets
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_lambda_event_sources as sources
from aws_cdk import aws_sqs as sqs
from constructs import Construct

from mrirecon.contract import environment as variables
from mrirecon.contract import keys

from . import grants
from .config import Environment
from .function import PipelineFunction
from .network import Network
from .resources import DataResources
from .worker_environment import queue_urls

MOVE = ("sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:ChangeMessageVisibility")


@dataclass(frozen=True, kw_only=True)
class Workers:
    """What the scaler sets: names for its environment, ARNs for its rights."""

    cluster_name: str
    service_name: str
    service_arn: str
    job_queue: str
    job_queue_arn: str
    job_definition: str
    job_definition_arns: tuple[str, ...]


class Control(Construct):
    """Scaler, cache refresh and redrive.

    Attributes
    ----------
    functions
        By name, for the alarms.
    dead_letters
        Events that a function could not take.
    """

    def __init__(
        self,
        scope: Construct,
        name: str,
        *,
        env: Environment,
        network: Network,
        data: DataResources,
        log_key: kms.IKey,
        workers: Workers,
        image_shares: Sequence[str],
    ) -> None:
        super().__init__(scope, name)
        self._env, self._network, self._data, self._log_key = env, network, data, log_key
        self.dead_letters = sqs.Queue(
            self,
            "DeadLetters",
            encryption=sqs.QueueEncryption.KMS,
            encryption_master_key=data.message_key,
            enforce_ssl=True,
            retention_period=Duration.days(14),
            data_key_reuse=Duration.hours(1),
        )
        self.scaler = self._scaler(workers)
        self.refresh = self._refresh(image_shares)
        self.redrive = self._redrive()
        self.functions: dict[str, lambda_.IFunction] = {
            "Scaler": self.scaler.function,
            "Refresh": self.refresh.function,
            "Redrive": self.redrive.function,
        }
        self.log_groups = [self.scaler.log_group, self.refresh.log_group, self.redrive.log_group]

    def _function(
        self,
        name: str,
        asset: str,
        description: str,
        values: dict[str, str],
        timeout: Duration,
        dead_letters: sqs.IQueue | None,
        concurrency: int | None = 1,
    ) -> PipelineFunction:
        made = PipelineFunction(
            self,
            name,
            env=self._env,
            network=self._network,
            log_key=self._log_key,
            asset=asset,
            description=description,
            variables=values,
            timeout=timeout,
            dead_letters=dead_letters,
            concurrency=concurrency,
        )
        if dead_letters is not None:  # SQS's own trigger brings its right to read
            grants.use_keys(made.role, [self._data.message_key])
        return made

    def _scaler(self, workers: Workers) -> PipelineFunction:
        env, data = self._env, self._data
        made = self._function(
            "Scaler",
            "scaler",
            "Decides every minute how many workers each stage has.",
            {
                **queue_urls(data),
                variables.ECS_CLUSTER: workers.cluster_name,
                variables.ECS_SERVICE: workers.service_name,
                variables.BATCH_JOB_QUEUE: workers.job_queue,
                variables.BATCH_JOB_DEFINITION: workers.job_definition,
                variables.DECOMPRESS_SCALING: env.decompress.scaling.to_json(),
                variables.RECON_SCALING: env.recon.scaling.to_json(),
                variables.LEDGER_TABLE: data.ledger.table_name,
            },
            Duration.seconds(50),
            self.dead_letters,
        )
        role = made.role
        # The scaler keeps its last decision in the ledger's table.
        grants.allow(role, "Ledger", ["dynamodb:UpdateItem"], [data.ledger.table_arn])
        grants.use_keys(role, [data.data_key], "DataKey", grants.READ_WITH_KEY)
        every_queue = [
            queue for stage in (data.decompress, data.recon) for queue in (*stage.lanes, stage.dead_letters)
        ]
        grants.queues(role, "LookAtQueues", every_queue, grants.LOOK)
        grants.allow(role, "SetService", ["ecs:DescribeServices", "ecs:UpdateService"], [workers.service_arn])
        grants.allow(
            role, "SubmitWorkers", ["batch:SubmitJob"], [workers.job_queue_arn, *workers.job_definition_arns]
        )
        # These know no resources.
        grants.allow(role, "LookAtJobs", ["batch:ListJobs", "cloudwatch:GetMetricData"], ["*"])
        rule = events.Rule(
            self,
            "EveryMinute",
            schedule=events.Schedule.rate(Duration.minutes(env.control.scale_every_minutes)),
            description="The scaler looks.",
        )
        # A look that failed is not repeated: the next minute's is newer.
        rule.add_target(
            targets.LambdaFunction(
                made.function,
                retry_attempts=0,
                max_event_age=Duration.minutes(1),
                dead_letter_queue=self.dead_letters,
            )
        )
        made.function.configure_async_invoke(retry_attempts=0, max_event_age=Duration.minutes(1))
        return made

    def _refresh(self, image_shares: Sequence[str]) -> PipelineFunction:
        env, data = self._env, self._data
        made = self._function(
            "Refresh",
            "refresh_cache",
            "Shows published images on the file share.",
            {
                variables.REFRESH_QUEUE_URL: data.refresh.queue_url,
                variables.FILE_SHARE_ARNS: ",".join(image_shares),
                variables.LEDGER_TABLE: data.ledger.table_name,
            },
            REFRESH_TIMEOUT,
            None,
            # With fewer reserved than the event source may use (2 at least), SQS's pollers are throttled, and
            # each time counts as a receive.
            concurrency=EVENT_SOURCE_CONCURRENCY,
        )
        # What the event source needs of the queue, it is granted with the source.
        grants.ledger(made.role, data.ledger)
        grants.use_keys(made.role, [data.data_key], "DataKey", grants.READ_WITH_KEY)
        if image_shares:
            grants.allow(made.role, "Refresh", ["storagegateway:RefreshCache"], list(image_shares))
        made.function.add_event_source(
            sources.SqsEventSource(
                data.refresh,
                batch_size=1000 if env.control.refresh_window_seconds else 10,
                max_batching_window=Duration.seconds(env.control.refresh_window_seconds),
                report_batch_item_failures=True,
                max_concurrency=EVENT_SOURCE_CONCURRENCY,
                enabled=bool(image_shares),
            )
        )
        return made

    def _redrive(self) -> PipelineFunction:
        data = self._data
        made = self._function(
            "Redrive",
            "redrive",
            "Puts dead letters back into their queue; called by an operator.",
            {**queue_urls(data), variables.LEDGER_TABLE: data.ledger.table_name},
            Duration.minutes(5),
            self.dead_letters,
        )
        dead = [data.decompress.dead_letters, data.recon.dead_letters]
        grants.queues(made.role, "TakeDeadLetters", dead, MOVE)
        grants.queues(made.role, "PutBack", [*data.decompress.lanes, *data.recon.lanes], grants.SEND)
        grants.ledger(made.role, data.ledger)
        # A gateway announces no version: the function asks the bucket for it, as the worker does.
        grants.objects(made.role, "LookAtArchives", data.raw, keys.INCOMING, grants.READ)
        grants.list_bucket(made.role, "ListRaw", data.raw)
        grants.use_keys(made.role, [data.data_key], "DataKey", grants.READ_WITH_KEY)
        return made


REFRESH_TIMEOUT = Duration.minutes(2)
EVENT_SOURCE_CONCURRENCY = 2


def operators_policy(
    scope: Construct, name: str, *, redrive: lambda_.IFunction, data: DataResources
) -> iam.ManagedPolicy:
    """Return what ``mrirecon status``, ``queues``, ``submit`` and ``redrive`` need: for people."""
    policy = iam.ManagedPolicy(scope, name, description=f"mrirecon operators ({Stack.of(scope).stack_name})")
    lanes = [*data.decompress.lanes, *data.recon.lanes]
    dead = [data.decompress.dead_letters, data.recon.dead_letters]
    table = data.ledger.table_arn
    for sid, actions, resources in (
        ("Redrive", ["lambda:InvokeFunction"], [redrive.function_arn]),
        ("Ledger", ["dynamodb:GetItem", "dynamodb:Query", "dynamodb:UpdateItem"], [table]),
        ("LedgerListings", ["dynamodb:Query"], [f"{table}/index/*"]),
        ("Lanes", (*grants.SEND, *grants.LOOK), [queue.queue_arn for queue in lanes]),
        (
            "DeadLetters",
            (*grants.WALK, *grants.LOOK, "sqs:DeleteMessage"),
            [queue.queue_arn for queue in dead],
        ),
        ("FindArchives", ["s3:ListBucket"], [data.raw.bucket_arn]),
        (
            "SubmitArchives",
            (*grants.READ, *grants.WRITE),
            [data.raw.arn_for_objects(keys.INCOMING + "*")],
        ),
        ("Keys", grants.USE_KEY, [data.data_key.key_arn, data.message_key.key_arn]),
    ):
        statement = iam.PolicyStatement(sid=sid, actions=list(actions), resources=list(resources))
        policy.add_statements(statement)
    return policy
