"""A file gateway in the VPC: a machine, its cache disk, and the custom resource that activates it.

CloudFormation knows file shares but no gateway, cache or activation, so a Lambda inside the VPC does that
part (``lambda/activate_gateway``): it asks the machine for its key on port 80, activates, adds the cache.
"""

from __future__ import annotations

from aws_cdk import CustomResource, Duration, Tags, custom_resources
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_logs as logs
from constructs import Construct

from .acknowledge import BUILT_IN, acknowledge, controls, managed_policy
from .config import Environment
from .config_parts import Appliance, FileShare
from .function import PipelineFunction
from .network import Network
from .retention import removal, retention

AMI = "/aws/service/storagegateway/ami/FILE_S3/latest"
CACHE_DEVICE = "/dev/sdb"
ROOT_GIB = 80
SHARE_PORTS = {
    "smb": (ec2.Port.tcp(445),),
    "nfs": (
        ec2.Port.tcp(2049),
        ec2.Port.udp(2049),
        ec2.Port.tcp(111),
        ec2.Port.udp(111),
        ec2.Port.tcp(20048),
        ec2.Port.udp(20048),
    ),
}
ACTIVATE = (
    "storagegateway:ActivateGateway",
    "storagegateway:DescribeGatewayInformation",
    "storagegateway:ListGateways",
    "storagegateway:ListLocalDisks",
    "storagegateway:AddCache",
    "storagegateway:ListTagsForResource",
    "storagegateway:AddTagsToResource",
    "storagegateway:UpdateGatewayInformation",
    "storagegateway:SetSMBGuestPassword",
    "storagegateway:DeleteGateway",
    "storagegateway:DescribeCache",
)


class GatewayAppliance(Construct):
    """The machine and its activation.

    Attributes
    ----------
    gateway_arn, gateway_id
        Known once the machine was activated.
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
        self._activators = ec2.SecurityGroup(
            self, "Activators", vpc=network.vpc, allow_all_outbound=False, description="activates the gateway"
        )
        self._activators.add_egress_rule(ec2.Peer.any_ipv4(), ec2.Port.tcp(443), "AWS services")
        group = self._machine_group(share, network)
        self.instance = self._machine(env, appliance, network, key, group)
        self._activate(env, appliance, share, network, log_key)

    def _machine_group(self, share: FileShare, network: Network) -> ec2.SecurityGroup:
        group = ec2.SecurityGroup(
            self, "Machine", vpc=network.vpc, allow_all_outbound=False, description="the file gateway"
        )
        for client in share.clients:
            for protocol in share.protocols:
                for port in SHARE_PORTS[protocol]:
                    group.add_ingress_rule(ec2.Peer.ipv4(client), port, f"{protocol}: scanners and readers")
        group.add_ingress_rule(self._activators, ec2.Port.tcp(80), "activation")
        self._activators.add_egress_rule(group, ec2.Port.tcp(80), "activation")
        group.add_egress_rule(ec2.Peer.any_ipv4(), ec2.Port.tcp(443), "AWS services")
        group.add_egress_rule(ec2.Peer.any_ipv4(), ec2.Port.udp(123), "time")
        for port in (ec2.Port.tcp_range(1026, 1028), ec2.Port.tcp(1031), ec2.Port.tcp(2222)):
            group.add_egress_rule(ec2.Peer.ipv4(network.cidr), port, "gateway control by PrivateLink")
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
            machine_image=ec2.MachineImage.from_ssm_parameter(AMI, os=ec2.OperatingSystemType.LINUX),
            security_group=group,
            role=role,
            detailed_monitoring=True,
            ebs_optimized=True,
            block_devices=[disk("/dev/xvda", ROOT_GIB), disk(CACHE_DEVICE, appliance.cache_gib)],
            require_imdsv2=True,
            disable_api_termination=env.keep_data,
        )
        Tags.of(instance).add("Name", f"mrirecon-{env.name}-file-gateway")
        acknowledge(
            instance,
            "The zones are the configuration's, so that a synth asks nobody.",
            f"{BUILT_IN}W3010",
        )
        return instance

    def _activate(
        self, env: Environment, appliance: Appliance, share: FileShare, network: Network, log_key: kms.IKey
    ) -> None:
        activation = PipelineFunction(
            self,
            "Activation",
            env=env,
            network=network,
            log_key=log_key,
            asset="activate_gateway",
            description="Activates the file gateway and adds its cache.",
            variables={},
            timeout=Duration.minutes(14),
            concurrency=1,
            groups=[self._activators],
            in_vpc=True,
        )
        # Its own gateway does not exist before the call: there is no ARN to name.
        activation.role.add_to_policy(
            iam.PolicyStatement(
                sid="Activate",
                actions=list(ACTIVATE),
                resources=["*"],
                conditions={"StringEquals": {"aws:RequestedRegion": env.region}},
            )
        )
        if share.smb_guest_secret_arn:
            activation.role.add_to_policy(
                iam.PolicyStatement(
                    sid="GuestPassword",
                    actions=["secretsmanager:GetSecretValue"],
                    resources=[share.smb_guest_secret_arn],
                )
            )
        provider = custom_resources.Provider(
            self,
            "Provider",
            on_event_handler=activation.function,
            log_group=self._provider_logs(env, log_key),
        )
        acknowledge(
            provider,
            "CDK's own go-between of CloudFormation and the activation: called once a deployment, by "
            "CloudFormation, which sees and tells a failure. It reaches no data.",
            *controls("LambdaConcurrency", "LambdaDLQ", "LambdaInsideVPC"),
            "AwsSolutions-L1",
            managed_policy("service-role/AWSLambdaBasicExecutionRole"),
        )
        self.activation = activation
        self.resource = CustomResource(
            self,
            "Gateway",
            service_token=provider.service_token,
            resource_type="Custom::FileGateway",
            properties={
                "Address": self.instance.instance_private_ip,
                "GatewayName": f"mrirecon-{env.name}",
                "Region": env.region,
                "Timezone": "GMT",
                "CacheDevice": CACHE_DEVICE,
                **({"SmbGuestSecretArn": share.smb_guest_secret_arn} if share.smb_guest_secret_arn else {}),
            },
        )
        self.gateway_arn = self.resource.get_att_string("GatewayARN")
        self.gateway_id = self.resource.get_att_string("GatewayId")

    def _provider_logs(self, env: Environment, log_key: kms.IKey) -> logs.LogGroup:
        return logs.LogGroup(
            self,
            "ProviderLogs",
            encryption_key=log_key,
            retention=retention(env.operations.log_days),
            removal_policy=removal(env),
        )
