"""Which rights an AWS call needs: from a recorded call to actions of IAM, and what encryption implies.

The pages:

S3       https://docs.aws.amazon.com/AmazonS3/latest/userguide/using-with-s3-policy-actions.html
         https://docs.aws.amazon.com/AmazonS3/latest/API/ (each operation's "Permissions")
         https://docs.aws.amazon.com/AmazonS3/latest/userguide/mpuoverview.html (multipart uploads and KMS)
SQS      https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-key-management.html
DynamoDB https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazondynamodb.html
         https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/encryption.usagenotes.html
others   https://docs.aws.amazon.com/service-authorization/latest/reference/
"""

from dataclasses import dataclass, field

DECRYPT, ENCRYPT = ("kms:Decrypt",), ("kms:GenerateDataKey",)
BOTH = (*DECRYPT, *ENCRYPT)


class UnknownCallError(LookupError):
    """A call whose rights this module does not know."""


@dataclass(frozen=True)
class Need:
    """An action on a thing, and the actions on its key that follow if the thing is encrypted.

    ``kind`` and ``name`` say which thing: ``("queue", "MRIRECON_RECON_STAT_QUEUE_URL")``; ``within`` is an
    object's folder or an index.
    """

    action: str
    kind: str
    name: str = ""
    within: str = ""
    on_key: tuple = field(default=())


ON_QUEUE = {
    "SendMessage": BOTH,
    "ReceiveMessage": DECRYPT,
    "DeleteMessage": (),
    "ChangeMessageVisibility": (),
    "ChangeMessageVisibilityBatch": (),
    "GetQueueAttributes": (),
    "GetQueueUrl": (),
}
_DYNAMODB = {"GetItem", "PutItem", "UpdateItem", "Query", "DescribeTable"}
_ANYWHERE = {
    "cloudwatch:GetMetricData",
    "batch:ListJobs",
    "batch:DescribeJobs",
    "storagegateway:ListGateways",
    "sts:GetCallerIdentity",
}
"""Actions that know no resources."""


def needs(call):
    """Return the :class:`Need` of a recorded call.

    Raises
    ------
    UnknownCallError
        When the call, or a name in it, is not known: add it here, with its page.
    """
    service, _, operation = call["call"].partition(":")
    if "unknown" in call.values():
        raise UnknownCallError(f"{call}: the value is in no variable of the environment")
    if service == "s3":
        return _s3(operation, call)
    if service == "sqs" and operation in ON_QUEUE:
        action = operation.removesuffix("Batch")
        return [Need(f"sqs:{action}", "queue", call["QueueUrl"], on_key=ON_QUEUE[operation])]
    if service == "dynamodb" and operation in _DYNAMODB:
        kind = "index" if "IndexName" in call else "table"
        return [Need(f"dynamodb:{operation}", kind, call["TableName"], call.get("IndexName", ""), DECRYPT)]
    if call["call"] in _ANYWHERE:
        return [Need(call["call"], "*")]
    if service == "ecs" and operation in {"DescribeServices", "UpdateService"}:
        return [Need(f"ecs:{operation}", "service", call["service"], call["cluster"])]
    if call["call"] == "batch:SubmitJob":
        return [
            Need("batch:SubmitJob", "job-definition", call["jobDefinition"]),
            Need("batch:SubmitJob", "job-queue", call["jobQueue"]),
        ]
    if call["call"] == "storagegateway:RefreshCache":
        return [Need("storagegateway:RefreshCache", "share", call["FileShareARN"])]
    if call["call"] == "lambda:Invoke":
        return [Need("lambda:InvokeFunction", "function", call["FunctionName"])]
    raise UnknownCallError(call["call"])


def _s3(operation, call):
    bucket, folder = call["Bucket"], call.get("Key", "")
    version = "Version" if call.get("VersionId") else ""

    def on(action, on_key=()):
        return Need(f"s3:{action}", "object", bucket, folder, on_key)

    if operation in {"HeadBucket", "ListObjectsV2"}:
        return [Need("s3:ListBucket", "bucket", bucket)]
    # Without the right to list, a missing object looks like a missing right (403, not 404).
    listing = Need("s3:ListBucket", "bucket", bucket)
    if operation == "HeadObject":
        return [on(f"GetObject{version}", DECRYPT if call.get("ChecksumMode") else ()), listing]
    if operation == "GetObject":
        return [on(f"GetObject{version}", DECRYPT), listing]
    if operation == "PutObject":
        # A conditional write of an object that is there reads its ETag.
        more = [on("GetObject")] if call.get("IfMatch") else []
        return [on("PutObject", ENCRYPT), *more]
    if operation in {"CreateMultipartUpload", "UploadPart", "CompleteMultipartUpload"}:
        return [on("PutObject", BOTH)]
    if operation == "AbortMultipartUpload":
        return [on("AbortMultipartUpload")]
    if operation in {"GetObjectTagging", "PutObjectTagging"}:
        return [on(operation.replace("Object", f"Object{version}"))]
    if operation in {"CopyObject", "UploadPartCopy"}:
        source = (call["SourceBucket"], call["SourceKey"])
        version = "Version" if call.get("SourceVersionId") else ""
        told = [
            Need(f"s3:GetObject{version}", "object", *source, DECRYPT),
            on("PutObject", BOTH if operation == "UploadPartCopy" else ENCRYPT),
        ]
        if operation == "CopyObject":  # tags go along unless the call says otherwise
            told += [Need(f"s3:GetObject{version}Tagging", "object", *source), on("PutObjectTagging")]
        return told
    raise UnknownCallError(f"s3:{operation}")
