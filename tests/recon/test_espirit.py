"""ESPIRiT: maps against the coils that were simulated, images against the object, and where one map fails."""

import numpy as np
import pytest
import torch

from mrirecon.contract.codes import PermanentError
from mrirecon.imaging import espirit
from mrirecon.imaging.fourier import resize_centred, to_image, to_kspace
from mrirecon.kspace.detection import detect
from mrirecon.phantom import coils, ellipses

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
    found = torch.from_numpy(espirit.coil_maps(centre, (N, N)))
    assert found.shape == (1, COILS, N, N), "one set of maps explains an object that fits its field of view"
    inside = picture > 0.05
    norms = torch.linalg.vector_norm(found[0], dim=0)
    assert float((norms[inside] > 0.99).float().mean()) > 0.98
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
    result = espirit.reconstruct(known[None, :, None], pattern)
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
    result = espirit.reconstruct(known[None, :, None], pattern)
    assert result.two_map_planes == 1
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(espirit, "SECOND_MAP_SHARE", 2.0)
        single = espirit.reconstruct(known[None, :, None], pattern)
    assert single.two_map_planes == 0
    assert error(result.kspace[0, :, 0], truth) < 0.7 * error(single.kspace[0, :, 0], truth)


@pytest.mark.parametrize("rz", [1, 2])
def test_a_volume_is_solved_readout_position_by_readout_position(rz):
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
    result = espirit.reconstruct(known[None], pattern)
    assert result.planes == nx
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
        espirit.reconstruct(known[None, :, None], pattern)
    apart = resize_centred(resize_centred(truth, -1, 32), -2, 20)[None, :, None]
    result = espirit.reconstruct(known[None, :, None], pattern, acs=apart)
    assert error(result.kspace[0, :, 0], truth) < 0.25 * error(known, truth)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "acs", "floor"),
    [("brain7_labmidas", 24, 34.4), ("brain7_labmidas", 40, 35.6), ("phantom16_pulseq128", 24, 39.3)],
)
def test_real_scans_reach_what_sigpy_alone_reached(shared_data, evaluate, name, acs, floor):
    """PSNR floors in dB: sigpy's own maps and the same penalty at R=4, measured before."""
    truth = evaluate.load_scan(str(shared_data / "scans" / "multicoil" / f"{name}.npz"))
    truth = truth if truth.ndim == 3 else truth[0]
    known, mask, _ = evaluate.undersample(truth, 4, acs)
    result = espirit.reconstruct(
        torch.from_numpy(known.astype(np.complex64))[None, :, None], detect(mask[None])
    )
    image = evaluate.rss(evaluate.ifft2c(result.kspace[0, :, 0].numpy()))
    score = evaluate.score_image(image, evaluate.rss(evaluate.ifft2c(truth)))
    assert score["psnr"] > floor
