"""The shares: raw to write, images to read, by SMB and NFS, on whichever gateway there is."""

from __future__ import annotations

import json

from aws_cdk import Stack
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_logs as logs
from aws_cdk import aws_s3 as s3
from aws_cdk import aws_storagegateway as storagegateway
from constructs import Construct

from . import grants
from .acknowledge import BUILT_IN, acknowledge
from .config import Environment
from .config_parts import FileShare
from .resources import DataResources
from .retention import removal, retention

BUCKET = (
    "s3:GetAccelerateConfiguration",
    "s3:GetBucketLocation",
    "s3:GetBucketVersioning",
    "s3:ListBucket",
    "s3:ListBucketVersions",
    "s3:ListBucketMultipartUploads",
)
READ = ("s3:GetObject", "s3:GetObjectAcl", "s3:GetObjectVersion")
WRITE = (
    "s3:PutObject",
    "s3:PutObjectAcl",
    "s3:DeleteObject",
    "s3:AbortMultipartUpload",
    "s3:ListMultipartUploadParts",
)


class Shares(Construct):
    """File shares of both buckets.

    Attributes
    ----------
    image_share_arns
        The shares whose cache is refreshed when images are published.
    """

    def __init__(
        self,
        scope: Construct,
        name: str,
        *,
        env: Environment,
        share: FileShare,
        gateway_arn: str,
        data: DataResources,
        log_key: kms.IKey,
    ) -> None:
        super().__init__(scope, name)
        self._share, self._gateway_arn, self._key = share, gateway_arn, data.data_key
        self.audit = logs.LogGroup(
            self,
            "Audit",
            encryption_key=log_key,
            retention=retention(env.operations.log_days),
            removal_policy=removal(env),
        )
        acknowledge(
            self,
            "The schema that CDK checks against is older than the file shares' resource types.",
            BUILT_IN + "F3006",
        )
        self.image_share_arns: list[str] = []
        for label, bucket, writes in (("Raw", data.raw, True), ("Images", data.images, False)):
            role = self._role(env, label, bucket, writes=writes)
            arns = [self._one(protocol, label, bucket, role, writes=writes) for protocol in share.protocols]
            if not writes:
                self.image_share_arns += arns

    def _role(self, env: Environment, label: str, bucket: s3.IBucket, *, writes: bool) -> iam.Role:
        role = iam.Role(
            self,
            f"{label}Role",
            description=f"what the gateway may do on the {label.lower()} bucket",
            assumed_by=iam.ServicePrincipal("storagegateway.amazonaws.com").with_conditions(
                {"StringEquals": {"aws:SourceAccount": env.account}}
            ),
        )
        grants.allow(role, "Bucket", BUCKET, [bucket.bucket_arn])
        grants.allow(role, "Objects", (*READ, *WRITE) if writes else READ, [bucket.arn_for_objects("*")])
        grants.use_keys(role, [self._key], actions=(*grants.USE_KEY, "kms:DescribeKey"))
        return role

    def _one(self, protocol: str, label: str, bucket: s3.IBucket, role: iam.Role, *, writes: bool) -> str:
        share = self._share
        # The settling time lets a file come to rest: the gateway writes an object more than once.
        policy = json.dumps({"Upload": {"SettlingTimeInSeconds": share.settling_seconds}} if writes else {})
        name = f"mrirecon-{label.lower()}" + ("-nfs" if protocol == "nfs" else "")
        if protocol == "smb":
            named = share.smb_authentication == "ActiveDirectory"
            smb = storagegateway.CfnSMBFileShare(
                self,
                f"{label}Smb",
                gateway_arn=self._gateway_arn,
                location_arn=bucket.bucket_arn,
                role=role.role_arn,
                file_share_name=name,
                authentication=share.smb_authentication,
                valid_user_list=list(share.smb_users) if named else None,
                smbacl_enabled=named,
                access_based_enumeration=True,
                read_only=not writes,
                guess_mime_type_enabled=True,
                encryption_type="SseKms",
                kms_key=self._key.key_arn,
                object_acl="bucket-owner-full-control",
                default_storage_class="S3_STANDARD",
                notification_policy=policy,
                audit_destination_arn=_stream_arn(self.audit),
            )
            smb.node.add_dependency(role)
            return smb.attr_file_share_arn
        nfs = storagegateway.CfnNFSFileShare(
            self,
            f"{label}Nfs",
            gateway_arn=self._gateway_arn,
            location_arn=bucket.bucket_arn,
            role=role.role_arn,
            file_share_name=name,
            client_list=list(share.clients),
            squash="RootSquash",
            read_only=not writes,
            guess_mime_type_enabled=True,
            encryption_type="SseKms",
            kms_key=self._key.key_arn,
            object_acl="bucket-owner-full-control",
            default_storage_class="S3_STANDARD",
            notification_policy=policy,
            # Scanners write under users of their own that the gateway does not know: whoever may mount the
            # share may write to it. The client list and RootSquash are the limits.
            nfs_file_share_defaults=storagegateway.CfnNFSFileShare.NFSFileShareDefaultsProperty(
                directory_mode="0777" if writes else "0755",
                file_mode="0666" if writes else "0644",
                group_id=65534,
                owner_id=65534,
            ),
        )
        nfs.node.add_dependency(role)
        return nfs.attr_file_share_arn


def _stream_arn(group: logs.LogGroup) -> str:
    stack = Stack.of(group)
    return f"arn:{stack.partition}:logs:{stack.region}:{stack.account}:log-group:{group.log_group_name}"
