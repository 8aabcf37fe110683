"""What the data stack made, as the other constructs see it."""

from __future__ import annotations

from dataclasses import dataclass

from aws_cdk import aws_dynamodb as dynamodb
from aws_cdk import aws_kms as kms
from aws_cdk import aws_s3 as s3
from aws_cdk import aws_sqs as sqs

from .queues import StageQueues


@dataclass(frozen=True, kw_only=True)
class DataResources:
    """Buckets, ledger, queues and keys."""

    raw: s3.IBucket
    kspace: s3.IBucket
    images: s3.IBucket
    quarantine: s3.IBucket
    models: s3.IBucket | None
    ledger: dynamodb.ITable
    decompress: StageQueues
    recon: StageQueues
    refresh: sqs.IQueue
    refresh_dead_letters: sqs.IQueue
    data_key: kms.IKey
    message_key: kms.IKey
