"""What every interpolation must keep, and how good it must be on data whose truth is known."""

import numpy as np
import pytest
import torch

from mrirecon.contract.codes import Code, PermanentError
from mrirecon.contract.profiles import Method
from mrirecon.kspace.detection import detect
from mrirecon.raki.interpolate import choose, interpolate

FILLING = [Method.GRAPPA, Method.RAKI, Method.AUTO]


def test_fully_sampled_is_the_identity_and_trains_nothing(scan):
    for method in (Method.AUTO, Method.RAKI, Method.GRAPPA, Method.ZERO_FILLED):
        done = interpolate(scan.kspace, detect(np.ones((1, 96), bool)), method=method)
        assert done.kspace is scan.kspace
        assert done.network is None
        assert done.refill(scan.kspace) is scan.kspace


@pytest.mark.parametrize("method", [Method.GRAPPA, Method.RAKI, Method.ZERO_FILLED])
@pytest.mark.parametrize(("r", "offset"), [(2, 0), (3, 1), (4, 3)])
def test_acquired_samples_are_bit_exact_and_the_rest_is_filled(scan, tools, method, r, offset):
    mask = tools.lines(96, r, 24, offset)
    data = scan.kspace[:1] * mask[0, :, None]
    done = interpolate(data, detect(mask), method=method, seed=1)
    assert done.kspace.dtype == np.complex64
    assert np.array_equal(done.kspace[:, :, mask], data[:, :, mask])
    if method is Method.ZERO_FILLED:
        assert np.array_equal(done.kspace, data)
    else:
        assert (done.kspace[:, :, ~mask] != 0).all()
        assert np.isfinite(done.kspace).all()


def test_partial_fourier_stays_empty(scan, tools):
    mask = tools.lines(96, 2, 24)
    mask[0, 72:] = False
    pattern = detect(mask)
    done = interpolate(scan.kspace * mask[0, :, None], pattern, method=Method.RAKI)
    assert (done.kspace[:, :, pattern.outside] == 0).all()
    assert (done.kspace[:, :, pattern.missing] != 0).all()


@pytest.mark.parametrize(
    ("r", "acs"),
    [(4, 24), pytest.param(2, 24, marks=pytest.mark.slow), pytest.param(4, 40, marks=pytest.mark.slow)],
)
def test_methods_in_order_of_quality(scan, tools, r, acs):
    mask = tools.lines(96, r, acs)
    truth = tools.magnitude(scan.kspace)
    score = {}
    for method in (Method.ZERO_FILLED, *FILLING):
        done = interpolate(scan.kspace * mask[0, :, None], detect(mask), method=method)
        score[method] = tools.psnr(tools.magnitude(done.kspace), truth)
    assert score[Method.GRAPPA] > score[Method.ZERO_FILLED] + 6
    assert score[Method.RAKI] > score[Method.GRAPPA] - 0.1
    assert score[Method.AUTO] > score[Method.GRAPPA] - 0.1


@pytest.mark.parametrize(("noise", "strong"), [(0.003, False), (0.03, True)])
def test_the_ridge_of_the_grown_calibration_follows_the_noise(tools, noise, strong):
    """With the ridge that noisy scans need, RAKI is under GRAPPA where there is little noise."""
    scan = tools.make_scan(n_y=96, n_x=96, noise=noise, seed=3)
    mask = tools.lines(96, 4, 24)
    reference = tools.magnitude(scan.kspace)
    score = {}
    for method in (Method.GRAPPA, Method.RAKI):
        done = interpolate(scan.kspace * mask[..., None], detect(mask), method=method)
        score[method] = tools.psnr(tools.magnitude(done.kspace), reference)
    assert (done.choice.grown_ridge >= 0.1) is strong
    assert done.network["grown_ridge"] == done.choice.grown_ridge
    assert score[Method.RAKI] > score[Method.GRAPPA]


