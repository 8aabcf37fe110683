"""The parts of the configuration that stand alone: each a small frozen model with its own rules."""

from __future__ import annotations

import ipaddress
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from .errors import reject

LOG_DAYS = (
    1,
    3,
    5,
    7,
    14,
    30,
    60,
    90,
    120,
    150,
    180,
    365,
    400,
    545,
    731,
    1096,
    1827,
    2192,
    2557,
    2922,
    3288,
    3653,
)


def _network(value: str) -> str:
    try:
        network = ipaddress.ip_network(value)
    except ValueError:
        reject("", value, "a network in CIDR form, as 10.40.0.0/16")
    if network.version != 4:
        reject("", value, "an IPv4 network")
    return value


def _private(value: str) -> str:
    network = ipaddress.ip_network(_network(value))
    if not network.is_private or not 16 <= network.prefixlen <= 22:
        reject("", value, "a private network between /16 and /22")
    return value


def _range(value: str) -> str:
    if not ipaddress.ip_network(_network(value)).is_private:
        reject("", value, "a private network")
    return value


def _client(value: str) -> str:
    network = ipaddress.ip_network(_network(value))
    if network.prefixlen < 8:
        reject("", value, "a network of /8 or narrower: the share is for the hospital's own addresses")
    return value


def _log_days(value: int) -> int:
    if value not in LOG_DAYS:
        reject("", value, "one of CloudWatch's retention times: " + ", ".join(map(str, LOG_DAYS)))
    return value


def _arn(service: str) -> Any:
    def check(value: str) -> str:
        if not value.startswith("arn:aws") or f":{service}:" not in value:
            reject("", value, f"an ARN of {service}")
        return value

    return AfterValidator(check)


def _image(value: str) -> str:
    if "/" not in value or (":" not in value.rsplit("/", 1)[1] and "@sha256:" not in value):
        reject(
            "", value, "an image with its registry and a tag or digest, as ACCOUNT.dkr.ecr.REGION…/name:1.2"
        )
    return value


PrivateNetwork = Annotated[str, AfterValidator(_private)]
PrivateRange = Annotated[str, AfterValidator(_range)]
SecurityGroupId = Annotated[
    str, Field(pattern=r"^sg-[0-9a-f]{8,17}$", description="a security group's id, as sg-0a1b2c3d")
]
ClientNetwork = Annotated[str, AfterValidator(_client)]
LogDays = Annotated[int, AfterValidator(_log_days)]
GatewayArn = Annotated[str, _arn("storagegateway")]
SecretArn = Annotated[str, _arn("secretsmanager")]
ImageUri = Annotated[str, AfterValidator(_image)]


class Frozen(BaseModel):
    """A part of the configuration: immutable, no unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Images(Frozen):
    """Where the containers come from."""

    source: Literal["build", "pull", "none"] = Field(
        default="build", description="'build' at deploy, or 'pull'"
    )
    decompress: ImageUri | None = Field(
        default=None, description="image of the decompress worker, with 'pull'"
    )
    recon: ImageUri | None = Field(
        default=None, description="image of the reconstruction worker, with 'pull'"
    )
    decompress_base: ImageUri | None = Field(
        default=None, description="base image instead of the Dockerfile's"
    )
    recon_base: ImageUri | None = Field(default=None, description="base image instead of the Dockerfile's")

    @model_validator(mode="after")
    def _complete(self) -> Self:
        for name in ("decompress", "recon"):
            given = getattr(self, name) is not None
            if self.source == "pull" and not given:
                reject(name, None, "the image to pull when source is 'pull'")
            if self.source != "pull" and given:
                reject(name, getattr(self, name), f"nothing when source is {self.source!r}")
        return self


class Site(Frozen):
    """One sender of archives: a folder ``incoming/<name>/`` on the raw bucket."""

    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$",
        description="1 to 63 letters, digits, '-', '_', the first a letter or digit",
    )
    sender: Literal["s3", "gateway"] = Field(
        default="s3", description="'s3', or 'gateway' for the file share"
    )


class ExistingSubnet(Frozen):
    """A subnet that is there already."""

    id: str = Field(pattern=r"^subnet-[0-9a-f]{8,17}$", description="a subnet's id, as subnet-0a1b2c3d")
    cidr: PrivateRange = Field(description="its addresses, as 10.40.0.0/22")
    route_table_id: str = Field(pattern=r"^rtb-[0-9a-f]{8,17}$", description="its route table's id")


class ExistingNetwork(Frozen):
    """A VPC of the account's landing zone: used by its ids, never looked up."""

    vpc_id: str = Field(pattern=r"^vpc-[0-9a-f]{8,17}$", description="the VPC's id, as vpc-0a1b2c3d")
    cidrs: tuple[PrivateRange, ...] = Field(min_length=1, description="all address ranges of the VPC")
    subnets: tuple[ExistingSubnet, ...] = Field(
        min_length=1, description="one subnet a zone, in the order of availability_zones"
    )
    worker_security_group_id: SecurityGroupId | None = Field(
        default=None, description="a security group that lets HTTPS out, instead of one of ours"
    )
    endpoint_security_group_id: SecurityGroupId | None = Field(
        default=None,
        description="a security group for the endpoints, instead of ours: TCP 443 in, and for a file gateway "
        "1026 to 1028, 1031 and 2222",
    )


