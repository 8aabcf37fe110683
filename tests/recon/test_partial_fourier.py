"""Partial Fourier on objects whose k-space is known in closed form and whose phase is smooth."""

import numpy as np
import pytest
import torch

from mrirecon.imaging.fourier import to_image, to_kspace
from mrirecon.imaging.partial_fourier import PartialFourierMethod, coverage, fill
from mrirecon.phantom import ellipses

ALL = (-3, -2, -1)
POCS, HOMODYNE, ZERO = (
    PartialFourierMethod.POCS,
    PartialFourierMethod.HOMODYNE,
    PartialFourierMethod.ZERO_FILL,
)


def blobs(nz, ny, nx, noise=0.0, seed=0):
    """Shepp-Logan's head (in 3-D: a slab of it) times a smooth complex field, sampled in closed form.

    The field is a sum of a few low spatial frequencies, as coils' are: each displaces k-space.
    """
    rng = np.random.default_rng(seed)
    ky, kx = np.meshgrid(np.arange(ny) - ny // 2, np.arange(nx) - nx // 2, indexing="ij")
    kz = (np.arange(nz) - nz // 2)[:, None, None]
    total = np.zeros((nz, ny, nx), complex)
    for weight, dz, dy, dx in ((1.0, 0.3, 0.4, -0.3), (0.25j, 0.6, 0.9, 0.2), (-0.2, -0.2, 0.1, 0.8)):
        head = ellipses.kspace(ellipses.SHEPP_LOGAN, ky - dy, kx - dx)
        total += weight * head * (np.sinc(0.6 * (kz - dz)) if nz > 1 else 1)
    sigma = noise * np.abs(total).max() / np.sqrt(2 * total.size)
    total = total + sigma * (rng.normal(size=total.shape) + 1j * rng.normal(size=total.shape))
    return torch.from_numpy(total.astype(np.complex64))


def lines(nz, ny, z, y):
    extent = np.zeros((nz, ny), bool)
    extent[slice(*z), slice(*y)] = True
    return extent


CASES = {
    "ky_6_8": ((1, 128, 96), (0, 1), (0, 96), (0, 96)),
    "ky_5_8_top_missing": ((1, 128, 96), (0, 1), (48, 128), (0, 96)),
    "ky_7_8_odd": ((1, 127, 95), (0, 1), (0, 111), (0, 95)),
    "asymmetric_echo": ((1, 96, 128), (0, 1), (0, 96), (32, 128)),
    "ky_6_8_and_asymmetric_echo": ((1, 128, 128), (0, 1), (0, 96), (32, 128)),
    "kz_6_8": ((32, 64, 48), (0, 24), (0, 64), (0, 48)),
    "kz_and_ky_7_8": ((32, 64, 48), (0, 28), (0, 56), (0, 48)),
}


@pytest.mark.parametrize("noise", [0.0, 0.1])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_it_is_better_than_zero_filling(case, noise):
    shape, z, y, x = case
    clean, full = blobs(*shape), blobs(*shape, noise=noise)
    found = coverage(lines(*shape[:2], z, y), x, shape[2])
    assert found.usable
    truth = to_image(clean, ALL).abs()
    known = full * found.region

    def error(method):
        return float((to_image(fill(known, found, method), ALL).abs() - truth).norm() / truth.norm())

    zero = error(ZERO)
    assert zero > 0.01, "the case must lack something"
    for method in (POCS, HOMODYNE):
        assert error(method) < (0.6 if noise == 0 else 0.8) * zero, (error(POCS), error(HOMODYNE), zero)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_pocs_keeps_what_was_acquired_bit_for_bit(case):
    shape, z, y, x = case
    found = coverage(lines(*shape[:2], z, y), x, shape[2])
    known = blobs(*shape, noise=0.1) * found.region
    filled = fill(known, found, POCS)
    assert torch.equal(filled[found.region], known[found.region])
    assert filled[~found.region].abs().max() > 0


def test_each_slice_and_coil_is_by_itself_and_global_phase_passes_through():
    found = coverage(lines(1, 64, (0, 1), (0, 44)), (0, 48), 48)
    stack = torch.stack(
        [torch.stack([blobs(1, 64, 48, seed=s + 10 * c) for c in range(2)]) for s in range(3)]
    )
    stack = stack * found.region
    for method in (POCS, HOMODYNE):
        together = fill(stack, found, method)
        alone = fill(stack[2, 1], found, method)
        torch.testing.assert_close(together[2, 1], alone, atol=1e-5, rtol=1e-4)
        turned = fill(stack * 1j, found, method)
        torch.testing.assert_close(turned, together * 1j, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("n", [64, 63])
def test_symmetric_coverage_is_no_partial_fourier(n):
    for cut in (0, 5):
        found = coverage(lines(1, n, (0, 1), (cut + (n % 2 == 0 and cut > 0), n - cut)), (0, 32), 32)
        assert found.shares == {}
        kspace = blobs(1, n, 32) * found.region
        assert fill(kspace, found, POCS) is kspace


def test_what_is_found_is_told():
    found = coverage(lines(20, 64, (4, 20), (0, 40)), (10, 48), 48)
    assert found.shares == {"kz": 0.8, "ky": 40 / 64, "kx": 38 / 48}
    assert found.band == {"kz": 13, "ky": 15, "kx": 29}
    assert found.usable
    assert not coverage(lines(1, 64, (0, 1), (0, 35)), (0, 48), 48).usable


def test_nothing_is_extrapolated_beyond_the_conjugate_of_what_was_acquired():
    """Lower resolution with partial Fourier: lines 20 to 60 of 100 leave 61 to 80 to fill, 81 on empty."""
    found = coverage(lines(1, 100, (0, 1), (20, 61)), (0, 32), 32)
    for method in (POCS, HOMODYNE):
        filled = fill(blobs(1, 100, 32, noise=0.1) * found.region, found, method)
        energy = filled.abs().pow(2).sum((0, 2))
        assert energy[61:81].min() > 0
        assert energy[81:].max() < 1e-8 * energy.max()
        assert energy[:20].max() < 1e-8 * energy.max()


def test_a_wrong_transform_would_be_seen():
    kspace = blobs(1, 32, 32)
    torch.testing.assert_close(to_kspace(to_image(kspace, ALL), ALL), kspace, atol=1e-5, rtol=1e-4)