def test_weighted_equations_beat_plain_ones(scan, tools):
    """The variance weighting is what carries high accelerations; plain least squares is far behind."""
    from mrirecon.raki.equations import Region, weigh
    from mrirecon.raki.grappa import Kernel, fill, fit
    from mrirecon.raki.lines import Lines

    mask = tools.lines(96, 4, 40)
    data = torch.from_numpy(scan.kspace * mask[0, :, None])[:, :, 0]
    acs, truth = data[:, :, 28:68], tools.magnitude(scan.kspace)
    plain = Region(acs, 4, torch.ones(2, 36, 96))
    found = {}
    for name, region in (("plain", plain), ("weighted", weigh(acs, 4))):
        filled = fill(data, Lines(96, 4, 0), torch.from_numpy(~mask[0]), fit(region, Kernel(2, 9, 0.03)))
        found[name] = tools.psnr(tools.magnitude(filled[:, :, None]), truth)
    assert found["weighted"] > found["plain"] + 1


def test_what_raki_fills_is_not_what_grappa_fills(scan, tools):
    mask = tools.lines(96, 4, 24)
    grappa, raki = (
        interpolate(scan.kspace[:1] * mask[0, :, None], detect(mask), method=method)
        for method in (Method.GRAPPA, Method.RAKI)
    )
    one, other = (done.kspace[:, :, :, ~mask[0]] for done in (grappa, raki))
    assert np.linalg.norm(one - other) > 0.1 * np.linalg.norm(one)  # measured: 0.25
    truth = tools.magnitude(scan.kspace[:1])
    gain = tools.psnr(tools.magnitude(raki.kspace), truth) - tools.psnr(tools.magnitude(grappa.kspace), truth)
    assert gain > 0.5  # dB; measured: 1.1
    assert raki.network["nonlinear_share"][0] > 0.3  # measured: 0.86


def test_auto_records_errors_and_a_reason(scan, tools):
    mask = tools.lines(96, 4, 24)
    done = interpolate(scan.kspace * mask[0, :, None], detect(mask), method=Method.AUTO)
    assert set(done.choice.holdout_errors) == {"grappa", "raki"}
    assert all(0 < error < 1 for error in done.choice.holdout_errors.values())
    assert done.method in {Method.GRAPPA, Method.RAKI}
    assert "held-back data" in done.choice.reason
    assert len(done.choice.kernel_errors) >= 5
    assert str(done.choice.kernel) in done.choice.kernel_errors


def test_the_network_record_proves_a_training(scan, tools):
    mask = tools.lines(96, 4, 24)
    data = scan.kspace[:1] * mask[0, :, None]
    done = interpolate(data, detect(mask), method=Method.RAKI, seed=5)
    record = done.network
    assert record is not None
    assert record["networks"] == 1
    assert len(record["loss"]) == record["steps"] + 1
    assert record["loss"][-1] < record["loss"][0]
    assert record["seconds"] > 0
    assert len(record["weights_sha256"]) == 64
    assert all(0 <= share <= 1 for share in record["nonlinear_share"])
    again = interpolate(data, detect(mask), method=Method.RAKI, seed=5)
    other = interpolate(data, detect(mask), method=Method.RAKI, seed=6)
    assert again.network["weights_sha256"] == record["weights_sha256"]
    assert other.network["weights_sha256"] != record["weights_sha256"]
    assert np.array_equal(again.kspace, done.kspace)


def test_grappa_is_equivariant_to_coil_order_and_global_phase(scan, tools):
    mask = tools.lines(96, 3, 24)
    data, pattern = scan.kspace * mask[0, :, None], detect(mask)
    base = interpolate(data, pattern, method=Method.GRAPPA)
    order = np.random.default_rng(0).permutation(8)
    permuted = interpolate(np.ascontiguousarray(data[:, order]), pattern, method=Method.GRAPPA)
    turned = interpolate((data * np.exp(0.7j)).astype(np.complex64), pattern, method=Method.GRAPPA)
    assert permuted.choice.kernel == turned.choice.kernel == base.choice.kernel
    scale = np.linalg.norm(base.kspace)
    # Equal but for the order of rounding.
    assert np.linalg.norm(permuted.kspace - base.kspace[:, order]) / scale < 2e-5
    assert np.linalg.norm(turned.kspace - base.kspace * np.exp(0.7j)) / scale < 2e-5


