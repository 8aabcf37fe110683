"""The hold-out is honest: what is held back reaches no fit, and nothing else is measured on.

Equations are spoiled, not samples: a sample is the target of one equation and a source of its neighbours.
"""

import pytest
import torch

from mrirecon.kspace.detection import detect
from mrirecon.raki import equations, grappa2d, growth, holdout, train
from mrirecon.raki.equations import held_back, normal_equations, weigh
from mrirecon.raki.grappa import GrappaWeights, Kernel, fit
from mrirecon.raki.lines import Lines, calibration
from mrirecon.raki.problem import Problem

R, N, ACS = 3, 96, (36, 60)
FOLD = 0
KERNEL = Kernel(2, 5, 0.01)


def spoiling(which):
    """Return :func:`calibration` whose targets at the readout samples ``which`` are large noise."""

    def spoiled(acs, r, by):
        sources, targets = calibration(acs, r, by)
        assert 0 < int(which.sum()) < which.numel() == targets.shape[-1]
        noise = torch.randn(targets.shape, dtype=targets.dtype, generator=torch.Generator().manual_seed(1))
        return sources, torch.where(which, 1e3 * noise * targets.abs().max(), targets)

    return spoiled


@pytest.fixture
def acs(scan):
    return torch.from_numpy(scan.kspace[:1, :, 0, slice(*ACS)]).clone()


@pytest.fixture
def problem(scan, acs):
    lines = Lines(N, R, 0)
    acquired = torch.zeros(N, dtype=torch.bool)
    acquired[::R] = True
    acquired[slice(*ACS)] = True
    full = torch.from_numpy(scan.kspace[:1, :, 0])
    return Problem(full * acquired[:, None], lines, acquired, ~acquired, acs, ACS)


@pytest.mark.parametrize("fold", range(equations.FOLDS))
def test_held_back_equations_reach_neither_the_variance_nor_the_fit(acs, monkeypatch, fold):
    held = held_back(N, fold)

    def fitted():
        region = weigh(acs, R, ~held[None, None])
        return region.weights, *normal_equations(region, 2, 5), *normal_equations(region, 2, 9)

    before = fitted()
    monkeypatch.setattr(equations, "calibration", spoiling(held))
    after = fitted()
    assert (before[0][..., held] == 0).all()
    assert (before[0][..., ~held] > 0).all()
    for one, other in zip(before, after, strict=True):
        assert torch.equal(one, other)
    # The test can fail: the kept equations do reach both.
    monkeypatch.setattr(equations, "calibration", spoiling(~held))
    for one, other in zip((before[0], before[2]), (fitted()[0], fitted()[2]), strict=True):
        assert not torch.allclose(one, other)


@pytest.fixture
def judged(monkeypatch):
    """The weights of every predictor that a hold-out measures, in order."""
    seen = []

    def error(_self, predictor):
        linear = predictor if isinstance(predictor, GrappaWeights) else predictor.linear
        curved = () if predictor is linear else (*predictor.convolutions, predictor.share)
        seen.append([linear.weights, *curved])
        return float(len(seen))

    monkeypatch.setattr(holdout.Judge, "error", error)
    monkeypatch.setattr(holdout.Judge, "inconsistency", lambda *_: None)
    return seen


def choose_kernel(problem):
    holdout.choose_kernel(problem, 1.0)


def choose_grown_ridge(problem):
    holdout.choose_grown_ridge(problem, Kernel(2, 5, 1e-3), 1.0)


def compare(problem):
    holdout.compare(problem, KERNEL, 0, 1.0, grown_ridge=0.04)


@pytest.mark.parametrize(
    ("choice", "candidates"), [(choose_kernel, 10), (choose_grown_ridge, 3), (compare, 2)]
)
def test_no_candidate_has_learned_from_what_it_is_measured_on(
    choice, candidates, problem, judged, monkeypatch
):
    monkeypatch.setattr(holdout, "KERNEL_FOLDS", (FOLD,))
    monkeypatch.setattr(holdout, "NETWORK_FOLD", FOLD)
    choice(problem)
    for module in (equations, train):
        monkeypatch.setattr(module, "calibration", spoiling(held_back(N, FOLD)))
    choice(problem)
    assert len(judged) == 2 * candidates
    for before, after in zip(judged[:candidates], judged[candidates:], strict=True):
        assert len(before) == len(after)
        for one, other in zip(before, after, strict=True):
            assert torch.equal(one, other)


def test_the_network_of_the_comparison_is_trained_at_all(problem, judged):
    compare(problem)
    grappa, raki = judged
    assert len(grappa) == 1
    assert not torch.equal(grappa[0], raki[0])
    assert raki[3].abs().sum() > 0


def test_the_judge_measures_on_what_was_held_back_alone(problem, monkeypatch):
    held = held_back(N, FOLD)
    predictor = fit(weigh(problem.acs, R, ~held[None, None]), KERNEL)
    judge = holdout.Judge(problem, FOLD, 1.0)
    error = judge.error(predictor)
    assert 0 < error < 1
    monkeypatch.setattr(holdout, "calibration", spoiling(~held))
    assert judge.error(predictor) == error
    monkeypatch.setattr(holdout, "calibration", spoiling(held))
    assert judge.error(predictor) != error


def test_a_grown_region_learns_nothing_from_the_held_back_blocks_of_any_line(problem):
    region, _ = growth.grow(problem, KERNEL, 0.04, fold=FOLD)
    assert region.kspace.shape[2] > problem.acs.shape[2]
    assert (region.weights[..., held_back(N, FOLD)] == 0).all()


def test_in_the_plane_too(volume, monkeypatch):
    mask = (torch.arange(24)[:, None] % 2 == 0) & (torch.arange(48) % 2 == 0)
    mask[6:18, 12:36] = True
    coset = grappa2d.cosets(detect(mask.numpy()), 4)[0]
    acs = torch.from_numpy(volume.kspace[:, :, 6:18, 12:36])
    held = held_back(acs.shape[4], FOLD)[2:-2]
    equations_of = grappa2d._equations

    def spoil(which):
        def spoiled(acs, coset):
            sources, targets, power = equations_of(acs, coset)
            where = which.repeat(targets.shape[-1] // which.numel())
            return sources, torch.where(where, torch.full_like(targets, 1e6), targets), power

        return spoiled

    (before,) = grappa2d.fit(acs, coset, (0.01,), FOLD)
    error = grappa2d.error(acs, before, FOLD)
    monkeypatch.setattr(grappa2d, "_equations", spoil(held))
    (after,) = grappa2d.fit(acs, coset, (0.01,), FOLD)
    assert torch.equal(before.weights, after.weights)
    assert grappa2d.error(acs, before, FOLD) != error
    monkeypatch.setattr(grappa2d, "_equations", spoil(~held))
    assert grappa2d.error(acs, before, FOLD) == error
