import tarfile
from dataclasses import replace

import h5py
import ismrmrd
import numpy as np
import pytest

from mrirecon.phantom.anatomy import head_slice
from mrirecon.phantom.coils import loop_array
from mrirecon.phantom.mrd import HEAD, Flag
from mrirecon.phantom.scanner import Protocol, full_kspace, pack, sampled_lines, simulate

SMALL = Protocol(matrix=(48, 40), fov_mm=(240.0, 200.0), n_slices=3, n_coils=4, acceleration=2, n_acs=12)


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    path = tmp_path_factory.mktemp("raw") / "scan.h5"
    simulate(path, SMALL)
    return path


def test_the_head_layout_is_the_libraries_own(raw):
    assert HEAD.itemsize == 340
    with ismrmrd.Dataset(raw, create_if_needed=False, mode="r") as file:
        acquisition = file.read_acquisition(40)
        assert acquisition.active_channels == 4
        assert acquisition.data.shape == (4, 80)
        header = ismrmrd.xsd.CreateFromDocument(file.read_xml_header())
    assert header.encoding[0].encodedSpace.matrixSize.x == 80
    assert header.encoding[0].parallelImaging.accelerationFactor.kspace_encoding_step_1 == 2


def test_flags_are_the_libraries_own():
    for flag in Flag:
        name = {"PHASE_CORRECTION": "PHASECORR_DATA", "NAVIGATION": "NAVIGATION_DATA"}.get(
            flag.name, flag.name
        )
        name = name.replace("NOISE_MEASUREMENT", "NOISE_MEASUREMENT")
        candidates = [f"ACQ_IS_{name}", f"ACQ_{name}"]
        assert flag.value in [getattr(ismrmrd, c) for c in candidates if hasattr(ismrmrd, c)], flag


def test_lines_slices_and_noise_are_where_the_protocol_says(raw):
    with h5py.File(raw) as file:
        heads = file["dataset/data"][:]["head"]
    noise = heads["flags"] & np.uint64(Flag.NOISE_MEASUREMENT.mask) > 0
    image = heads[~noise]
    assert noise.sum() == 32
    assert set(image["idx"]["slice"]) == {0, 1, 2}
    for slice_ in range(3):
        lines = image["idx"]["kspace_encode_step_1"][image["idx"]["slice"] == slice_]
        np.testing.assert_array_equal(np.sort(lines), np.flatnonzero(sampled_lines(48, 2, 12)))
    normal = image["slice_dir"][0]
    along = image["position"] @ normal
    assert np.allclose(np.unique(np.round(along, 3)), [-5, 0, 5])
    triad = np.stack([image["read_dir"][0], image["phase_dir"][0], normal])
    np.testing.assert_allclose(triad @ triad.T, np.eye(3), atol=1e-6)


def test_the_noise_has_the_promised_level(tmp_path):
    simulate(tmp_path / "noisy.h5", replace(SMALL, snr=0.5))
    with h5py.File(tmp_path / "noisy.h5") as file:
        table = file["dataset/data"][:]
    noise = np.stack([row["data"].view(np.complex64).reshape(4, -1) for row in table[:32]], axis=1).reshape(
        4, -1
    )
    edge = [
        row["data"].view(np.complex64).reshape(4, -1)[:, :4]
        for row in table[32:]
        if row["head"]["idx"]["kspace_encode_step_1"] in (0, 46)
    ]
    outer = np.concatenate(edge, axis=1)
    ratio = (np.abs(noise) ** 2).mean() / (np.abs(outer) ** 2).mean()
    assert 0.6 < ratio / (5.0 / 4.0 * 0.793) < 1.4


def test_the_archive_holds_the_file_and_nothing_of_the_machine(raw, tmp_path):
    pack(tmp_path / "scan.tar", [raw])
    with tarfile.open(tmp_path / "scan.tar") as tar:
        (member,) = tar.getmembers()
        assert tar.extractfile(member).read() == raw.read_bytes()
    assert (member.uid, member.gid, member.uname, member.mtime) == (0, 0, "", 0)


def test_the_same_protocol_gives_the_same_bytes(raw, tmp_path):
    simulate(tmp_path / "again.h5", SMALL)
    assert (tmp_path / "again.h5").read_bytes() == raw.read_bytes()


def test_the_object_is_seen_by_every_coil_and_not_outside_its_field_of_view():
    lines = full_kspace(SMALL, 1)
    images = np.fft.fftshift(
        np.fft.ifft2(np.fft.ifftshift(lines, axes=(-2, -1)), norm="ortho"), axes=(-2, -1)
    )
    power = (np.abs(images) ** 2).sum(axis=(-2, -1))
    assert power.min() > 0.2 * power.max()
    rss = np.sqrt((np.abs(images) ** 2).sum(0))
    assert rss[:, :18].max() < 0.2 * rss.max()


def test_the_head_has_tissue_where_a_head_has_it():
    picture = head_slice(0.1, 192)
    assert picture[:8].max() == 0
    assert 0.3 < picture[96, 60] < 0.9
    assert picture.max() > 0.8


def test_neighbouring_coils_differ_and_opposite_ones_differ_more():
    axis = np.linspace(-0.6, 0.6, 16)
    y, x = np.meshgrid(axis, axis, indexing="ij")
    maps = loop_array(6, y, x).reshape(6, -1)
    maps = maps / np.linalg.norm(maps, axis=1, keepdims=True)
    likeness = np.abs(maps @ maps.conj().T)
    assert likeness[0, 3] < likeness[0, 1] < 0.999
