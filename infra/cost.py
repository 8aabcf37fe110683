"""What an environment costs a month: idle, and for every 1,000 scans. ``mrirecon cost --env NAME``.

Quantities are counted in the synthesised templates (machines, endpoints, keys, alarms, gigabytes) and taken
from the configuration's estimates (seconds a scan); prices are those of a dated file, each with its source.
A price without one stays empty, and the estimate says which and what it would be multiplied by.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, model_validator

from . import cdk
from .config import Environment, load
from .errors import ConfigError
from .lambda_asset import BUILD, AssetError

PRICES = Path(__file__).with_name("prices.yaml")
HOURS = 730.0
"""Of a month, as AWS's own calculator counts it."""
FREE_FARGATE_GIB = 20
ARCHIVE_GIB = 0.5
IMAGES_GIB = 0.05
FILES = 40
"""Of one scan: size of the archive and of all results, and number of files. Options say otherwise."""

Kind = Literal["idle", "per 1,000 scans"]


class Price(BaseModel):
    """A unit price, the page that publishes it, its source, and when it was read there."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    unit: str
    page: str
    value: float | None = None
    source: str | None = None
    read_on: str | None = None

    @model_validator(mode="after")
    def _sourced(self) -> Price:
        if self.value is not None and not (self.source and self.read_on):
            raise ValueError("a price with a value needs its source and the day it was read there")
        return self


@dataclass(frozen=True)
class Line:
    """One line of the estimate: how much of what, at which price."""

    kind: Kind
    what: str
    quantity: float
    price: str


@dataclass(frozen=True)
class Scan:
    """What one scan is taken to be."""

    archive_gib: float = ARCHIVE_GIB
    images_gib: float = IMAGES_GIB
    files: int = FILES


def read_prices(path: Path = PRICES) -> dict[str, Price]:
    """Read the price file. Raises ``ValueError`` for a price without a source."""
    told = yaml.safe_load(path.read_text(encoding="utf-8"))
    return {name: Price.model_validate(value) for name, value in told["prices"].items()}


def templates_of(env: Environment) -> list[Mapping[str, Any]]:
    """Synthesise ``env`` and return its templates, which stay: a warning of CDK's points at them."""
    from .stacks import build_app

    folder = BUILD / "cost" / env.name
    shutil.rmtree(folder, ignore_errors=True)
    build_app(env, outdir=str(folder)).synth()
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*.template.json"))]


def estimate(env: Environment, templates: list[Mapping[str, Any]], scan: Scan) -> list[Line]:
    """Return what is paid for, idle and per 1,000 scans."""
    return [*_idle(env, templates), *_scans(env, scan)]


def _resources(templates: list[Mapping[str, Any]], kind: str) -> Iterator[Mapping[str, Any]]:
    for template in templates:
        for resource in template["Resources"].values():
            if resource["Type"] == kind:
                yield resource.get("Properties", {})


def _idle(env: Environment, templates: list[Mapping[str, Any]]) -> Iterator[Line]:
    def count(kind: str) -> int:
        return sum(1 for _ in _resources(templates, kind))

    yield Line("idle", "encryption keys", count("AWS::KMS::Key"), "kms_key_month")
    endpoints = [
        e for e in _resources(templates, "AWS::EC2::VPCEndpoint") if e["VpcEndpointType"] == "Interface"
    ]
    zones = sum(len(endpoint["SubnetIds"]) for endpoint in endpoints)
    yield Line("idle", "interface endpoints", zones * HOURS, "interface_endpoint_hour")
    yield Line("idle", "NAT gateways", count("AWS::EC2::NatGateway") * HOURS, "nat_gateway_hour")
    for system in _resources(templates, "AWS::FSx::FileSystem"):
        speed = system["LustreConfiguration"]["PerUnitStorageThroughput"]
        yield Line("idle", "FSx for Lustre", system["StorageCapacity"], f"fsx_lustre_gib_month_{speed}")
    for machine in _resources(templates, "AWS::EC2::Instance"):
        yield Line("idle", f"gateway machine ({machine['InstanceType']})", HOURS, "gateway_machine_hour")
        disks = sum(disk["Ebs"]["VolumeSize"] for disk in machine["BlockDeviceMappings"])
        yield Line("idle", "gateway disks", disks, "ebs_gp3_gib_month")
    yield Line("idle", "alarms", count("AWS::CloudWatch::Alarm"), "alarm_month")
    yield Line("idle", "dashboards", count("AWS::CloudWatch::Dashboard"), "dashboard_month")
    looks = HOURS * 60 / env.control.scale_every_minutes
    yield Line("idle", "the scaler's looks", looks * 0.25 * 2.0, "lambda_gib_second")
    if env.decompress.scaling.min_workers:
        yield from _fargate(env, "idle", env.decompress.scaling.min_workers * HOURS)
    if env.recon.scaling.min_workers:
        hours = env.recon.scaling.min_workers * HOURS
        yield Line(
            "idle", f"standing GPU machines ({env.recon.instance_types[0]})", hours, "gpu_machine_hour"
        )


