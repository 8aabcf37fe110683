"""Standard radiological view: what a viewer shows, and that no voxel moves in the patient for it."""

import dataclasses
import itertools

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mrirecon.kspace.geometry import unknown
from mrirecon.recon.outputs import dicom, display, preview, volume
from tests.recon.recon_cases import a_facts, a_volume, same_places, slab, truth, two_d

L, P, H = np.eye(3)
PLANES = {"axial": (L, P, H), "coronal": (L, -H, P), "sagittal": (P, -H, -L)}
"""How each plane is to be shown: toward growing columns, toward growing rows, from plane to plane (LPS)."""
LETTERS = {"axial": ("R", "L", "A", "P"), "coronal": ("R", "L", "H", "F"), "sagittal": ("A", "P", "H", "F")}
"""Left edge, right edge, top edge, bottom edge."""
WAYS = list(itertools.product((False, True), (1, -1), (1, -1), (1, -1)))
"""A plane can be stored in 8 ways, and its stack in 2."""


def stored(name, transposed, sign_read, sign_phase, sign_stack, *, is_3d=False):
    """Return the geometry of a scan of one plane, read, encoded and stacked in the directions asked for."""
    right, down, normal = PLANES[name]
    read, phase = (down, right) if transposed else (right, down)
    shape = (24, 32), (240.0, 352.0)
    flat = slab((6, *shape[0]), (18.0, *shape[1])) if is_3d else two_d(5, *shape, gap=1.0)
    n = flat.n_slices
    along = np.arange(n) - (n - 1) / 2
    return dataclasses.replace(
        flat,
        position=np.array([[7.0, -11.0, 23.0]]) + along[:, None] * 5.0 * normal * sign_stack,
        read_dir=np.tile(read * float(sign_read), (n, 1)),
        phase_dir=np.tile(phase * float(sign_phase), (n, 1)),
        slice_dir=np.tile(normal * float(sign_stack), (n, 1)),
    )


def read_series(folder, geometry, values):
    folder.mkdir()
    dicom.write_all(folder, a_facts(geometry), lambda _: values)
    return [pydicom.dcmread(path) for path in sorted(folder.iterdir())]


@pytest.mark.parametrize("is_3d", [False, True], ids=["2-D", "3-D"])
@pytest.mark.parametrize("name", PLANES)
def test_the_three_planes_are_shown_as_radiologists_hang_them_however_they_are_stored(tmp_path, name, is_3d):
    right, down, normal = PLANES[name]
    for way in WAYS:
        geometry = stored(name, *way, is_3d=is_3d)
        values = a_volume(geometry)
        files = read_series(tmp_path / str(way), geometry, values)
        for ds in files:
            np.testing.assert_array_equal(np.array(ds.ImageOrientationPatient, float), [*right, *down])
            assert ds.InPlanePhaseEncodingDirection == ("ROW" if way[0] else "COL")
        steps = np.diff([np.array(ds.ImagePositionPatient, float) for ds in files], axis=0)
        assert (steps @ normal > 0).all(), "the stack must run along the picture's normal"
        view = display.views(geometry)[0]
        (to_right, to_left), (to_bottom, to_top) = map(volume.orientation_letters, (view.right, view.down))
        assert (to_left, to_right, to_top, to_bottom) == LETTERS[name]
        assert same_places(files, geometry, values)


