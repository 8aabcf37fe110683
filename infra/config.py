"""The one configuration of an environment: typed, frozen, read once from ``config/NAME.yaml`` by ``app.py``.

Every error names the field, what it got and what it takes. Nothing here asks AWS anything: availability
zones, images and gateways are written down, so that a synth needs no credentials and no network.
"""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from mrirecon.contract.scaling import DECOMPRESS, RECON, RECON_IDLE_SECONDS, Policy, PolicyError

from .config_parts import (
    Control,
    Development,
    Emulator,
    ExistingGateway,
    ExistingNetwork,
    FileShare,
    Images,
    Lustre,
    Network,
    Operations,
    Site,
    Storage,
    WorkerTimes,
)
from .errors import ConfigError, from_validation, reject

CONFIG_DIR = Path(__file__).resolve().parent.parent / "config"

RESERVED_ADDRESSES = 5
"""Addresses of every subnet that AWS keeps for itself."""
EDGE_SUBNET = 256
"""Addresses of the subnet of a zone's NAT gateway."""
OTHERS = 60
"""Addresses of a zone that are no worker's: endpoints, and what Lambda, a studio and a gateway take."""
FARGATE_MEMORY_GIB: dict[int, tuple[int, int]] = {
    1024: (2, 8),
    2048: (4, 16),
    4096: (8, 30),
    8192: (16, 60),
    16384: (32, 120),
}


def _policy(value: Any) -> Policy:
    if isinstance(value, Policy):
        return value
    if not isinstance(value, dict):
        reject("", value, "a mapping of the scaling policy's fields")
    try:
        return Policy.from_mapping(value)
    except (PolicyError, TypeError) as error:
        reject("", value, str(error).removeprefix("scaling policy: "))


ScalingPolicy = Annotated[Policy, BeforeValidator(_policy)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)


class Decompress(_Frozen):
    """The Fargate service that turns archives into k-space files."""

    cpu: Literal[1024, 2048, 4096, 8192, 16384] = Field(default=4096, description="Fargate CPU units")
    memory_gib: int = Field(default=16, ge=2, le=120, description="memory of a task in GiB")
    ephemeral_gib: int = Field(
        default=100, ge=21, le=200, description="scratch disk of a task in GiB, 21 to 200"
    )
    times: WorkerTimes = Field(default_factory=WorkerTimes)
    price_per_hour: float | None = Field(
        default=None, gt=0, description="US dollars an hour of a worker, for the cost of a scan; or nothing"
    )
    scaling: ScalingPolicy = Field(default=DECOMPRESS, description="a scaling policy")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        low, high = FARGATE_MEMORY_GIB[self.cpu]
        if not low <= self.memory_gib <= high:
            reject("memory_gib", self.memory_gib, f"{low} to {high} with {self.cpu} CPU units")
        return self


class Recon(_Frozen):
    """The GPU machines of AWS Batch that turn k-space files into images."""

    instance_types: tuple[str, ...] = Field(
        default=("g6.xlarge", "g5.xlarge"),
        min_length=1,
        description="EC2 instance types with one NVIDIA GPU or more",
    )
    spot: bool = Field(
        default=True, description="true: Spot first, on-demand behind it; false: on-demand only"
    )
    vcpus: int = Field(default=4, ge=1, le=64, description="vCPUs of a worker")
    memory_gib: int = Field(
        default=14, ge=4, le=512, description="memory of a worker, below the machine's nominal"
    )
    disk_gib: int = Field(default=100, ge=50, le=1000, description="root disk of a machine in GiB")
    times: WorkerTimes = Field(
        default_factory=lambda: WorkerTimes(idle_seconds=int(RECON_IDLE_SECONDS), lifetime_seconds=14400)
    )
    runnable_minutes: int = Field(
        default=30, ge=10, le=1440, description="minutes after which a job that cannot be placed is cancelled"
    )
    price_per_hour: float | None = Field(
        default=None, gt=0, description="US dollars an hour of a worker, for the cost of a scan; or nothing"
    )
    scaling: ScalingPolicy = Field(default=RECON, description="a scaling policy")

    @model_validator(mode="after")
    def _ends(self) -> Self:
        if self.times.idle_seconds == 0:
            reject("times.idle_seconds", 0, "1 or more: a Batch worker must leave when nothing waits")
        if self.times.lifetime_seconds == 0:
            reject("times.lifetime_seconds", 0, "1 or more: a Batch job must end by itself")
        for index, name in enumerate(self.instance_types):
            if not name.startswith(("g4dn.", "g5.", "g6.", "g6e.", "p3.", "p4d.", "p5.")):
                reject(
                    f"instance_types.{index}", name, "an x86 instance type with an NVIDIA GPU, as g6.xlarge"
                )
        return self

    @property
    def max_vcpus(self) -> int:
        """Ceiling of a compute environment: as many workers as the scaler may ask for."""
        return self.scaling.max_workers * self.vcpus

    @property
    def job_seconds(self) -> int:
        """When Batch ends a job that did not end itself: its lifetime, one last scan, some slack."""
        return self.times.lifetime_seconds + self.times.scan_seconds + 900


