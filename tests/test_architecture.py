"""The walls of the house: imports run one way, and heavy libraries stay in the rooms that need them."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SERVICES = ROOT / "services"

MAY_IMPORT = {
    "contract": set(),
    "kspace": {"contract"},
    "raki": {"contract", "kspace"},
    "imaging": {"contract", "kspace", "raki"},
    "phantom": {"contract", "kspace"},
    "decompress": {"contract", "kspace"},
    "recon": {"contract", "kspace", "raki", "imaging"},
    "aws": {"contract"},
    "cloud": {"contract", "aws", "decompress", "recon"},
    "local": {"contract", "decompress", "recon"},
    "capacity": {"contract"},
    "cli": {"contract", "decompress", "local", "cloud", "phantom", "capacity"},
}
MUST_NOT_KNOW = {
    "kspace": {"torch", "boto3", "botocore"},
    "raki": {"boto3", "botocore", "pydicom", "nibabel", "h5py", "sigpy"},
    "imaging": {"boto3", "botocore", "pydicom", "nibabel", "h5py", "sigpy"},
    "phantom": {"torch", "boto3", "botocore"},
    "decompress": {"torch", "boto3", "botocore", "sigpy", "pydicom", "nibabel"},
    "recon": {"boto3", "botocore", "tarfile", "sigpy", "ismrmrd", "twixtools"},
    "aws": {"torch", "h5py", "structlog", "pydantic"},
    "cloud": {"pydicom", "nibabel", "sigpy", "ismrmrd", "twixtools"},
    "local": {"boto3", "botocore"},
    "capacity": {"torch", "boto3", "h5py"},
}


def modules(room):
    return sorted((SERVICES / room).rglob("*.py"))


def imported(path):
    """Yield (room or None, top-level name) of every import in a file, wherever it stands."""
    depth = len(path.relative_to(SERVICES).parts)
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield None, alias.name
        elif isinstance(node, ast.ImportFrom):
            if node.level == 0:
                yield None, node.module
            elif node.level == depth:
                for name in [node.module] if node.module else [alias.name for alias in node.names]:
                    yield name.split(".")[0], None


def everything_imported(path):
    """Yield the dotted name of every import in a file, wherever it stands."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("room", sorted(MAY_IMPORT))
def test_a_room_imports_only_the_rooms_below_it(room):
    assert modules(room), f"services/{room} is empty"
    for path in modules(room):
        for other, name in imported(path):
            where = path.relative_to(ROOT)
            if name is not None:
                top = name.split(".")[0]
                assert top != "mrirecon", f"{where}: inside services/ imports are relative, got {name}"
                assert top not in MUST_NOT_KNOW.get(room, set()), f"{where} must not import {top}"
            elif other not in {"__version__", room}:
                assert other in MAY_IMPORT[room], f"{where}: {room} may not import {other}"


def test_every_room_is_in_the_plan():
    rooms = {p.name for p in SERVICES.iterdir() if p.is_dir() and p.name != "__pycache__"}
    assert rooms == set(MAY_IMPORT)


def test_the_contract_needs_the_standard_library_only():
    for path in modules("contract"):
        for other, name in imported(path):
            if name is not None:
                assert name.split(".")[0] in sys.stdlib_module_names, f"{path.name} imports {name}"
            else:
                assert other == "contract"


@pytest.mark.parametrize(("folder", "rooms"), [("infra", {"contract"}), ("lambda", {"contract", "aws"})])
def test_infrastructure_and_lambdas_know_few_rooms(folder, rooms):
    ours = [path for path in (ROOT / folder).rglob("*.py") if "node_modules" not in path.parts]
    assert ours
    for path in ours:
        for name in everything_imported(path):
            if name.startswith("mrirecon"):
                assert name.split(".")[1] in rooms, f"{path.relative_to(ROOT)} imports {name}"


@pytest.mark.parametrize("folder", ["services", "infra", "lambda", "emulator", "tests"])
def test_nothing_imports_the_benchmarks_and_only_they_import_the_tests(folder):
    files = [path for path in (ROOT / folder).rglob("*.py") if "node_modules" not in path.parts]
    assert files
    barred = {"bench"} if folder == "tests" else {"bench", "tests"}
    for path in files:
        for name in everything_imported(path):
            assert name.split(".")[0] not in barred, f"{path.relative_to(ROOT)} imports {name}"


@pytest.mark.parametrize("folder", ["infra", "lambda", "emulator", "tests", "bench"])
def test_no_file_edits_the_import_path(folder):
    """Packages are found from the root of the repository, or they are in the wrong place."""
    edits = re.compile(r"sys\.path(\[[^]]*\])?\s*(\+?=(?!=)|\.(insert|append|extend|remove)\b)")
    for path in (ROOT / folder).rglob("*.py"):
        if "node_modules" not in path.parts:
            found = edits.search(path.read_text(encoding="utf-8"))
            assert not found, f"{path.relative_to(ROOT)}: {found[0]}"


def test_the_command_line_starts_without_the_heavy_libraries():
    heavy = ["torch", "sigpy", "scipy", "boto3", "simpy", "matplotlib", "pydicom", "nibabel", "ismrmrd"]
    code = f"import sys, mrirecon.cli.main; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("extra", "rooms"), [("decompress", ["decompress"]), ("recon", ["recon", "imaging", "raki"])]
)
def test_a_container_installs_nothing_that_its_rooms_do_not_import(extra, rooms):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = {re.match(r"[a-z0-9]+", line)[0] for line in project["optional-dependencies"][extra]}
    used = {
        name.split(".")[0].lower()
        for room in rooms
        for path in modules(room)
        for _, name in imported(path)
        if name is not None
    }
    assert {{"pillow": "pil"}.get(name, name) for name in declared} <= used
