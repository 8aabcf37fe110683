"""One Lambda of the pipeline: asset, role, logs, dead letters, concurrency."""

from __future__ import annotations

from collections.abc import Mapping

from aws_cdk import AssetHashType, Duration
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_logs as logs
from aws_cdk import aws_sqs as sqs
from constructs import Construct

from .acknowledge import acknowledge, controls, managed_policy
from .config import Environment
from .lambda_asset import compose
from .network import Network
from .retention import removal, retention

RUNTIME = lambda_.Runtime.PYTHON_3_14
HANDLER = "handler.handler"


class PipelineFunction(Construct):
    """A function from ``lambda/<asset>/``, with the least it needs around it.

    In a network without NAT or endpoints the function stays outside the VPC: it would reach nothing there.
    """

    def __init__(
        self,
        scope: Construct,
        name: str,
        *,
        env: Environment,
        network: Network,
        log_key: kms.IKey,
        asset: str,
        description: str,
        variables: Mapping[str, str],
        timeout: Duration,
        concurrency: int | None = 1,
        dead_letters: sqs.IQueue | None = None,
        memory_mib: int = 256,
        groups: list[ec2.ISecurityGroup] | None = None,
        in_vpc: bool | None = None,
    ) -> None:
        super().__init__(scope, name)
        inside = not network.public_addresses if in_vpc is None else in_vpc
        inside = inside and not env.lacks("lambda_vpc")
        self.log_group = logs.LogGroup(
            self,
            "Logs",
            encryption_key=log_key,
            retention=retention(env.operations.log_days),
            removal_policy=removal(env),
        )
        self.role = iam.Role(
            self, "Role", assumed_by=iam.ServicePrincipal("lambda.amazonaws.com"), description=description
        )
        self.log_group.grant_write(self.role)
        folder, digest = compose(asset)
        self.function = lambda_.Function(
            self,
            "Function",
            runtime=RUNTIME,
            handler=HANDLER,
            description=description,
            architecture=lambda_.Architecture.X86_64,
            code=lambda_.Code.from_asset(
                str(folder), asset_hash=digest, asset_hash_type=AssetHashType.CUSTOM
            ),
            environment={**variables, "POWERTOOLS_SERVICE_NAME": asset, "POWERTOOLS_LOG_LEVEL": "INFO"},
            role=self.role,
            log_group=self.log_group,
            timeout=timeout,
            memory_size=memory_mib,
            reserved_concurrent_executions=concurrency,
            dead_letter_queue=dead_letters,
            vpc=network.vpc if inside else None,
            vpc_subnets=network.subnets if inside else None,
            security_groups=(groups or [network.workers]) if inside else None,
        )
        if inside:
            network_policy = "service-role/AWSLambdaVPCAccessExecutionRole"
            self.role.add_managed_policy(iam.ManagedPolicy.from_aws_managed_policy_name(network_policy))
            acknowledge(
                self.role,
                "Network interfaces have no names before Lambda makes them; the policy is AWS's own.",
                managed_policy(network_policy),
            )
        else:
            acknowledge(
                self,
                "The network has neither NAT nor endpoints: inside it a function reaches nothing.",
                *controls("LambdaInsideVPC"),
            )
        if dead_letters is None:
            acknowledge(
                self,
                "Never invoked asynchronously: a queue or a provider calls it and keeps what it refuses.",
                *controls("LambdaDLQ"),
            )
