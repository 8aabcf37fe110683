import h5py
import numpy as np
import pytest

from mrirecon.contract.codes import PermanentError
from mrirecon.kspace import geometry
from mrirecon.kspace.file import KSpaceInfo, create, open_kspace


def an_info(n_slices, matrix):
    return KSpaceInfo(
        scan_id="0" * 16,
        format="mrd",
        geometry=geometry.unknown(n_slices, matrix, (5.0, 240.0, 200.0)),
        images=[geometry.ImageIndex(contrast=1, echo_time_s=0.01)],
        kx_range=(3, 20),
        whitened=True,
        history=[{"step": "whiten", "scale": 0.793}],
        header={"field_strength_t": 2.89},
    )


def write(path, block, mask):
    n_coil, n_kz, n_ky, n_kx = block.shape
    with create(path, (1, 2, n_coil, n_kz, n_ky, n_kx)) as file:
        file.write(0, 1, block, mask)
        file.finish(an_info(2, (n_kz, n_ky, n_kx)))


@pytest.fixture
def block():
    rng = np.random.default_rng(1)
    return (rng.normal(size=(3, 1, 10, 20)) + 1j * rng.normal(size=(3, 1, 10, 20))).astype(np.complex64)


def test_what_was_written_is_read_and_lines_never_acquired_are_zero(tmp_path, block):
    mask = np.zeros((1, 10), bool)
    mask[0, ::3] = True
    write(tmp_path / "k.h5", block, mask)
    with open_kspace(tmp_path / "k.h5") as file:
        read = file.read(0, 1)
        np.testing.assert_array_equal(read[:, mask], block[:, mask])
        assert not read[:, ~mask].any()
        assert not file.read(0, 0).any()
        np.testing.assert_array_equal(file.mask[0, 1], mask)
        assert not file.mask[0, 0].any()
        assert file.info.history == an_info(2, (1, 10, 20)).history
        np.testing.assert_array_equal(file.info.geometry.position, an_info(2, (1, 10, 20)).geometry.position)
        assert file.info.geometry.fov_mm == (5.0, 240.0, 200.0)
        assert file.info.images[0].echo_time_s == 0.01
        assert file.info.kx_range == (3, 20)


def test_lines_never_acquired_take_no_space(tmp_path, block):
    mask = np.zeros((1, 10), bool)
    mask[0, 4] = True
    write(tmp_path / "k.h5", block, mask)
    with h5py.File(tmp_path / "k.h5") as file:
        assert file["kspace"].id.get_storage_size() == block[:, 0, 4].nbytes


def test_the_same_scan_gives_the_same_bytes(tmp_path, block):
    mask = np.ones((1, 10), bool)
    write(tmp_path / "a.h5", block, mask)
    write(tmp_path / "b.h5", block, mask)
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


def test_a_file_of_another_schema_is_refused(tmp_path, block):
    write(tmp_path / "k.h5", block, np.ones((1, 10), bool))
    with h5py.File(tmp_path / "k.h5", "r+") as file:
        file.attrs["schema_version"] = 99
    with pytest.raises(PermanentError, match="h5_schema"), open_kspace(tmp_path / "k.h5"):
        pass


def test_separate_calibration_serves_every_slice(tmp_path, block):
    acs = np.tile(block[None, None, :, :, :6], (1, 1, 1, 1, 1, 1))
    with create(tmp_path / "k.h5", (2, 2, *block.shape)) as file:
        file.write_acs(acs, np.ones((1, 1, 1, 6), bool))
        file.finish(an_info(2, (1, 10, 20)))
    with open_kspace(tmp_path / "k.h5") as file:
        np.testing.assert_array_equal(file.read_acs(1, 1), acs[0, 0])
