"""Scans for the tests of the reconstruction: geometries, facts and k-space files of known content."""

import numpy as np
from scipy.spatial import cKDTree

from mrirecon.kspace.file import KSpaceInfo, create
from mrirecon.kspace.geometry import Geometry, ImageIndex, unknown
from mrirecon.recon.outputs import facts, volume

SCAN_ID = "0123456789abcdef"
RECON_ID = "89abcdef"


def rotation(a, b, c):
    rx = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    ry = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    rz = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    return rx @ ry @ rz


def two_d(
    n_slices,
    matrix,
    fov,
    *,
    angles=(0, 0, 0),
    gap=0.0,
    handed=1,
    shear=0.0,
    thickness=4.0,
    centre=(7, -11, 23),
):
    """A stack of 2-D slices about ``centre``: thickness and spacing differ by ``gap``."""
    read, phase, normal = rotation(*angles).T
    normal = normal * handed
    along = (np.arange(n_slices) - (n_slices - 1) / 2) * (thickness + gap)
    position = np.array(centre, float) + along[:, None] * (normal + shear * read)
    tile = lambda v: np.tile(v, (n_slices, 1))  # noqa: E731
    size, span = (1, *matrix), (thickness, *fov)
    return Geometry(
        position, tile(read), tile(phase), tile(normal), size, span, size, span, patient_position="HFS"
    )


def slab(matrix, fov, *, angles=(0, 0, 0), handed=1, centre=(-3, 5, 8)):
    read, phase, normal = (axis[None] for axis in rotation(*angles).T)
    return Geometry(
        np.array([centre], float),
        read,
        phase,
        normal * handed,
        matrix,
        fov,
        matrix,
        fov,
        patient_position="FFS",
    )


GEOMETRIES = {
    "axial_even": two_d(4, (24, 32), (240, 320)),
    "axial_odd": two_d(3, (25, 33), (250, 330)),
    "one_slice": two_d(1, (20, 30), (200, 150)),
    "oblique_gap_nonsquare": two_d(5, (28, 40), (210, 260), angles=(0.3, -0.5, 0.9), gap=2.5),
    "oblique_left_handed": two_d(6, (31, 24), (186, 240), angles=(-0.7, 0.2, 1.4), gap=0.7, handed=-1),
    "sagittal_descending": two_d(
        4, (26, 22), (260, 176), angles=(np.pi / 2, 0, np.pi / 2), gap=-1.0, handed=-1
    ),
    "sheared": two_d(5, (24, 24), (240, 240), angles=(0.1, 0.2, 0.3), shear=0.15),
    "slab_oblique": slab((10, 24, 30), (25, 192, 240), angles=(0.4, 0.3, -0.2)),
    "slab_odd_left_handed": slab((9, 25, 20), (18, 200, 100), angles=(-0.2, 1.1, 0.5), handed=-1),
}


def a_facts(geometry, images=None, **acquisition):
    return facts.Facts(
        scan_id=SCAN_ID,
        recon_id=RECON_ID,
        version="0.0.test",
        method="grappa",
        summary="GRAPPA, R=2",
        geometry=geometry,
        images=images or [ImageIndex()],
        acquisition=facts.Acquisition(**acquisition),
    )


def a_record(warnings):
    """Return what the notes read of a record."""
    return {
        "sampling": {"description": "R=2, 24 calibration lines"},
        "method_reason": "The hold-out error of GRAPPA is the smallest.",
        "warnings": warnings,
        "quality": {"object_fraction": 0.4, "g_factor_mean": 1.25, "snr_median": 30.0},
        "holdout_errors": {"grappa": 0.04, "raki": None},
    }


def a_volume(geometry, seed=0):
    """Values that differ from voxel to voxel and along every axis, so that no flip goes unseen."""
    rng = np.random.default_rng(seed)
    nz, ny, nx = volume.shape(geometry)
    z, y, x = np.mgrid[0:nz, 0:ny, 0:nx]
    return (rng.random((nz, ny, nx)) * 0.3 + z / nz + 2 * y / ny + 4 * x / nx).astype(np.float32)


def truth(geometry, x, y, plane):
    """Where a voxel is by definition: from the centre of the field of view, voxel N//2 at the position."""
    s = 0 if geometry.is_3d else plane
    nz, ny, nx = geometry.recon_matrix
    fz, fy, fx = geometry.recon_fov_mm
    at = geometry.position[s] + geometry.read_dir[s] * (x - nx // 2) * fx / nx
    at = at + geometry.phase_dir[s] * (y - ny // 2) * fy / ny
    return at + geometry.slice_dir[s] * (plane - nz // 2) * fz / nz if geometry.is_3d else at


def placed(ds):
    """Return the millimetres ``(voxel, 3)`` and the pixels of one file, by DICOM's own rule (C.7.6.2.1.1)."""
    right, down = np.array(ds.ImageOrientationPatient, float).reshape(2, 3)
    between_rows, between_columns = (float(v) for v in ds.PixelSpacing)
    rows, columns = np.mgrid[0 : ds.Rows, 0 : ds.Columns][..., None]
    at = np.array(ds.ImagePositionPatient, float)
    at = at + columns * right * between_columns + rows * down * between_rows
    return at.reshape(-1, 3), ds.pixel_array.ravel()


def same_places(files, geometry, values):
    """Whether the files of a series hold each value where the geometry has it, and nothing else."""
    nz, ny, nx = volume.shape(geometry)
    y, x = np.mgrid[0:ny, 0:nx][..., None]
    pixels = np.rint(values.astype(float) * (4095 / float(values.max())))
    planes = [cKDTree(truth(geometry, x, y, z).reshape(-1, 3)) for z in range(nz)]
    left = set(range(nz))
    for ds in files:
        at, shown = placed(ds)
        assert len(at) == ny * nx
        for plane in left:
            distance, voxel = planes[plane].query(at)
            if distance.max() < 1e-3 and np.array_equal(np.sort(voxel), np.arange(ny * nx)):
                assert np.array_equal(pixels[plane].ravel()[voxel], shown)
                left.remove(plane)
                break
        else:
            return False
    return not left


def scan_file(path, kspace, mask, *, geometry=None, images=None, acs=None, **info):
    """Write k-space ``(image, slice, coil, kz, ky, kx)`` and mask ``(image, slice, kz, ky)``."""
    n_image, n_slice, _, n_kz, n_ky, n_kx = kspace.shape
    geometry = geometry or unknown(n_slice, (n_kz, n_ky, n_kx), (4.0 * n_kz, 2.0 * n_ky, 2.0 * n_kx))
    with create(path, kspace.shape) as file:
        for image in range(n_image):
            for slice_ in range(n_slice):
                shown = kspace[image, slice_] * mask[image, slice_][None, :, :, None]
                file.write(image, slice_, shown.astype(np.complex64), mask[image, slice_])
        if acs is not None:
            file.write_acs(*acs)
        given = {"kx_range": (0, n_kx), "whitened": True, "format": "mrd", **info}
        file.finish(
            KSpaceInfo(
                scan_id=SCAN_ID,
                geometry=geometry,
                images=images or [ImageIndex(repetition=n) for n in range(n_image)],
                **given,
            )
        )
    return path
