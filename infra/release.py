"""Deploy, send a canary scan through, and go back to the last good version if either fails.

``python -m infra.release --env NAME --site SITE``. A service that has no task counts as deployed whatever its
image does, and Batch starts nothing until a scan waits: only a scan shows that a release works. The assembly
of each good release is kept in ``cdk.out.release/NAME/good``; the way back deploys that, without its source.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from . import cdk
from .outputs import values_of

KEPT = cdk.ROOT / "cdk.out.release"
Cdk = Callable[[list[str]], int]
Canary = Callable[[Mapping[str, str]], int]


def release(
    env: str, run: Cdk, canary: Canary, *, kept: Path = KEPT, say: Callable[[str], None] = print
) -> int:
    """Deploy ``env`` and keep it if the canary comes through; else deploy the last good one again.

    ``run`` runs the CDK command line, ``canary`` gets the contract's variables; both return an exit code. The
    result is 0 when the new version stays, 1 when it does not.
    """
    new, good = kept / env / "next", kept / env / "good"
    shutil.rmtree(new, ignore_errors=True)
    new.parent.mkdir(parents=True, exist_ok=True)
    if run(["synth", "--quiet", "-c", f"env={env}", "--output", str(new)]):
        say("The new version cannot be synthesised; nothing was deployed.")
        return 1
    if _deploy(run, new):
        say("The deployment failed.")
    elif canary(_variables(new)):
        say("The canary scan did not come through.")
    else:
        shutil.rmtree(good, ignore_errors=True)
        new.rename(good)
        say("The canary scan came through: the new version stays.")
        return 0
    if not good.is_dir():
        say("No earlier good version is kept here: check out the version before and run this again.")
        return 1
    if _deploy(run, good):
        say("The last good version could not be deployed either: look at CloudFormation's events.")
    elif canary(_variables(good)):
        say("The last good version is deployed again, and its canary scan failed too: see the runbook.")
    else:
        say("The last good version is deployed again, and its canary scan came through.")
    return 1


def _deploy(run: Cdk, assembly: Path) -> int:
    return run(["deploy", "--all", "--app", str(assembly), "--outputs-file", str(_outputs(assembly))])


def _outputs(assembly: Path) -> Path:
    return assembly.parent / f"outputs-{assembly.name}.json"


def _variables(assembly: Path) -> Mapping[str, str]:
    return values_of(_outputs(assembly).read_text(encoding="utf-8"))


def main(arguments: list[str] | None = None) -> int:
    """Release an environment; 1 when the new version does not stay."""
    parser = argparse.ArgumentParser(
        prog="python -m infra.release", description="Deploy with a canary scan, and go back if it fails."
    )
    parser.add_argument("--env", required=True, help="name of a file of config/")
    parser.add_argument("--site", required=True, help="a site that sends to S3, for the canary scan")
    given = parser.parse_args(arguments)

    def canary(variables: Mapping[str, str]) -> int:
        command = [sys.executable, "-m", "mrirecon.cli", "canary", "--site", given.site]
        return subprocess.run(command, env={**os.environ, **variables}, check=False).returncode

    try:
        return release(given.env, cdk.run, canary)
    except cdk.InstallError as error:
        sys.stderr.write(f"{error}\n")
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
