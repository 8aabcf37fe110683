"""The regression matrix: one case an acquisition feature, its k-space against the closed form of the
object."""

from __future__ import annotations

import numpy as np
import pytest

from mrirecon.decompress.preparation import prepare as readers
from mrirecon.kspace.file import open_kspace
from mrirecon.phantom.mrd import Flag
from tests.support.feature_scans import (
    DUMMY,
    LIMITS,
    RT_FEEDBACK,
    SURFACE,
    Scan,
    error,
    images,
    member,
    truth,
    write,
)

NAVIGATORS = [Flag.NAVIGATION.mask, Flag.PHASE_CORRECTION.mask, RT_FEEDBACK, DUMMY, SURFACE]
VOLUME = {"matrix": (12, 20, 24), "fov_mm": (60.0, 240.0, 200.0), "coils": 2}

CASES: dict[str, Scan] = {
    "full": Scan(),
    "full_odd": Scan(matrix=(1, 45, 39)),
    "full_odd_odd_oversampling": Scan(matrix=(1, 45, 40), os=1.7),
    "full_no_oversampling": Scan(os=1.0),
    "full_4x_oversampling": Scan(os=4.0),
    "R2_acs12": Scan(r=(2, 1), acs=12),
    "R3_acs12_oblique": Scan(r=(3, 1), acs=12, tilt=True),
    "R2_acs12_unflagged": Scan(r=(2, 1), acs=12, flag_acs=False),
    "R4_acs16_interleaved_5slices": Scan(
        r=(4, 1), acs=16, slices=5, order=[1, 3, 0, 2, 4], matrix=(1, 48, 32)
    ),
    "PF6_8": Scan(lines=(12, 48)),
    "PF6_8_late": Scan(lines=(0, 36)),
    "R2_PF6_8_PEres75_oblique": Scan(
        r=(2, 1),
        acs=12,
        lines=(12, 48),
        tilt=True,
        recon_matrix=(1, 64, 40),
        recon_fov_mm=(5.0, 240.0, 200.0),
    ),
    "PEos25_rectFOV": Scan(
        fov_mm=(5.0, 225.0, 200.0), recon_matrix=(1, 38, 40), recon_fov_mm=(5.0, 180.0, 200.0)
    ),
    "counted_from_8": Scan(first_line=8),
    "asymmetric_echo": Scan(echo=24),
    "asymmetric_echo_reversed": Scan(echo=24, reverse="all"),
    "reversed": Scan(reverse="all"),
    "reversed_odd_lines": Scan(reverse="odd"),
    "discard_pre7_post5": Scan(pre=7, post=5),
    "discard_pre7_reversed": Scan(pre=7, post=2, reverse="all"),
    "slices_3_reversed_labels_oblique": Scan(slices=3, order=[2, 1, 0], tilt=True),
    "contrasts_3": Scan(contrasts=3, matrix=(1, 24, 24)),
    "repetitions_4": Scan(repetitions=4, matrix=(1, 24, 24)),
    "sets_2_phases_3": Scan(sets=2, phases=3, matrix=(1, 24, 24)),
    "contrasts_2_repetitions_2_slices_3": Scan(contrasts=2, repetitions=2, slices=3, matrix=(1, 24, 24)),
    "averages_2": Scan(averages=[2]),
    "averages_partial": Scan(averages=[1, 3, 2]),
    "navigators_between": Scan(extra=NAVIGATORS),
    "3D_full": Scan(**VOLUME),
    "3D_R2": Scan(**VOLUME, r=(2, 1), acs=8),
    "3D_R2x2": Scan(**VOLUME, r=(2, 2), acs=8),
    "3D_R2x2_CAIPI1": Scan(**VOLUME, r=(2, 2), caipi=1, acs=8),
    "3D_PF6_8_both": Scan(**VOLUME, lines=(5, 20), partitions=(3, 12)),
    "header_says_no_oversampling": Scan(spoil={"encoded_x": 40, "encoded_fov_x": 200.0}),
    "header_half_points_full_fov": Scan(spoil={"encoded_x": 40}),
    "oversampling_already_removed": Scan(os=1.0, spoil={"encoded_x": 80, "encoded_fov_x": 400.0}),
    "PF6_8_centre_in_user_counter": Scan(lines=(12, 48), spoil={"centre": 18, "user": 24}),
    "user_counter_of_something_else": Scan(spoil={"user": 21}, lines=(0, 44)),
    "header_centre_outside": Scan(spoil={"centre": 0}),
}


