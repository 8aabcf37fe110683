"""Quality on real multi-coil scans, through the archive path, scored by a scorer outside the project."""

from pathlib import Path

import pytest

from mrirecon.local.runner import run_archive
from tests.support.wrapping import read_image, wrap

# Best GRAPPA measured with other implementations under the same protocol: PSNR [dB].
GRAPPA = {
    ("brain7_labmidas", 24): {2: 42.58, 3: 37.76, 4: 31.54, 5: 27.05, 6: 25.05},
    ("brain7_labmidas", 40): {2: 43.14, 3: 38.24, 4: 32.64, 5: 28.25, 6: 27.23},
    ("phantom16_pulseq128", 24): {4: 35.72},
}
# Reached by a sketch of the network: PSNR [dB].
RAKI = {
    ("brain7_labmidas", 24): {4: 31.7, 6: 26.1},
    ("brain7_labmidas", 40): {4: 32.4, 6: 28.2},
    ("phantom16_pulseq128", 24): {4: 34.5, 6: 26.6},
    ("phantom16_pulseq128", 40): {4: 35.7, 6: 29.2},
}


@pytest.fixture(scope="module")
def psnr(evaluate, tmp_path_factory):
    """Return a function that runs one scan, acceleration, calibration and method, and scores the image."""
    folder = tmp_path_factory.mktemp("real")
    folder_of_scans = Path(evaluate.DATA)
    known = {}

    def score(scan, n_acs, acceleration, method):
        key = (scan, n_acs, acceleration, method)
        if key not in known:
            full = evaluate.load_scan(str(folder_of_scans / f"{scan}.npz"))
            _, lines, _ = evaluate.undersample(full, acceleration, n_acs)
            name = f"{scan}-{n_acs}-{acceleration}"
            archive = folder / f"{name}.tar"
            if not archive.exists():
                wrap(full, lines, archive, acceleration)
            outcome = run_archive(archive, folder / f"{name}-{method}", profile_name="fast", method=method)
            assert outcome.status == "done", outcome
            image = read_image(folder / f"{name}-{method}" / outcome.scan_id)
            known[key] = evaluate.score(image, full)["psnr"]
        return known[key]

    return score


def cases(table):
    return [(scan, n_acs, r) for (scan, n_acs), row in table.items() for r in row]


@pytest.mark.slow
@pytest.mark.parametrize(("scan", "n_acs", "acceleration"), cases(GRAPPA))
def test_grappa_is_as_good_as_the_best_measured(psnr, scan, n_acs, acceleration):
    assert psnr(scan, n_acs, acceleration, "grappa") >= GRAPPA[scan, n_acs][acceleration] - 0.3


@pytest.mark.slow
@pytest.mark.parametrize(("scan", "n_acs", "acceleration"), cases(RAKI))
def test_raki_reaches_the_floor(psnr, scan, n_acs, acceleration):
    assert psnr(scan, n_acs, acceleration, "raki") >= RAKI[scan, n_acs][acceleration]


@pytest.mark.slow
@pytest.mark.parametrize("scan", ["brain7_labmidas", "phantom16_pulseq128"])
@pytest.mark.parametrize("n_acs", [24, 40])
@pytest.mark.parametrize("acceleration", [2, 3, 4, 5, 6])
def test_auto_is_never_worse_than_grappa(psnr, scan, n_acs, acceleration):
    assert psnr(scan, n_acs, acceleration, "auto") >= psnr(scan, n_acs, acceleration, "grappa") - 0.1


def test_one_real_brain_goes_the_whole_way(psnr):
    assert psnr("brain7_labmidas", 40, 4, "raki") >= 32.4
