"""Undersampled scans through the stage: the method told and why, and that batches do not matter."""

import json
import re

import h5py
import jsonschema
import numpy as np
import pytest
import torch

from mrirecon.contract.codes import PermanentError
from mrirecon.contract.profiles import Profile, profile
from mrirecon.contract.record import dumps, schema
from mrirecon.imaging import coil_combination, noise_maps, pics
from mrirecon.recon import batches, stage
from tests.recon.recon_cases import SCAN_ID, scan_file, slab
from tests.recon.test_reconstruct import all_lines, phantom, plain_rss, run


def thinned(kspace, r=2, acs=16):
    mask = np.zeros_like(all_lines(kspace))
    mask[..., ::r] = True
    ny = mask.shape[-1]
    mask[..., ny // 2 - acs // 2 : ny // 2 + acs // 2] = True
    return mask


def error(folder, truth):
    with h5py.File(folder / "image.h5") as file:
        return float(np.linalg.norm(file["image"] - truth) / np.linalg.norm(truth))


@pytest.fixture(scope="module")
def scan(tmp_path_factory):
    kspace = phantom(n_slice=3, n_coil=6, ny=56, nx=48)
    path = scan_file(tmp_path_factory.mktemp("scan") / "k.h5", kspace, thinned(kspace))
    return path, plain_rss(kspace)


@pytest.fixture(scope="module")
def auto(scan, tmp_path_factory):
    out = tmp_path_factory.mktemp("auto") / "out"
    return out, run(scan[0], out, profile())


def test_auto_says_what_it_took_and_why(auto):
    _, record = auto
    assert record["method"] == "pics"
    assert set(record["holdout_errors"]) == {"grappa", "raki", "pics"}
    assert record["holdout_errors"]["pics"] == min(record["holdout_errors"].values())
    assert all(0 < value < 1 for value in record["holdout_errors"].values())
    assert "GRAPPA" in record["method_reason"]
    assert not any("interpolated" in warning for warning in record["warnings"])
    assert record["network"] is None
    assert record["quality"]["espirit_residual"] < 0.2
    assert record["acceleration"] == {"ky": 2, "kz": 1, "caipi_shift": 0}
    assert record["acs_lines"] >= 16
    assert any(step["step"] == "interpolation" for step in record["preprocessing"])


def test_the_quality_maps_lie_beside_the_image(scan, tmp_path):
    out = tmp_path / "out"
    record = run(scan[0], out, Profile(name="test", version=1, method="grappa"))
    with h5py.File(out / "image.h5") as file:
        g_factor, noise = file["maps/g_factor"][()], file["maps/noise_sd"][()]
        assert g_factor.shape == noise.shape == file["image"].shape[1:]
    assert np.isfinite(g_factor).all()
    assert 0.5 < record["quality"]["g_factor_mean"] < 4
    assert record["quality"]["g_factor_replicas"] == 50
    assert record["quality"]["noise"] == "measured"
    assert record["quality"]["snr_median"] > 1


def test_a_network_proves_that_it_was_trained(scan, tmp_path):
    record = run(
        scan[0], tmp_path / "out", Profile(name="test", version=1, method="raki", g_factor_replicas=0)
    )
    network = record["network"]
    assert network["steps"] > 0
    assert network["loss"][-1] < network["loss"][0]
    assert network["networks"] == 3
    assert len(network["weights_sha256"]) == 64
    page = (tmp_path / "out/report.html").read_text()
    assert network["weights_sha256"] in page
    assert "polyline" in page


@pytest.mark.parametrize("method", ["grappa", "raki", "pics", "auto"])
def test_slices_may_be_batched_as_memory_wants(tmp_path, monkeypatch, method):
    """One choice for the scan: its images are the same whatever memory let go together."""
    kspace = phantom(n_slice=3, n_coil=6, ny=56, nx=48)
    # slices that would each choose another kernel: one empty, one of little signal
    kspace[:, 0] *= 1e-3
    kspace[:, 2] *= 0.05
    random = np.random.default_rng(5)
    kspace = kspace + np.float32(0.5) * (
        random.standard_normal(kspace.shape) + 1j * random.standard_normal(kspace.shape)
    )
    path = scan_file(tmp_path / "k.h5", kspace.astype(np.complex64), thinned(kspace))
    chosen = Profile(name="test", version=1, method=method, g_factor_replicas=0)
    together = run(path, tmp_path / "together", chosen)
    monkeypatch.setattr(batches, "CPU_BYTES", 1)
    apart = run(path, tmp_path / "apart", chosen)
    images = []
    for name in ("together", "apart"):
        with h5py.File(tmp_path / name / "image.h5") as file:
            images.append(file["image"][()])
    tolerance = 5e-3 if method == "raki" else 1e-5  # rounding, which a training amplifies
    assert np.linalg.norm(images[0] - images[1]) < tolerance * np.linalg.norm(images[0])
    for key in ("method", "method_reason", "holdout_errors", "preprocessing"):
        assert together[key] == apart[key], key
    if method == "raki":
        assert apart["network"]["networks"] == together["network"]["networks"] == 3
        assert len(apart["network"]["kept_step"]) == 3


def test_filled_is_better_than_empty_and_a_rerun_the_same(scan, tmp_path):
    errors = {}
    for method in ("zero-filled", "grappa", "raki", "pics"):
        chosen = Profile(name="test", version=1, method=method, g_factor_replicas=0)
        record = run(scan[0], tmp_path / method, chosen)
        assert record["method"] == method
        errors[method] = error(tmp_path / method, scan[1])
    for method in ("grappa", "raki", "pics"):
        assert errors[method] < 0.5 * errors["zero-filled"], errors
    run(scan[0], tmp_path / "again", Profile(name="test", version=1, method="raki", g_factor_replicas=0))
    for name in ("image.h5", "image.nii.gz", "dicom/001_0002.dcm"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "raki" / name).read_bytes(), name


def test_calibration_acquired_apart(tmp_path):
    kspace = phantom(n_slice=2, n_coil=6, ny=56, nx=48)
    mask = np.zeros_like(all_lines(kspace))
    mask[..., ::2] = True
    bare = scan_file(tmp_path / "bare.h5", kspace, mask)
    chosen = Profile(name="test", version=1, method="grappa", g_factor_replicas=0)
    with pytest.raises(PermanentError, match="too_few_acs"):
        run(bare, tmp_path / "refused", chosen)
    acs = 0.5 * kspace[:, :, :, :, 16:40]  # another receiver gain, and padded to a matrix of its own
    padded = np.zeros((*acs.shape[:4], 32, 48), np.complex64)
    padded[:, :, :, :, 4:28] = acs
    lines = np.zeros((1, 2, 1, 32), bool)
    lines[..., 4:28] = True
    path = scan_file(tmp_path / "k.h5", kspace, mask, acs=(padded, lines))
    record = run(path, tmp_path / "out", chosen)
    assert record["acs_lines"] == 24
    assert record["sampling"]["acs_separate"]
    zero = run(path, tmp_path / "zero", Profile(name="test", version=1, method="zero-filled"))
    assert zero["method"] == "zero-filled"
    assert error(tmp_path / "out", plain_rss(kspace)) < 0.5 * error(tmp_path / "zero", plain_rss(kspace))


@pytest.mark.parametrize(("coils", "folded"), [(1, True), (2, False)])
def test_fewer_coils_than_the_acceleration_are_said_first(tmp_path, coils, folded):
    kspace = phantom(n_slice=1, n_coil=6, ny=56, nx=48)[:, :, :coils]
    path = scan_file(tmp_path / "k.h5", kspace, thinned(kspace))
    record = run(
        path, tmp_path / "out", Profile(name="test", version=1, method="grappa", g_factor_replicas=0)
    )
    assert record["method"] == "grappa"
    assert any("folded anatomy" in line for line in record["warnings"][:1]) is folded


@pytest.mark.parametrize("method", ["auto", "fast"])
def test_a_scan_of_noise_is_said_first_on_the_page_and_in_the_record(tmp_path, method):
    shape = phantom(n_slice=2, n_coil=6, ny=56, nx=48).shape
    random = np.random.default_rng(0)
    noise = (random.standard_normal(shape) + 1j * random.standard_normal(shape)).astype(np.complex64)
    path = scan_file(tmp_path / "k.h5", noise, thinned(noise))
    record = run(path, tmp_path / "out", profile("fast") if method == "fast" else profile())
    assert record["status"] == "done"
    first, *others = record["warnings"]
    assert first.startswith("Do not rely on the interpolated lines")
    assert re.search(r"misses (9\d|100) %", first)
    assert min(record["holdout_errors"].values()) > 0.9
    assert not any("interpolated" in other for other in others), "once"
    assert first in (tmp_path / "out/report.html").read_text()


@pytest.mark.parametrize(("r", "acs", "folded"), [(6, 24, True), (6, 40, False), (4, 24, False)])
def test_folding_on_a_real_brain_is_warned_of(shared_data, tmp_path, r, acs, folded):
    """GRAPPA leaves arcs across the brain at R=6 with 24 calibration lines, and none to speak of else."""
    full = np.load(shared_data / "scans/multicoil/brain7_labmidas.npz")["kspace"].astype(np.complex64)
    kspace = full[None, None, :, None]
    path = scan_file(tmp_path / "k.h5", kspace, thinned(kspace, r, acs), whitened=False)
    chosen = Profile(name="test", version=1, method="grappa", g_factor_replicas=0)
    record = run(path, tmp_path / "out", chosen)
    assert any("folded anatomy" in warning for warning in record["warnings"]) is folded


def test_fewer_coils_than_pics_needs_are_said_and_another_method_is_taken(tmp_path):
    kspace = phantom(n_slice=1, n_coil=6, ny=56, nx=48)[:, :, :3]
    path = scan_file(tmp_path / "k.h5", kspace, thinned(kspace))
    for method in ("pics", "auto"):
        record = run(
            path, tmp_path / method, Profile(name="test", version=1, method=method, g_factor_replicas=0)
        )
        assert record["method"] in {"grappa", "raki"}
        assert "needs at least 4 coils, the scan has 3" in record["method_reason"]
        assert any("another method made the images" in line for line in record["warnings"]) is (
            method == "pics"
        )


def test_virtual_coils_are_in_the_record(scan, tmp_path, monkeypatch):
    chosen = Profile(name="test", version=1, method="pics")
    for most, told in ((6, None), (5, 4)):
        monkeypatch.setattr(pics, "MOST_COILS", most)
        monkeypatch.setattr(pics, "VIRTUAL_COILS", 4)
        record = run(scan[0], tmp_path / str(most), chosen)
        step = next(one for one in record["preprocessing"] if one["step"] == "interpolation")
        assert step.get("virtual_coils") == told


def test_images_with_sampling_of_their_own(tmp_path):
    """As in interleaved dynamic scans: each repetition starts at another line."""
    kspace = phantom(n_image=2, n_slice=1, n_coil=6, ny=56, nx=48)
    mask = thinned(kspace)
    mask[1, ..., ::2], mask[1, ..., 1::2] = thinned(kspace, r=60)[1, ..., ::2], True
    mask[1, ..., 0] = False
    path = scan_file(tmp_path / "k.h5", kspace, mask)
    record = run(
        path, tmp_path / "out", Profile(name="test", version=1, method="grappa", g_factor_replicas=0)
    )
    assert any("sampled in 2 different ways" in warning for warning in record["warnings"])
    truth = plain_rss(kspace)
    with h5py.File(tmp_path / "out/image.h5") as file:
        for image in range(2):
            assert np.linalg.norm(file["image"][image] - truth[image]) < 0.15 * np.linalg.norm(truth[image])


def test_noise_that_was_not_measured_is_estimated_and_said(tmp_path):
    kspace = 7e-4 * phantom(n_slice=1, n_coil=6, ny=56, nx=48)
    path = scan_file(tmp_path / "k.h5", kspace, thinned(kspace), whitened=False)
    record = run(path, tmp_path / "out", Profile(name="test", version=1, method="grappa"))
    assert record["quality"]["noise"] == "assumed white"
    assert "snr_median" not in record["quality"]
    assert 0.5 < record["quality"]["g_factor_mean"] < 4


def test_estimated_noise_is_that_of_the_samples():
    noise = 3.0 * torch.randn(
        2, 4, 1, 64, 64, dtype=torch.complex64, generator=torch.Generator().manual_seed(1)
    )
    from mrirecon.kspace.detection import detect

    assert noise_maps.estimated_noise(noise, detect(np.ones((1, 64), bool))) == pytest.approx(3.0, rel=0.03)


def test_many_coils_combine_as_all_of_them_would():
    rng = np.random.default_rng(0)
    y, x = np.meshgrid(np.linspace(-1, 1, 40), np.linspace(-1, 1, 36), indexing="ij")
    maps = np.stack(
        [np.exp(-((y - np.cos(a)) ** 2 + (x - np.sin(a)) ** 2)) * np.exp(1j * a) for a in range(24)]
    )
    noise = rng.normal(size=maps.shape) + 1j * rng.normal(size=maps.shape)
    images = torch.from_numpy((20 * maps * (1 + y * x) + noise).astype(np.complex64))[None, :, None]
    few, all_ = coil_combination.adaptive(images), coil_combination.walsh(images)
    torch.testing.assert_close(few.image.abs(), all_.image.abs(), rtol=0.05, atol=1.0)
    norms = torch.linalg.vector_norm(few.csm, dim=1)
    torch.testing.assert_close(norms, torch.ones_like(norms), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(coil_combination.adaptive_image(images), few.image)
    torch.testing.assert_close((few.csm.conj() * images).sum(1), few.image, rtol=1e-3, atol=1e-2)


def test_accelerated_partial_fourier_is_interpolated_first(tmp_path):
    kspace = phantom(n_slice=1, n_coil=6, ny=64, nx=48, noise=0.005)
    mask = thinned(kspace, acs=20)
    mask[..., 46:] = False
    path = scan_file(tmp_path / "k.h5", kspace, mask, kx_range=(0, 48))
    truth = plain_rss(kspace)
    for name, fill in (("filled", "pocs"), ("empty", "zero-fill")):
        chosen = Profile(name="test", version=1, method="grappa", g_factor_replicas=0, partial_fourier=fill)
        record = run(path, tmp_path / name, chosen)
        steps = [step["step"] for step in record["preprocessing"]]
        assert steps.index("interpolation") < steps.index("partial fourier")
    assert error(tmp_path / "filled", truth) < 0.7 * error(tmp_path / "empty", truth)


@pytest.mark.slow
def test_a_large_set_takes_at_most_three_times_its_size(tmp_path):
    """240 MB of k-space in a process of its own; what the libraries take is measured and left out."""
    import subprocess
    import sys

    shape = (1, 30, 8, 1, 256, 256)
    rng = np.random.default_rng(0)
    base = (rng.normal(size=shape[2:]) + 1j * rng.normal(size=shape[2:])).astype(np.complex64)
    kspace = np.broadcast_to(base, shape)
    size = int(np.prod(shape)) * 8
    path = scan_file(tmp_path / "k.h5", kspace, thinned(kspace, 2, 24))
    code = (
        "import resource, sys\n"
        "from pathlib import Path\n"
        "from mrirecon.recon import stage\n"
        "from mrirecon.recon.outputs import report\n"
        "from mrirecon.contract.profiles import profile\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "stage.reconstruct(Path(sys.argv[1]), Path(sys.argv[2]), scan_id='0' * 16, profile=profile('fast'))\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, path, tmp_path / "out"], check=True, capture_output=True, text=True
    )
    assert int(done.stdout) < 3 * size + 1024**3  # and the interpolation's working memory, which is fixed


@pytest.mark.gpu
def test_a_gpu_makes_the_same_images(scan, tmp_path):
    if not torch.cuda.is_available():
        pytest.skip("there is no CUDA device")
    for method in ("grappa", "raki"):
        chosen = Profile(name="test", version=1, method=method)
        for device in ("cpu", "cuda"):
            record = stage.reconstruct(
                scan[0], tmp_path / method / device, scan_id=SCAN_ID, profile=chosen, device=device
            )
            jsonschema.validate(json.loads(dumps(record)), schema())
        with h5py.File(tmp_path / method / "cpu/image.h5") as cpu:
            truth = cpu["image"][()]
        assert error(tmp_path / method / "cuda", truth) < (1e-4 if method == "grappa" else 0.02)


@pytest.mark.parametrize(
    ("rz", "ry"),
    [pytest.param(1, 2, marks=pytest.mark.slow), pytest.param(2, 1, marks=pytest.mark.slow), (2, 2)],
)
def test_an_accelerated_volume_is_filled_mapped_and_placed(tmp_path, rz, ry):
    nz, ny, nx = 20, 32, 24
    z, y, x = np.meshgrid(*[np.linspace(-1, 1, n) for n in (nz, ny, nx)], indexing="ij")
    thing = ((z / 0.8) ** 2 + (y / 0.8) ** 2 + (x / 0.8) ** 2 < 1) * (1 + 0.5 * (y > 0.2) - 0.3 * (z < 0))
    angles = np.linspace(0, 2 * np.pi, 8, endpoint=False)
    maps = np.stack([np.exp(-((y - np.cos(a)) ** 2 + (z - np.sin(a)) ** 2) + 1j * a) for a in angles])
    axes = (-3, -2, -1)
    kspace = 50 * np.fft.fftshift(
        np.fft.fftn(np.fft.ifftshift(maps * thing, axes=axes), norm="ortho", axes=axes), axes=axes
    )
    rng = np.random.default_rng(0)
    kspace = kspace + (rng.normal(size=kspace.shape) + 1j * rng.normal(size=kspace.shape)) / np.sqrt(2)
    kspace = kspace[None, None].astype(np.complex64)
    mask = np.zeros((1, 1, nz, ny), bool)
    mask[..., ::rz, ::ry] = True
    mask[..., 4:16, 8:24] = True
    path = scan_file(
        tmp_path / "k.h5", kspace, mask, geometry=slab((nz, ny, nx), (40, 64, 48), angles=(0.2, 0.1, 0))
    )
    errors = {}
    truth = np.fft.fftshift(
        np.fft.ifftn(np.fft.ifftshift(kspace, axes=axes), norm="ortho", axes=axes), axes=axes
    )
    truth = np.sqrt((np.abs(truth) ** 2).sum(2))[0]
    for method in ("zero-filled", "grappa"):
        record = run(path, tmp_path / method, Profile(name="test", version=1, method=method))
        errors[method] = error(tmp_path / method, truth[None])
    assert errors["grappa"] < 0.6 * errors["zero-filled"]
    assert record["acceleration"]["kz"] == rz
    assert record["acceleration"]["ky"] == ry
    if rz > 1 and ry > 1:
        asked = run(
            path, tmp_path / "raki", Profile(name="test", version=1, method="raki", g_factor_replicas=0)
        )
        assert asked["method"] == "grappa"
        assert asked["method_reason"].startswith("RAKI was asked for, but")
        page = (tmp_path / "raki/report.html").read_text()
        assert asked["method_reason"] in page
        assert re.search(r"Method</dt>\s*<dd>GRAPPA</dd>", page)
        assert re.search(r"Calibration</dt>\s*<dd>16 × 12 lines</dd>", page)
    with h5py.File(tmp_path / "grappa/image.h5") as file:
        assert file["maps/g_factor"].shape == (nz, ny, nx)
        assert np.isfinite(file["maps/g_factor"]).all()


def test_nothing_is_written_outside_the_folder_of_the_results(tmp_path):
    """Homes and package folders stay as they are, caches of libraries included."""
    import os
    import subprocess
    import sys

    kspace = phantom(n_slice=1, n_coil=4, ny=40, nx=40)
    path = scan_file(tmp_path / "k.h5", kspace, thinned(kspace))
    home, scratch = tmp_path / "home", tmp_path / "scratch"
    home.mkdir()
    scratch.mkdir()
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from mrirecon.recon import stage\n"
        "from mrirecon.contract.profiles import profile\n"
        "stage.reconstruct(Path(sys.argv[1]), Path(sys.argv[2]), scan_id='0' * 16,"
        " profile=profile(method='pics'))\n"
    )
    clean = {
        name: value for name, value in os.environ.items() if not name.startswith(("XDG", "NUMBA", "HOME"))
    }
    subprocess.run(
        [sys.executable, "-c", code, path, tmp_path / "out"],
        check=True,
        capture_output=True,
        env={**clean, "HOME": str(home), "TMPDIR": str(scratch)},
    )
    assert list(home.rglob("*")) == []
    assert list(scratch.rglob("*")) == []
