"""The pattern found must be the pattern made, and what is no pattern must be refused."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mrirecon.contract.codes import Code, PermanentError
from mrirecon.kspace.acs import acs_needed, require_acs, require_declared
from mrirecon.kspace.detection import detect


def lines(n, r, offset=0, acs=0, centre=None):
    mask = np.zeros((1, n), bool)
    mask[0, offset::r] = True
    start = (n // 2 if centre is None else centre) - acs // 2
    mask[0, start : start + acs] = True
    return mask


@settings(max_examples=150, deadline=None)
@given(st.integers(48, 320), st.integers(2, 8), st.integers(0, 7), st.integers(14, 40), st.integers(-4, 4))
def test_any_first_line_and_any_acs_position_is_found(n, r, offset, acs, moved):
    offset %= r
    acs = min(acs, n - 4 * r)
    if acs < r + 4:
        return
    mask = lines(n, r, offset, acs, n // 2 + moved)
    found = detect(mask)
    assert (found.r_y, found.offset_y, found.r_z, found.caipi_shift) == (r, offset, 1, 0)
    assert found.acs_y is not None
    low, high = found.acs_y
    assert low <= n // 2 + moved - acs // 2
    assert high >= n // 2 + moved - acs // 2 + acs
    assert mask[0, low:high].all()
    assert not found.outside.any()
    assert np.array_equal(found.missing, ~mask)
    assert found.partial_fourier_y is None


@settings(max_examples=80, deadline=None)
@given(
    st.integers(24, 40),
    st.integers(32, 64),
    st.integers(1, 3),
    st.integers(2, 4),
    st.integers(0, 3),
    st.data(),
)
def test_caipi_lattices_are_found(n_z, n_y, r_z, r_y, shift, data):
    shift %= r_y
    offset_z, offset_y = data.draw(st.integers(0, r_z - 1)), data.draw(st.integers(0, r_y - 1))
    mask = np.zeros((n_z, n_y), bool)
    for row, z in enumerate(range(offset_z, n_z, r_z)):
        mask[z, (offset_y + shift * row) % r_y :: r_y] = True
    mask[n_z // 2 - 6 : n_z // 2 + 6, n_y // 2 - 8 : n_y // 2 + 8] = True
    found = detect(mask)
    assert (found.r_z, found.r_y, found.caipi_shift) == (r_z, r_y, shift)
    assert (found.offset_z, found.offset_y) == (offset_z, offset_y)
    assert not (found.lattice & ~mask).any()
    assert np.array_equal(found.missing, ~mask)
    assert found.acs_z is not None
    assert found.acs_z[1] - found.acs_z[0] >= 12


def test_fully_sampled():
    found = detect(np.ones((1, 96), bool))
    assert found.fully_sampled
    assert found.acceleration == 1
    assert found.acs_y == (0, 96)
    assert found.describe() == "fully sampled"
    require_acs(found)


@pytest.mark.parametrize("r", [1, 2, 3])
@pytest.mark.parametrize("side", ["first", "last"])
def test_partial_fourier_is_outside_and_not_to_be_interpolated(r, side):
    n, cut = 128, 32
    mask = lines(n, r, acs=24)
    mask[0, slice(0, cut) if side == "first" else slice(n - cut, n)] = False
    found = detect(mask)
    assert found.r_y == r
    assert found.partial_fourier_y == pytest.approx(0.75, abs=0.03)
    assert not (found.missing & found.outside).any()
    outside = found.outside[0]
    assert (outside[:cut] if side == "first" else outside[n - cut :]).all()
    assert outside.sum() < cut + r
    assert np.array_equal(found.missing | found.outside | found.acquired, np.ones((1, n), bool))


def test_zero_filled_on_both_sides_is_no_partial_fourier():
    mask = np.zeros((1, 128), bool)
    mask[0, 16:112] = True
    found = detect(mask)
    assert found.fully_sampled
    assert found.partial_fourier_y is None
    assert found.sampled_y == (16, 112)


def test_elliptical_shutter_with_caipi():
    z, y = np.mgrid[-16:16, -24:24]
    shutter = (z / 16) ** 2 + (y / 24) ** 2 <= 1
    mask = np.zeros((32, 48), bool)
    for row, at in enumerate(range(0, 32, 2)):
        mask[at, row % 2 :: 2] = True
    mask[10:22, 14:34] = True
    mask &= shutter
    found = detect(mask)
    assert (found.r_z, found.r_y, found.caipi_shift) == (2, 2, 1)
    assert not found.extent[0, 0]
    assert (found.extent | mask | ~shutter).mean() > 0.95


def test_elliptical_calibration_region_gives_its_inner_block():
    z, y = np.mgrid[-20:20, -32:32]
    mask = np.zeros((40, 64), bool)
    mask[::2, ::2] = True
    mask |= (z / 9) ** 2 + (y / 12) ** 2 <= 1
    found = detect(mask)
    assert (found.r_z, found.r_y) == (2, 2)
    assert found.acs_z is not None
    assert found.acs_y is not None
    assert mask[slice(*found.acs_z), slice(*found.acs_y)].all()


def test_acceleration_along_partitions_only():
    mask = np.zeros((48, 32), bool)
    mask[::3] = True
    mask[16:32] = True
    found = detect(mask)
    assert (found.r_z, found.r_y) == (3, 1)
    assert not found.two_dimensional
    assert found.acs_lines >= 16
    assert found.acs_y == (0, 32)


def test_no_calibration_lines():
    found = detect(lines(128, 2))
    assert found.acs_y is None
    assert found.acs_lines == 0
    with pytest.raises(PermanentError) as caught:
        require_acs(found)
    assert caught.value.code is Code.TOO_FEW_ACS
    assert "Found 0 calibration lines" in caught.value.message
    assert "R=2" in caught.value.message
    require_acs(found, separate=(1, 24))
    with pytest.raises(PermanentError) as caught:
        require_declared(found, declared=False)
    assert caught.value.code is Code.INCOMPLETE_KSPACE
    assert "64 of 128" in caught.value.message
    require_declared(found, declared=True)
    require_declared(found, declared=False, separate_acs=True)
    require_declared(detect(lines(128, 2, acs=24)), declared=False)


def test_too_few_calibration_lines_names_found_needed_and_r():
    found = detect(lines(240, 6, acs=7))
    assert found.acs_lines < acs_needed(found)[1]
    with pytest.raises(PermanentError) as caught:
        require_acs(found)
    assert f"Found {found.acs_lines}" in caught.value.message
    assert "at least 10" in caught.value.message
    assert "R=6" in caught.value.message


@pytest.mark.parametrize(
    "spoil",
    [
        lambda m: m[0].__setitem__(40, False),  # one line in the middle
        lambda m: m[0].__setitem__(1, False),  # one line at the edge
        lambda m: m[0].__setitem__(slice(80, 90), False),  # a run
        lambda m: m[0].__setitem__([3, 40, 77, 99], False),  # scattered
        lambda m: m[0].__setitem__(slice(60, 128), False),  # cut short
        lambda m: m[0].__setitem__(slice(0, 128), False),  # nothing
    ],
)
def test_holes_are_refused(spoil):
    mask = np.ones((1, 128), bool)
    spoil(mask)
    with pytest.raises(PermanentError) as caught:
        detect(mask)
    assert caught.value.code is Code.INCOMPLETE_KSPACE
    assert any(character.isdigit() for character in caught.value.message)


def test_lost_lattice_line_is_refused():
    mask = lines(128, 4, acs=24)
    mask[0, 100] = False
    with pytest.raises(PermanentError, match="follow no regular pattern"):
        detect(mask)


def test_random_sampling_is_refused():
    mask = np.random.default_rng(1).random((32, 48)) < 0.4
    mask[12:20, 18:30] = True
    with pytest.raises(PermanentError, match="no regular pattern"):
        detect(mask)


@settings(max_examples=40, deadline=None)
@given(st.integers(8, 96), st.integers(1, 12), st.integers(0, 2**32))
def test_every_mask_ends_in_a_consistent_pattern_or_a_verdict(n_y, n_z, seed):
    random = np.random.default_rng(seed)
    mask = random.random((n_z, n_y)) < random.choice([0.2, 0.5, 0.9, 0.99])
    try:
        found = detect(mask)
    except PermanentError as refused:
        assert refused.code is Code.INCOMPLETE_KSPACE  # noqa: PT017  (either end is right)
        return
    assert np.array_equal(found.acquired, mask)
    parts = found.missing.astype(int) + found.outside + mask
    assert (parts == 1).all()
    assert not (found.lattice & found.extent & ~mask).any()


def test_calibration_acquired_apart_is_told_as_such():
    mask = np.arange(60) % 3 == 0
    assert detect(mask).describe() == "R=3, no calibration lines"
    assert detect(mask).describe(separate_acs=24) == "R=3, 24 calibration lines acquired apart"


def test_a_plane_of_lines_says_which_axis_is_which():
    mask = np.zeros((24, 48), bool)
    for row, z in enumerate(range(0, 24, 2)):
        mask[z, row % 3 :: 3] = True
    mask[6:18, 12:36] = True
    assert detect(mask).describe() == "R=3x2 (ky x kz, CAIPI shift 1), 24 x 12 calibration lines (ky x kz)"
