"""The image grid against the Fourier sum evaluated voxel by voxel in double precision."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mrirecon.imaging.fourier import mirror, resize_centred, to_image, to_kspace
from mrirecon.imaging.image_grid import AxisGrid, ImageGrid, image_grid
from mrirecon.kspace.geometry import Geometry


def fourier_sum(kspace, axis, keep=None):
    """Voxel j lies at (j - N//2) voxels of ``fov_out / n_out`` from the centre of the field of view."""
    n = axis.n
    k = np.arange(n) - n // 2
    x = (np.arange(axis.n_out) - axis.n_out // 2) * (axis.fov_out / axis.n_out) / (axis.fov / n)
    matrix = np.exp(2j * np.pi * np.outer(x, k) / n) / np.sqrt(n)
    return matrix @ np.where(keep(k), kspace, 0) if keep else matrix @ kspace


def random_kspace(n, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.normal(size=n) + 1j * rng.normal(size=n)).astype(np.complex64)


def one_axis(axis, kspace):
    still = AxisGrid(1, 1, 1.0, 1.0)
    return ImageGrid((still, still, axis)).image(torch.from_numpy(kspace)[None, None]).numpy()[0, 0]


@settings(max_examples=60, deadline=None)
@given(st.integers(4, 40), st.integers(0, 40), st.integers(0, 3))
def test_zero_filling_and_cropping_are_the_fourier_sum(n, extra, cut):
    """Interpolated to n + extra voxels over the field of view, of which all but 2*cut are wanted."""
    filled, wanted = n + extra, n + extra - 2 * cut
    if wanted < 2:
        return
    axis = AxisGrid(n, wanted, 200.0, 200.0 * wanted / filled)
    kspace = random_kspace(n)
    np.testing.assert_allclose(one_axis(axis, kspace), fourier_sum(kspace, axis), atol=2e-5)


@settings(max_examples=40, deadline=None)
@given(st.integers(6, 32), st.floats(1.03, 1.9), st.integers(4, 40))
def test_voxels_that_no_padded_transform_falls_on(n, ratio, n_out):
    filled = n * ratio
    if n_out > filled:
        return
    axis = AxisGrid(n, n_out, 200.0, 200.0 * n_out / filled)
    kspace = random_kspace(n)
    # where the size is within 0.01 of whole the transform is used: an edge voxel moves by less than 0.01
    np.testing.assert_allclose(one_axis(axis, kspace), fourier_sum(kspace, axis), atol=0.03 * np.sqrt(n))
    if abs(filled - round(filled)) > 0.02:
        np.testing.assert_allclose(one_axis(axis, kspace), fourier_sum(kspace, axis), atol=2e-5)


@pytest.mark.parametrize(("n", "n_out"), [(32, 24), (33, 20), (32, 21), (31, 30)])
def test_a_coarser_voxel_keeps_the_centre_of_kspace(n, n_out):
    axis = AxisGrid(n, n_out, 200.0, 200.0)
    kspace = random_kspace(n)
    image = one_axis(axis, kspace)
    low, high = -(n_out // 2), n_out - n_out // 2
    np.testing.assert_allclose(image, fourier_sum(kspace, axis, lambda k: (k >= low) & (k < high)), atol=2e-5)


def test_a_field_of_view_beyond_the_acquired_one_is_empty_not_repeated():
    axis = AxisGrid(16, 24, 160.0, 240.0)
    image = one_axis(axis, random_kspace(16))
    assert not image[:4].any()
    assert not image[-4:].any()
    np.testing.assert_allclose(
        image[4:-4], one_axis(AxisGrid(16, 16, 160, 160), random_kspace(16)), atol=1e-6
    )
    uneven = one_axis(AxisGrid(16, 25, 160.0, 240.0), random_kspace(16))
    assert not uneven[0].any()
    assert uneven[12].any()


def test_white_noise_keeps_its_variance_through_the_grid():
    rng = np.random.default_rng(2)
    noise = (rng.normal(size=(64, 1, 40, 30)) + 1j * rng.normal(size=(64, 1, 40, 30))).astype(np.complex64)
    noise /= np.sqrt(2)
    one = np.ones((1, 3))
    geometry = Geometry(one, one, one, one, (1, 40, 30), (5, 400, 300), (1, 60, 57), (5, 300, 300))
    grid = image_grid((1, 40, 30), geometry)
    assert grid.shape == (1, 60, 57)
    image = grid.image(torch.from_numpy(noise)).numpy()
    assert np.mean(np.abs(image) ** 2) == pytest.approx(1.0, rel=0.02)
    assert [step["step"] for step in grid.describe()] == [
        "zero-fill interpolation",
        "field of view cropped",
        "zero-fill interpolation",
    ]


def test_what_fits_is_left_alone_and_says_nothing():
    one = np.ones((1, 3))
    geometry = Geometry(one, one, one, one, (6, 10, 12), (60, 100, 120), (6, 10, 12), (60, 100, 120))
    grid = image_grid((6, 10, 12), geometry)
    kspace = torch.from_numpy(random_kspace(720).reshape(6, 10, 12))
    np.testing.assert_allclose(grid.image(kspace), to_image(kspace, (0, 1, 2)), atol=1e-5)
    assert grid.describe() == []


@pytest.mark.parametrize("n", [7, 8])
def test_the_origin_stays_at_n_half(n):
    point = torch.zeros(n, dtype=torch.complex64)
    point[n // 2] = 1
    for size in (n - 3, n - 2, n, n + 1, n + 6):
        assert resize_centred(point, 0, size)[size // 2] == 1
    np.testing.assert_allclose(to_image(point, (0,)), 1 / np.sqrt(n), atol=1e-6)
    np.testing.assert_allclose(to_kspace(to_image(point, (0,)), (0,)), point, atol=1e-6)


def test_a_mirror_image_of_the_transform_of_a_real_image_is_its_conjugate():
    for shape in ((7, 9), (8, 6), (1, 5)):
        image = torch.rand(shape, dtype=torch.float64).to(torch.complex128)
        kspace = to_kspace(image, (0, 1))
        inside = mirror(torch.ones(shape, dtype=torch.bool))
        real, imag = mirror(kspace.real), mirror(kspace.imag)
        np.testing.assert_allclose(torch.complex(real, -imag)[inside], kspace[inside], atol=1e-12)
