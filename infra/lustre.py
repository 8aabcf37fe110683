"""FSx for Lustre in front of the k-space bucket: fast reads for the GPU machines, nothing written back."""

from __future__ import annotations

from aws_cdk import RemovalPolicy
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_fsx as fsx
from aws_cdk import aws_kms as kms
from aws_cdk import aws_s3 as s3
from constructs import Construct

from mrirecon.contract import keys

from .config_parts import Lustre
from .network import Network

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
        for port in PORTS:
            for one, other, what in (
                (servers, servers, "servers among themselves"),
                (servers, self.clients, "clients"),
                (self.clients, servers, "servers"),
            ):
                one.add_ingress_rule(other, port, f"Lustre: from {what}")
                one.add_egress_rule(other, port, f"Lustre: to {what}")
        subnet = network.vpc.select_subnets(subnet_group_name="work").subnets[0]
        self.file_system = fsx.LustreFileSystem(
            self,
            "FileSystem",
            vpc=network.vpc,
            vpc_subnet=subnet,
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

    @property
    def dns_name(self) -> str:
        """Name under which the file system is mounted."""
        return self.file_system.dns_name

    @property
    def mount_name(self) -> str:
        """Name of the file system on its server."""
        return self.file_system.mount_name
