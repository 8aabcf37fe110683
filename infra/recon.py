"""The reconstruction stage: AWS Batch on GPU machines, Spot first, none when nothing waits.

A job is a queue worker, not a scan: it takes scans until its queues stay empty, so container and CUDA start
once. Jobs have one attempt (messages are retried, and the scaler alone replaces workers).
"""

from __future__ import annotations

from aws_cdk import Duration, Size
from aws_cdk import aws_batch as batch
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_ecs as ecs
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_logs as logs
from constructs import Construct

from mrirecon.contract import environment as variables_of
from mrirecon.contract import keys

from . import grants
from .acknowledge import acknowledge, managed_policy
from .config import Environment
from .images import container_image
from .lustre import LustreCache
from .machine import LUSTRE_ON_HOST, SCRATCH_ON_HOST, GpuMachine
from .network import Network
from .resources import DataResources
from .retention import removal, retention
from .worker_environment import LUSTRE, SCRATCH, USER_ID, worker_environment

STUCK_REASONS = (
    batch.JobStateTimeLimitActionsReason.INSUFFICIENT_INSTANCE_CAPACITY,
    batch.JobStateTimeLimitActionsReason.COMPUTE_ENVIRONMENT_MAX_RESOURCE,
    batch.JobStateTimeLimitActionsReason.JOB_RESOURCE_REQUIREMENT,
)
"""Why a job can stand at the head of the queue for ever."""


MACHINE_POLICY = "service-role/AmazonEC2ContainerServiceforEC2Role"
"""What a machine of the cluster needs to register and pull containers, as AWS keeps it."""