def test_raki_image_hardly_changes_with_coil_order_and_global_phase(scan, tools):
    mask = tools.lines(96, 4, 24)
    full = scan.kspace[:1]
    data, pattern, truth = full * mask[0, :, None], detect(mask), tools.magnitude(full)
    order = np.random.default_rng(0).permutation(8)
    scores = [
        tools.psnr(tools.magnitude(interpolate(one, pattern, method=Method.RAKI).kspace), truth)
        for one in (data, np.ascontiguousarray(data[:, order]), (data * np.exp(2.1j)).astype(np.complex64))
    ]
    assert max(scores) - min(scores) <= 0.1


def test_scale_of_the_data_does_not_matter(scan, tools):
    mask = tools.lines(96, 4, 24)
    data, pattern = scan.kspace[:1] * mask[0, :, None], detect(mask)
    one = interpolate(data, pattern, method=Method.RAKI)
    small = interpolate(data * np.float32(2.0**-30), pattern, method=Method.RAKI)
    assert np.linalg.norm(small.kspace * 2.0**30 - one.kspace) / np.linalg.norm(one.kspace) < 2e-3


def test_refill_uses_the_same_weights(scan, tools):
    mask = tools.lines(96, 4, 24)
    data, pattern = scan.kspace[:1] * mask[0, :, None], detect(mask)
    for method in (Method.GRAPPA, Method.RAKI):
        done = interpolate(data, pattern, method=method)
        assert np.array_equal(done.refill(data), done.kspace)
    grappa = interpolate(data, pattern, method=Method.GRAPPA)
    noise = np.random.default_rng(1).standard_normal((2, *data.shape)).astype(np.float32)
    noise = (noise[0] + 1j * noise[1]) * mask[0, :, None]
    together = grappa.refill((data + noise).astype(np.complex64))
    apart = grappa.refill(data) + grappa.refill(noise.astype(np.complex64))
    assert np.abs(together - apart).max() < 1e-4 * np.abs(together).max()


def test_batches_do_not_change_the_result(tools):
    scan = tools.make_scan(n_slice=3, n_y=64, n_x=48)
    mask = tools.lines(64, 3, 20)
    data, pattern = scan.kspace * mask[0, :, None], detect(mask)
    whole = interpolate(data, pattern, method=Method.RAKI)
    single = interpolate(data, pattern, method=Method.RAKI, budget_bytes=1)
    assert whole.network["networks"] == single.network["networks"] == 3
    assert np.linalg.norm(whole.kspace - single.kspace) / np.linalg.norm(whole.kspace) < 1e-3


@pytest.mark.parametrize("method", [Method.GRAPPA, Method.RAKI])
def test_a_scan_in_parts_by_one_choice_is_the_scan_in_one(tools, method):
    scan = tools.make_scan(n_slice=3, n_y=64, n_x=48)
    mask = tools.lines(64, 3, 20)
    data, pattern = scan.kspace * mask[0, :, None], detect(mask)
    whole = interpolate(data, pattern, method=method)
    choice = choose(data, pattern, method=method)
    assert choice == whole.choice
    for part in ([1], [0, 2]):
        done = interpolate(data[part], pattern, choice=choice, numbers=part)
        assert done.choice is choice
        assert np.linalg.norm(done.kspace - whole.kspace[part]) < 1e-3 * np.linalg.norm(done.kspace)


