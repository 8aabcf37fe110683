"""Quality figures of images whose truth is known."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mrirecon.imaging import quality
from mrirecon.recon.outputs.report import number


def disc(n=64, radius=0.6, planes=2):
    y, x = np.mgrid[-1 : 1 : n * 1j, -1 : 1 : n * 1j]
    return np.tile((np.hypot(y, x) < radius).astype(np.float32), (planes, 1, 1))


@settings(max_examples=30, deadline=None)
@given(st.floats(0.3, 0.9), st.sampled_from([1e-6, 1.0, 4e4]), st.floats(0, 0.12))
def test_the_object_is_found_whatever_its_scale_and_noise(radius, scale, noise):
    rng = np.random.default_rng(0)
    clean = disc(radius=radius)
    coils = clean + noise * (rng.normal(size=(8, *clean.shape)) + 1j * rng.normal(size=(8, *clean.shape)))
    image = (scale * np.sqrt((np.abs(coils) ** 2).sum(0))).astype(np.float32)
    found = quality.object_mask(image)
    assert abs(found.mean() - clean.mean()) < 0.25 * clean.mean() + 0.03


def test_figures_are_what_was_put_in():
    rng = np.random.default_rng(1)
    clean = disc(128)
    image = (100 * clean + np.abs(rng.normal(size=clean.shape))).astype(np.float32)
    g_factor = np.where(clean > 0, 1.5, np.nan).astype(np.float32)
    told = quality.figures(image, g_factor, np.full_like(image, 4.0))
    assert told["object_fraction"] == pytest.approx(clean.mean(), rel=0.15)
    assert told["g_factor_mean"] == told["g_factor_p95"] == 1.5
    assert told["snr_median"] == pytest.approx(25, rel=0.05)
    assert told["background_ratio"] == pytest.approx(0.0067, rel=0.1)


def test_an_empty_image_has_no_object():
    assert quality.figures(np.zeros((1, 8, 8), np.float32)) == {"object_fraction": 0.0}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1.0, "1"),
        (0.12345, "0.123"),
        (12.3456, "12.3"),
        (1234567, "1 234 567"),
        (1e-9, "1.00e-09"),
        (99999.0, "99999"),
        (0.0, "0"),
        (float("nan"), "–"),
        (True, "True"),
        ("word", "word"),
    ],
)
def test_numbers_are_written_as_people_write_them(value, text):
    assert number(value) == text