class ReconBatch(Construct):
    """Compute environments, job queue and job definition."""

    def __init__(
        self,
        scope: Construct,
        name: str,
        *,
        env: Environment,
        network: Network,
        data: DataResources,
        log_key: kms.IKey,
        lustre: LustreCache | None,
    ) -> None:
        super().__init__(scope, name)
        self._env = env
        groups: list[ec2.ISecurityGroup] = [network.workers, *([lustre.clients] if lustre else [])]
        self._groups = groups
        self._network = network
        self.machine = GpuMachine(
            self, "Machine", disk_gib=env.recon.disk_gib, key=data.data_key, lustre=lustre, groups=groups
        )
        self._machine_role = iam.Role(
            self,
            "MachineRole",
            assumed_by=iam.ServicePrincipal("ec2.amazonaws.com"),
            description="what a GPU machine may do: join the cluster, pull containers",
            managed_policies=[iam.ManagedPolicy.from_aws_managed_policy_name(MACHINE_POLICY)],
        )
        acknowledge(
            self._machine_role,
            "The cluster's name is Batch's to choose; AWS keeps this policy for its machines.",
            managed_policy(MACHINE_POLICY),
        )
        kinds = [True, False] if env.recon.spot else [False]
        self.queue = batch.JobQueue(
            self,
            "Queue",
            priority=1,
            compute_environments=[
                batch.OrderedComputeEnvironment(compute_environment=self._machines(spot), order=order)
                for order, spot in enumerate(kinds, start=1)
            ],
            job_state_time_limit_actions=[
                batch.JobStateTimeLimitAction(
                    action=batch.JobStateTimeLimitActionsAction.CANCEL,
                    max_time=Duration.minutes(env.recon.runnable_minutes),
                    reason=reason,
                    state=batch.JobStateTimeLimitActionsState.RUNNABLE,
                )
                for reason in STUCK_REASONS
            ],
        )
        self.log_group = logs.LogGroup(
            self,
            "Logs",
            encryption_key=log_key,
            retention=retention(env.operations.log_days),
            removal_policy=removal(env),
        )
        self.role = iam.Role(
            self,
            "JobRole",
            description="what a reconstruction worker may do",
            assumed_by=iam.ServicePrincipal("ecs-tasks.amazonaws.com").with_conditions(
                {"StringEquals": {"aws:SourceAccount": env.account}}
            ),
        )
        self.definition_name = f"mrirecon-{env.name}-recon"
        self.definition = self._definition(data, lustre)
        self._grant(data)

    def _machines(self, spot: bool) -> batch.ManagedEc2EcsComputeEnvironment:
        env = self._env
        spread = batch.AllocationStrategy.SPOT_PRICE_CAPACITY_OPTIMIZED
        machines = batch.ManagedEc2EcsComputeEnvironment(
            self,
            "Spot" if spot else "OnDemand",
            vpc=self._network.vpc,
            vpc_subnets=self._network.subnets,
            security_groups=self._groups,
            minv_cpus=0,
            maxv_cpus=env.recon.max_vcpus,
            spot=spot,
            allocation_strategy=spread if spot else batch.AllocationStrategy.BEST_FIT_PROGRESSIVE,
            instance_types=[ec2.InstanceType(name) for name in env.recon.instance_types],
            use_optimal_instance_classes=False,
            images=[batch.EcsMachineImage(image_type=batch.EcsMachineImageType.ECS_AL2023_NVIDIA)],
            instance_role=self._machine_role,
            launch_template=self.machine.template,
            update_to_latest_image_version=True,
            terminate_on_update=False,
            update_timeout=Duration.minutes(60),
            replace_compute_environment=False,
        )
        # Without a version that is seen to change, Batch keeps the template's old one for ever.
        child = machines.node.default_child
        if not isinstance(child, batch.CfnComputeEnvironment):
            raise TypeError("a compute environment's default child is a CfnComputeEnvironment")
        child.add_property_override(
            "ComputeResources.LaunchTemplate.Version", self.machine.template.latest_version_number
        )
        return machines

    def _definition(self, data: DataResources, lustre: LustreCache | None) -> batch.EcsJobDefinition:
        env, stage = self._env, self._env.recon
        volumes = [batch.EcsVolume.host(name="scratch", host_path=SCRATCH_ON_HOST, container_path=SCRATCH)]
        if lustre is not None:
            volumes.append(
                batch.EcsVolume.host(
                    name="lustre", host_path=LUSTRE_ON_HOST, container_path=LUSTRE, readonly=True
                )
            )
        variables = worker_environment(
            data,
            stage.times,
            region=env.region,
            lustre=lustre is not None,
            price=stage.price_per_hour,
            spot=stage.spot,
        )
        container = batch.EcsEc2ContainerDefinition(
            self,
            "Worker",
            image=container_image(self, "recon", images=env.images),
            cpu=stage.vcpus,
            memory=Size.gibibytes(stage.memory_gib),
            gpu=1,
            privileged=False,
            readonly_root_filesystem=True,
            user=USER_ID,
            job_role=self.role,
            volumes=volumes,
            environment={
                **variables,
                variables_of.REQUIRE_GPU: "1",
                "TMPDIR": SCRATCH,
                "XDG_CACHE_HOME": SCRATCH,
            },
            linux_parameters=batch.LinuxParameters(
                self, "Linux", init_process_enabled=True, shared_memory_size=Size.gibibytes(2)
            ),
            logging=ecs.LogDriver.aws_logs(stream_prefix="recon", log_group=self.log_group),
        )
        return batch.EcsJobDefinition(
            self,
            "Definition",
            job_definition_name=self.definition_name,
            # A release must not take the definition from under the jobs that still wait with it.
            skip_deregister_on_update=True,
            container=container,
            retry_attempts=1,
            propagate_tags=True,
            timeout=Duration.seconds(stage.job_seconds),
        )

    def _grant(self, data: DataResources) -> None:
        role = self.role
        grants.objects(role, "ReadKspace", data.kspace, keys.KSPACE, grants.READ)
        grants.objects(role, "PublishImages", data.images, keys.IMAGES, (*grants.READ, *grants.WRITE))
        grants.objects(role, "ReadArchives", data.raw, keys.INCOMING, grants.HEAD)
        grants.objects(role, "MarkEndedArchives", data.raw, keys.INCOMING, grants.TAG)
        grants.objects(role, "KeepRejected", data.quarantine, keys.QUARANTINE, grants.COPY_HERE)
        for sid, bucket in (
            ("ListKspace", data.kspace),
            ("ListImages", data.images),
            ("ListRaw", data.raw),
            ("ListQuarantine", data.quarantine),
        ):
            grants.list_bucket(role, sid, bucket)
        grants.queues(role, "TakeKspace", data.recon.lanes, (*grants.CONSUME, *grants.SEND))
        grants.queues(role, "ReadDeadLetters", [data.recon.dead_letters], grants.WALK)
        grants.ledger(role, data.ledger)
        grants.use_keys(role, [data.data_key, data.message_key])
