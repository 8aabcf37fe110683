"""The VPC: isolated by default, AWS services reached by endpoints, every flow logged."""

from __future__ import annotations

from dataclasses import dataclass

from aws_cdk import RemovalPolicy, Stack
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_logs as logs
from constructs import Construct

from .acknowledge import acknowledge, controls
from .config import Environment
from .retention import retention

SUBNETS = {
    "endpoints": ec2.SubnetType.PRIVATE_ISOLATED,
    "nat": ec2.SubnetType.PRIVATE_WITH_EGRESS,
    "public": ec2.SubnetType.PUBLIC,
}


@dataclass(frozen=True)
class Endpoint:
    """An interface endpoint and who needs it."""

    name: str
    service: str
    why: str


ENDPOINTS = (
    Endpoint("EcrApi", "ecr.api", "containers are pulled"),
    Endpoint("EcrDocker", "ecr.dkr", "containers are pulled"),
    Endpoint("Ecs", "ecs", "the scaler sets the service; GPU machines register"),
    Endpoint("EcsAgent", "ecs-agent", "GPU machines register; without it jobs stay RUNNABLE"),
    Endpoint("EcsTelemetry", "ecs-telemetry", "GPU machines register; without it jobs stay RUNNABLE"),
    Endpoint("Batch", "batch", "the scaler submits worker jobs"),
    Endpoint("Logs", "logs", "all log, and metrics travel in the logs"),
    Endpoint("Monitoring", "monitoring", "the scaler reads metrics"),
    Endpoint("Sqs", "sqs", "workers and Lambdas read and write the queues"),
    Endpoint("Kms", "kms", "envelope keys of what is read and written"),
    Endpoint("Sts", "sts", "roles"),
    Endpoint("Ssm", "ssm", "operators reach machines without a bastion"),
)
SHARE_ENDPOINTS = (
    Endpoint("StorageGateway", "storagegateway", "the gateway and the cache refresh"),
    Endpoint("SecretsManager", "secretsmanager", "the share's guest password"),
    Endpoint("Ec2", "ec2", "the activation finds the gateway machine"),
)
DEVELOPMENT_ENDPOINTS = (
    Endpoint("SagemakerApi", "sagemaker.api", "model development"),
    Endpoint("SagemakerRuntime", "sagemaker.runtime", "model development"),
)


def endpoints_of(env: Environment) -> tuple[Endpoint, ...]:
    """Return the interface endpoints that ``env`` needs; none unless its network is isolated."""
    if env.network.egress != "endpoints":
        return ()
    share = SHARE_ENDPOINTS if env.file_share else ()
    development = DEVELOPMENT_ENDPOINTS if env.development else ()
    return (*ENDPOINTS, *share, *development)


class Network(Construct):
    """VPC, endpoints and flow logs.

    Attributes
    ----------
    vpc
    subnets
        Where workers and Lambdas live.
    public_addresses
        Workers get an address of their own, because the network has neither NAT nor endpoints.
    workers
        Security group of all that works: no way in, HTTPS out.
    """

    def __init__(self, scope: Construct, name: str, *, env: Environment, log_key: kms.IKey) -> None:
        super().__init__(scope, name)
        egress = env.network.egress
        tiers = [ec2.SubnetConfiguration(name="work", subnet_type=SUBNETS[egress], cidr_mask=24)]
        if egress == "nat":
            tiers.append(
                ec2.SubnetConfiguration(name="edge", subnet_type=ec2.SubnetType.PUBLIC, cidr_mask=24)
            )
        self.vpc = ec2.Vpc(
            self,
            "Vpc",
            ip_addresses=ec2.IpAddresses.cidr(env.network.cidr),
            availability_zones=list(env.availability_zones),
            nat_gateways=1 if egress == "nat" else 0,
            subnet_configuration=tiers,
            restrict_default_security_group=not env.lacks("vpc_default_group"),
        )
        if egress == "public":
            acknowledge(
                self.vpc,
                "An environment without standing costs: workers have addresses of their own, and no "
                "security group lets anything in.",
                *controls("VPCNoUnrestrictedRouteToIGW", "VPCSubnetAutoAssignPublicIpDisabled"),
            )
        self.cidr = env.network.cidr
        self.subnets = ec2.SubnetSelection(subnet_group_name="work")
        self.public_addresses = egress == "public"
        self.workers = ec2.SecurityGroup(
            self,
            "Workers",
            vpc=self.vpc,
            allow_all_outbound=False,
            description="workers and Lambdas: HTTPS out",
        )
        self.workers.add_egress_rule(
            ec2.Peer.any_ipv4(),
            ec2.Port.tcp(443),
            "AWS services: endpoints, and S3 and DynamoDB by their route",
        )
        self._gateway_endpoints()
        self._interface_endpoints(env)
        if not env.lacks("flow_logs"):
            self._flow_logs(env, log_key)

    def _gateway_endpoints(self) -> None:
        region, account = Stack.of(self).region, Stack.of(self).account
        s3 = self.vpc.add_gateway_endpoint("S3", service=ec2.GatewayVpcEndpointAwsService.S3)
        s3.add_to_policy(
            iam.PolicyStatement(
                sid="OwnBuckets",
                principals=[iam.AnyPrincipal()],
                actions=["s3:*"],
                resources=["*"],
                conditions={"StringEquals": {"aws:ResourceAccount": account}},
            )
        )
        s3.add_to_policy(
            iam.PolicyStatement(
                sid="LayersAndPackagesOfAws",
                principals=[iam.AnyPrincipal()],
                actions=["s3:GetObject"],
                resources=[
                    f"arn:aws:s3:::prod-{region}-starport-layer-bucket/*",
                    f"arn:aws:s3:::al2023-repos-{region}-de612dc2/*",
                    f"arn:aws:s3:::amazonlinux-2-repos-{region}/*",
                ],
            )
        )
        table = self.vpc.add_gateway_endpoint("DynamoDb", service=ec2.GatewayVpcEndpointAwsService.DYNAMODB)
        table.add_to_policy(
            iam.PolicyStatement(
                sid="OwnTables",
                principals=[iam.AnyPrincipal()],
                actions=["dynamodb:*"],
                resources=["*"],
                conditions={"StringEquals": {"aws:ResourceAccount": account}},
            )
        )

    def _interface_endpoints(self, env: Environment) -> None:
        wanted = endpoints_of(env)
        if not wanted:
            return
        group = ec2.SecurityGroup(
            self, "Endpoints", vpc=self.vpc, allow_all_outbound=False, description="AWS service endpoints"
        )
        # The literal network, not the VPC's attribute: policy rules cannot read through an intrinsic.
        group.add_ingress_rule(ec2.Peer.ipv4(env.network.cidr), ec2.Port.tcp(443), "from inside the VPC")
        for endpoint in wanted:
            self.vpc.add_interface_endpoint(
                endpoint.name,
                service=ec2.InterfaceVpcEndpointAwsService(endpoint.service),
                subnets=self.subnets,
                security_groups=[group],
                open=False,
                private_dns_enabled=True,
            )

    def _flow_logs(self, env: Environment, log_key: kms.IKey) -> None:
        group = logs.LogGroup(
            self,
            "FlowLogGroup",
            encryption_key=log_key,
            retention=retention(env.network.flow_log_days),
            removal_policy=RemovalPolicy.RETAIN if env.keep_data else RemovalPolicy.DESTROY,
        )
        self.vpc.add_flow_log("Flows", destination=ec2.FlowLogDestination.to_cloud_watch_logs(group))
