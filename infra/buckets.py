"""The buckets: raw archives, k-space, images, quarantine, and the access logs of all four."""

from __future__ import annotations

from aws_cdk import Duration
from aws_cdk import aws_kms as kms
from aws_cdk import aws_s3 as s3
from constructs import Construct

from mrirecon.contract import keys

from .acknowledge import acknowledge, controls
from .config import Environment
from .retention import removal

ABORT_UPLOAD_DAYS = 7
NO_REPLICA = (
    "Versioned and kept; a second region is the hospital's decision (data may not leave the country), made "
    "with S3 replication on these buckets."
)


class Buckets(Construct):
    """Private, versioned, TLS-only, encrypted; each with the lifecycle of what it holds."""

    def __init__(self, scope: Construct, name: str, *, env: Environment, key: kms.IKey) -> None:
        super().__init__(scope, name)
        self._env, self._key = env, key
        storage = env.storage
        self.logs = self._log_bucket()

        # By tag, not by age alone: an archive that still waits for its worker must stay readable.
        done_key, done_value = keys.DONE_TAG
        self.raw = self._bucket("Raw", events=True, noncurrent=storage.noncurrent_days)
        self.raw.add_lifecycle_rule(
            id="ended-scans-to-deep-archive",
            prefix=keys.INCOMING,
            tag_filters={done_key: done_value},
            transitions=[
                s3.Transition(
                    storage_class=s3.StorageClass.DEEP_ARCHIVE,
                    transition_after=Duration.days(storage.deep_archive_after_days),
                )
            ],
        )

        self.kspace = self._bucket("Kspace", noncurrent=1)
        self.kspace.add_lifecycle_rule(
            id="kspace-can-be-made-anew", prefix=keys.KSPACE, expiration=Duration.days(storage.kspace_days)
        )

        self.images = self._bucket(
            "Images",
            events=True,
            noncurrent=storage.noncurrent_days,
            tiering=s3.IntelligentTieringConfiguration(
                name="unread-images",
                prefix=keys.IMAGES,
                archive_access_tier_time=Duration.days(storage.images_archive_after_days),
                deep_archive_access_tier_time=Duration.days(storage.images_deep_archive_after_days),
            ),
        )
        self.images.add_lifecycle_rule(
            id="images-to-intelligent-tiering",
            prefix=keys.IMAGES,
            transitions=[
                s3.Transition(
                    storage_class=s3.StorageClass.INTELLIGENT_TIERING, transition_after=Duration.days(0)
                )
            ],
        )

        self.quarantine = self._bucket("Quarantine", noncurrent=storage.noncurrent_days)
        self.quarantine.add_lifecycle_rule(
            id="rejected-archives-end",
            prefix=keys.QUARANTINE,
            expiration=Duration.days(storage.quarantine_days),
        )

        self.models = self._bucket("Models", noncurrent=storage.noncurrent_days) if env.development else None

    def _bucket(
        self,
        name: str,
        *,
        noncurrent: int,
        events: bool = False,
        tiering: s3.IntelligentTieringConfiguration | None = None,
    ) -> s3.Bucket:
        bucket = private_bucket(
            self,
            name,
            env=self._env,
            key=self._key,
            noncurrent_days=noncurrent,
            logs=self.logs,
            tiering=tiering,
        )
        if events:
            _send_events(bucket)
        return bucket

    def _log_bucket(self) -> s3.Bucket:
        env = self._env
        bucket = s3.Bucket(
            self,
            "Logs",
            # Server access logs can only be delivered to buckets with S3's own keys.
            encryption=s3.BucketEncryption.S3_MANAGED,
            block_public_access=s3.BlockPublicAccess.BLOCK_ALL,
            object_ownership=s3.ObjectOwnership.BUCKET_OWNER_ENFORCED,
            enforce_ssl=True,
            minimum_tls_version=1.2,
            versioned=True,
            removal_policy=removal(env),
            auto_delete_objects=not env.keep_data and env.emulator is None,
            lifecycle_rules=[
                _hygiene(env.storage.noncurrent_days),
                s3.LifecycleRule(id="logs-end", expiration=Duration.days(env.storage.log_days)),
            ],
        )
        acknowledge(bucket, NO_REPLICA, *controls("S3BucketReplicationEnabled"))
        acknowledge(
            bucket,
            "Server access logs can only be delivered to buckets with S3's own keys.",
            *controls("S3DefaultEncryptionKMS"),
        )
        acknowledge(
            bucket,
            "The log bucket would log its own log deliveries for ever.",
            *controls("S3BucketLoggingEnabled"),
            "AwsSolutions-S1",
        )
        return bucket


def private_bucket(
    scope: Construct,
    name: str,
    *,
    env: Environment,
    key: kms.IKey,
    noncurrent_days: int,
    logs: s3.IBucket | None,
    tiering: s3.IntelligentTieringConfiguration | None = None,
) -> s3.Bucket:
    """Return a bucket as all of ours are: private, encrypted, TLS-only, versioned, cleaned."""
    bucket = s3.Bucket(
        scope,
        name,
        encryption=s3.BucketEncryption.KMS,
        encryption_key=key,
        bucket_key_enabled=True,
        block_public_access=s3.BlockPublicAccess.BLOCK_ALL,
        object_ownership=s3.ObjectOwnership.BUCKET_OWNER_ENFORCED,
        enforce_ssl=True,
        minimum_tls_version=1.2,
        versioned=True,
        server_access_logs_bucket=logs,
        server_access_logs_prefix=f"{name.lower()}/" if logs else None,
        intelligent_tiering_configurations=[tiering] if tiering else None,
        removal_policy=removal(env),
        auto_delete_objects=not env.keep_data and env.emulator is None,
        lifecycle_rules=[_hygiene(noncurrent_days)],
    )
    acknowledge(bucket, NO_REPLICA, *controls("S3BucketReplicationEnabled"))
    return bucket


def _hygiene(noncurrent_days: int) -> s3.LifecycleRule:
    return s3.LifecycleRule(
        id="hygiene",
        abort_incomplete_multipart_upload_after=Duration.days(ABORT_UPLOAD_DAYS),
        noncurrent_version_expiration=Duration.days(noncurrent_days),
    )


def _send_events(bucket: s3.Bucket) -> None:
    """Send the bucket's events to EventBridge, by its own property: no custom resource is needed."""
    child = bucket.node.default_child
    if not isinstance(child, s3.CfnBucket):
        raise TypeError("a bucket's default child is a CfnBucket")
    child.notification_configuration = s3.CfnBucket.NotificationConfigurationProperty(
        event_bridge_configuration=s3.CfnBucket.EventBridgeConfigurationProperty(event_bridge_enabled=True)
    )
