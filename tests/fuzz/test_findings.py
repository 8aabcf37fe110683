"""What fuzzing found stays fixed; with atheris at hand, a short run looks for more."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from mrirecon.contract.codes import Code, MrireconError
from mrirecon.decompress.limits import Limits
from mrirecon.decompress.stage import inspect
from tests.fuzz import targets
from tests.support.hostile_build import file, tar

ROOT = Path(__file__).resolve().parents[2]
FINDINGS = sorted(Path(__file__).with_name("findings").iterdir())
TIMED_OUT, CRASHED = 70, 77


def verdict_of(raw: bytes, folder: Path) -> str:
    """Return how an HDF5 file ends in the sandbox, where a crash or a loop of the library is contained."""
    archive = folder / "archive"
    archive.write_bytes(tar(file("meas.h5", raw)))
    try:
        inspect(archive, limits=Limits(gate_seconds=2, cpu_seconds=60), work_dir=folder)
    except MrireconError as error:
        return error.code.value
    return "ok"


@pytest.mark.parametrize("finding", FINDINGS, ids=lambda path: path.name)
def test_a_finding_has_a_verdict(finding: Path, tmp_path: Path):
    """``walk-…`` ended without a verdict once; ``gate-…`` crashed libhdf5 or led it round in circles."""
    if finding.name.startswith("walk-"):
        assert targets.walk_archive(finding.read_bytes())
    else:
        assert verdict_of(finding.read_bytes(), tmp_path) == Code.H5_CORRUPT


@pytest.mark.slow
@pytest.mark.parametrize("which", ["walk", "gate", "heap"])
def test_a_short_run_finds_nothing(which: str, tmp_path: Path):
    pytest.importorskip("atheris")
    command = [sys.executable, "-m", "tests.fuzz.fuzz", which, str(tmp_path / "corpus"), "-max_total_time=30"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200, check=False)
    found = [path for path in tmp_path.iterdir() if path.name.startswith(("crash-", "timeout-", "oom-"))]
    native = "deadly signal" in run.stderr or run.returncode == TIMED_OUT
    if which == "gate" and found and native:
        # libhdf5 itself crashed or ran in circles: what counts is that the sandbox turns it into a verdict.
        codes = {verdict_of(path.read_bytes(), tmp_path) for path in found}
        assert codes <= {Code.H5_CORRUPT, Code.PARSER_CRASH}
        return
    assert run.returncode == 0, run.stderr[-3000:]
    assert not found
