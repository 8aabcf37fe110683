"""The decompress stage: a Fargate service whose size only the scaler sets."""

from __future__ import annotations

from aws_cdk import Duration, Stack
from aws_cdk import aws_ecs as ecs
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_logs as logs
from constructs import Construct

from mrirecon.contract import keys

from . import grants
from .acknowledge import acknowledge
from .config import Environment
from .images import container_image
from .network import Network
from .resources import DataResources
from .retention import removal, retention
from .worker_environment import SCRATCH, USER_ID, worker_environment

STOP_SECONDS = 120
"""The longest Fargate lets a container finish after SIGTERM."""
HEARTBEAT_SECONDS = 120


class DecompressService(Construct):
    """Cluster, task definition, roles and service.

    The template holds no desired count: a deployment must not undo what the scaler decided.
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
    ) -> None:
        super().__init__(scope, name)
        insights = (
            ecs.ContainerInsights.DISABLED
            if env.lacks("container_insights")
            else ecs.ContainerInsights.ENABLED
        )
        self.cluster = ecs.Cluster(self, "Cluster", vpc=network.vpc, container_insights_v2=insights)
        self.log_group = logs.LogGroup(
            self,
            "Logs",
            encryption_key=log_key,
            retention=retention(env.operations.log_days),
            removal_policy=removal(env),
        )
        self.task = self._task(env, data)
        self.service = ecs.FargateService(
            self,
            "Service",
            cluster=self.cluster,
            task_definition=self.task,
            vpc_subnets=network.subnets,
            security_groups=[network.workers],
            assign_public_ip=network.public_addresses,
            platform_version=ecs.FargatePlatformVersion.LATEST,
            circuit_breaker=ecs.DeploymentCircuitBreaker(enable=True, rollback=True),
            min_healthy_percent=50,
            max_healthy_percent=200,
            enable_execute_command=False,
            propagate_tags=ecs.PropagatedTagSource.SERVICE,
        )
        self._grant(data)

    def _task(self, env: Environment, data: DataResources) -> ecs.FargateTaskDefinition:
        stage = env.decompress
        # ECS alone may use the role, and only for tasks of this account: no confused deputy.
        self.role = iam.Role(
            self,
            "TaskRole",
            description="what a decompress worker may do",
            assumed_by=iam.ServicePrincipal("ecs-tasks.amazonaws.com").with_conditions(
                {"StringEquals": {"aws:SourceAccount": env.account}}
            ),
        )
        task = ecs.FargateTaskDefinition(
            self,
            "Task",
            cpu=stage.cpu,
            memory_limit_mib=stage.memory_gib * 1024,
            ephemeral_storage_gib=stage.ephemeral_gib,
            task_role=self.role,
            runtime_platform=ecs.RuntimePlatform(
                cpu_architecture=ecs.CpuArchitecture.X86_64,
                operating_system_family=ecs.OperatingSystemFamily.LINUX,
            ),
        )
        heartbeat = f"{SCRATCH}/heartbeat"
        container = task.add_container(
            "Worker",
            container_name="worker",
            image=container_image(self, "decompress", images=env.images),
            environment=worker_environment(
                data, stage.times, region=env.region, lustre=False, price=stage.price_per_hour, spot=False
            ),
            readonly_root_filesystem=True,
            user=USER_ID,
            stop_timeout=Duration.seconds(STOP_SECONDS),
            linux_parameters=self._no_capabilities(),
            logging=ecs.LogDrivers.aws_logs(stream_prefix="decompress", log_group=self.log_group),
            health_check=ecs.HealthCheck(
                command=[
                    "CMD-SHELL",
                    f"test $(( $(date +%s) - $(stat -c %Y {heartbeat}) )) -lt {HEARTBEAT_SECONDS}",
                ],
                interval=Duration.seconds(30),
                timeout=Duration.seconds(5),
                retries=3,
                start_period=Duration.seconds(120),
            ),
        )
        acknowledge(
            task,
            "The variables name buckets, queues and times; workers have no secrets.",
            "AwsSolutions-ECS2",
        )
        task.add_volume(name="scratch")
        container.add_mount_points(
            ecs.MountPoint(source_volume="scratch", container_path=SCRATCH, read_only=False)
        )
        container.add_environment("TMPDIR", SCRATCH)
        return task

    def _no_capabilities(self) -> ecs.LinuxParameters:
        parameters = ecs.LinuxParameters(self, "Linux", init_process_enabled=True)
        parameters.drop_capabilities(ecs.Capability.ALL)
        return parameters

    def _grant(self, data: DataResources) -> None:
        role = self.role
        grants.objects(role, "ReadArchives", data.raw, keys.INCOMING, grants.HEAD)
        grants.objects(role, "MarkEndedArchives", data.raw, keys.INCOMING, grants.TAG)
        grants.objects(role, "WriteKspace", data.kspace, keys.KSPACE, (*grants.READ, *grants.WRITE))
        grants.objects(role, "KeepRejected", data.quarantine, keys.QUARANTINE, grants.COPY_HERE)
        for sid, bucket in (
            ("ListRaw", data.raw),
            ("ListKspace", data.kspace),
            ("ListQuarantine", data.quarantine),
        ):
            grants.list_bucket(role, sid, bucket)
        grants.queues(role, "TakeArchives", data.decompress.lanes, (*grants.CONSUME, *grants.SEND))
        grants.queues(role, "AskForImages", data.recon.lanes, (*grants.SEND, *grants.LOOK))
        grants.queues(role, "ReadDeadLetters", [data.decompress.dead_letters], grants.WALK)
        grants.ledger(role, data.ledger)
        grants.use_keys(role, [data.data_key, data.message_key])
        grants.allow(
            role,
            "ProtectOwnTask",
            ["ecs:UpdateTaskProtection"],
            [
                Stack.of(self).format_arn(
                    service="ecs", resource="task", resource_name=f"{self.cluster.cluster_name}/*"
                )
            ],
        )
