"""Compose a Lambda's asset without Docker: handler, our rooms, pinned dependencies; the same bytes each time.

``build/lambda/<name>/`` holds ``handler.py`` (and its neighbours), the rooms :data:`ROOMS` in ``mrirecon/``
and what ``requirements.txt`` pins, installed by pip for the Lambda's platform, wheels only. Dependencies are
installed once per content of ``requirements.txt`` and kept in ``build/lambda-dependencies/``.
"""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HANDLERS = ROOT / "lambda"
SERVICES = ROOT / "services"
BUILD = ROOT / "build"
ROOMS = ("contract", "aws")
"""What a function shares with the workers: the standard library and the runtime's boto3 are all they need."""
PYTHON = "3.14"
"""Of the Lambda runtime; dependencies are chosen for it, whatever runs the synth."""
_JUNK = ("__pycache__", "*.pyc", "bin", "RECORD", "INSTALLER", "REQUESTED", "direct_url.json")
_COPY = shutil.ignore_patterns("__pycache__", "*.pyc", ".*", "README*")


class AssetError(RuntimeError):
    """A Lambda's asset could not be composed."""


def compose(name: str, *, build: Path = BUILD) -> tuple[Path, str]:
    """Compose the asset of ``lambda/<name>`` and return its folder and the digest of its content."""
    source = HANDLERS / name
    if not (source / "handler.py").is_file():
        raise AssetError(f"lambda/{name}: expected handler.py, found none")
    folder = build / "lambda" / name
    parent = folder.parent
    parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(dir=parent, prefix=f".{name}-"))
    try:
        requirements = source / "requirements.txt"
        if requirements.is_file():
            shutil.copytree(dependencies(requirements, build=build), staging, dirs_exist_ok=True)
        copy_own(name, staging)
        mark = digest(staging)
        # The same bytes stay where they are: another process may be copying them into its stacks.
        with (parent / f".{name}.lock").open("w") as busy:
            fcntl.flock(busy, fcntl.LOCK_EX)
            if not folder.is_dir() or digest(folder) != mark:
                shutil.rmtree(folder, ignore_errors=True)
                staging.rename(folder)
                folder.chmod(0o755)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return folder, mark


def copy_own(name: str, folder: Path) -> None:
    """Copy what is ours of the asset of ``lambda/<name>`` into ``folder``."""
    shutil.copytree(HANDLERS / name, folder, dirs_exist_ok=True, ignore=_COPY)
    for room in ROOMS:
        shutil.copytree(SERVICES / room, folder / "mrirecon" / room, ignore=_COPY)
    shutil.copy(SERVICES / "__init__.py", folder / "mrirecon" / "__init__.py")


def dependencies(requirements: Path, *, build: Path = BUILD) -> Path:
    """Install what ``requirements`` pins, or find it installed, and return the folder.

    Raises
    ------
    AssetError
        When a line pins no version, or pip cannot install.
    """
    text = requirements.read_text(encoding="utf-8")
    for line in text.splitlines():
        wanted = line.split("#")[0].strip()
        if wanted and "==" not in wanted:
            raise AssetError(
                f"{requirements.parent.name}/requirements.txt: expected name==version, got {wanted!r}"
            )
    mark = hashlib.sha256(f"{PYTHON}\n{text}".encode()).hexdigest()[:16]
    folder = build / "lambda-dependencies" / mark
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        target = Path(scratch) / "target"
        command = [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-compile",
            "--only-binary=:all:",
            "--platform",
            "manylinux_2_28_x86_64",
            "--platform",
            "manylinux2014_x86_64",
            "--python-version",
            PYTHON,
            "--implementation",
            "cp",
            "--requirement",
            str(requirements),
            "--target",
            str(target),
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise AssetError(
                f"lambda/{requirements.parent.name}: pip could not install:\n{done.stderr[-2000:]}"
            )
        _clean(target)
        if not folder.is_dir():
            target.rename(folder)
    return folder


def digest(folder: Path) -> str:
    """Return the SHA-256 over names and bytes of all files below ``folder``."""
    total = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        total.update(path.relative_to(folder).as_posix().encode() + b"\0")
        total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()


def _clean(target: Path) -> None:
    """Remove what tells when and by whom it was installed."""
    for pattern in _JUNK:
        for path in sorted(target.rglob(pattern), reverse=True):
            if path.is_dir():
                shutil.rmtree(path)
            elif path.parent.name.endswith(".dist-info") or path.suffix == ".pyc":
                path.unlink()