class Network(Frozen):
    """The VPC and its way out."""

    existing: ExistingNetwork | None = Field(
        default=None, description="an existing VPC with its subnets, instead of a new one"
    )

    cidr: PrivateNetwork = Field(default="10.40.0.0/16", description="a private network between /16 and /22")
    egress: Literal["endpoints", "nat", "public"] = Field(
        default="endpoints",
        description="'endpoints': isolated, AWS by PrivateLink; 'nat': one NAT gateway; "
        "'public': public addresses, nothing reaches in, no standing cost. In an existing VPC, 'nat' says "
        "that its subnets reach AWS by themselves, and no endpoint is made",
    )
    flow_log_days: LogDays = Field(default=90, description="retention of flow logs in days")

    @model_validator(mode="after")
    def _existing(self) -> Self:
        if self.existing is not None and self.egress == "public":
            reject("egress", "public", "'endpoints' or 'nat' in an existing VPC")
        return self

    @property
    def cidrs(self) -> tuple[str, ...]:
        """The address ranges of the VPC."""
        return self.existing.cidrs if self.existing else (self.cidr,)


class Storage(Frozen):
    """How long data stay, and where."""

    deep_archive_after_days: int = Field(
        default=1, ge=0, le=3650, description="days from a raw archive's last write"
    )
    kspace_days: int = Field(default=14, ge=1, le=3650, description="days a k-space file is kept")
    noncurrent_days: int = Field(default=30, ge=1, le=3650, description="days an overwritten version is kept")
    quarantine_days: int = Field(default=365, ge=1, le=3650, description="days a rejected archive is kept")
    log_days: int = Field(default=400, ge=1, le=3653, description="days access logs are kept")
    images_archive_after_days: int = Field(
        default=90, ge=90, le=730, description="days unread until archive access"
    )
    images_deep_archive_after_days: int = Field(
        default=365, ge=180, le=730, description="days unread until deep archive access"
    )

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.images_deep_archive_after_days <= self.images_archive_after_days:
            reject(
                "images_deep_archive_after_days",
                self.images_deep_archive_after_days,
                "more than images_archive_after_days",
            )
        return self


class Directory(Frozen):
    """The Active Directory domain of the SMB shares' users."""

    controllers: tuple[ClientNetwork, ...] = Field(
        min_length=1, description="networks of the domain controllers and their DNS, as 10.10.1.0/28"
    )


class Appliance(Frozen):
    """A gateway machine in the VPC. It is made once; an operator's command activates it."""

    kind: Literal["appliance"] = Field(default="appliance", description="'appliance' or 'existing'")
    ami_id: str = Field(
        pattern=r"^ami-[0-9a-f]{8,17}$",
        description="the machine image, by id: a later one would replace the machine and lose its cache",
    )
    gateway_arn: GatewayArn | None = Field(
        default=None, description="nothing until it is activated, then the ARN that the command printed"
    )
    directory: Directory | None = Field(
        default=None, description="the domain that it joins, with 'ActiveDirectory'"
    )
    instance_type: str = Field(
        default="m6i.xlarge", pattern=r"^[a-z0-9-]+\.[a-z0-9]+$", description="an EC2 type"
    )
    cache_gib: int = Field(default=150, ge=150, le=16384, description="cache disk in GiB, 150 or more")


class ExistingGateway(Frozen):
    """A gateway that was activated already, usually on the hospital's own machines."""

    kind: Literal["existing"] = Field(default="existing", description="'appliance' or 'existing'")
    gateway_arn: GatewayArn = Field(description="ARN of the activated S3 File Gateway")
    gateway_name: str = Field(
        min_length=2, max_length=255, description="name of the gateway: its metrics are found by id and name"
    )
    networks: tuple[ClientNetwork, ...] = Field(
        default=(),
        description="networks from which it reaches the endpoint of Storage Gateway in the VPC; none: it "
        "uses AWS's public endpoints",
    )


