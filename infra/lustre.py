"""FSx for Lustre in front of the k-space bucket: fast reads for the GPU machines, nothing written back."""

from __future__ import annotations

from aws_cdk import RemovalPolicy, Stack
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_fsx as fsx
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_s3 as s3
from aws_cdk import aws_scheduler as scheduler
from constructs import Construct

from mrirecon.contract import keys

from . import grants
from .config_parts import Lustre
from .network import Network

UNREAD_DAYS = 1
PORTS = (ec2.Port.tcp(988), ec2.Port.tcp_range(1018, 1023))
"""What Lustre's network layer uses, both ways, between clients and servers and among servers."""


class LustreCache(Construct):
    """File system, its import of the k-space prefix, and the security group of its clients.

    Nothing is exported: results are put to S3 by the worker, one writer. The file system holds copies
    only, so it goes with its stack.
    """

    def __init__(
        self,
        scope: Construct,
        name: str,
        *,
        lustre: Lustre,
        network: Network,
        kspace: s3.IBucket,
        key: kms.IKey,
    ) -> None:
        super().__init__(scope, name)
        self.clients = ec2.SecurityGroup(
            self, "Clients", vpc=network.vpc, allow_all_outbound=False, description="mounts the k-space cache"
        )
        servers = ec2.SecurityGroup(
            self, "Servers", vpc=network.vpc, allow_all_outbound=False, description="serves the k-space cache"
        )
        # By address, so that the rules are part of the groups: FSx refuses a file system whose group does not
        # let its ports through yet, and rules that name a group are resources of their own, made later.
        for cidr in network.cidrs:
            peer = ec2.Peer.ipv4(cidr)
            for port in PORTS:
                servers.add_ingress_rule(peer, port, "Lustre: from clients and other servers")
                servers.add_egress_rule(peer, port, "Lustre: to clients and other servers")
                self.clients.add_ingress_rule(peer, port, "Lustre: from servers")
                self.clients.add_egress_rule(peer, port, "Lustre: to servers")
        self.file_system = fsx.LustreFileSystem(
            self,
            "FileSystem",
            vpc=network.vpc,
            vpc_subnet=network.first_subnet,
            storage_capacity_gib=lustre.capacity_gib,
            kms_key=key,
            security_group=servers,
            file_system_type_version=fsx.FileSystemTypeVersion.V_2_15,
            lustre_configuration=fsx.LustreConfiguration(
                deployment_type=fsx.LustreDeploymentType.PERSISTENT_2,
                per_unit_storage_throughput=lustre.throughput,
                data_compression_type=fsx.LustreDataCompressionType.LZ4,
            ),
            removal_policy=RemovalPolicy.DESTROY,
        )
        # CDK adds a rule of its own, which names the group.
        self.file_system.node.add_dependency(servers, self.clients)
        self.association = fsx.CfnDataRepositoryAssociation(
            self,
            "Import",
            file_system_id=self.file_system.file_system_id,
            file_system_path="/" + keys.KSPACE.rstrip("/"),
            data_repository_path=kspace.s3_url_for_object(keys.KSPACE),
            batch_import_meta_data_on_create=True,
            s3=fsx.CfnDataRepositoryAssociation.S3Property(
                auto_import_policy=fsx.CfnDataRepositoryAssociation.AutoImportPolicyProperty(
                    events=["NEW", "CHANGED", "DELETED"]
                )
            ),
        )

        self._release_space()

    def _release_space(self) -> None:
        """Give the space of files back that nobody has read for a day.

        Their names stay, and a later read fetches them again from S3. Expiry in S3 is not relied on to free
        space: a bucket sends no event of removal for what its lifecycle deletes.
        """
        stack = Stack.of(self)
        files = f"arn:{stack.partition}:fsx:{stack.region}:{stack.account}"
        role = iam.Role(
            self,
            "ReleaseRole",
            description="gives back space of the k-space cache",
            assumed_by=iam.ServicePrincipal("scheduler.amazonaws.com").with_conditions(
                {"StringEquals": {"aws:SourceAccount": stack.account}}
            ),
        )
        # The task has no id before it is made.
        system = f"{files}:file-system/{self.file_system.file_system_id}"
        grants.allow(role, "Release", ["fsx:CreateDataRepositoryTask"], [system, f"{files}:task/*"])
        self.release = scheduler.CfnSchedule(
            self,
            "Release",
            description="Files of the k-space cache that nobody has read for a day give their space back.",
            flexible_time_window=scheduler.CfnSchedule.FlexibleTimeWindowProperty(mode="OFF"),
            schedule_expression="rate(6 hours)",
            target=scheduler.CfnSchedule.TargetProperty(
                arn=f"arn:{stack.partition}:scheduler:::aws-sdk:fsx:createDataRepositoryTask",
                role_arn=role.role_arn,
                input=stack.to_json_string(
                    {
                        "ClientRequestToken": "<aws.scheduler.execution-id>",
                        "FileSystemId": self.file_system.file_system_id,
                        "Type": "RELEASE_DATA_FROM_FILESYSTEM",
                        "Paths": [keys.KSPACE.rstrip("/")],
                        "Report": {"Enabled": False},
                        "ReleaseConfiguration": {
                            "DurationSinceLastAccess": {"Unit": "DAYS", "Value": UNREAD_DAYS}
                        },
                    }
                ),
                # A file system runs one such task at a time; the next one does what a refused one left.
                retry_policy=scheduler.CfnSchedule.RetryPolicyProperty(
                    maximum_event_age_in_seconds=3600, maximum_retry_attempts=3
                ),
            ),
        )

    @property
    def dns_name(self) -> str:
        """Name under which the file system is mounted."""
        return self.file_system.dns_name

    @property
    def mount_name(self) -> str:
        """Name of the file system on its server."""
        return self.file_system.mount_name
