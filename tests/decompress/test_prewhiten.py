"""Whitened noise has the identity for its covariance, whatever order, dwell time or file it was measured
in."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mrirecon.contract.codes import Code, PermanentError
from mrirecon.decompress.preparation import prepare as readers
from mrirecon.decompress.preparation.prewhiten import covariance, whitener
from mrirecon.kspace.file import open_kspace
from mrirecon.phantom.mrd import Flag, MrdWriter
from tests.support.feature_scans import (
    DWELL_US,
    LIMITS,
    Scan,
    acquire,
    error,
    member,
    noise,
    truth,
    write,
    xml,
)

COILS = 4


def mixing(seed: int, coils: int = COILS) -> np.ndarray:
    rng = np.random.default_rng(seed)
    matrix = rng.normal(size=(coils, coils)) + 1j * rng.normal(size=(coils, coils))
    return np.linalg.cholesky(matrix @ matrix.conj().T + np.eye(coils))


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), coils=st.integers(1, 24), log_gain=st.floats(-6, 6))
def test_whitener_makes_the_covariance_the_identity(seed: int, coils: int, log_gain: float) -> None:
    root = 10**log_gain * mixing(seed, coils)
    cov = root @ root.conj().T
    w = whitener(cov, 10_000).astype(np.complex128)
    assert np.allclose(w @ cov @ w.conj().T, np.eye(coils), atol=2e-5)
    assert np.allclose(w, np.tril(w)), "a triangular solve leaves a triangle"


def noise_only_image(
    path, *, image_mixing, noise_mixing, noise_dwell, coils_of_noise, bandwidth=1.0, samples=96
):
    """Write a scan of pure noise, and its noise measurement into a second file with its own coil order."""
    scan = Scan(coils=COILS, matrix=(1, 128, 64))
    labels = [f"Head:{i}" for i in range(COILS)]
    image = MrdWriter()
    for ky, block in enumerate(noise(scan, 128, 128, 5, image_mixing)):
        image.add(
            block, kspace_encode_step_1=ky, sample_time_us=DWELL_US, measurement_uid=1, center_sample=64
        )
    image.write(path / "image.h5", xml(scan, labels, bandwidth))
    measured = MrdWriter()
    for block in noise(scan, 400, samples, 6, noise_mixing):
        measured.add(
            block[coils_of_noise],
            flags=Flag.NOISE_MEASUREMENT.mask,
            sample_time_us=noise_dwell,
            measurement_uid=2,
        )
    measured.write(path / "noise.h5", xml(scan, [labels[i] for i in coils_of_noise], bandwidth))
    return [member(path / "image.h5"), member(path / "noise.h5", index=1)]


@pytest.mark.parametrize("noise_dwell", [DWELL_US, 2.5, 8.0])
@pytest.mark.parametrize("order", [[0, 1, 2, 3], [2, 0, 3, 1]])
def test_image_noise_is_white_after_matching_coils_and_bandwidth(noise_dwell, order, tmp_path) -> None:
    root, bandwidth = mixing(1), 0.793
    # the receiver shows noise of its own bandwidth, less what its filter takes away
    gain = np.sqrt(DWELL_US / noise_dwell * bandwidth)
    members = noise_only_image(
        tmp_path,
        image_mixing=root,
        noise_mixing=gain * root,
        noise_dwell=noise_dwell,
        coils_of_noise=order,
        bandwidth=bandwidth,
    )
    readers.read(members, tmp_path / "kspace.h5", LIMITS)
    with open_kspace(tmp_path / "kspace.h5") as file:
        assert file.info.whitened
        found = covariance(file.read(0, 0).reshape(COILS, -1))
        step = next(s for s in file.info.history if s["step"] == "prewhiten")
    assert not step["own"]
    assert step["reordered"] == (order != sorted(order))
    assert step["noise_bandwidth"] == bandwidth
    # 8192 samples: the estimate itself scatters by about 1/sqrt(8192)
    assert np.abs(found - np.eye(COILS)).max() < 0.06


def test_more_coils_in_the_noise_measurement_than_in_the_image(tmp_path) -> None:
    scan = Scan(coils=2, matrix=(1, 32, 32))
    wide = Scan(coils=5)
    acquire(scan).write(tmp_path / "image.h5", xml(scan, ["b", "d"]))
    measured = MrdWriter()
    root = mixing(3, 5)
    for block in noise(wide, 50, 64, 2, root):
        measured.add(block, flags=Flag.NOISE_MEASUREMENT.mask, sample_time_us=DWELL_US)
    measured.write(tmp_path / "noise.h5", xml(wide, ["a", "b", "c", "d", "e"]))
    readers.read(
        [member(tmp_path / "image.h5"), member(tmp_path / "noise.h5", index=1)], tmp_path / "k.h5", LIMITS
    )
    both = (root @ root.conj().T)[np.ix_([1, 3], [1, 3])]
    with open_kspace(tmp_path / "k.h5") as file:
        assert file.info.whitened
        expected = np.einsum("ij,jzyx->izyx", np.linalg.inv(np.linalg.cholesky(both)), truth(scan, 0, 0))
        assert error(file.read(0, 0)[..., 8:24], expected[..., 8:24]) < 0.06


def test_own_noise_of_another_length_is_used(tmp_path) -> None:
    scan = Scan(coils=3, noise=40)
    root = mixing(2, 3)
    acquire(scan, mixing=root).write(tmp_path / "a.h5", xml(scan))
    readers.read([member(tmp_path / "a.h5")], tmp_path / "k.h5", LIMITS)
    wanted = np.einsum("ij,jzyx->izyx", np.linalg.inv(root), truth(scan, 0, 0))
    with open_kspace(tmp_path / "k.h5") as file:
        assert error(file.read(0, 0)[..., 10:30], wanted[..., 10:30]) < 0.06
        step = next(s for s in file.info.history if s["step"] == "prewhiten")
    assert step["noise_samples"] == 40 * 80


def test_noise_of_other_coils_is_not_used_and_said(tmp_path) -> None:
    scan = Scan(coils=2)
    acquire(scan).write(tmp_path / "image.h5", xml(scan, ["a", "b"]))
    measured = MrdWriter()
    for block in noise(scan, 20, 64, 2, np.eye(2)):
        measured.add(block, flags=Flag.NOISE_MEASUREMENT.mask)
    measured.write(tmp_path / "noise.h5", xml(scan, ["a", "x"]))
    found = readers.inspect([member(tmp_path / "image.h5"), member(tmp_path / "noise.h5", index=1)], LIMITS)
    assert not found["whitened"]
    assert any("of other coils" in sentence for sentence in found["warnings"])


def test_no_noise_measurement_leaves_the_data_as_they_are_and_says_so(tmp_path) -> None:
    scan = Scan()
    readers.read([member(write(scan, tmp_path / "a.h5"))], tmp_path / "k.h5", LIMITS)
    with open_kspace(tmp_path / "k.h5") as file:
        assert not file.info.whitened
        assert any("No noise measurement" in sentence for sentence in file.info.warnings)


@pytest.mark.parametrize("fault", ["dead coil", "too few samples", "all zero", "coils copied"])
def test_noise_that_cannot_be_whitened_is_refused(fault: str, tmp_path) -> None:
    scan = Scan(coils=6)
    writer = MrdWriter()
    count = 11 if fault == "too few samples" else 200
    block = noise(scan, 1, count, 2, mixing(1, 6))[0]
    if fault == "dead coil":
        block[2] = 0
    if fault == "all zero":
        block[:] = 0
    if fault == "coils copied":
        block[4] = 2j * block[1]
    writer.add(block, flags=Flag.NOISE_MEASUREMENT.mask, sample_time_us=DWELL_US, measurement_uid=scan.uid)
    acquire(scan, writer).write(tmp_path / "a.h5", xml(scan))
    with pytest.raises(PermanentError) as error_:
        readers.inspect([member(tmp_path / "a.h5")], LIMITS)
    assert error_.value.code is Code.NOISE_SINGULAR


def test_cropping_oversampling_keeps_noise_white(tmp_path) -> None:
    scan = Scan(coils=2, matrix=(1, 96, 80))
    writer = MrdWriter()
    for ky, block in enumerate(noise(scan, 96, 160, 5, np.eye(2))):
        writer.add(block, kspace_encode_step_1=ky, measurement_uid=1, center_sample=80)
    writer.write(tmp_path / "a.h5", xml(scan))
    readers.read([member(tmp_path / "a.h5")], tmp_path / "k.h5", LIMITS)
    with open_kspace(tmp_path / "k.h5") as file:
        found = file.read(0, 0).astype(np.complex128)
    lagged = [(found[..., lag:] * found[..., : 80 - lag].conj()).mean() for lag in range(4)]
    assert abs(lagged[0] - 1) < 0.03
    assert np.abs(lagged[1:]).max() < 0.03