def _scans(env: Environment, scan: Scan) -> Iterator[Line]:
    kind: Kind = "per 1,000 scans"
    yield from _fargate(env, kind, env.decompress.scaling.scan_seconds * 1000 / 3600)
    hours = env.recon.scaling.scan_seconds * 1000 / 3600
    yield Line(kind, f"GPU machines ({env.recon.instance_types[0]})", hours, "gpu_machine_hour")
    archives, images = scan.archive_gib * 1000, scan.images_gib * 1000
    yield Line(kind, "raw archives, each further month", archives, "s3_deep_archive_gib_month")
    days = env.storage.kspace_days / 30
    yield Line(kind, f"k-space, {env.storage.kspace_days} days", archives * days, "s3_standard_gib_month")
    yield Line(kind, "images, each further month", images, "s3_intelligent_tiering_gib_month")
    yield Line(kind, "requests that write", (scan.files + 2) * 1.0, "s3_put_1000")
    if env.file_share is not None:
        yield Line(kind, "written through the gateway", archives, "gateway_upload_gib")


def _fargate(env: Environment, kind: Kind, hours: float) -> Iterator[Line]:
    stage = env.decompress
    yield Line(kind, "decompress: vCPUs", hours * stage.cpu / 1024, "fargate_vcpu_hour")
    yield Line(kind, "decompress: memory", hours * stage.memory_gib, "fargate_gib_hour")
    scratch = max(0, stage.ephemeral_gib - FREE_FARGATE_GIB)
    yield Line(kind, "decompress: scratch", hours * scratch, "fargate_storage_gib_hour")


def render(env: Environment, lines: list[Line], prices: Mapping[str, Price], where: Path = PRICES) -> str:
    """Return the table, the sums of what is priced, and what is missing from them."""
    counted = [line for line in lines if line.quantity]
    out = [f"{env.name} ({env.region}), US dollars", ""]
    out += _table("A month with nothing scanned", [one for one in counted if one.kind == "idle"], prices)
    out += _table("Every 1,000 scans", [one for one in counted if one.kind != "idle"], prices)
    out += _missing(env, counted, prices, where)
    sources = sorted({f"{p.source} ({p.read_on})" for p in prices.values() if p.value is not None})
    out += ["Prices from:", *(f"  {source}" for source in sources), ""] if sources else []
    out += [
        "Not counted: data transfer, log volume, free tiers, support, tax, and the minutes in which a GPU",
        "machine starts or waits (`mrirecon simulate` tells those for your arrivals).",
    ]
    return "\n".join(out) + "\n"


def _table(title: str, lines: list[Line], prices: Mapping[str, Price]) -> list[str]:
    out, total, unpriced = [title], 0.0, 0
    for line in lines:
        price = prices[line.price]
        cost = "?" if price.value is None else f"{price.value * line.quantity:,.2f}"
        total += (price.value or 0.0) * line.quantity
        unpriced += price.value is None
        out.append(f"  {line.what:<34} {line.quantity:>12,.2f} x {price.unit:<40} {cost:>10}")
    told = "unknown: no line has a price yet" if lines and unpriced == len(lines) else f"{total:,.2f}"
    if 0 < unpriced < len(lines):
        told += f" plus {unpriced} line(s) without a price"
    return [*out, f"  sum: {told}", ""]


def _missing(env: Environment, lines: list[Line], prices: Mapping[str, Price], where: Path) -> Iterator[str]:
    """Yield which prices to fill in, where, and the pages from which they can be quoted."""
    names = sorted({line.price for line in lines if prices[line.price].value is None})
    if not names:
        return
    shown = where.relative_to(Path.cwd()) if where.is_relative_to(Path.cwd()) else where
    yield f"Prices missing: {len(names)}. Fill in value, source and read_on of each in {shown}, from the"
    yield f"page named here ({env.region} is to be chosen on it), and run this again:"
    for page in sorted({prices[name].page for name in names}):
        yield f"  {page}"
        for name in (one for one in names if prices[one].page == page):
            what = ", ".join(dict.fromkeys(line.what for line in lines if line.price == name))
            yield f"    {name + ':':<34} US dollars per {prices[name].unit} ({what})"
    yield ""


def main(arguments: list[str] | None = None) -> int:
    """Print the estimate; 2 on a wrong configuration or price file."""
    parser = argparse.ArgumentParser(
        prog="mrirecon cost", description="Estimate an environment's monthly cost."
    )
    parser.add_argument("--env", required=True, help="name of a file of config/")
    parser.add_argument("--prices", type=Path, default=PRICES, help="another price file")
    parser.add_argument("--archive-gib", type=float, default=ARCHIVE_GIB, help="size of a scan's archive")
    parser.add_argument("--images-gib", type=float, default=IMAGES_GIB, help="size of a scan's results")
    given = parser.parse_args(arguments)
    try:
        env = load(given.env)
        prices = read_prices(given.prices)
    except (ConfigError, ValueError, OSError) as error:
        sys.stderr.write(f"mrirecon cost: {error}\n")
        return 2
    os.environ.update(cdk.environment())  # the library's helper runs on this checkout's node
    scan = Scan(given.archive_gib, given.images_gib)
    try:
        templates = templates_of(env)
    except AssetError as error:
        sys.stderr.write(f"mrirecon cost: {error}\n")
        return 1
    sys.stdout.write(render(env, estimate(env, templates, scan), prices, given.prices))
    return 0


if __name__ == "__main__":
    sys.exit(main())
