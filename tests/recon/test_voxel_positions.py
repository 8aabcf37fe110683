"""A voxel lies at one place: DICOM, NIfTI and HDF5 must name the same millimetres as the geometry."""

import dataclasses

import h5py
import nibabel
import numpy as np
import pydicom
import pytest

from mrirecon.kspace.geometry import unknown
from mrirecon.recon.outputs import dicom, hdf5, nifti, volume
from tests.recon.recon_cases import GEOMETRIES, a_facts, a_volume, same_places, truth, two_d

EACH = pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=GEOMETRIES.keys())


def corners(geometry):
    nz, ny, nx = volume.shape(geometry)
    return [
        (x, y, z) for x in (0, nx // 2, nx - 1) for y in (0, ny // 2, ny - 1) for z in (0, nz // 2, nz - 1)
    ]


@EACH
def test_nifti(tmp_path, geometry):
    values = a_volume(geometry)
    nifti.write(tmp_path / "image.nii.gz", geometry, [values], 1)
    read = nibabel.load(tmp_path / "image.nii.gz")
    np.testing.assert_array_equal(np.asarray(read.dataobj), values.T)
    for x, y, z in corners(geometry):
        ras = truth(geometry, x, y, z) * [-1, -1, 1]
        np.testing.assert_allclose((read.affine @ [x, y, z, 1])[:3], ras, atol=1e-3)
    sheared = abs(np.dot(geometry.slice_step_mm(), geometry.read_dir[0])) > 1e-6
    assert int(read.header["qform_code"]) == (0 if sheared else 1)
    if not sheared:
        np.testing.assert_allclose(read.get_qform(), read.get_sform(), atol=1e-3)
    assert read.header.get_xyzt_units()[0] == "mm"


@EACH
def test_dicom(tmp_path, geometry):
    values = a_volume(geometry)
    assert dicom.write_all(tmp_path, a_facts(geometry), lambda _: values) == len(values)
    files = [pydicom.dcmread(path) for path in sorted(tmp_path.iterdir())]
    assert same_places(files, geometry, values)
    step = np.linalg.norm(truth(geometry, 0, 0, 1) - truth(geometry, 0, 0, 0)) if len(values) > 1 else None
    if step:
        assert float(files[0].SpacingBetweenSlices) == pytest.approx(step, abs=1e-6)
    assert float(files[0].SliceThickness) == pytest.approx(geometry.voxel_mm[0])


@EACH
def test_hdf5(tmp_path, geometry):
    values = a_volume(geometry)
    with hdf5.create(tmp_path / "image.h5", geometry, 1) as file:
        file.put(0, 0, values, values.astype(np.complex64))
        file.describe(a_facts(geometry), {})
    with h5py.File(tmp_path / "image.h5") as file:
        np.testing.assert_array_equal(file["image"][0], values)
        for x, y, z in corners(geometry):
            expected = truth(geometry, x, y, z)
            np.testing.assert_allclose(
                (file["geometry/affine_lps"] @ np.array([x, y, z, 1.0]))[:3], expected, atol=1e-3
            )
        np.testing.assert_allclose(
            file["geometry/first_voxel_mm"][-1], truth(geometry, 0, 0, len(values) - 1)
        )


def test_slices_that_are_no_stack_keep_their_places_in_dicom_and_claim_none_in_nifti(tmp_path):
    flat = two_d(3, (16, 16), (160, 160))
    turned = flat.read_dir.copy()
    turned[1] = [0, 0, 1]
    localizer = dataclasses.replace(flat, read_dir=turned)
    uneven = dataclasses.replace(flat, position=flat.position * [[1, 1, 1], [1, 1, 1.3], [1, 1, 1]])
    for geometry in (localizer, uneven):
        assert not volume.stack(geometry).regular
        assert (
            int(nifti.header(geometry, 1)["sform_code"]) == int(nifti.header(geometry, 1)["qform_code"]) == 0
        )
        folder = tmp_path / str(id(geometry))
        folder.mkdir()
        values = a_volume(geometry)
        dicom.write_all(folder, a_facts(geometry), lambda _, values=values: values)
        files = [pydicom.dcmread(path) for path in sorted(folder.iterdir())]
        assert "SpacingBetweenSlices" not in files[0]
        assert same_places(files, geometry, values)


def test_what_is_not_known_is_said_and_not_claimed(tmp_path):
    geometry = unknown(3, (1, 16, 16), (5.0, 160.0, 160.0))
    head = nifti.header(geometry, 1)
    assert int(head["sform_code"]) == int(head["qform_code"]) == 0
    np.testing.assert_allclose(head.get_zooms(), (10, 10, 5))
    dicom.write_all(tmp_path, a_facts(geometry), lambda _: a_volume(geometry))
    for path in tmp_path.iterdir():
        ds = pydicom.dcmread(path)
        assert "NOT KNOWN" in ds.SeriesDescription
        assert "NOT KNOWN" in ds.ImageComments
        assert ds.PatientPosition == ""


def test_several_images_make_a_fourth_axis(tmp_path):
    geometry = GEOMETRIES["axial_odd"]
    volumes = [a_volume(geometry, seed) for seed in range(3)]
    nifti.write(tmp_path / "image.nii.gz", geometry, volumes, 3)
    read = nibabel.load(tmp_path / "image.nii.gz")
    for n, values in enumerate(volumes):
        np.testing.assert_array_equal(np.asarray(read.dataobj)[..., n], values.T)
