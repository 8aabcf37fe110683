#!/usr/bin/env python3
"""The CDK app: ``cdk deploy --all -c env=NAME`` deploys what ``config/NAME.yaml`` describes."""

from __future__ import annotations

import sys

import aws_cdk as cdk

from infra.config import load
from infra.errors import ConfigError
from infra.lambda_asset import AssetError
from infra.stacks import build_app


def main() -> int:
    """Synthesise the environment named by the context; 2 on a wrong configuration."""
    try:
        build_app(load(cdk.App().node.try_get_context("env"))).synth()
    except (ConfigError, AssetError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
