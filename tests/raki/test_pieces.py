"""The parts: transforms, coil combination, optimiser, equations, noise maps."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mrirecon.contract.profiles import Method
from mrirecon.imaging.coil_combination import rss, walsh
from mrirecon.imaging.gfactor import pseudo_replicas
from mrirecon.kspace.detection import detect
from mrirecon.raki import lbfgs
from mrirecon.raki.equations import Region, held_back, normal_equations, solve, weigh
from mrirecon.raki.fft import image_to_kspace, kspace_to_image
from mrirecon.raki.grappa import GrappaWeights, Kernel, fit
from mrirecon.raki.holdout import Comparison, futile, network_wins
from mrirecon.raki.importance import importance
from mrirecon.raki.interpolate import interpolate
from mrirecon.raki.lines import Lines, calibration
from mrirecon.raki.network import initial


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 6), st.integers(1, 17), st.integers(1, 17), st.integers(0, 99))
def test_transform_is_centred_unitary_and_invertible(n_z, n_y, n_x, seed):
    generator = torch.Generator().manual_seed(seed)
    image = torch.randn(2, n_z, n_y, n_x, dtype=torch.complex128, generator=generator)
    kspace = image_to_kspace(image, (-3, -2, -1))
    assert torch.allclose(kspace_to_image(kspace, (-3, -2, -1)), image)
    assert torch.allclose(torch.linalg.vector_norm(kspace), torch.linalg.vector_norm(image))
    point = torch.zeros(n_y, n_x, dtype=torch.complex128)
    point[n_y // 2, n_x // 2] = 1
    assert torch.allclose(image_to_kspace(point), torch.full_like(point, (n_y * n_x) ** -0.5))


def test_adaptive_combination_recovers_object_and_sensitivities(scan):
    images = torch.from_numpy(scan.objects[:, None] * scan.coils[None]).to(torch.complex64)
    combined = walsh(images)
    norm = torch.linalg.vector_norm(combined.csm, dim=1)
    assert torch.allclose(norm, torch.ones_like(norm), atol=1e-4)
    inside = torch.from_numpy(np.abs(scan.objects) > 0.5)
    assert torch.allclose(combined.image.abs()[inside], rss(images)[inside], rtol=0.01)
    true = torch.from_numpy(scan.coils / np.linalg.norm(scan.coils, axis=0)).to(torch.complex64)
    overlap = (true.conj()[None] * combined.csm).sum(dim=1).abs()
    assert overlap[inside].min() > 0.99
    # The object's own phase is kept, but for one smooth map the coils define.
    turned = walsh(images * torch.exp(torch.tensor(0.9j))).image
    change = torch.angle(turned[inside] * combined.image[inside].conj())
    assert change.std() < 1e-3


def test_adaptive_in_three_dimensions_keeps_the_signal(volume):
    images = kspace_to_image(torch.from_numpy(volume.kspace), (-3, -2, -1))
    combined = walsh(images, window=5)
    inside = torch.from_numpy(np.abs(volume.objects) > 0.5)
    assert combined.image.shape == (1, 24, 48, 40)
    assert torch.allclose(combined.image.abs()[inside], rss(images)[inside], rtol=0.15)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 5), st.integers(2, 8), st.integers(0, 999))
def test_lbfgs_solves_independent_problems_and_never_rises(problems, size, seed):
    generator = torch.Generator().manual_seed(seed)
    matrix = torch.randn(problems, size, size, generator=generator)
    matrix = matrix @ matrix.mT + torch.eye(size)
    target = torch.randn(problems, size, generator=generator)

    def objective(x):
        d = x - target
        return 0.5 * (d[:, None] @ matrix @ d[..., None])[:, 0, 0]

    losses = []
    x = lbfgs.minimise(
        objective, torch.zeros(problems, size), 60, watch=lambda _, __, loss: losses.append(loss)
    )
    curve = torch.stack(losses)
    assert (curve[1:] <= curve[:-1]).all()
    assert (curve[-1] < 1e-4 * curve[0] + 1e-6).all()
    assert torch.allclose(x, target, atol=0.05)


def test_one_linear_layer_trained_with_the_ridge_term_reaches_grappa(scan):
    """Same loss, same ridge: the optimiser's answer agrees with the closed form within 1 % of its norm."""
    acs = torch.from_numpy(scan.kspace[:1, :, 0, 34:62])
    region, kernel = weigh(acs, 3), Kernel(2, 5, 0.1)
    closed = fit(region, kernel)
    gram, _ = normal_equations(region, kernel.by, kernel.bx)
    ridge = kernel.ridge * float(gram.diagonal(dim1=1, dim2=2).real.mean())
    blocks = list(region.blocks(kernel.by, kernel.bx))
    patches = torch.cat([patch * weight for patch, _, weight in blocks], dim=2)
    targets = torch.cat([target * weight for _, target, weight in blocks], dim=2)
    total = float(targets.abs().square().sum())
    shape = closed.weights.shape

    def objective(flat):
        weights = torch.view_as_complex(flat.reshape(*shape, 2))
        residual = torch.view_as_real(targets - weights @ patches).square().sum()
        return (residual + ridge * flat.square().sum())[None] / total

    start = torch.zeros(1, 2 * closed.weights.numel())
    flat = lbfgs.minimise(objective, start, 150)
    trained = torch.view_as_complex(flat.reshape(*shape, 2))
    difference = torch.linalg.vector_norm(trained - closed.weights) / torch.linalg.vector_norm(closed.weights)
    assert difference < 0.01


