"""One synth an environment for the whole suite: synthesising is slow, and each test only looks."""

import json
import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from infra import cdk

# The library's helper runs on the node that is pinned, not on the machine's, if it has one at all.
os.environ.update({name: value for name, value in cdk.environment().items() if name in {"PATH", *cdk.QUIET}})


@dataclass(frozen=True)
class Synth:
    """The templates of an environment, by the last part of the stack's name."""

    name: str
    folder: Path
    templates: dict

    def resources(self, kind, stack=None):
        """Return all resources of a type as ``{(stack, logical id): properties}``."""
        return {
            (part, name): resource.get("Properties", {})
            for part, template in self.templates.items()
            if stack in (None, part)
            for name, resource in template.get("Resources", {}).items()
            if resource["Type"] == kind
        }

    def one(self, kind, stack=None, containing=""):
        """Return the properties of the only resource of a type whose logical id contains a word."""
        found = {key: value for key, value in self.resources(kind, stack).items() if containing in key[1]}
        assert len(found) == 1, f"{kind} {containing}: {sorted(found)}"
        return next(iter(found.values()))

    def raw(self, kind):
        """Return all resources of a type with their policies."""
        return {
            (part, name): resource
            for part, template in self.templates.items()
            for name, resource in template.get("Resources", {}).items()
            if resource["Type"] == kind
        }


def read(name, folder):
    """Read the templates that a synth left in ``folder``."""
    templates = {
        path.name.removesuffix(".template.json").rsplit("-", 1)[-1]: json.loads(path.read_text())
        for path in sorted(folder.glob("*.template.json"))
    }
    return Synth(name, folder, templates)


TEMPLATES = os.environ.get("MRIRECON_TEMPLATES")
"""A folder with a folder of templates an environment: they are tested instead of those of this checkout."""


@pytest.fixture(scope="session")
def synth(tmp_path_factory):
    """Return a function from an environment's name (or a configuration) to its templates."""
    from infra.config import load
    from infra.stacks import build_app

    done = {}

    def of(name, environment=None):
        if TEMPLATES:
            return read(name, Path(TEMPLATES, name))
        if name not in done:
            folder = tmp_path_factory.mktemp(f"synth-{name}")
            build_app(environment or load(name), outdir=str(folder)).synth()
            done[name] = read(name, folder)
        return done[name]

    return of


@pytest.fixture(scope="session")
def production(synth):
    return synth("production")


def appliance_environment():
    """Return the full environment with its gateway in the VPC, activated, in a directory."""
    import yaml

    from infra.config import CONFIG_DIR, parse

    values = yaml.safe_load((CONFIG_DIR / "production.yaml").read_text())
    values["name"] = "appliance"
    values["file_share"]["gateway"] = {
        "kind": "appliance",
        "ami_id": "ami-0123456789abcdef0",
        "gateway_arn": values["file_share"]["gateway"]["gateway_arn"],
        "directory": {"controllers": ["10.10.1.0/28"]},
    }
    return parse(values)


@pytest.fixture(scope="session")
def appliance(synth):
    """Return the templates of :func:`appliance_environment`."""
    return synth("appliance", appliance_environment())


@pytest.fixture(scope="session")
def dev(synth):
    return synth("dev")


@pytest.fixture(scope="session")
def emulated(synth):
    return synth("emulated")
