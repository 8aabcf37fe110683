"""Who may do what, action by action: no wildcard actions, and objects only under the contract's prefixes."""

from __future__ import annotations

from collections.abc import Sequence

from aws_cdk import aws_dynamodb as dynamodb
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_s3 as s3
from aws_cdk import aws_sqs as sqs

HEAD = ("s3:GetObject", "s3:GetObjectVersion")
READ = ("s3:GetObject",)
WRITE = ("s3:PutObject", "s3:AbortMultipartUpload")
COPY_HERE = ("s3:GetObject", *WRITE, "s3:PutObjectTagging")
"""Keep a copy: its tags come along."""
TAG = (
    "s3:GetObjectTagging",
    "s3:GetObjectVersionTagging",
    "s3:PutObjectTagging",
    "s3:PutObjectVersionTagging",
)
"""Read the tags that a copy takes along; say that a scan has ended."""
CONSUME = (
    "sqs:ReceiveMessage",
    "sqs:DeleteMessage",
    "sqs:ChangeMessageVisibility",
    "sqs:GetQueueAttributes",
)
SEND = ("sqs:SendMessage",)
WALK = ("sqs:ReceiveMessage", "sqs:ChangeMessageVisibility")
"""Read dead letters and make them visible again."""
LOOK = ("sqs:GetQueueAttributes",)
LEDGER = ("dynamodb:GetItem", "dynamodb:UpdateItem")
USE_KEY = ("kms:Decrypt", "kms:GenerateDataKey")
READ_WITH_KEY = ("kms:Decrypt",)


def allow(role: iam.IRole, sid: str, actions: Sequence[str], resources: Sequence[str]) -> None:
    """Add one statement to ``role``."""
    statement = iam.PolicyStatement(sid=sid, actions=list(actions), resources=list(resources))
    role.add_to_principal_policy(statement)


def objects(role: iam.IRole, sid: str, bucket: s3.IBucket, prefix: str, actions: Sequence[str]) -> None:
    """Allow ``actions`` on the objects of ``bucket`` under ``prefix``."""
    allow(role, sid, actions, [bucket.arn_for_objects(prefix + "*")])


def list_bucket(role: iam.IRole, sid: str, bucket: s3.IBucket) -> None:
    """Allow listing: without it a missing object is told as a missing permission."""
    allow(role, sid, ["s3:ListBucket"], [bucket.bucket_arn])


def queues(role: iam.IRole, sid: str, some: Sequence[sqs.IQueue], actions: Sequence[str]) -> None:
    """Allow ``actions`` on the queues."""
    allow(role, sid, actions, [queue.queue_arn for queue in some])


def ledger(role: iam.IRole, table: dynamodb.ITable) -> None:
    """Allow what the ledger's conditional writes need."""
    allow(role, "Ledger", LEDGER, [table.table_arn])


def use_keys(
    role: iam.IRole, some: Sequence[kms.IKey], sid: str = "Keys", actions: Sequence[str] = USE_KEY
) -> None:
    """Allow envelope encryption with the keys."""
    allow(role, sid, actions, [key.key_arn for key in some])