class Environment(_Frozen):
    """Everything that differs between two deployments."""

    name: str = Field(
        pattern=r"^[a-z][a-z0-9-]{1,15}$", description="2 to 16 of a-z, 0-9, '-', first a letter"
    )
    account: str = Field(pattern=r"^\d{12}$", description="a 12-digit AWS account number, in quotes")
    region: str = Field(pattern=r"^[a-z]{2}(-[a-z]+)+-\d$", description="an AWS region, as eu-central-1")
    availability_zones: tuple[str, ...] = Field(
        min_length=1, max_length=4, description="1 to 4 zones of the region, as eu-central-1a"
    )
    tags: dict[str, str] = Field(default_factory=dict, description="tags of every resource")
    keep_data: bool = Field(
        default=True,
        description="true: data outlive the stacks, which are protected from deletion; false: all goes",
    )
    images: Images = Field(default_factory=Images)
    sites: tuple[Site, ...] = Field(
        default=(), max_length=20, description="senders; empty: every site, by S3 events"
    )
    network: Network = Field(default_factory=Network)
    storage: Storage = Field(default_factory=Storage)
    file_share: FileShare | None = None
    lustre: Lustre | None = None
    decompress: Decompress = Field(default_factory=Decompress)
    recon: Recon = Field(default_factory=Recon)
    control: Control = Field(default_factory=Control)
    development: Development | None = None
    operations: Operations = Field(default_factory=Operations)
    emulator: Emulator | None = Field(
        default=None, description="only where the stacks go to an emulator of AWS"
    )

    @model_validator(mode="after")
    def _zones(self) -> Self:
        for index, zone in enumerate(self.availability_zones):
            if zone[:-1] != self.region or not zone[-1].isalpha():
                reject(f"availability_zones.{index}", zone, f"a zone of {self.region}, as {self.region}a")
        if len(set(self.availability_zones)) != len(self.availability_zones):
            reject("availability_zones", list(self.availability_zones), "every zone once")
        return self

    @model_validator(mode="after")
    def _network_holds(self) -> Self:
        existing = self.network.existing
        if existing is not None:
            return self._existing_holds(existing)
        if 2 ** (32 - self.work_subnet_prefix) - RESERVED_ADDRESSES < self.addresses:
            takes = (
                f"a network of which each of {len(self.availability_zones)} zones gets {self.addresses} "
                "addresses: the workers' ceilings and the rest"
            )
            reject("network.cidr", self.network.cidr, takes)
        return self

    def _existing_holds(self, existing: ExistingNetwork) -> Self:
        zones, subnets = len(self.availability_zones), existing.subnets
        if len(subnets) != zones:
            reject("network.existing.subnets", len(subnets), f"{zones}: one for each of availability_zones")
        if len({subnet.id for subnet in subnets}) != zones:
            reject("network.existing.subnets", [subnet.id for subnet in subnets], "every subnet once")
        ranges = [ipaddress.IPv4Network(cidr) for cidr in existing.cidrs]
        for index, subnet in enumerate(subnets):
            inside = ipaddress.IPv4Network(subnet.cidr)
            where = f"network.existing.subnets.{index}.cidr"
            if not any(inside.subnet_of(whole) for whole in ranges):
                reject(where, subnet.cidr, f"a part of the VPC's {', '.join(existing.cidrs)}")
            if inside.num_addresses - RESERVED_ADDRESSES < self.addresses:
                takes = f"a subnet with {self.addresses} addresses: the workers' ceilings and the rest"
                reject(where, subnet.cidr, takes)
        return self

    @model_validator(mode="after")
    def _senders(self) -> Self:
        names = [site.name for site in self.sites]
        if len(set(names)) != len(names):
            reject("sites", names, "every site once")
        if self.file_share is None:
            for index, site in enumerate(self.sites):
                if site.sender == "gateway":
                    reject(f"sites.{index}.sender", "gateway", "'s3', or a file_share to send through")
        elif not any(site.sender == "gateway" for site in self.sites):
            takes = "at least one site whose sender is 'gateway' when there is a file_share"
            reject("sites", names, takes)
        return self

    @model_validator(mode="after")
    def _emulated(self) -> Self:
        if self.emulator is None:
            if self.images.source == "none":
                reject("images.source", "none", "'build' or 'pull': only an emulator runs without containers")
            return self
        if self.keep_data:
            reject("keep_data", True, "false in an emulator")
        if self.images.source == "build":
            reject("images.source", "build", "'none' or 'pull' in an emulator")
        return self

    @model_validator(mode="after")
    def _budget(self) -> Self:
        tag = self.operations.cost_tag
        if self.operations.monthly_budget_usd and tag not in self.tags:
            reject("operations.cost_tag", tag, f"a tag that is set under tags: {sorted(self.tags)}")
        return self

    @property
    def addresses(self) -> int:
        """How many addresses a zone's subnet must hold: one zone may have to carry all workers.

        A deployment runs the new tasks of decompress beside the old ones, so that stage counts twice. The
        rest is interface endpoints, Lambdas, the file system's servers, the studio's apps and a gateway.
        """
        lustre = 2 * (1 + self.lustre.capacity_gib // 1200) if self.lustre else 0
        return 2 * self.decompress.scaling.max_workers + self.recon.scaling.max_workers + lustre + OTHERS

    @property
    def work_subnet_prefix(self) -> int:
        """Prefix length of a zone's subnet in a VPC of our own: its equal share of the network.

        It does not follow the ceilings, which only must fit: a release that raises them must not replace the
        subnets under running workers.
        """
        network, zones = ipaddress.IPv4Network(self.network.cidr), len(self.availability_zones)
        edge = zones * EDGE_SUBNET if self.network.egress == "nat" else 0
        for prefix in range(network.prefixlen, 28):
            taken = zones * 2 ** (32 - prefix)
            if edge:
                taken = -(-taken // EDGE_SUBNET) * EDGE_SUBNET
            if taken + edge <= network.num_addresses:
                return prefix
        return 28

    @property
    def gateway_name(self) -> str:
        """The file gateway's name in Storage Gateway; that of an appliance is the environment's."""
        gateway = self.file_share.gateway if self.file_share else None
        return gateway.gateway_name if isinstance(gateway, ExistingGateway) else f"mrirecon-{self.name}"

    @property
    def gateway_networks(self) -> tuple[str, ...]:
        """Networks outside the VPC from which a gateway reaches its endpoint."""
        gateway = self.file_share.gateway if self.file_share else None
        return gateway.networks if isinstance(gateway, ExistingGateway) else ()

    @property
    def prefix(self) -> str:
        """Start of every stack's name."""
        return f"Mrirecon-{self.name}"

    def lacks(self, part: str) -> bool:
        """Tell whether the emulator lacks ``part``, so that this environment leaves it out by name."""
        return self.emulator is not None and part in self.emulator.absent


def parse(values: object, source: str = "configuration") -> Environment:
    """Validate a mapping as read from YAML.

    Raises
    ------
    ConfigError
        One sentence a wrong field: its name, what it got, what it takes.
    """
    if not isinstance(values, dict):
        raise ConfigError(
            source, [f"(the whole file): got {type(values).__name__}; takes a mapping of fields"]
        )
    try:
        return Environment.model_validate(values)
    except ValidationError as error:
        raise from_validation(source, Environment, error) from None


def load(name: str | None, folder: Path = CONFIG_DIR) -> Environment:
    """Read ``config/NAME.yaml``; the name in the file must be the file's.

    Raises
    ------
    ConfigError
        No name, no such file, no YAML, or fields that are wrong.
    """
    known = ", ".join(sorted(path.stem for path in folder.glob("*.yaml"))) or "none yet"
    if not name:
        raise ConfigError("env", [f"env: got nothing; takes -c env=NAME with NAME one of {known}"])
    path = folder / f"{name}.yaml"
    if not path.is_file():
        raise ConfigError("env", [f"env: got {name!r}; takes one of {known} (files of {folder.name}/)"])
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        where = getattr(error, "problem_mark", None)
        line = f" (line {where.line + 1})" if where else ""
        raise ConfigError(
            path.name, [f"(the whole file): got text that is not YAML{line}; takes YAML"]
        ) from None
    environment = parse(values, path.name)
    if environment.name != name:
        raise ConfigError(path.name, [f"name: got {environment.name!r}; takes {name!r}, the file's name"])
    return environment
