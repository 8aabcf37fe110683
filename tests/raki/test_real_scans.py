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
# PSNR in dB that RAKI must reach, and the best of several public GRAPPA settings, less 0.3 dB.
RAKI_FLOOR = {
    (BRAIN, 4, 24): 31.7,
    (BRAIN, 4, 40): 32.4,
    (BRAIN, 6, 24): 26.1,
    (BRAIN, 6, 40): 28.2,
    (PHANTOM, 4, 24): 34.5,
    (PHANTOM, 4, 40): 35.7,
    (PHANTOM, 6, 24): 26.6,
    (PHANTOM, 6, 40): 29.2,
}
GRAPPA_BEST = {
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
QUICK = [(BRAIN, 4, 24), (PHANTOM, 6, 40)]
ALL = [(scan, r, acs) for scan in (BRAIN, PHANTOM) for acs in (24, 40) for r in (2, 3, 4, 5, 6)]


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


@pytest.mark.parametrize(("scan", "r", "acs"), GRAPPA_BEST)
def test_grappa_is_as_good_as_the_best_public_settings(tools, scan, r, acs):
    found, _ = score(tools, scan, r, acs, Method.GRAPPA)
    assert found > GRAPPA_BEST[scan, r, acs] - 0.3


@pytest.mark.parametrize(
    ("scan", "r", "acs"),
    [case if case in QUICK else pytest.param(*case, marks=pytest.mark.slow) for case in RAKI_FLOOR],
)
def test_raki_reaches_its_floor(tools, scan, r, acs):
    found, done = score(tools, scan, r, acs, Method.RAKI)
    assert found > RAKI_FLOOR[scan, r, acs]
    assert done.network["loss"][-1] < done.network["loss"][0]


@pytest.mark.slow
@pytest.mark.parametrize(("scan", "r", "acs"), ALL)
def test_auto_is_never_clearly_under_grappa(tools, scan, r, acs):
    auto, _ = score(tools, scan, r, acs, Method.AUTO)
    grappa, _ = score(tools, scan, r, acs, Method.GRAPPA)
    assert auto > grappa - 0.1
