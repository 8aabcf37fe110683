"""The stage as the command line and the cloud call it: files, record, and that a rerun gives the same."""

import dataclasses
import json
import re

import h5py
import jsonschema
import nibabel
import numpy as np
import pydicom
import pytest
from PIL import Image

from mrirecon.contract.codes import PermanentError, RetryableError
from mrirecon.contract.ids import recon_id
from mrirecon.contract.profiles import RECON_VERSION, Profile, profile
from mrirecon.contract.record import dumps, schema
from mrirecon.kspace.geometry import ImageIndex, unknown
from mrirecon.phantom import coils, ellipses
from mrirecon.recon import batches, stage
from mrirecon.recon import pipeline as run_module
from tests.recon.recon_cases import GEOMETRIES, SCAN_ID, scan_file, two_d

RESULTS = {"image.h5", "image.nii.gz", "dicom", "preview.png", "report.html"}


def phantom(n_image=1, n_slice=3, n_coil=4, ny=48, nx=40, noise=0.02, seed=0):
    """Shepp-Logan as loops see it, ``(image, slice, coil, 1, ky, kx)`` with noise of unit variance."""
    rng = np.random.default_rng(seed)
    head = ellipses.image(ellipses.SHEPP_LOGAN, 64)[(64 - ny) // 2 :, (64 - nx) // 2 :][:ny, :nx]
    y, x = np.meshgrid((np.arange(ny) - ny // 2) * 2 / 64, (np.arange(nx) - nx // 2) * 2 / 64, indexing="ij")
    kspace = np.zeros((n_image, n_slice, n_coil, 1, ny, nx), np.complex64)
    for s in range(n_slice):
        seen = coils.loop_array(n_coil, y, x, z=0.1 * s) * (head + 0.05 * s) * np.exp(0.5j * x)
        for i in range(n_image):
            noisy = seen / np.abs(seen).max() * (1 - 0.2 * i) / noise
            noisy = noisy + (rng.normal(size=seen.shape) + 1j * rng.normal(size=seen.shape)) / np.sqrt(2)
            axes = (-2, -1)
            kspace[i, s, :, 0] = np.fft.fftshift(
                np.fft.fft2(np.fft.ifftshift(noisy, axes=axes), norm="ortho"), axes=axes
            )
    return kspace


def all_lines(kspace):
    return np.ones((*kspace.shape[:2], *kspace.shape[3:5]), bool)


def plain_rss(kspace):
    axes = (-2, -1)
    images = np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(kspace, axes=axes), norm="ortho"), axes=axes)
    return np.sqrt((np.abs(images) ** 2).sum(2))[:, :, 0]


def run(path, out, chosen=None, **options):
    record = stage.reconstruct(path, out, scan_id=SCAN_ID, profile=chosen or profile(), **options)
    jsonschema.validate(json.loads(dumps(record)), schema())
    assert {p.name for p in out.iterdir()} == RESULTS
    return record


def test_a_fully_sampled_scan_is_transformed_and_needs_no_network(tmp_path):
    kspace = phantom(n_image=2)
    geometry = two_d(3, (48, 40), (240, 200), angles=(0.2, -0.3, 0.1), gap=1)
    echoes = [ImageIndex(contrast=n, echo_time_s=0.005 * (n + 1)) for n in range(2)]
    path = scan_file(tmp_path / "k.h5", kspace, all_lines(kspace), geometry=geometry, images=echoes)
    record = run(path, tmp_path / "out")
    expected = plain_rss(kspace)
    with h5py.File(tmp_path / "out" / "image.h5") as file:
        np.testing.assert_allclose(file["image"], expected, rtol=1e-4, atol=1e-3)
        assert file["image"].dtype == np.float32
        assert file["complex"].dtype == np.complex64
        # combined by maps of unit norm, the complex image can only lose a little of what RSS adds up
        share = np.abs(file["complex"][0])[expected[0] > 10] / expected[0][expected[0] > 10]
        assert 0.97 < np.median(share) <= 1.0001
    read = nibabel.load(tmp_path / "out" / "image.nii.gz")
    np.testing.assert_allclose(np.asarray(read.dataobj), expected.transpose(3, 2, 1, 0), rtol=1e-4, atol=1e-3)
    files = [pydicom.dcmread(p) for p in sorted((tmp_path / "out" / "dicom").glob("0*"))]
    assert len(files) == 6
    assert len({f.SeriesInstanceUID for f in files}) == 2
    assert len({f.StudyInstanceUID for f in files}) == 1
    assert len({f.SOPInstanceUID for f in files}) == 6
    assert [float(f.EchoTime) for f in files] == [5, 5, 5, 10, 10, 10]
    assert np.corrcoef(files[1].pixel_array.ravel(), expected[0, 1].ravel())[0, 1] > 0.99999
    assert record["status"] == "done"
    assert record["network"] is None
    assert record["holdout_errors"] == {}
    assert record["sampling"]["fully_sampled"]
    assert record["quality"]["interpolated_energy"] == 0
    assert record["recon_id"] == recon_id(SCAN_ID, profile().settings(), RECON_VERSION)


def test_a_rerun_gives_the_same_bytes(tmp_path):
    kspace = phantom()
    path = scan_file(tmp_path / "k.h5", kspace, all_lines(kspace), geometry=two_d(3, (48, 40), (240, 200)))
    for name in ("a", "b"):
        run(path, tmp_path / name)
    for file in sorted((tmp_path / "a").rglob("*")):
        if file.is_file() and file.name != "report.html":  # the page tells how long it took
            assert file.read_bytes() == (tmp_path / "b" / file.relative_to(tmp_path / "a")).read_bytes(), (
                file.name
            )


def test_how_slices_are_batched_changes_nothing(tmp_path, monkeypatch):
    kspace = phantom(n_slice=5)
    path = scan_file(tmp_path / "k.h5", kspace, all_lines(kspace))
    run(path, tmp_path / "together")
    monkeypatch.setattr(batches, "CPU_BYTES", 2 * kspace[0, 0].nbytes)
    run(path, tmp_path / "apart")
    with h5py.File(tmp_path / "together/image.h5") as one, h5py.File(tmp_path / "apart/image.h5") as other:
        np.testing.assert_array_equal(one["image"], other["image"])
        np.testing.assert_allclose(one["complex"], other["complex"], rtol=1e-5, atol=1e-4)


def test_nothing_a_scanner_wrote_is_in_any_result(tmp_path):
    sentinel = "SENTINEL^JANE"
    kspace = phantom(n_slice=1)
    geometry = dataclasses.replace(two_d(1, (48, 40), (240, 200)), patient_position=sentinel)
    header = {
        "patient_name": sentinel,
        "manufacturer": f"SIEMENS {sentinel}",
        "model": sentinel,
        "sequence_type": sentinel,
        "field_strength_t": sentinel,
        "echo_train_length": sentinel,
        "repetition_times_s": [sentinel],
        "frame_of_reference": sentinel,
        "patient_position": sentinel,
    }
    path = scan_file(
        tmp_path / "k.h5",
        kspace,
        all_lines(kspace),
        geometry=geometry,
        header=header,
        ismrmrd_header=f"<ismrmrdHeader>{sentinel}</ismrmrdHeader>",
    )
    record = run(path, tmp_path / "out")
    assert sentinel not in dumps(record)
    for file in (tmp_path / "out").rglob("*"):
        if file.is_file():
            data = file.read_bytes()
            if file.name == "image.nii.gz":
                import gzip

                data = gzip.decompress(data)
            assert sentinel.encode() not in data, file.name
            assert b"JANE" not in data, file.name


def test_partial_fourier_is_filled_said_and_better_than_left_empty(tmp_path):
    kspace = phantom(n_slice=1, ny=64, nx=48, n_coil=3, noise=0.002)
    mask = all_lines(kspace)
    mask[..., :20] = False
    truth = plain_rss(kspace)
    path = scan_file(tmp_path / "k.h5", kspace, mask, kx_range=(0, 48))
    errors = {}
    for method in ("pocs", "homodyne", "zero-fill"):
        chosen = Profile(name="test", version=1, partial_fourier=method)
        record = run(path, tmp_path / method, chosen)
        with h5py.File(tmp_path / method / "image.h5") as file:
            errors[method] = np.linalg.norm(file["image"] - truth) / np.linalg.norm(truth)
        (step,) = [s for s in record["preprocessing"] if s["step"] == "partial fourier"]
        assert step["method"] == method
        assert step["covered"] == {"ky": 44 / 64}
        assert record["sampling"]["one_sided"] == {"ky": 0.6875}
        assert any("blurred" in w for w in record["warnings"]) == (method == "zero-fill")
    assert errors["pocs"] < 0.5 * errors["zero-fill"]
    assert errors["homodyne"] < 0.6 * errors["zero-fill"]


def test_phase_oversampling_and_resolution_follow_the_geometry(tmp_path):
    """Acquired 48 lines over 240 mm; wanted 60 voxels over 200 mm, of readout 40 to 60 over 200 mm."""
    kspace = phantom(n_slice=2)
    geometry = dataclasses.replace(
        two_d(2, (48, 40), (240, 200), angles=(0.4, 0, 0)),
        recon_matrix=(1, 60, 60),
        recon_fov_mm=(4.0, 200.0, 200.0),
    )
    path = scan_file(tmp_path / "k.h5", kspace, all_lines(kspace), geometry=geometry)
    record = run(path, tmp_path / "out")
    assert record["geometry"]["image_matrix"] == [2, 60, 60]
    names = [step["step"] for step in record["preprocessing"]]
    assert "field of view cropped" in names
    assert "zero-fill interpolation" in names
    with h5py.File(tmp_path / "out/image.h5") as file:
        image = file["image"][0, 0]
    # every third voxel of 200/60 mm is every second of 5 mm: both centres lie at N//2
    coarse = plain_rss(kspace)[0, 0]
    np.testing.assert_allclose(image[30::3, 30::3], coarse[24:44:2, 20::2], rtol=1e-3, atol=1e-2)
    file = pydicom.dcmread(next((tmp_path / "out/dicom").glob("0*")))
    assert [float(v) for v in file.PixelSpacing] == pytest.approx([200 / 60, 200 / 60])


def test_a_volume_is_transformed_along_the_partitions(tmp_path):
    rng = np.random.default_rng(3)
    shape = (1, 1, 2, 10, 24, 20)
    kspace = (rng.normal(size=shape) + 1j * rng.normal(size=shape)).astype(np.complex64)
    geometry = dataclasses.replace(
        GEOMETRIES["slab_oblique"], matrix=(10, 24, 20), recon_matrix=(8, 24, 20), recon_fov_mm=(20, 192, 240)
    )
    path = scan_file(tmp_path / "k.h5", kspace, all_lines(kspace), geometry=geometry)
    record = run(path, tmp_path / "out")
    axes = (-3, -2, -1)
    images = np.fft.fftshift(
        np.fft.ifftn(np.fft.ifftshift(kspace, axes=axes), axes=axes, norm="ortho"), axes=axes
    )
    expected = np.sqrt((np.abs(images[0, 0]) ** 2).sum(0))[1:9]
    with h5py.File(tmp_path / "out/image.h5") as file:
        np.testing.assert_allclose(file["image"][0], expected, rtol=1e-4, atol=1e-4)
    assert record["geometry"]["dimensions"] == 3
    files = [pydicom.dcmread(p) for p in sorted((tmp_path / "out/dicom").glob("0*"))]
    assert len(files) == 8
    assert files[0].MRAcquisitionType == "3D"


def test_the_page_stands_alone_and_puts_warnings_first(tmp_path):
    kspace = phantom(n_slice=2)
    path = scan_file(
        tmp_path / "k.h5",
        kspace,
        all_lines(kspace),
        warnings=["Slice 2 was <faint> & odd."],
        geometry=unknown(2, (1, 48, 40), (4.0, 240.0, 200.0)),
    )
    record = run(path, tmp_path / "out")
    page = (tmp_path / "out/report.html").read_text()
    assert not re.search(r"(src|href)=[\"'](?!data:)", page)
    assert "http" not in page
    assert "<script" not in page
    assert "Slice 2 was &lt;faint&gt; &amp; odd." in page
    assert "Left and right must not be read" in record["warnings"][0]
    assert page.index("Left and right") < page.index("data:image/png") < page.index("What was done")
    assert record["scan_id"] in page
    assert "width=device-width" in page
    assert "@media print" in page


def test_the_preview_has_true_proportions(tmp_path):
    kspace = phantom(n_slice=1)
    path = scan_file(
        tmp_path / "k.h5", kspace, all_lines(kspace), geometry=two_d(1, (48, 40), (120, 300))
    )  # voxels of 2.5 x 7.5 mm
    run(path, tmp_path / "out")
    with Image.open(tmp_path / "out/preview.png") as picture:
        assert picture.width / picture.height == pytest.approx(300 / 120, rel=0.01)
        assert len(set(picture.convert("L").resize((50, 20)).tobytes())) > 20


def test_an_empty_slice_or_a_missing_device_is_refused_in_a_sentence(tmp_path):
    kspace = phantom(n_slice=2)
    mask = all_lines(kspace)
    mask[0, 1] = False
    path = scan_file(tmp_path / "k.h5", kspace, mask)
    with pytest.raises(PermanentError, match="incomplete_kspace: Nothing was acquired of slice 2"):
        run(path, tmp_path / "out")
    with pytest.raises(PermanentError, match="bad_settings"):
        stage.choose_device("abacus")


def test_a_lack_of_memory_may_be_tried_again(tmp_path, monkeypatch):
    kspace = phantom(n_slice=1)
    path = scan_file(tmp_path / "k.h5", kspace, all_lines(kspace))

    def hungry(*_):
        raise MemoryError

    monkeypatch.setattr(run_module.coil_combination, "rss", hungry)
    with pytest.raises(RetryableError, match="out_of_memory"):
        run(path, tmp_path / "out")


def test_progress_is_told_in_order(tmp_path):
    kspace = phantom(n_slice=2)
    path = scan_file(tmp_path / "k.h5", kspace, all_lines(kspace))
    told = []
    run(path, tmp_path / "out", progress=lambda stage_, fraction, message="": told.append((stage_, fraction)))
    assert told[0] == ("reconstruct", 0.0)
    assert told[-1] == ("write", 1.0)
    for name in ("reconstruct", "write"):
        fractions = [fraction for stage_, fraction in told if stage_ == name]
        assert fractions == sorted(fractions)
