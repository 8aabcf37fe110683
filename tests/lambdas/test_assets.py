"""Each function starts from its asset alone: its folder, the shared rooms, what is installed beside them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from infra.lambda_asset import ROOMS, copy_own
from tests.support.lambda_loader import LAMBDAS

NAMES = sorted(path.parent.name for path in LAMBDAS.glob("*/handler.py"))
TELL = """
import json, sys
import handler
rooms = sorted({name.split(".")[1] for name in sys.modules if name.startswith("mrirecon.")})
print(json.dumps({
    "file": __import__("mrirecon").__file__, "rooms": rooms, "callable": callable(handler.handler),
    "heavy": sorted({"torch", "h5py", "numpy", "pydantic", "structlog"} & set(sys.modules)),
}))
"""


@pytest.mark.parametrize("name", NAMES)
def test_a_function_starts_from_its_asset_alone(name: str, tmp_path: Path) -> None:
    asset = tmp_path / "asset"
    copy_own(name, asset)
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(asset), "AWS_DEFAULT_REGION": "eu-central-1"}
    done = subprocess.run(
        [sys.executable, "-c", TELL], cwd=tmp_path, env=environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert Path(told["file"]).is_relative_to(asset)
    assert set(told["rooms"]) <= set(ROOMS)
    assert told["callable"]
    assert told["heavy"] == []


def test_all_four_are_there_and_pinned() -> None:
    assert NAMES == ["activate_gateway", "redrive", "refresh_cache", "scaler"]
    for name in NAMES:
        lines = (LAMBDAS / name / "requirements.txt").read_text(encoding="utf-8").split()
        assert lines
        assert all("==" in line for line in lines)
