import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mrirecon.contract.codes import PermanentError
from mrirecon.kspace.geometry import PATIENT_POSITIONS, Geometry, check_directions, unknown


def rotation(angles):
    a, b, c = angles
    rx = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    ry = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    rz = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    return rx @ ry @ rz


angles = st.tuples(*[st.floats(-3, 3)] * 3)


@given(angles, st.integers(2, 64), st.integers(2, 64))
def test_voxel_n_half_lies_at_the_position(euler, ny, nx):
    x, y, z = (axis[None] for axis in rotation(euler))
    geometry = Geometry(
        np.array([[3.0, -7.0, 11.0]]), x, y, z, (1, ny, nx), (4, 200, 300), (1, ny, nx), (4, 200, 300)
    )
    _, dy, dx = geometry.voxel_mm
    centre = geometry.first_voxel_mm(0) + x[0] * dx * (nx // 2) + y[0] * dy * (ny // 2)
    np.testing.assert_allclose(centre, [3, -7, 11], atol=1e-9)


@given(angles, st.integers(2, 33))
def test_the_middle_partition_of_a_slab_lies_at_the_position(euler, nz):
    x, y, z = (axis[None] for axis in rotation(euler))
    geometry = Geometry(np.zeros((1, 3)), x, y, z, (nz, 8, 8), (64, 80, 80), (nz, 8, 8), (64, 80, 80))
    middle = geometry.first_voxel_mm(nz // 2) + (x[0] + y[0]) * 10 * 4
    np.testing.assert_allclose(middle, 0, atol=1e-9)
    np.testing.assert_allclose(
        geometry.first_voxel_mm(1) - geometry.first_voxel_mm(0), geometry.slice_step_mm(), atol=1e-9
    )


def test_the_slice_step_is_measured_from_positions_not_from_the_thickness():
    geometry = unknown(3, (1, 8, 8), (5.0, 80.0, 80.0))
    geometry.position[:, 2] = [-8, 0, 8]
    np.testing.assert_allclose(geometry.slice_step_mm(), [0, 0, 8])


@given(angles)
def test_rotations_and_left_handed_triads_are_directions(euler):
    x, y, z = rotation(euler)
    assert check_directions(x, y, -z)


def test_no_directions_are_no_error_and_crooked_ones_are():
    zero = np.zeros(3)
    assert not check_directions(zero, zero, zero)
    x, y, z = np.eye(3)
    for crooked in (2 * x, zero, y, x + 0.1 * y, x * np.nan):
        with pytest.raises(PermanentError, match="geometry"):
            check_directions(crooked, y, z)


def test_patient_positions_are_dicoms():
    # PS3.3 C.7.3.1.1.2: head, feet, left, right, anterior or posterior first
    assert len(PATIENT_POSITIONS) == 16
    lying = {"H": ["P", "S", "DR", "DL"], "F": ["P", "S", "DR", "DL"], "L": ["P", "S"], "R": ["P", "S"]}
    lying |= {"A": ["DR", "DL"], "P": ["DR", "DL"]}
    assert {f"{first}F{side}" for first, sides in lying.items() for side in sides} == PATIENT_POSITIONS
