"""Where the workers' containers come from: built and pushed by the deployment, or pulled by name."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from aws_cdk import IgnoreMode
from aws_cdk import aws_ecr_assets as assets
from aws_cdk import aws_ecs as ecs
from constructs import Construct

from .config_parts import Images

SERVICES = Path(__file__).resolve().parent.parent / "services"
ROOMS = {
    "decompress": ("contract", "kspace", "decompress", "aws", "cloud"),
    "recon": ("contract", "kspace", "raki", "imaging", "recon", "aws", "cloud"),
}
"""What each container holds of the source: its stage and the rooms below it."""

Stage = Literal["decompress", "recon"]


def context_patterns(stage: Stage) -> list[str]:
    """Return what of ``services/`` is left out of a container's build context, as a ``.dockerignore``."""
    kept = [line for room in ROOMS[stage] for line in (f"!{room}", f"!{room}/**")]
    return ["*", "!__init__.py", *kept, "**/__pycache__", "**/*.pyc", "**/.*"]


def container_image(scope: Construct, stage: Stage, *, images: Images) -> ecs.ContainerImage:
    """Return the image of ``stage``; the same files give the same tag, so that an upgrade is seen."""
    if images.source == "build":
        base = images.decompress_base if stage == "decompress" else images.recon_base
        asset = assets.DockerImageAsset(
            scope,
            "Image",
            directory=str(SERVICES),
            file=f"{stage}/Dockerfile",
            exclude=context_patterns(stage),
            ignore_mode=IgnoreMode.DOCKER,
            platform=assets.Platform.LINUX_AMD64,
            build_args={"BASE": base} if base else None,
        )
        return ecs.ContainerImage.from_docker_image_asset(asset)
    uri = images.decompress if stage == "decompress" else images.recon
    # An emulator that runs no containers is told of one all the same.
    return ecs.ContainerImage.from_registry(uri or f"localhost/mrirecon-{stage}:none")