@pytest.mark.parametrize("method", [Method.GRAPPA, Method.AUTO])
@pytest.mark.parametrize("r", [2, 4])
def test_noise_predicts_nothing_and_a_scan_something(scan, tools, method, r):
    mask = tools.lines(96, r, 24)
    random = np.random.default_rng(r)
    noise = random.standard_normal((1, 6, 1, 96, 96)) + 1j * random.standard_normal((1, 6, 1, 96, 96))
    noise = noise.astype(np.complex64)
    nothing = choose(noise * mask[0, :, None], detect(mask), method=method, noise_variance=None)
    assert nothing.futile > 0.9
    something = choose(scan.kspace[:1] * mask[0, :, None], detect(mask), method=method)
    assert something.futile is None
    assert max(something.holdout_errors.values()) < 0.7


def test_calibration_of_another_scan_is_found_out(scan, tools):
    mask = tools.lines(96, 4, 24)
    other = tools.make_scan(n_slice=1, seed=7).kspace
    own, swapped = scan.kspace[:1] * mask[0, :, None], scan.kspace[:1] * mask[0, :, None]
    swapped[:, :, :, 36:60] = other[:, ::-1, :, 36:60]
    choices = [choose(data, detect(mask), method=Method.GRAPPA) for data in (own, swapped)]
    assert [choice.futile is None for choice in choices] == [True, False]


def test_tensors_come_back_as_tensors(scan, tools):
    mask = tools.lines(96, 2, 24)
    data = torch.from_numpy(scan.kspace[:1] * mask[0, :, None])
    done = interpolate(data, detect(mask), method=Method.GRAPPA)
    assert isinstance(done.kspace, torch.Tensor)
    assert isinstance(done.refill(data), torch.Tensor)


def test_separate_calibration_of_another_matrix(scan, tools):
    mask = tools.lines(96, 3, 0)
    data, truth = scan.kspace * mask[0, :, None], tools.magnitude(scan.kspace)
    acs = np.zeros((2, 8, 1, 48, 64), np.complex64)
    acs[:, :, :, 9:39] = scan.kspace[:, :, :, 33:63, 16:80]
    for method, gain in ((Method.GRAPPA, 6), (Method.RAKI, 6)):
        done = interpolate(data, detect(mask), acs=acs, method=method)
        assert np.array_equal(done.kspace[:, :, mask], data[:, :, mask])
        assert (
            tools.psnr(tools.magnitude(done.kspace), truth) > tools.psnr(tools.magnitude(data), truth) + gain
        )
    one = interpolate(data, detect(mask), acs=acs[:1], method=Method.GRAPPA)
    assert np.isfinite(one.kspace).all()


def test_too_few_calibration_lines_are_refused(scan, tools):
    mask = tools.lines(96, 4, 5)
    with pytest.raises(PermanentError) as caught:
        interpolate(scan.kspace * mask[0, :, None], detect(mask), method=Method.GRAPPA)
    assert caught.value.code is Code.TOO_FEW_ACS
    with pytest.raises(PermanentError) as caught:
        interpolate(scan.kspace, detect(tools.lines(96, 2, 24)), method=Method.PICS)
    assert caught.value.code is Code.BAD_SETTINGS


@pytest.mark.parametrize(
    ("along", "method"),
    [
        ("ky", Method.GRAPPA),
        ("kz", Method.GRAPPA),
        pytest.param("ky", Method.RAKI, marks=pytest.mark.slow),
        pytest.param("kz", Method.RAKI, marks=pytest.mark.slow),
    ],
)
def test_volume_accelerated_along_one_axis(volume, tools, along, method):
    mask = np.zeros((24, 48), bool)
    if along == "ky":
        mask[:, ::2] = True
        mask[:, 14:34] = True
    else:
        mask[::2] = True
        mask[6:18] = True
    data, truth = volume.kspace * mask[:, :, None], tools.magnitude(volume.kspace)
    done = interpolate(data, detect(mask), method=method)
    assert np.array_equal(done.kspace[:, :, mask], data[:, :, mask])
    before, after = (tools.psnr(tools.magnitude(k)[0], truth[0]) for k in (data, done.kspace))
    assert after > before + 5
    assert done.method is method


