"""The axes of images of Siemens data run against the directions of the raw header."""

import json
import tarfile

import numpy as np
import pydicom
import pytest

from mrirecon.contract.profiles import profile
from mrirecon.recon.image_axes import image_geometry
from mrirecon.recon.stage import reconstruct
from tests.recon.recon_cases import SCAN_ID, scan_file, slab, truth, two_d


@pytest.mark.parametrize("is_3d", [False, True], ids=["2-D", "3-D"])
def test_a_point_lies_where_it_was_for_either_sign_of_the_transform(tmp_path, is_3d):
    """A point of the object, measured with either sign, must come out at its place in the patient."""
    angles = (0.3, -0.5, 0.9)
    geometry = slab((8, 16, 20), (40, 160, 200), angles=angles) if is_3d else two_d(1, (16, 20), (160, 200))
    point = np.array((2.0, 3.0, -4.0) if is_3d else (0.0, 3.0, -4.0))  # voxels from the centre, (z, y, x)
    nz, ny, nx = geometry.matrix
    k = np.stack(np.meshgrid(*[np.arange(n) - n // 2 for n in (nz, ny, nx)], indexing="ij"), axis=-1)
    phase = 2 * np.pi * (k / [nz, ny, nx]) @ point
    centre = np.array([nz // 2, ny // 2, nx // 2])
    z, y, x = (centre + point).astype(int)
    where = truth(geometry, x, y, z if is_3d else 0)
    for vendor, sign in (("SIEMENS", 1), ("GE MEDICAL SYSTEMS", -1), ("", -1)):
        kspace = np.exp(1j * sign * phase)[None, None, None].astype(np.complex64)
        out = tmp_path / f"out-{vendor}"
        path = scan_file(
            tmp_path / f"{vendor}.h5",
            kspace,
            np.ones((1, 1, nz, ny), bool),
            geometry=geometry,
            header={"manufacturer": vendor},
        )
        record = reconstruct(path, out, scan_id=SCAN_ID, profile=profile("fast"), device="cpu")
        brightest = max(
            (pydicom.dcmread(file) for file in (out / "dicom").glob("0*")),
            key=lambda ds: ds.pixel_array.max(),
        )
        row, column = np.unravel_index(np.argmax(brightest.pixel_array), brightest.pixel_array.shape)
        right, down = np.array(brightest.ImageOrientationPatient, float).reshape(2, 3)
        at = np.array(brightest.ImagePositionPatient, float)
        at = (
            at
            + column * right * float(brightest.PixelSpacing[1])
            + row * down * float(brightest.PixelSpacing[0])
        )
        np.testing.assert_allclose(at, where, atol=1e-3)
        assert record["method"] == "fourier", "fully sampled: nothing was interpolated"
        assert "Fourier" in brightest.SeriesDescription
        shown = [json.dumps(record), (out / "report.html").read_text(), str(brightest)]
        assert not any("zero-filled" in text for text in shown)
        told = [step for step in record["preprocessing"] if "against" in step["step"]]
        assert [step["axes"] for step in told] == (["x, y, z" if is_3d else "x, y"] if sign == 1 else [])


def test_slices_of_a_two_dimensional_scan_keep_their_order():
    geometry = two_d(4, (16, 20), (160, 200), gap=1.0)
    turned = image_geometry(geometry, {"manufacturer": "SIEMENS"})
    np.testing.assert_array_equal(turned.slice_step_mm(), geometry.slice_step_mm())
    np.testing.assert_array_equal(turned.position, geometry.position)


@pytest.mark.parametrize("name", ["siemens_twix/twixtools_gre.dat", "ismrmrd_from_siemens/twixtools_gre.h5"])
def test_the_acr_phantom_stands_upright(tmp_path, shared_data, name):
    """Head first supine, axial: the crossed wedges are anterior, the bubble in the vial is on top."""
    from mrirecon.decompress.stage import decompress

    with tarfile.open(tmp_path / "scan.tar", "w") as tar:
        tar.add(shared_data / "scans" / name, "raw")
    decompress(tmp_path / "scan.tar", tmp_path / "kspace.h5")
    reconstruct(tmp_path / "kspace.h5", tmp_path / "out", scan_id=SCAN_ID, profile=profile(), device="cpu")
    ds = pydicom.dcmread(next((tmp_path / "out/dicom").glob("0*")))
    right, down = np.array(ds.ImageOrientationPatient, float).reshape(2, 3)
    assert right @ [1, 0, 0] > 0.99
    assert down @ [0, 1, 0] > 0.99
    assert ds.pixel_array.shape == (160, 160)
    picture = ds.pixel_array.astype(float) / np.percentile(ds.pixel_array, 90)
    wedges = picture[14:24, 72:82]
    assert wedges.mean() < 0.5 * picture[136:146, 72:82].mean()
    assert picture[31:33, 40:44].mean() < 0.8 * picture[47:49, 40:44].mean()
    # the resolution insert lies in the posterior half, its bright block to the patient's right
    insert = picture[90:122, 36:126]
    assert insert.mean() < 0.5
    assert insert[:, :45].max() > 2 * np.median(insert)
