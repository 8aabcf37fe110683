"""The interface endpoints of an isolated network: each with who calls it, so that none stands idle.

An endpoint costs money in each zone, each hour. S3 and DynamoDB are reached by gateway endpoints, which cost
nothing. KMS needs none: S3, SQS, DynamoDB and Logs call it themselves on the service's side.
"""

from __future__ import annotations

from dataclasses import dataclass

from .config import Environment


@dataclass(frozen=True)
class Endpoint:
    """An interface endpoint, and who calls the service through it.

    Attributes
    ----------
    client
        The name by which our own code makes its client (``boto3.client(client)``), or empty.
    agent
        Software of AWS's on our machines that calls it, with the page that says so, or empty.
    """

    name: str
    service: str
    client: str = ""
    agent: str = ""


_ECR = "docs.aws.amazon.com/AmazonECR/latest/userguide/vpc-endpoints.html: pulls of containers"
_ECS = "docs.aws.amazon.com/AmazonECS/latest/developerguide/vpc-endpoints.html: GPU machines register"
_STUDIO = "docs.aws.amazon.com/sagemaker/latest/dg/studio-notebooks-and-internet-access.html: VpcOnly"

ENDPOINTS = (
    Endpoint("EcrApi", "ecr.api", agent=_ECR),
    Endpoint("EcrDocker", "ecr.dkr", agent=_ECR),
    Endpoint("Ecs", "ecs", client="ecs", agent=_ECS),
    Endpoint("EcsAgent", "ecs-agent", agent=_ECS),
    Endpoint("EcsTelemetry", "ecs-telemetry", agent=_ECS),
    Endpoint("Batch", "batch", client="batch"),
    Endpoint(
        "Logs",
        "logs",
        agent="docs.aws.amazon.com/AmazonECS/latest/developerguide/using_awslogs.html: all logs; "
        "the workers' metrics travel in them",
    ),
    Endpoint("Monitoring", "monitoring", client="cloudwatch"),
    Endpoint("Sqs", "sqs", client="sqs"),
)
STORAGE_GATEWAY = Endpoint("StorageGateway", "storagegateway", client="storagegateway")
STORAGE_GATEWAY_PORTS = (443, 1026, 1027, 1028, 1031, 2222)
"""What a file gateway opens towards its endpoint."""
DEVELOPMENT_ENDPOINTS = (
    Endpoint("SagemakerApi", "sagemaker.api", agent=_STUDIO),
    Endpoint("SagemakerRuntime", "sagemaker.runtime", agent=_STUDIO),
    Endpoint("Sts", "sts", agent=_STUDIO),
)


def endpoints_of(env: Environment) -> tuple[Endpoint, ...]:
    """Return the interface endpoints that ``env`` needs; none unless its network is isolated."""
    if env.network.egress != "endpoints":
        return ()
    share = (STORAGE_GATEWAY,) if env.file_share else ()
    development = DEVELOPMENT_ENDPOINTS if env.development else ()
    return (*ENDPOINTS, *share, *development)
