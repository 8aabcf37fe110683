"""Write what each container installs: the extras it needs and all they need, at the constraints' versions.

``python -m infra.requirements`` rewrites ``services/<stage>/requirements.txt``; a test holds them to
``pyproject.toml`` and ``constraints.txt``. Every name is listed, so that nothing is resolved in a build.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Collection, Iterable
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
EXTRAS = {"decompress": ("decompress", "cloud"), "recon": ("recon", "cloud")}
NOT_NEEDED = {"decompress": {"importlib-resources", "setuptools"}, "recon": {"importlib-resources"}}
"""Asked for by a dependency, but part of the base's Python or only for a build that is not made there."""
_LINUX = {"sys_platform": "linux", "platform_system": "Linux", "platform_machine": "x86_64", "extra": ""}


def pins() -> dict[str, str]:
    """Return the versions of ``constraints.txt``. A build of torch for CPUs is not what a GPU image wants."""
    found: dict[str, str] = {}
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
        if match := re.match(r"^([A-Za-z0-9._-]+)==([^\s;#]+)", line):
            found[canonicalize_name(match[1])] = match[2].removesuffix("+cpu")
    return found


def wanted(stage: str) -> list[str]:
    """Return the requirements of ``stage`` as ``pyproject.toml`` states them."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    return [*project["dependencies"], *(line for extra in EXTRAS[stage] for line in extras[extra])]


def closure(lines: Iterable[str], *, without: Collection[str] = ()) -> set[str]:
    """Return the names of ``lines`` and of all that they need on a Linux machine.

    torch's own GPU libraries stay out: it names each at an exact version itself.
    """
    names: set[str] = set()
    todo = list(lines)
    while todo:
        requirement = Requirement(todo.pop())
        name = canonicalize_name(requirement.name)
        if name in names or name in without or name.startswith(("nvidia-", "cuda-", "triton")):
            continue
        if not _applies(requirement.marker):
            continue
        names.add(name)
        try:
            todo += requires(name) or []
        except PackageNotFoundError:
            raise SystemExit(
                f"{name}: expected it installed here, to read what it needs; found it missing"
            ) from None
    return names


def _applies(marker: Marker | None) -> bool:
    return marker is None or bool(marker.evaluate(_LINUX))


def render(stage: str) -> str:
    """Return the text of ``services/<stage>/requirements.txt``."""
    known = pins()
    names = sorted(closure(wanted(stage), without=NOT_NEEDED[stage]))
    missing = [name for name in names if name not in known]
    if missing:
        raise SystemExit(f"constraints.txt: expected versions of {', '.join(missing)}, found none")
    head = "# Made by `python -m infra.requirements` from pyproject.toml and constraints.txt.\n"
    return head + "".join(f"{name}=={known[name]}\n" for name in names)


def main() -> None:
    """Rewrite both files."""
    for stage in EXTRAS:
        (ROOT / "services" / stage / "requirements.txt").write_text(render(stage), encoding="utf-8")


if __name__ == "__main__":
    main()