def test_calibration_equations_are_the_lines_they_name():
    n_line, n_kx, r = 15, 6, 3
    ramp = torch.arange(n_line).to(torch.complex64)[None, None, :, None] * torch.ones(1, 2, 1, n_kx)
    for by in (2, 4):
        sources, targets = calibration(ramp, r, by)
        for position in range(sources.shape[2]):
            assert sources[0, :by, position, 0].real.tolist() == [position + r * line for line in range(by)]
            upper = position + (by // 2 - 1) * r
            wanted = [upper + step for step in range(1, r) for _ in range(2)]
            assert targets[0, :, position, 0].real.tolist() == wanted


@settings(max_examples=60, deadline=None)
@given(st.integers(4, 40), st.integers(2, 6), st.integers(0, 5), st.sampled_from([2, 4]))
def test_prediction_lands_between_its_sources(n, r, offset, by):
    """A kernel that interpolates a linear ramp puts every line where the ramp has it."""
    offset %= r
    lines = Lines(n, r, offset)
    ramp = torch.arange(n).to(torch.complex64)[None, None, :, None].expand(1, 1, n, 3)
    sampled = torch.zeros(1, 1, n, 3, dtype=torch.complex64)
    sampled[:, :, offset::r] = ramp[:, :, offset::r]
    sources = lines.sources(sampled, by)
    upper, lower = sources[:, by // 2 - 1], sources[:, by // 2]
    predicted = torch.stack([upper + (lower - upper) * step / r for step in range(1, r)], dim=1)
    out = sampled.clone()
    wanted = torch.ones(n, dtype=torch.bool)
    wanted[offset::r] = False
    lines.place(out, predicted, wanted)
    last = offset + (lines.gaps - 2) * r
    inner = slice(offset, last + 1)
    assert torch.allclose(out[:, :, inner], ramp[:, :, inner], atol=1e-4)


def test_folds_share_out_the_readout():
    for n_kx in (24, 33, 216):
        folds = torch.stack([held_back(n_kx, fold) for fold in range(4)])
        assert (folds.sum(dim=0) == 1).all()
        assert folds.float().mean(dim=1).max() < 0.4


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 9999))
def test_importance_weights_are_a_distribution_over_what_is_kept(seed):
    generator = torch.Generator().manual_seed(seed)
    power = torch.rand(2, 6, 40, generator=generator).pow(6) + 1e-9
    keep = torch.rand(power.shape, generator=generator) < 0.3
    missing = torch.rand(2, 9, 40, generator=generator).pow(9)
    weights = importance(power, keep, missing)
    assert (weights >= 0).all()
    assert (weights[~keep] == 0).all()
    assert float(weights.sum()) == pytest.approx(1, abs=1e-4)


def test_importance_follows_the_gaps():
    power = torch.logspace(-4, 0, 400)[None, None]
    keep = torch.ones_like(power, dtype=torch.bool)
    weak = importance(power, keep, torch.full((1, 5, 50), 1e-4))
    strong = importance(power, keep, torch.full((1, 5, 50), 1.0))
    assert (weak * power).sum() < 0.01 * (strong * power).sum()


def test_first_weights_depend_on_the_seed_alone():
    together, alone = initial(4, 3, [7, 8]), initial(4, 3, [8])
    for many, one in zip(together, alone, strict=True):
        assert torch.equal(many[1], one[0])
    assert not torch.equal(together[0][0], together[0][1])


def test_an_empty_slice_gives_an_empty_slice(tools):
    scan = tools.make_scan(n_slice=2, n_coil=3, n_y=40, n_x=24)  # small: training on zeros is slow
    mask = tools.lines(40, 3, 16)
    data = scan.kspace * mask[0, :, None]
    data[1] = 0
    for method in (Method.GRAPPA, Method.AUTO, Method.RAKI):
        done = interpolate(data, detect(mask), method=method)
        assert np.isfinite(done.kspace).all()
        assert (done.kspace[1] == 0).all()


def test_solve_shrinks_with_the_ridge():
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(1, 6, 50, dtype=torch.complex128, generator=generator)
    b = torch.randn(1, 2, 50, dtype=torch.complex128, generator=generator)
    norms = [
        float(torch.linalg.vector_norm(solve(a @ a.mH, b @ a.mH, ridge))) for ridge in (1e-6, 1e-2, 1, 100)
    ]
    assert norms == sorted(norms, reverse=True)
    exact = torch.linalg.lstsq(a[0].mT, b[0].mT).solution.mT
    assert torch.allclose(solve(a @ a.mH, b @ a.mH, 1e-9)[0].to(torch.complex128), exact, atol=1e-4)


