"""The network: one of our own or an existing VPC, AWS services reached by endpoints, every flow logged."""

from __future__ import annotations

from aws_cdk import Stack
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_logs as logs
from constructs import Construct

from .acknowledge import acknowledge, controls
from .config import Environment
from .config_parts import ExistingNetwork
from .endpoints import STORAGE_GATEWAY, STORAGE_GATEWAY_PORTS, Endpoint, endpoints_of
from .retention import removal, retention

SUBNETS = {
    "endpoints": ec2.SubnetType.PRIVATE_ISOLATED,
    "nat": ec2.SubnetType.PRIVATE_WITH_EGRESS,
    "public": ec2.SubnetType.PUBLIC,
}
WORK = "work"


class Network(Construct):
    """VPC, endpoints and flow logs.

    Attributes
    ----------
    vpc
    cidrs
        Its address ranges, as the configuration gives them: policy rules cannot read through an intrinsic.
    subnets
        Where workers and Lambdas live.
    public_addresses
        Workers get an address of their own, because the network has neither NAT nor endpoints.
    workers
        Security group of all that works: no way in, HTTPS out.
    storage_gateway
        The endpoint by which a file gateway is controlled, where there is one.
    """

    def __init__(self, scope: Construct, name: str, *, env: Environment, log_key: kms.IKey) -> None:
        super().__init__(scope, name)
        existing = env.network.existing
        self.vpc: ec2.IVpc
        if existing is None:
            self.vpc = self._new(env)
            if not env.lacks("flow_logs"):
                self._flow_logs(env, log_key)
        else:
            self.vpc = self._imported(env, existing)
        self.cidrs = env.network.cidrs
        self.subnets = ec2.SubnetSelection(subnet_group_name=WORK)
        self.public_addresses = env.network.egress == "public"
        self.workers = self._workers(existing)
        self.storage_gateway: ec2.InterfaceVpcEndpoint | None = None
        if existing is None or env.network.egress == "endpoints":
            self._gateway_endpoints()
        self._interface_endpoints(env)

    @property
    def first_subnet(self) -> ec2.ISubnet:
        """The subnet of the first zone, for what lives in one zone only."""
        return self.vpc.select_subnets(subnet_group_name=WORK).subnets[0]

    @property
    def subnet_ids(self) -> list[str]:
        """The ids of all subnets of the workers."""
        return self.vpc.select_subnets(subnet_group_name=WORK).subnet_ids

    def _new(self, env: Environment) -> ec2.Vpc:
        egress = env.network.egress
        tiers = [
            ec2.SubnetConfiguration(name=WORK, subnet_type=SUBNETS[egress], cidr_mask=env.work_subnet_prefix)
        ]
        if egress == "nat":
            tiers.append(
                ec2.SubnetConfiguration(name="edge", subnet_type=ec2.SubnetType.PUBLIC, cidr_mask=24)
            )
        vpc = ec2.Vpc(
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
                vpc,
                "An environment without standing costs: workers have addresses of their own, and no "
                "security group lets anything in.",
                *controls("VPCNoUnrestrictedRouteToIGW", "VPCSubnetAutoAssignPublicIpDisabled"),
            )
        return vpc

    def _imported(self, env: Environment, existing: ExistingNetwork) -> ec2.IVpc:
        return ec2.Vpc.from_vpc_attributes(
            self,
            "Vpc",
            vpc_id=existing.vpc_id,
            region=env.region,
            availability_zones=list(env.availability_zones),
            private_subnet_ids=[subnet.id for subnet in existing.subnets],
            private_subnet_names=[WORK],
            private_subnet_route_table_ids=[subnet.route_table_id for subnet in existing.subnets],
        )

    def _workers(self, existing: ExistingNetwork | None) -> ec2.ISecurityGroup:
        if existing is not None and existing.worker_security_group_id:
            return ec2.SecurityGroup.from_security_group_id(
                self, "Workers", existing.worker_security_group_id, mutable=False
            )
        group = ec2.SecurityGroup(
            self,
            "Workers",
            vpc=self.vpc,
            allow_all_outbound=False,
            description="workers and Lambdas: HTTPS out",
        )
        group.add_egress_rule(
            ec2.Peer.any_ipv4(),
            ec2.Port.tcp(443),
            "AWS services: endpoints, and S3 and DynamoDB by their route",
        )
        return group

    def _gateway_endpoints(self) -> None:
        region, account = Stack.of(self).region, Stack.of(self).account
        s3 = self.vpc.add_gateway_endpoint("S3", service=ec2.GatewayVpcEndpointAwsService.S3)
        s3.add_to_policy(
            iam.PolicyStatement(
                sid="OwnBuckets",
                principals=[iam.StarPrincipal()],
                actions=["s3:*"],
                resources=["*"],
                conditions={"StringEquals": {"aws:ResourceAccount": account}},
            )
        )
        s3.add_to_policy(
            iam.PolicyStatement(
                sid="LayersAndPackagesOfAws",
                principals=[iam.StarPrincipal()],
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
                principals=[iam.StarPrincipal()],
                actions=["dynamodb:*"],
                resources=["*"],
                conditions={"StringEquals": {"aws:ResourceAccount": account}},
            )
        )

    def _interface_endpoints(self, env: Environment) -> None:
        wanted = endpoints_of(env)
        if not wanted:
            return
        group = self._endpoint_group(env, "Endpoints", "AWS service endpoints", self.cidrs, [443])
        for endpoint in wanted:
            groups = [group]
            if endpoint is STORAGE_GATEWAY:
                # A file gateway is controlled over more ports than HTTPS, from wherever it stands.
                clients = (*self.cidrs, *env.gateway_networks)
                what = "file gateways and the cache refresh"
                groups = [
                    self._endpoint_group(env, "GatewayEndpoint", what, clients, list(STORAGE_GATEWAY_PORTS))
                ]
            made = self._endpoint(endpoint, groups)
            if endpoint is STORAGE_GATEWAY:
                self.storage_gateway = made

    def _endpoint_group(
        self, env: Environment, name: str, what: str, cidrs: tuple[str, ...], ports: list[int]
    ) -> ec2.ISecurityGroup:
        existing = env.network.existing
        if existing is not None and existing.endpoint_security_group_id:
            return ec2.SecurityGroup.from_security_group_id(
                self, name, existing.endpoint_security_group_id, mutable=False
            )
        group = ec2.SecurityGroup(self, name, vpc=self.vpc, allow_all_outbound=False, description=what)
        for cidr in cidrs:
            for port in ports:
                group.add_ingress_rule(ec2.Peer.ipv4(cidr), ec2.Port.tcp(port), "from the network")
        return group

    def _endpoint(self, endpoint: Endpoint, groups: list[ec2.ISecurityGroup]) -> ec2.InterfaceVpcEndpoint:
        return self.vpc.add_interface_endpoint(
            endpoint.name,
            service=ec2.InterfaceVpcEndpointAwsService(endpoint.service),
            subnets=self.subnets,
            security_groups=groups,
            open=False,
            private_dns_enabled=True,
        )

    def _flow_logs(self, env: Environment, log_key: kms.IKey) -> None:
        group = logs.LogGroup(
            self,
            "FlowLogGroup",
            encryption_key=log_key,
            retention=retention(env.network.flow_log_days),
            removal_policy=removal(env),
        )
        self.vpc.add_flow_log("Flows", destination=ec2.FlowLogDestination.to_cloud_watch_logs(group))
