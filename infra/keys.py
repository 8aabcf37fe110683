"""The customer-managed keys: one for data at rest, one for messages, one for logs.

Messages have a key of their own because a queue's key must trust the services that send to it, and a key
shared with the sender's bucket makes CloudFormation see a circle.
"""

from __future__ import annotations

from aws_cdk import ArnFormat, RemovalPolicy, Stack
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from constructs import Construct

USE = ("kms:Encrypt", "kms:Decrypt", "kms:ReEncrypt*", "kms:GenerateDataKey*", "kms:DescribeKey")
LAUNCHERS = (
    "autoscaling.amazonaws.com/AWSServiceRoleForAutoScaling*",
    "batch.amazonaws.com/AWSServiceRoleForBatch*",
    "ec2fleet.amazonaws.com/AWSServiceRoleForEC2Fleet*",
    "spot.amazonaws.com/AWSServiceRoleForEC2Spot*",
    "spotfleet.amazonaws.com/AWSServiceRoleForEC2SpotFleet*",
)
"""Service-linked roles that may launch a machine of AWS Batch."""


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
        """Let FSx read and write objects through S3, as AWS's FSx guide words it.

        FSx makes a service-linked role with each file system, so there is no role to name. A principal of the
        whole account would only delegate to IAM, and nobody can attach a policy to a service-linked role.
        """
        stack = Stack.of(self)
        self.key.add_to_resource_policy(
            iam.PolicyStatement(
                sid="LustreReadsThroughS3",
                principals=[iam.AnyPrincipal()],
                actions=list(USE),
                resources=["*"],
                conditions={
                    "StringEquals": {
                        "kms:CallerAccount": stack.account,
                        "kms:ViaService": f"s3.{stack.region}.amazonaws.com",
                    },
                    # The guide also names the bucket. Here it cannot: the bucket's template needs the key.
                    "StringLike": {"aws:userid": "*:FSx"},
                },
            )
        )

    def allow_machines(self) -> None:
        """Let the services that launch the GPU machines create and open their encrypted disks.

        The roles are AWS's service-linked ones. They are matched by a condition, not named as principals,
        because KMS refuses a policy that names a role which does not exist yet.
        """
        stack = Stack.of(self)
        roles = f"arn:{stack.partition}:iam::{stack.account}:role/aws-service-role"
        launchers = {
            "StringEquals": {"kms:CallerAccount": stack.account},
            "ArnLike": {"aws:PrincipalArn": [f"{roles}/{role}" for role in LAUNCHERS]},
        }
        self.key.add_to_resource_policy(
            iam.PolicyStatement(
                sid="LaunchersUseTheKey",
                principals=[iam.AnyPrincipal()],
                actions=list(USE),
                resources=["*"],
                conditions=launchers,
            )
        )
        self.key.add_to_resource_policy(
            iam.PolicyStatement(
                sid="LaunchersAttachDisks",
                principals=[iam.AnyPrincipal()],
                actions=["kms:CreateGrant"],
                resources=["*"],
                conditions={**launchers, "Bool": {"kms:GrantIsForAWSResource": "true"}},
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
