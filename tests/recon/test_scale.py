"""The size of the raw numbers changes nothing but the size of the image's; what is no image is refused."""

import h5py
import numpy as np
import pytest

from mrirecon.contract.codes import Code, PermanentError
from mrirecon.contract.profiles import profile
from mrirecon.decompress.plausible import RANGES, plausible
from mrirecon.recon import pipeline
from mrirecon.recon.scale import factor
from tests.recon.recon_cases import scan_file
from tests.recon.test_reconstruct import all_lines, phantom, run
from tests.recon.test_stage_accelerated import thinned


def image(folder):
    with h5py.File(folder / "image.h5") as file:
        return file["image"][()].astype(np.float64)


@pytest.fixture(scope="module")
def accelerated(tmp_path_factory):
    """An accelerated scan without a noise measurement, and its image at its own scale."""
    folder = tmp_path_factory.mktemp("scale")
    kspace = phantom(n_slice=1, n_coil=6)
    mask = thinned(kspace)
    path = scan_file(folder / "k.h5", kspace, mask, whitened=False)
    run(path, folder / "out", profile("routine", "grappa"))
    return kspace, mask, image(folder / "out")


@pytest.mark.parametrize("scale", [1e-30, 1e-12, 1e12, 1e30])
def test_the_image_scales_with_the_raw_data(accelerated, tmp_path, scale):
    kspace, mask, expected = accelerated
    path = scan_file(tmp_path / "k.h5", (kspace * scale).astype(np.complex64), mask, whitened=False)
    run(path, tmp_path / "out", profile("routine", "grappa"))
    np.testing.assert_allclose(
        image(tmp_path / "out") / scale, expected, rtol=2e-3, atol=1e-4 * expected.max()
    )


@pytest.mark.parametrize("peak", [1e-38, 1e-9, 1e-8, 1.0, 1e8, 1e9, 3e38])
def test_the_factor_is_a_power_of_two_that_single_precision_holds(peak):
    found = factor(peak)
    assert np.frexp(found)[0] == 0.5
    assert np.isfinite(np.float32(found))
    assert 1e-8 <= peak * found <= 1e8
    assert factor(0.0) == factor(float("inf")) == 1.0


def test_zeros_make_no_images(tmp_path):
    kspace = np.zeros_like(phantom(n_slice=1))
    path = scan_file(tmp_path / "k.h5", kspace, all_lines(kspace))
    with pytest.raises(PermanentError, match="black") as caught:
        run(path, tmp_path / "out")
    assert caught.value.code is Code.NON_FINITE


def test_voxels_that_are_no_numbers_make_no_images(tmp_path, monkeypatch):
    kspace = phantom(n_slice=1)
    path = scan_file(tmp_path / "k.h5", kspace, all_lines(kspace))
    combine = pipeline.coil_combination.rss
    monkeypatch.setattr(pipeline.coil_combination, "rss", lambda coils: combine(coils) * float("nan"))
    with pytest.raises(PermanentError, match="not a number"):
        run(path, tmp_path / "out")


@pytest.mark.parametrize("value", [1e60, 1e-60, 0.0])
@pytest.mark.parametrize("name", sorted(RANGES))
def test_an_absurd_header_number_counts_as_not_given(name, value):
    assert plausible(name, value) is None
    low, high = RANGES[name]
    assert plausible(name, low) == low
    assert plausible(name, high) == high