@pytest.mark.parametrize("name", CASES)
def test_kspace_is_the_closed_form(name: str, tmp_path) -> None:
    scan = CASES[name]
    out = tmp_path / "kspace.h5"
    summary = readers.read([member(write(scan, tmp_path / "meas.h5"))], out, LIMITS)
    with open_kspace(out) as file:
        keys = [(i.contrast, i.repetition, i.phase, i.set) for i in file.info.images]
        assert keys == images(scan)
        assert file.shape == (len(keys), scan.slices, scan.coils, *scan.matrix)
        first, stop = file.info.kx_range
        for image in range(len(keys)):
            for place in range(scan.slices):
                assert np.array_equal(file.mask[image, place], scan.sampled())
                wanted = truth(scan, image, place)
                found = file.read(image, place)
                assert not found[:, ~scan.sampled()].any()
                n = scan.matrix[2]
                inner = slice(max(n // 4, first + 5 if first else 0), n - n // 4)
                assert error(found[..., inner], wanted[..., inner]) < (0.01 if first else 0.006)
                # where the samples end, cropping the field of view rings: no closed form has that
                assert error(found[..., first + 1 : stop], wanted[..., first + 1 : stop]) < 0.04
        _check_geometry(scan, file.info.geometry)
    assert (
        summary["acquisitions_digest"]
        == readers.inspect([member(tmp_path / "meas.h5")], LIMITS)["acquisitions_digest"]
    )


def _check_geometry(scan: Scan, geometry) -> None:
    read, phase, through = scan.directions()
    for place in range(scan.slices):
        at = 3.0 * read - 5.0 * phase + (20.0 + scan.gap_mm * place) * through
        assert np.allclose(geometry.position[place], at, atol=1e-4)
        assert np.allclose(geometry.read_dir[place], read, atol=1e-6)
        assert np.allclose(geometry.phase_dir[place], phase, atol=1e-6)
        assert np.allclose(geometry.slice_dir[place], through, atol=1e-6)
    assert geometry.matrix == scan.matrix
    assert np.allclose(geometry.fov_mm, scan.fov_mm)
    assert geometry.recon_matrix == (scan.recon_matrix or scan.matrix)
    assert np.allclose(geometry.recon_fov_mm, scan.recon_fov_mm or scan.fov_mm)


def _warnings(scan: Scan, tmp_path) -> str:
    return " ".join(readers.inspect([member(write(scan, tmp_path / "meas.h5"))], LIMITS)["warnings"])


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("header_says_no_oversampling", "gives 40 points along the readout, the readouts have 80"),
        ("header_half_points_full_fov", "gives 40 points along the readout, the readouts have 80"),
        ("oversampling_already_removed", "the oversampling had been removed before"),
        ("PF6_8_centre_in_user_counter", "centre at step 18 along ky, the readouts at step 24"),
        ("header_centre_outside", "the middle of the matrix was taken"),
        ("averages_partial", "acquired 1 to 3 times"),
    ],
)
def test_contradictions_are_reported(name: str, says: str, tmp_path) -> None:
    assert says in _warnings(CASES[name], tmp_path)


@pytest.mark.parametrize("name", ["full", "R2_PF6_8_PEres75_oblique", "3D_R2x2_CAIPI1", "asymmetric_echo"])
def test_plain_scans_raise_no_contradiction(name: str, tmp_path) -> None:
    assert _warnings(CASES[name], tmp_path).startswith("No noise measurement")


def test_asymmetric_echo_tells_what_was_sampled(tmp_path) -> None:
    out = tmp_path / "kspace.h5"
    readers.read([member(write(CASES["asymmetric_echo"], tmp_path / "meas.h5"))], out, LIMITS)
    with open_kspace(out) as file:
        # 24 of 40 oversampled points before the centre: 12 of 20
        assert file.info.kx_range == (8, 40)