def test_region_only_takes_equations_out():
    region = Region(torch.ones(1, 2, 12, 20, dtype=torch.complex64), 2, torch.ones(1, 10, 20))
    none = region.only(torch.zeros(1, 1, 20, dtype=torch.bool))
    gram, cross = normal_equations(none, 2, 5)
    assert gram.abs().sum() == 0
    assert cross.abs().sum() == 0


@pytest.mark.parametrize(
    ("grappa", "raki", "taken"),
    [
        ((0.30, 0.40), (0.28, 0.35), True),
        ((0.30, 0.40), (0.30, 0.39), False),  # better by less than the margin
        ((0.30, 0.80), (0.40, 0.40), False),  # vetoed by the calibration equations
        ((0.30, None), (0.28, None), True),  # no acquired line outside the calibration
        ((0.30, None), (0.31, None), False),
    ],
)
def test_the_network_is_taken_only_with_a_margin_and_no_veto(grappa, raki, taken):
    assert network_wins({"grappa": Comparison(*grappa), "raki": Comparison(*raki)}) is taken


@pytest.mark.parametrize(
    ("grappa", "raki", "missed"),
    [
        ((0.52, 0.62), (0.52, 0.39), None),  # the worst real case: brain, R=6, 24 lines
        ((0.95, 0.85), (0.98, 0.73), None),  # noise as strong as that: filling still gains 2.9 dB
        ((1.02, 0.96), (1.04, 0.92), 0.98),  # noise alone
        ((0.18, 0.97), (0.19, 0.78), 0.97),  # calibration lines of another scan
        ((1.05, None), None, 1.05),
        ((0.60, None), None, None),
    ],
)
def test_a_calibration_that_predicts_nothing_is_known_for_it(grappa, raki, missed):
    known = {"grappa": Comparison(*grappa)} | ({"raki": Comparison(*raki)} if raki else {})
    assert futile(known) == pytest.approx(missed)


# ------------------------------------------------------------------------------------------- noise maps


def test_noise_map_of_a_fully_sampled_scan_is_one(tools):
    scan = tools.make_scan(n_y=48, n_x=48)
    pattern, data = detect(np.ones((1, 48), bool)), torch.from_numpy(scan.kspace)
    csm = walsh(kspace_to_image(data, (-3, -2, -1))).csm
    maps = pseudo_replicas(interpolate(data, pattern), data, pattern, csm, replicas=60)
    assert maps.acceleration == 1
    assert float(maps.noise.mean()) == pytest.approx(1, abs=0.02)
    assert torch.equal(maps.noise, maps.gfactor)


def test_noise_map_of_zero_filling_is_the_share_of_lines(tools):
    scan = tools.make_scan(n_y=48, n_x=48)
    mask = tools.lines(48, 2, 0)
    pattern, data = detect(mask), torch.from_numpy(scan.kspace * mask[0, :, None])
    csm = torch.full((1, 8, 1, 48, 48), 8**-0.5, dtype=torch.complex64)
    done = interpolate(data, pattern, method=Method.ZERO_FILLED)
    maps = pseudo_replicas(done, data, pattern, csm, replicas=60, noise_scale=0.5)
    assert maps.acceleration == 2
    assert float(maps.noise.mean()) == pytest.approx(0.5**0.5, abs=0.02)
    with pytest.raises(ValueError, match="at least 50"):
        pseudo_replicas(done, data, pattern, csm, replicas=10)


def test_noise_map_of_grappa_agrees_with_its_weights(tools):
    """At R=2 with a separate calibration the noise power in k-space follows from the weights alone."""
    scan = tools.make_scan(n_y=48, n_x=48)
    mask = tools.lines(48, 2, 0)
    pattern, data = detect(mask), torch.from_numpy(scan.kspace * mask[0, :, None])
    acs = torch.from_numpy(scan.kspace[:, :, :, 12:36])
    done = interpolate(data, pattern, acs=acs, method=Method.GRAPPA)
    noise = torch.randn(1, 8, 1, 48, 48, dtype=torch.complex64, generator=torch.Generator().manual_seed(1))
    noise[..., ~torch.from_numpy(mask[0]), :] = 0
    filled = done.refill(noise)
    expected = float(filled.abs().square().sum() / (8 * 48 * 48))
    csm = torch.zeros(1, 8, 1, 48, 48, dtype=torch.complex64)
    powers = []
    for coil in range(8):
        csm.zero_()[:, coil] = 1
        powers.append(float(pseudo_replicas(done, data, pattern, csm, replicas=50).noise.square().mean()))
    assert float(np.mean(powers)) == pytest.approx(expected, rel=0.1)


def test_weights_of_a_kernel_know_what_they_need():
    weights = GrappaWeights(Kernel(4, 7, 0.1), torch.zeros(1, 4, 2 * 4 * 7, dtype=torch.complex64))
    assert (weights.by, weights.half) == (4, 3)
    out = weights.predict(torch.zeros(1, 8, 5, 20, dtype=torch.complex64))
    assert out.shape == (1, 4, 5, 14)
