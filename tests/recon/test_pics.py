"""pics: maps against the simulated coils, and what must not change the images."""

import numpy as np
import pytest
import torch

from mrirecon.contract.codes import PermanentError
from mrirecon.imaging import block_dct, espirit_maps, noise_level, pics
from mrirecon.imaging.fourier import resize_centred, to_image, to_kspace
from mrirecon.kspace.detection import detect
from mrirecon.phantom import coils, ellipses
from mrirecon.recon import contest

N, COILS = 64, 6


def sensitivities(n=N, scale=0.7):
    axis = (np.arange(n) - n // 2) * 2 / n * scale
    y, x = np.meshgrid(axis, axis, indexing="ij")
    maps = coils.loop_array(COILS, y, x) * np.exp(1j * (0.8 * x + 0.5 * y))
    inside = np.hypot(y, x) < 1
    return torch.from_numpy((maps / np.abs(maps[:, inside]).max()).astype(np.complex64))


def head(n=N):
    picture = ellipses.image(ellipses.SHEPP_LOGAN, n)
    return torch.from_numpy(picture.astype(np.float32))


def lines(r, acs, n=N):
    mask = np.zeros((1, n), bool)
    mask[0, ::r] = True
    mask[0, n // 2 - acs // 2 : n // 2 + acs // 2] = True
    return mask


def error(kspace, truth):
    image, wanted = (torch.linalg.vector_norm(to_image(k, (-2, -1)), dim=0) for k in (kspace, truth))
    return float((image - wanted).norm() / wanted.norm())


def test_maps_are_the_coils_up_to_what_cannot_be_known():
    maps, picture = sensitivities(), head()
    kspace = to_kspace(maps * picture, (-2, -1))
    centre = resize_centred(resize_centred(kspace, -1, 24), -2, 24)
    found = espirit_maps.coil_maps(centre, (N, N), 0.0)
    assert found.shape == (2, COILS, N, N)
    inside = picture > 0.05
    weights = torch.linalg.vector_norm(found, dim=1)
    assert float((weights[0][inside] > 0.99).float().mean()) > 0.98
    assert float((weights[1][inside] > 0).float().mean()) < 0.1, "one map explains an object that fits"
    wanted = maps / torch.linalg.vector_norm(maps, dim=0)
    alike = (found[0].conj() * wanted).sum(0).abs()[inside]
    assert float(alike.quantile(0.05)) > 0.99
    # the phase reference is one combination of coils for the whole image: it does not jump
    phase = (found[0].conj() * wanted).sum(0)
    step = torch.angle(phase[1:] * phase[:-1].conj())[inside[1:] & inside[:-1]].abs()
    assert float(step.quantile(0.99)) < 0.5


@pytest.mark.parametrize("r", [2, 3])
def test_it_fills_what_was_not_acquired_and_keeps_what_was(r):
    truth = to_kspace(sensitivities() * head(), (-2, -1))
    rng = torch.Generator().manual_seed(0)
    truth = truth + 0.01 * torch.randn(truth.shape, generator=rng, dtype=torch.complex64)
    pattern = detect(lines(r, 16))
    known = truth * torch.from_numpy(pattern.acquired[0])[:, None]
    result = pics.reconstruct(known[None, :, None], pattern)
    filled = result.kspace[0, :, 0]
    assert torch.equal(filled[:, pattern.acquired[0]], truth[:, pattern.acquired[0]])
    assert error(filled, truth) < 0.25 * error(known, truth)


def test_a_field_of_view_smaller_than_the_head_takes_two_sets_of_maps():
    """The head is drawn over 1.5 fields of view; what lies outside folds in, as the scanner would see it."""
    big, n = 96, N
    seen = sensitivities(big) * head(big)
    rows = torch.arange(big) - big // 2 + n // 2
    folded = torch.zeros(COILS, n, big, dtype=torch.complex64)
    for row, target in enumerate(rows % n):
        folded[:, target] += seen[:, row]
    truth = to_kspace(resize_centred(folded, -1, big), (-2, -1))
    pattern = detect(lines(2, 20, n))
    known = truth * torch.from_numpy(pattern.acquired[0])[:, None]
    result = pics.reconstruct(known[None, :, None], pattern)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(espirit_maps, "SETS", 1)
        single = pics.reconstruct(known[None, :, None], pattern)
    assert error(result.kspace[0, :, 0], truth) < 0.7 * error(single.kspace[0, :, 0], truth)


@pytest.mark.parametrize("rz", [1, 2])
def test_a_volume_is_solved_plane_by_plane(rz):
    nz, ny, nx = 24, 40, 6
    z, y, x = (torch.linspace(-1, 1, n) for n in (nz, ny, nx))
    z, y, x = torch.meshgrid(z, y, x, indexing="ij")
    thing = ((z / 0.7) ** 2 + (y / 0.8) ** 2 + (x / 0.9) ** 2 < 1).to(torch.float32) * (1 + 0.5 * (y > 0.2))
    maps = torch.stack(
        [
            torch.exp(-((y - np.cos(a)) ** 2 + (z - np.sin(a)) ** 2) / 2) * torch.exp(1j * a * x)
            for a in np.arange(6)
        ]
    )
    truth = to_kspace((maps * thing).to(torch.complex64), (-3, -2, -1))
    mask = np.zeros((nz, ny), bool)
    mask[::rz, ::2] = True
    mask[4:20, 10:30] = True
    pattern = detect(mask)
    known = truth * torch.from_numpy(pattern.acquired)[..., None]
    result = pics.reconstruct(known[None], pattern)
    assert result.planes == nx, "the calibration block makes both masks two-dimensional"
    filled = result.kspace[0]
    assert torch.equal(filled[:, pattern.acquired], truth[:, pattern.acquired])
    assert (filled - truth).norm() < 0.35 * (known - truth).norm()


def test_calibration_acquired_apart_is_used():
    truth = to_kspace(sensitivities() * head(), (-2, -1))
    mask = np.zeros((1, N), bool)
    mask[0, ::2] = True
    pattern = detect(mask)
    known = truth * torch.from_numpy(pattern.acquired[0])[:, None]
    with pytest.raises(PermanentError, match="too_few_acs"):
        pics.reconstruct(known[None, :, None], pattern)
    apart = resize_centred(resize_centred(truth, -1, 32), -2, 20)[None, :, None]
    result = pics.reconstruct(known[None, :, None], pattern, acs=apart)
    assert error(result.kspace[0, :, 0], truth) < 0.25 * error(known, truth)


def scan(r=3, acs=20, noise=0.01, n=N):
    truth = to_kspace(sensitivities(n) * head(n), (-2, -1))
    rng = torch.Generator().manual_seed(1)
    truth = truth + noise * torch.randn(truth.shape, generator=rng, dtype=torch.complex64)
    pattern = detect(lines(r, acs, n))
    return truth, (truth * torch.from_numpy(pattern.acquired[0])[:, None])[None, :, None], pattern


def test_a_rerun_is_the_same_and_slices_do_not_depend_on_each_other():
    _, known, pattern = scan()
    both = torch.cat([known, 0.3 * known.flip(4)])
    once, again = (pics.reconstruct(both, pattern).kspace for _ in range(2))
    assert torch.equal(once, again)
    alone = pics.reconstruct(both[1:], pattern).kspace
    assert torch.equal(alone[0], once[1])


def test_scale_phase_and_order_of_the_coils_change_nothing():
    _, known, pattern = scan()
    plain = pics.reconstruct(known, pattern).kspace

    def apart(other):
        return float((other - plain).norm() / plain.norm())

    for exponent in (-40, 40):
        scaled = pics.reconstruct(known * 2.0**exponent, pattern).kspace * 2.0**-exponent
        assert torch.equal(scaled, plain), "a power of two is exact"
    for factor in (1e-12, 1e12):
        assert apart(pics.reconstruct(known * factor, pattern).kspace / factor) < 1e-3
    turn = np.exp(0.7j)
    assert apart(pics.reconstruct(known * turn, pattern).kspace / turn) < 1e-3
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    assert apart(pics.reconstruct(known[:, order], pattern).kspace[:, order.argsort()]) < 1e-3


def test_lines_outside_the_extent_stay_empty_and_an_empty_slice_is_one():
    _, known, pattern = scan()
    assert not pics.reconstruct(torch.zeros_like(known), pattern).kspace.any()
    half = known.clone()
    half[:, :, :, 50:] = 0
    mask = pattern.acquired.copy()
    mask[:, 50:] = False
    filled = pics.reconstruct(half, detect(mask)).kspace
    assert not filled[:, :, :, 52:].any()


def test_partial_fourier_is_filled_within_the_model():
    truth, known, pattern = scan(r=2, acs=20)
    mask = pattern.acquired.copy()
    mask[:, 48:] = False
    half = known * torch.from_numpy(mask)[None, None, :, :, None]
    found = detect(mask)
    empty = pics.reconstruct(half, found).kspace[0, :, 0]
    filled = pics.reconstruct(half, found, one_sided=True).kspace[0, :, 0]
    assert not empty[:, 48:].any()
    assert error(filled, truth) < 0.7 * error(empty, truth)


def test_many_coils_give_the_image_by_fewer_virtual_ones(monkeypatch):
    truth, known, pattern = scan(r=2)
    all_coils = pics.reconstruct(known, pattern).kspace[0, :, 0]
    monkeypatch.setattr(pics, "MOST_COILS", 5)
    monkeypatch.setattr(pics, "VIRTUAL_COILS", 5)
    virtual = pics.reconstruct(known, pattern).kspace[0, :, 0]
    assert not torch.equal(virtual, all_coils)
    assert error(virtual, truth) < 1.1 * error(all_coils, truth)
    monkeypatch.setattr(pics, "VIRTUAL_COILS", 2)
    assert error(pics.reconstruct(known, pattern).kspace[0, :, 0], truth) > 1.5 * error(all_coils, truth)
    assert torch.equal(virtual[:, pattern.acquired[0]], truth[:, pattern.acquired[0]])


def test_shrinkage_keeps_a_phased_constant_and_large_coefficients():
    phase = torch.exp(1j * torch.linspace(-1, 1, 37 * 29)).reshape(1, 1, 37, 29)
    flat = 3.0 * phase
    for side in (4, 8):
        kept = block_dct.shrink(flat, phase, torch.tensor([100.0]), side, (5, 11))
        assert float((kept - flat).abs().max()) < 1e-5, (
            "the mean of a block is spared, at every size and seam"
        )
        noise = torch.randn(1, 1, 37, 29, generator=torch.Generator().manual_seed(0), dtype=torch.complex64)
        none = block_dct.shrink(noise, torch.ones_like(phase), torch.tensor([0.0]), side, (3, 2))
        assert float((none - noise).abs().max()) < 1e-5
        gone = block_dct.shrink(1j * flat, phase, torch.tensor([100.0]), side, (0, 0))
        assert float(gone.abs().max()) < 1e-5, "the imaginary part is not spared"


def test_noise_is_found_and_made_white():
    rng = torch.Generator().manual_seed(3)
    mix = torch.randn((4, 4), generator=rng, dtype=torch.complex64) * 0.3 + torch.eye(4)
    noise = torch.einsum("ab,blx->alx", mix, torch.randn((4, 40, 200), generator=rng, dtype=torch.complex64))
    lines_ = noise.clone()
    lines_[:, :, 60:140] *= 30.0  # the object
    found = noise_level.estimate(lines_)
    white = torch.einsum("ab,blx->alx", found.whiten, noise).reshape(4, -1)
    covariance = white @ white.mH / white.shape[1]
    assert float((covariance / covariance.diagonal().mean() - torch.eye(4)).abs().max()) < 0.15
    assert found.sigma == pytest.approx(float(covariance.diagonal().real.mean().sqrt()), rel=0.15)
    assert torch.allclose(found.whiten @ found.unwhiten, torch.eye(4, dtype=torch.complex64), atol=1e-5)


@pytest.mark.slow
def test_it_is_above_an_independent_espirit_with_a_wavelet_penalty():
    """sigpy's own maps, operators and solver on the same samples."""
    import sigpy.mri.app

    truth, known, pattern = scan(r=3, acs=24, n=96)
    weights = np.broadcast_to(pattern.acquired[0][:, None], (96, 96)).astype(np.float32)
    samples = known[0, :, 0].numpy()
    maps = sigpy.mri.app.EspiritCalib(samples, calib_width=24, show_pbar=False).run()
    picture = sigpy.mri.app.L1WaveletRecon(
        samples, maps, 0.005 * np.abs(samples).max(), weights=weights, max_iter=60, show_pbar=False
    ).run()
    theirs = to_kspace(torch.from_numpy((maps * picture).astype(np.complex64)), (-2, -1))
    theirs[:, pattern.acquired[0]] = truth[:, pattern.acquired[0]]
    ours = pics.reconstruct(known, pattern).kspace[0, :, 0]
    assert error(ours, truth) < error(theirs, truth) < error(known[0, :, 0], truth)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "r", "acs", "floor"),
    [
        ("brain7_labmidas", 4, 24, 37.5),
        ("brain7_labmidas", 6, 24, 34.8),
        ("phantom16_pulseq128", 4, 24, 41.4),
        ("phantom16_pulseq128", 6, 24, 40.7),
    ],
)
def test_real_scans_are_above_bart(shared_data, evaluate, name, r, acs, floor):
    """PSNR floors in dB; BART (ecalib -m2, pics -l1 -r .005 -i 30) reaches 36.6 and 32.6 on the brain."""
    truth = evaluate.load_scan(str(shared_data / "scans" / "multicoil" / f"{name}.npz"))
    truth = truth if truth.ndim == 3 else truth[0]
    known, mask, _ = evaluate.undersample(truth, r, acs)
    result = pics.reconstruct(torch.from_numpy(known.astype(np.complex64))[None, :, None], detect(mask[None]))
    image = evaluate.rss(evaluate.ifft2c(result.kspace[0, :, 0].numpy()))
    score = evaluate.score_image(image, evaluate.rss(evaluate.ifft2c(truth)))
    assert score["psnr"] > floor