class FileShare(Frozen):
    """The share the scanners write to and the readers read from."""

    gateway: Annotated[Appliance | ExistingGateway, Field(discriminator="kind")]
    protocols: tuple[Literal["smb", "nfs"], ...] = Field(default=("smb", "nfs"), min_length=1)
    clients: tuple[ClientNetwork, ...] = Field(
        min_length=1, description="networks of scanners and readers, as 192.168.10.0/24"
    )
    smb_authentication: Literal["ActiveDirectory", "GuestAccess"] = Field(
        default="ActiveDirectory",
        description="'ActiveDirectory' (the gateway joins the domain first) or 'GuestAccess'",
    )
    smb_users: tuple[str, ...] = Field(default=(), description="users or @groups that may use the SMB shares")
    settling_seconds: int = Field(
        default=60, ge=60, le=600, description="quiet seconds before a file is announced"
    )

    @model_validator(mode="after")
    def _access(self) -> Self:
        if "smb" not in self.protocols:
            return self
        if self.smb_authentication == "ActiveDirectory" and not self.smb_users:
            reject("smb_users", [], "at least one user or @group with ActiveDirectory")
        if self.smb_authentication == "GuestAccess" and self.smb_users:
            reject("smb_users", list(self.smb_users), "nothing with GuestAccess: guests have no names")
        if isinstance(self.gateway, Appliance):
            named = self.smb_authentication == "ActiveDirectory"
            if named and self.gateway.directory is None:
                reject("gateway.directory", None, "the networks of the domain controllers")
            if not named and self.gateway.directory is not None:
                reject("gateway.directory", "a directory", "nothing with GuestAccess")
        return self


class Lustre(Frozen):
    """FSx for Lustre in front of the k-space bucket."""

    capacity_gib: int = Field(default=1200, ge=1200, description="1200, or a multiple of 2400")
    throughput: Literal[125, 250, 500, 1000] = Field(
        default=125, description="MB/s per TiB: 125, 250, 500 or 1000"
    )

    @model_validator(mode="after")
    def _sizes(self) -> Self:
        if self.capacity_gib != 1200 and self.capacity_gib % 2400:
            reject("capacity_gib", self.capacity_gib, "1200, or a multiple of 2400")
        return self


class WorkerTimes(Frozen):
    """A worker's times in seconds; the meaning of each stands in the contract's ``environment``."""

    visibility_seconds: int = Field(default=120, ge=30, le=3600, description="30 to 3600")
    settle_seconds: int = Field(default=900, ge=0, le=86400, description="0 to 86400")
    drain_seconds: int = Field(default=100, ge=10, le=115, description="10 to 115: ECS kills after 120")
    idle_seconds: int = Field(default=0, ge=0, le=3600, description="0 (never) to 3600")
    lifetime_seconds: int = Field(default=0, ge=0, le=86400, description="0 (no limit) to 86400")
    scan_seconds: int = Field(
        default=3600, ge=60, le=39600, description="60 to 39600: SQS holds a message 12 hours"
    )
    silence_seconds: int = Field(default=900, ge=30, le=39600, description="30 to scan_seconds")
    max_receives: int = Field(
        default=4, ge=1, le=20, description="receives before a message is a dead letter"
    )

    @model_validator(mode="after")
    def _nested(self) -> Self:
        if self.silence_seconds > self.scan_seconds:
            reject("silence_seconds", self.silence_seconds, f"at most scan_seconds, {self.scan_seconds}")
        return self


class Control(Frozen):
    """The Lambdas that steer the pipeline."""

    scale_every_minutes: int = Field(
        default=1, ge=1, le=15, description="minutes between two looks of the scaler"
    )
    refresh_window_seconds: int = Field(
        default=30,
        ge=0,
        le=300,
        description="seconds over which published results are gathered into one refresh",
    )


class Development(Frozen):
    """The place where models are developed."""

    instance_type: str = Field(
        default="ml.g5.xlarge",
        pattern=r"^ml\.[a-z0-9]+\.[a-z0-9]+$",
        description="a studio instance, as ml.g5.xlarge",
    )


class Operations(Frozen):
    """What is watched and who is told."""

    alarm_emails: tuple[Annotated[str, Field(pattern=r"^[^@\s]+@[^@\s]+\.[^@\s]+$")], ...] = Field(
        default=(), description="mail addresses that get the alarms"
    )
    log_days: LogDays = Field(default=90, description="retention of logs in days")
    monthly_budget_usd: int = Field(default=0, ge=0, description="0 (no budget alarm) or US dollars a month")
    oldest_stat_minutes: int = Field(
        default=15, ge=1, le=1440, description="waiting time of a stat scan that alarms"
    )
    oldest_routine_minutes: int = Field(default=60, ge=1, le=1440, description="waiting time that alarms")
    cost_tag: str = Field(
        default="project", min_length=1, description="cost-allocation tag the budget filters by"
    )


Part = Literal[
    "batch",
    "budget",
    "container_insights",
    "flow_logs",
    "lambda_vpc",
    "log_queries",
    "lustre",
    "metric_math_alarms",
    "sagemaker",
    "storage_gateway",
    "vpc_default_group",
]


def _names(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


class Emulator(Frozen):
    """What an emulator of AWS lacks, by name, and what stands in for it."""

    absent: Annotated[tuple[Part, ...], BeforeValidator(_names)] = Field(
        description="parts the emulator lacks, left out of the stacks by name"
    )
    batch_job_queue: str = Field(default="mrirecon-recon", description="queue of the emulated Batch")
    batch_job_definition: str = Field(
        default="mrirecon-recon", description="definition of the emulated Batch"
    )
    image_share_arns: tuple[GatewayArn, ...] = Field(default=(), description="shares of the emulated gateway")
