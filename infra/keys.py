"""The customer-managed keys: one for data at rest, one for messages, one for logs.

Messages have a key of their own because a queue's key must trust the services that send to it, and a key
shared with the sender's bucket makes CloudFormation see a circle.
"""

from __future__ import annotations

from aws_cdk import ArnFormat, RemovalPolicy, Stack
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from constructs import Construct


def _key(scope: Construct, name: str, *, description: str, removal: RemovalPolicy) -> kms.Key:
    return kms.Key(
        scope,
        name,
        description=description,
        enable_key_rotation=True,
        removal_policy=removal,
    )


class LogKey(Construct):
    """Encrypts the log groups of all stacks."""

    def __init__(self, scope: Construct, name: str, *, removal: RemovalPolicy) -> None:
        super().__init__(scope, name)
        self.key = _key(self, "Key", description="mrirecon: logs", removal=removal)
        stack = Stack.of(self)
        self.key.add_to_resource_policy(
            iam.PolicyStatement(
                sid="LogsEncrypt",
                principals=[iam.ServicePrincipal(f"logs.{stack.region}.amazonaws.com")],
                actions=[
                    "kms:Encrypt",
                    "kms:Decrypt",
                    "kms:GenerateDataKey*",
                    "kms:ReEncrypt*",
                    "kms:GenerateDataKey*",
                    "kms:DescribeKey",
                ],
                resources=["*"],
                conditions={
                    "ArnLike": {
                        "kms:EncryptionContext:aws:logs:arn": stack.format_arn(
                            service="logs",
                            resource="log-group",
                            resource_name="*",
                            arn_format=ArnFormat.COLON_RESOURCE_NAME,
                        )
                    }
                },
            )
        )


class DataKey(Construct):
    """Encrypts the buckets, the ledger, the file system and the machines' disks."""

    def __init__(self, scope: Construct, name: str, *, removal: RemovalPolicy) -> None:
        super().__init__(scope, name)
        self.key = _key(self, "Key", description="mrirecon: data", removal=removal)

    def allow_lustre(self) -> None:
        """Let FSx read objects through its service-linked role, which exists only once FSx made it."""
        stack = Stack.of(self)
        roles = f"arn:{stack.partition}:iam::{stack.account}:role/aws-service-role"
        self.key.add_to_resource_policy(
            iam.PolicyStatement(
                sid="LustreReadsThroughS3",
                principals=[iam.AccountPrincipal(stack.account)],
                actions=[
                    "kms:Decrypt",
                    "kms:DescribeKey",
                    "kms:GenerateDataKey*",
                    "kms:Encrypt",
                    "kms:GenerateDataKey*",
                    "kms:ReEncrypt*",
                ],
                resources=["*"],
                conditions={
                    "ArnLike": {
                        "aws:PrincipalArn": f"{roles}/s3.data-source.lustre.fsx.amazonaws.com"
                        "/AWSServiceRoleForFSxS3Access_fs-*"
                    },
                    "StringEquals": {"kms:ViaService": f"s3.{stack.region}.amazonaws.com"},
                },
            )
        )

    def allow_spot_machines(self) -> None:
        """Let Auto Scaling and Spot open the encrypted disks of the GPU machines."""
        stack = Stack.of(self)
        roles = f"arn:{stack.partition}:iam::{stack.account}:role/aws-service-role"
        self.key.add_to_resource_policy(
            iam.PolicyStatement(
                sid="MachinesOpenTheirDisks",
                principals=[iam.AccountPrincipal(stack.account)],
                actions=[
                    "kms:CreateGrant",
                    "kms:Decrypt",
                    "kms:DescribeKey",
                    "kms:Encrypt",
                    "kms:GenerateDataKey*",
                    "kms:ReEncrypt*",
                ],
                resources=["*"],
                conditions={
                    "ArnLike": {
                        "aws:PrincipalArn": [
                            f"{roles}/autoscaling.amazonaws.com/AWSServiceRoleForAutoScaling*",
                            f"{roles}/spot.amazonaws.com/AWSServiceRoleForEC2Spot*",
                            f"{roles}/batch.amazonaws.com/AWSServiceRoleForBatch*",
                        ]
                    },
                    "StringEquals": {"kms:ViaService": f"ec2.{stack.region}.amazonaws.com"},
                },
            )
        )


class MessageKey(Construct):
    """Encrypts queues and the alarm topic; trusts the services that send to them."""

    def __init__(self, scope: Construct, name: str, *, removal: RemovalPolicy) -> None:
        super().__init__(scope, name)
        self.key = _key(self, "Key", description="mrirecon: messages", removal=removal)
        self.key.add_to_resource_policy(
            iam.PolicyStatement(
                sid="EventsAndAlarmsSend",
                principals=[
                    iam.ServicePrincipal("events.amazonaws.com"),
                    iam.ServicePrincipal("cloudwatch.amazonaws.com"),
                    iam.ServicePrincipal("budgets.amazonaws.com"),
                ],
                actions=["kms:Decrypt", "kms:GenerateDataKey*"],
                resources=["*"],
                conditions={"StringEquals": {"aws:SourceAccount": Stack.of(self).account}},
            )
        )
