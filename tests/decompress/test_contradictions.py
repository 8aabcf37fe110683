"""Where header and readouts disagree the readouts decide, and a warning names both numbers."""

from __future__ import annotations

from dataclasses import replace

import h5py
import numpy as np
import pytest

from mrirecon.contract.codes import Code, PermanentError
from mrirecon.decompress.preparation import prepare as readers
from mrirecon.kspace.file import open_kspace
from tests.support.feature_scans import LIMITS, Scan, acquire, error, member, truth, xml

FLAT = Scan()
SINGLE = Scan(os=1.0)
VOLUME = Scan(matrix=(12, 20, 24), fov_mm=(60.0, 240.0, 200.0), coils=2)


def write(scan: Scan, header: str, tmp_path):
    path = tmp_path / "scan.h5"
    acquire(scan).write(path, header)
    return path


def limits(scan: Scan, **by_counter: tuple[int, int, int]) -> str:
    return xml(replace(scan, spoil={"limits": by_counter}))


CASES = {
    "channels": (
        FLAT,
        xml(FLAT, coils=[f"coil:{i}" for i in range(64)]),
        "gives 64 receiver channels, the readouts have 3",
        [1, 48, 40],
    ),
    "more_lines": (
        FLAT,
        xml(replace(FLAT, matrix=(1, 32, 40))),
        "gives 32 lines, the readouts count 48 along ky",
        [1, 48, 40],
    ),
    "more_partitions": (
        VOLUME,
        xml(replace(VOLUME, matrix=(8, 20, 24))),
        "gives 8 partitions, the readouts count 12 along kz",
        [12, 20, 24],
    ),
    "another_matrix": (
        SINGLE,
        xml(replace(SINGLE, matrix=(1, 24, 20))),
        "gives 20 points along the readout, the readouts have 40 samples",
        [1, 48, 40],
    ),
    "another_matrix_oversampled": (
        FLAT,
        xml(replace(FLAT, matrix=(1, 24, 20), os=1.0)),
        "field of view 400.0 mm with oversampling, header 200.0 mm",
        [1, 48, 40],
    ),
    "fewer_points": (
        FLAT,
        xml(replace(FLAT, spoil={"encoded_x": 120})),
        "gives 120 points along the readout, the readouts have 80 samples",
        [1, 48, 60],
    ),
    "slices": (
        Scan(slices=3),
        limits(FLAT, slice=(0, 4, 0)),
        "announces 5 slices, the readouts hold 3",
        [1, 48, 40],
    ),
    "repetitions": (
        Scan(repetitions=2),
        limits(FLAT, repetition=(0, 9, 0)),
        "announces 10 repetitions, the readouts hold 2",
        [1, 48, 40],
    ),
    "lines_not_counted": (
        FLAT,
        limits(FLAT, kspace_encoding_step_1=(0, 39, 24)),
        "counts from 0 to 39 along ky, the readouts from 0 to 47",
        [1, 48, 40],
    ),
    "field_of_view": (
        FLAT,
        xml(replace(FLAT, recon_matrix=(1, 60, 40), recon_fov_mm=(5.0, 300.0, 200.0))),
        "wants a field of view of 300.0 mm along y, 240.0 mm were acquired",
        [1, 48, 40],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_warning_names_both_numbers(name: str, tmp_path) -> None:
    scan, header, says, matrix = CASES[name]
    found = readers.inspect([member(write(scan, header, tmp_path))], LIMITS)
    assert says in " ".join(found["warnings"])
    assert found["matrix"] == matrix


@pytest.mark.parametrize("name", ["more_lines", "another_matrix"])
def test_believed_readouts_lie_where_they_were_acquired(name: str, tmp_path) -> None:
    scan, header, _, _ = CASES[name]
    out = tmp_path / "kspace.h5"
    readers.read([member(write(scan, header, tmp_path))], out, LIMITS)
    with open_kspace(out) as file:
        assert error(file.read(0, 0), truth(scan, 0, 0)) < 0.04
        assert np.allclose(file.info.geometry.fov_mm, scan.fov_mm)


def test_a_stray_line_is_no_other_matrix(tmp_path) -> None:
    path = write(FLAT, xml(FLAT), tmp_path)
    with h5py.File(path, "r+") as file:
        table = file["dataset/data"][:]
        table["head"]["idx"]["kspace_encode_step_1"][-1] = 99
        file["dataset/data"][:] = table
    with pytest.raises(PermanentError) as caught:
        readers.inspect([member(path)], LIMITS)
    assert caught.value.code is Code.INDEX_RANGE


def test_counters_that_do_not_say_where_lines_lie_are_refused(tmp_path) -> None:
    """Lines counted from the centre of k-space on, as they were acquired."""
    path = write(FLAT, xml(FLAT), tmp_path)
    with h5py.File(path, "r+") as file:
        table = file["dataset/data"][:]
        index = table["head"]["idx"]["kspace_encode_step_1"].astype(int)
        from_centre = np.argsort(np.argsort(np.abs(index - 24 + 0.25)))
        table["head"]["idx"]["kspace_encode_step_1"] = from_centre
        file["dataset/data"][:] = table
    with pytest.raises(PermanentError, match="Line 0 of 48 along ky is as strong as the centre") as caught:
        readers.inspect([member(path)], LIMITS)
    assert caught.value.code is Code.UNSUPPORTED
