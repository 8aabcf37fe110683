"""A file gateway in the VPC: a machine with a pinned image, made once and never replaced by a release.

CloudFormation makes the machine and what reaches it. Activation, cache, directory and shares follow as steps
of ``mrirecon gateway``, each of which may be repeated; one that fails leaves the machine alone. The machine
gives its activation key over HTTP inside the VPC only, so a small Lambda there hands the key to the command.
"""

from __future__ import annotations

from aws_cdk import CfnDeletionPolicy, Duration, Fn, Tags
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from constructs import Construct

from mrirecon.contract import activation

from .acknowledge import BUILT_IN, acknowledge
from .config import Environment
from .config_parts import Appliance, FileShare
from .endpoints import STORAGE_GATEWAY_PORTS
from .function import PipelineFunction
from .network import Network

CACHE_DEVICE = "/dev/sdb"
ROOT_GIB = 80
TCP, UDP = ec2.Port.tcp, ec2.Port.udp
SHARE_PORTS = {
    "smb": (TCP(445),),
    "nfs": (TCP(2049), UDP(2049), TCP(111), UDP(111), TCP(20048), UDP(20048)),
}
DIRECTORY_PORTS = (
    (TCP(53), "DNS"),
    (UDP(53), "DNS"),
    (TCP(88), "Kerberos"),
    (UDP(88), "Kerberos"),
    (TCP(135), "RPC endpoint mapper"),
    (TCP(389), "LDAP"),
    (UDP(389), "LDAP"),
    (TCP(445), "SMB"),
    (TCP(464), "Kerberos password"),
    (UDP(464), "Kerberos password"),
    (TCP(636), "LDAPS"),
    (ec2.Port.tcp_range(49152, 65535), "RPC"),
)
"""What a member of an Active Directory domain opens towards the domain controllers."""


class GatewayAppliance(Construct):
    """The machine, its groups, and the Lambda that asks it for its activation key.

    Attributes
    ----------
    instance
    key_function
        Returns ``{"key": …}``; an operator calls it through ``mrirecon gateway activate --function``.
    """

    def __init__(
        self,
        scope: Construct,
        name: str,
        *,
        env: Environment,
        share: FileShare,
        appliance: Appliance,
        network: Network,
        key: kms.IKey,
        log_key: kms.IKey,
    ) -> None:
        super().__init__(scope, name)
        self._askers = ec2.SecurityGroup(
            self,
            "Askers",
            vpc=network.vpc,
            allow_all_outbound=False,
            description="asks the gateway for its activation key",
        )
        group = self._machine_group(share, appliance, network)
        self.instance = self._machine(env, appliance, network, key, group)
        self.key_function = self._key_function(env, network, log_key)

    def _machine_group(self, share: FileShare, appliance: Appliance, network: Network) -> ec2.SecurityGroup:
        group = ec2.SecurityGroup(
            self, "Machine", vpc=network.vpc, allow_all_outbound=False, description="the file gateway"
        )
        for client in share.clients:
            for protocol in share.protocols:
                for port in SHARE_PORTS[protocol]:
                    group.add_ingress_rule(ec2.Peer.ipv4(client), port, f"{protocol}: scanners and readers")
        group.add_ingress_rule(self._askers, TCP(80), "activation key")
        self._askers.add_egress_rule(group, TCP(80), "activation key")
        group.add_egress_rule(ec2.Peer.any_ipv4(), TCP(443), "AWS services")
        group.add_egress_rule(ec2.Peer.any_ipv4(), UDP(123), "time")
        for number in STORAGE_GATEWAY_PORTS[1:]:
            for cidr in network.cidrs:
                group.add_egress_rule(ec2.Peer.ipv4(cidr), TCP(number), "gateway control by PrivateLink")
        for controller in appliance.directory.controllers if appliance.directory else ():
            for port, what in DIRECTORY_PORTS:
                group.add_egress_rule(ec2.Peer.ipv4(controller), port, f"directory: {what}")
        return group

    def _machine(
        self,
        env: Environment,
        appliance: Appliance,
        network: Network,
        key: kms.IKey,
        group: ec2.SecurityGroup,
    ) -> ec2.Instance:
        role = iam.Role(
            self,
            "MachineRole",
            assumed_by=iam.ServicePrincipal("ec2.amazonaws.com"),
            description="the gateway machine itself needs nothing: the share's role reads and writes",
        )

        def disk(device: str, gib: int) -> ec2.BlockDevice:
            volume = ec2.BlockDeviceVolume.ebs(
                gib,
                encrypted=True,
                kms_key=key,
                volume_type=ec2.EbsDeviceVolumeType.GP3,
                delete_on_termination=True,
            )
            return ec2.BlockDevice(device_name=device, volume=volume)

        instance = ec2.Instance(
            self,
            "Instance",
            vpc=network.vpc,
            vpc_subnets=network.subnets,
            instance_type=ec2.InstanceType(appliance.instance_type),
            machine_image=ec2.MachineImage.generic_linux({env.region: appliance.ami_id}),
            security_group=group,
            role=role,
            detailed_monitoring=True,
            ebs_optimized=True,
            block_devices=[disk("/dev/xvda", ROOT_GIB), disk(CACHE_DEVICE, appliance.cache_gib)],
            require_imdsv2=True,
        )
        if env.keep_data:
            # A creation that fails must be able to undo itself, so EC2's own protection is not set here. Once
            # the machine stands, neither a replacement nor the stack's removal takes it: its cache may hold
            # archives that are not in S3 yet.
            child = instance.node.default_child
            if not isinstance(child, ec2.CfnInstance):
                raise TypeError("an instance's default child is a CfnInstance")
            child.cfn_options.deletion_policy = CfnDeletionPolicy.RETAIN_EXCEPT_ON_CREATE
            child.cfn_options.update_replace_policy = CfnDeletionPolicy.RETAIN
        acknowledge(
            instance,
            "EC2's protection would keep a failed creation from being undone; the stack keeps the machine "
            "when it is removed, and is itself protected.",
            "AwsSolutions-EC29",
        )
        Tags.of(instance).add("Name", f"mrirecon-{env.name}-file-gateway")
        acknowledge(
            instance,
            "The zones are the configuration's, so that a synth asks nobody.",
            f"{BUILT_IN}W3010",
        )
        return instance

    def _key_function(self, env: Environment, network: Network, log_key: kms.IKey) -> PipelineFunction:
        endpoint = network.storage_gateway
        # The endpoint's name without a zone: the first of its names, after the hosted zone's id.
        entries = endpoint.vpc_endpoint_dns_entries if endpoint else []
        name = Fn.select(1, Fn.split(":", Fn.select(0, entries))) if endpoint else ""
        return PipelineFunction(
            self,
            "Activation",
            env=env,
            network=network,
            log_key=log_key,
            asset="activate_gateway",
            description="Asks the file gateway's machine for its activation key.",
            variables={
                activation.ADDRESS: self.instance.instance_private_ip,
                activation.REGION: env.region,
                activation.ENDPOINT: name,
            },
            timeout=Duration.minutes(14),
            concurrency=1,
            groups=[self._askers],
            in_vpc=True,
        )