def test_a_small_volume_by_raki(tools):
    small = tools.make_scan(n_coil=6, n_z=8, n_y=40, n_x=32, noise=0.02)
    mask = np.zeros((8, 40), bool)
    mask[:, ::2] = True
    mask[:, 10:30] = True
    data, truth = small.kspace * mask[:, :, None], tools.magnitude(small.kspace)
    done = interpolate(data, detect(mask), method=Method.RAKI)
    assert np.array_equal(done.kspace[:, :, mask], data[:, :, mask])
    assert done.network["networks"] == 8
    assert np.array_equal(done.refill(data), done.kspace)
    assert (
        tools.psnr(tools.magnitude(done.kspace)[0], truth[0])
        > tools.psnr(tools.magnitude(data)[0], truth[0]) + 3
    )


def test_volume_whose_calibration_is_a_block(volume, tools):
    mask = np.zeros((24, 48), bool)
    mask[:, ::2] = True
    mask[4:20, 14:34] = True
    data, truth = volume.kspace * mask[:, :, None], tools.magnitude(volume.kspace)
    done = interpolate(data, detect(mask), method=Method.GRAPPA)
    assert np.array_equal(done.kspace[:, :, mask], data[:, :, mask])
    before, after = (tools.psnr(tools.magnitude(k)[0], truth[0]) for k in (data, done.kspace))
    assert after > before + 5


@pytest.mark.parametrize(("shift", "method"), [(0, Method.GRAPPA), (1, Method.AUTO)])
def test_two_dimensional_acceleration(volume, tools, shift, method):
    mask = np.zeros((24, 48), bool)
    for row, z in enumerate(range(0, 24, 2)):
        mask[z, (shift * row) % 2 :: 2] = True
    mask[6:18, 14:34] = True
    data, truth = volume.kspace * mask[:, :, None], tools.magnitude(volume.kspace)
    done = interpolate(data, detect(mask), method=method)
    assert done.method is Method.GRAPPA
    assert done.choice.futile is None
    assert np.array_equal(done.kspace[:, :, mask], data[:, :, mask])
    assert np.array_equal(done.refill(data), done.kspace)
    before, after = (tools.psnr(tools.magnitude(k)[0], truth[0]) for k in (data, done.kspace))
    assert after > before + 5
    if method is Method.GRAPPA:
        return
    assert "thinned along ky and kz" in done.choice.reason
    asked = choose(data, detect(mask), method=Method.RAKI)
    assert asked.method is Method.GRAPPA
    assert asked.reason.startswith("RAKI was asked for, but")
    noise = np.random.default_rng(0).standard_normal(data.shape).astype(np.complex64) * mask[:, :, None]
    assert choose(noise, detect(mask)).futile > 0.9


def test_a_plane_kernel_that_does_not_fit_is_refused(volume):
    mask = np.zeros((24, 48), bool)
    for row in range(24):
        mask[row, (2 * row) % 6 :: 6] = True
    mask[9:15, 16:32] = True
    with pytest.raises(PermanentError) as caught:
        interpolate(volume.kspace * mask[:, :, None], detect(mask), method=Method.GRAPPA)
    assert caught.value.code is Code.TOO_FEW_ACS
    assert "R=6" in caught.value.message


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="wants a CUDA device")
@pytest.mark.parametrize("method", [Method.GRAPPA, Method.RAKI])
def test_cuda_gives_what_the_cpu_gives(scan, tools, method):
    mask = tools.lines(96, 4, 24)
    data, pattern, truth = scan.kspace * mask[0, :, None], detect(mask), tools.magnitude(scan.kspace)
    cpu = interpolate(data, pattern, method=method, device="cpu").kspace
    cuda = interpolate(data, pattern, method=method, device="cuda").kspace
    limit = 1e-4 if method is Method.GRAPPA else 1e-2
    assert np.linalg.norm(cpu - cuda) / np.linalg.norm(cpu) < limit
    scores = [tools.psnr(tools.magnitude(one), truth) for one in (cpu, cuda)]
    assert abs(scores[0] - scores[1]) < 0.05