@pytest.mark.parametrize(
    ("errors", "taken"),
    [
        ({"grappa": 0.2, "raki": 0.1, "pics": 0.05}, True),
        ({"grappa": 0.2, "raki": 0.1, "pics": 0.104}, True),
        ({"grappa": 0.2, "raki": 0.1, "pics": 0.11}, False),
        ({"grappa": 0.002, "raki": 0.0006, "pics": 0.0001}, False),
        ({"grappa": 0.002, "pics": 0.001}, True),
    ],
)
def test_pics_is_taken_where_held_back_lines_agree_and_something_is_to_be_gained(errors, taken):
    assert contest.pics_wins(errors) is taken


@pytest.mark.parametrize("mask", [lines(3, 24), np.ones((12, 1), bool) & (lines(2, 16, 32) | False)])
def test_lines_are_held_back_from_the_ends_of_the_calibration_block_alone(mask):
    pattern = detect(mask)
    held, left = contest.hold_back(pattern)
    assert left is not None
    assert not (held & pattern.lattice).any(), "the lattice stays as the scan has it"
    assert (left.acquired | held == pattern.acquired).all()
    assert not (left.acquired & held).any()
    low, high = pattern.acs_y
    assert held[:, low : low + 4].any()
    assert held[:, high - 4 : high].any()
    assert not held[:, left.acs_y[0] : left.acs_y[1]].any()
