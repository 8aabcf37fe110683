"""Quality on real multi-coil scans, retrospectively undersampled. Skipped where the data are absent."""

import os
from pathlib import Path

import numpy as np
import pytest

from mrirecon.contract.profiles import Method
from mrirecon.kspace.detection import detect
from mrirecon.raki.interpolate import interpolate

ROOT = os.environ.get("MRIRECON_TEST_DATA")
pytestmark = pytest.mark.skipif(not ROOT, reason="MRIRECON_TEST_DATA names no folder with real scans")

BRAIN, PHANTOM = "brain7_labmidas", "phantom16_pulseq128"
TABLE = Path(__file__).parents[2] / "bench" / "results" / "raki_holdout.md"
SLACK = 0.5
"""dB under the published table at most."""
# The best of several public GRAPPA settings, in dB.
PUBLIC_GRAPPA = {
    (BRAIN, 2, 24): 42.58,
    (BRAIN, 3, 24): 37.76,
    (BRAIN, 4, 24): 31.54,
    (BRAIN, 5, 24): 27.05,
    (BRAIN, 6, 24): 25.05,
    (BRAIN, 2, 40): 43.14,
    (BRAIN, 3, 40): 38.24,
    (BRAIN, 4, 40): 32.64,
    (BRAIN, 5, 40): 28.25,
    (BRAIN, 6, 40): 27.23,
    (PHANTOM, 4, 24): 35.72,
}
ALL = [(scan, r, acs) for scan in (BRAIN, PHANTOM) for acs in (24, 40) for r in (2, 3, 4, 5, 6)]
# One of each scan and number of calibration lines, where RAKI and GRAPPA are more than SLACK apart.
QUICK = [(BRAIN, 4, 24), (BRAIN, 6, 40), (PHANTOM, 6, 24), (PHANTOM, 6, 40)]
CASES = [case if case in QUICK else pytest.param(*case, marks=pytest.mark.slow) for case in ALL]


def published():
    """Return dB by scan, R, calibration lines and method from the table in the repository."""
    rows = [
        [cell.strip() for cell in line.strip("| \n").split("|")]
        for line in TABLE.read_text(encoding="utf-8").splitlines()
        if line.startswith("|")
    ]
    names = {Method.GRAPPA: "GRAPPA dB", Method.RAKI: "RAKI dB"}
    return {
        (row[0], int(row[1]), int(row[2]), method): float(row[rows[0].index(name)])
        for row in rows[2:]
        for method, name in names.items()
    }


PUBLISHED = published()


def load(scan):
    path = Path(ROOT) / "scans" / "multicoil" / f"{scan}.npz"
    if not path.exists():
        pytest.skip("this scan is not in the folder")
    return np.load(path)["kspace"].astype(np.complex64)[None, :, None]


def score(tools, scan, r, acs, method):
    full = load(scan)
    mask = tools.lines(full.shape[3], r, acs)
    done = interpolate(full * mask[0, :, None], detect(mask), method=method, noise_variance=None)
    return tools.psnr(tools.magnitude(done.kspace), tools.magnitude(full)), done


def test_the_table_holds_every_case_and_tells_the_methods_apart():
    assert {key[:3] for key in PUBLISHED} == set(ALL)
    for case in QUICK:
        assert PUBLISHED[*case, Method.RAKI] > PUBLISHED[*case, Method.GRAPPA] + SLACK


@pytest.mark.parametrize(("scan", "r", "acs"), CASES)
def test_grappa_is_what_the_table_says_and_as_good_as_public_ones(tools, scan, r, acs):
    found, done = score(tools, scan, r, acs, Method.GRAPPA)
    assert found > PUBLISHED[scan, r, acs, Method.GRAPPA] - SLACK
    assert found > PUBLIC_GRAPPA.get((scan, r, acs), 0) - 0.3
    assert done.network is None


@pytest.mark.parametrize(("scan", "r", "acs"), CASES)
def test_raki_is_what_the_table_says_and_not_grappa(tools, scan, r, acs):
    found, done = score(tools, scan, r, acs, Method.RAKI)
    assert found > PUBLISHED[scan, r, acs, Method.RAKI] - SLACK
    assert done.network["loss"][-1] < done.network["loss"][0]


@pytest.mark.slow
@pytest.mark.parametrize(("scan", "r", "acs"), ALL)
def test_auto_is_never_clearly_under_grappa(tools, scan, r, acs):
    auto, _ = score(tools, scan, r, acs, Method.AUTO)
    grappa, _ = score(tools, scan, r, acs, Method.GRAPPA)
    assert auto > grappa - 0.1