@settings(max_examples=60, deadline=None)
@given(
    angles=st.tuples(*[st.floats(-np.pi, np.pi)] * 3),
    shape=st.tuples(st.integers(1, 4), st.integers(2, 7), st.integers(2, 7)),
    fov=st.tuples(st.floats(20, 90), st.floats(20, 90)),
    gap=st.floats(-8, 3).filter(lambda gap: abs(4 + gap) > 0.5),
    handed=st.sampled_from((1, -1)),
    is_3d=st.booleans(),
)
def test_no_voxel_moves_in_the_patient(tmp_path_factory, angles, shape, fov, gap, handed, is_3d):
    nz, ny, nx = shape
    if is_3d:
        geometry = slab((max(2, nz), ny, nx), (7.0 * nz, *fov), angles=angles, handed=handed)
    else:
        geometry = two_d(nz, (ny, nx), fov, angles=angles, gap=gap, handed=handed)
    values = a_volume(geometry)
    files = read_series(tmp_path_factory.mktemp("display") / "dicom", geometry, values)
    assert same_places(files, geometry, values)
    right, down = np.array(files[0].ImageOrientationPatient, float).reshape(2, 3)
    normal = np.cross(right, down)
    if len(files) > 1:
        step = np.subtract(files[1].ImagePositionPatient, files[0].ImagePositionPatient)
        assert float(step @ normal) > 0
    # of the eight ways to lay the plane out, none is nearer to the standard view of its nearest plane
    wanted = PLANES[("sagittal", "coronal", "axial")[volume.nearest_plane(right, down)]]
    best = max(
        abs(float(a @ wanted[0])) + abs(float(b @ wanted[1])) for a, b in ((right, down), (down, right))
    )
    assert float(right @ wanted[0]) + float(down @ wanted[1]) > best - 0.01


def test_slices_that_differ_by_rounding_are_laid_out_alike():
    """Halfway between two planes and two layouts the last bits of the header must not turn single slices."""
    geometry = two_d(9, (16, 16), (160, 160), angles=(np.pi / 4, 0, np.pi / 4))
    rng = np.random.default_rng(3)
    shaky = dataclasses.replace(
        geometry,
        read_dir=geometry.read_dir + rng.normal(0, 1e-5, geometry.read_dir.shape),
        phase_dir=geometry.phase_dir + rng.normal(0, 1e-5, geometry.phase_dir.shape),
    )
    assert len({(v.transposed, v.flip_rows, v.flip_columns) for v in display.views(shaky)}) == 1


def test_each_slice_of_a_localizer_gets_the_view_of_its_own_plane(tmp_path):
    parts = [stored(name, True, -1, 1, 1) for name in PLANES]
    together = {
        field: np.concatenate([getattr(part, field)[:1] for part in parts])
        for field in ("position", "read_dir", "phase_dir", "slice_dir")
    }
    geometry = dataclasses.replace(parts[0], **together)
    values = a_volume(geometry)
    files = read_series(tmp_path / "dicom", geometry, values)
    for ds, (right, down, _) in zip(files, PLANES.values(), strict=True):
        np.testing.assert_allclose(np.array(ds.ImageOrientationPatient, float), [*right, *down], atol=1e-12)
    assert same_places(files, geometry, values)
    preview.write(tmp_path / "preview.png", values, geometry)


def test_nothing_is_turned_where_the_position_is_not_known(tmp_path):
    geometry = unknown(3, (1, 16, 20), (5.0, 160.0, 200.0))
    values = a_volume(geometry)
    files = read_series(tmp_path / "dicom", geometry, values)
    scale = 4095 / float(values.max())
    for plane, ds in enumerate(files):
        np.testing.assert_array_equal(ds.pixel_array, np.rint(values[plane].astype(float) * scale))


def test_the_preview_shows_the_view_of_the_dicom_files(tmp_path):
    """The stored corner that lies to the right and anterior is at the top left of an axial tile."""
    geometry = stored("axial", True, -1, -1, -1)
    values = np.random.default_rng(1).random(volume.shape(geometry)).astype(np.float32) * 0.3
    corners = [(y, x) for y in (0, 23) for x in (0, 31)]
    y, x = min(corners, key=lambda at: float(truth(geometry, at[1], at[0], 0) @ (L + P)))
    values[:, y - y % 22 : y + 2, x - x % 30 : x + 2] = 1.0
    sheet = np.asarray(preview.volume_montage(values, geometry, longest=64, most=1).convert("L"), float)
    corners = sheet[:2, :2].mean(), sheet[:2, -2:].mean(), sheet[-2:, :2].mean(), sheet[-2:, -2:].mean()
    assert corners.index(max(corners)) == 0
    assert max(corners) > 2 * sorted(corners)[-2]
