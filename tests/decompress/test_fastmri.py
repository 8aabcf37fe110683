"""fastMRI layouts: padded width, twice oversampled readout, averages of the prostate set."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

from mrirecon.contract.codes import Code, PermanentError
from mrirecon.decompress.archive.members import RawKind
from mrirecon.decompress.preparation import prepare as readers
from mrirecon.kspace.file import open_kspace
from tests.support.feature_scans import LIMITS, Scan, error, member, signal, xml

SCAN = Scan(matrix=(1, 40, 32), coils=3)


def kspace(slices: int = 2) -> np.ndarray:
    """Return (slice, coil, readout, phase) with a twice oversampled readout."""
    y, x = np.arange(40) - 20, np.arange(64) - 32
    fov = (*SCAN.fov_mm[:2], 2 * SCAN.fov_mm[2])
    lines = signal(SCAN, 0, y[None, :], x[:, None], fov)
    return np.stack([lines * (1 + s) for s in range(slices)]).astype(np.complex64)


def fastmri(path, data, text=None, **more):
    with h5py.File(path, "w") as file:
        file["kspace"] = data
        file.create_dataset("ismrmrd_header", data=text or xml(SCAN), dtype=h5py.string_dtype())
        file["reconstruction_rss"] = np.zeros((2, 32, 32), np.float32)
        for name, value in more.items():
            file[name] = value
        file.attrs.update(acquisition="AXT2", max=1.0, norm=1.0, patient_id="SENTINEL_ID")
    return [member(path, RawKind.FASTMRI)]


def wanted(place: int) -> np.ndarray:
    y, x = np.arange(40) - 20, np.arange(32) - 16
    return (
        signal(SCAN, 0, y[None, :, None], x[None, None, :]).reshape(3, 1, 40, 32) * np.sqrt(2) * (1 + place)
    )


def read(members, tmp_path, mask=None):
    summary = readers.read(members, tmp_path / "k.h5", LIMITS)
    with open_kspace(tmp_path / "k.h5") as file:
        if mask is not None:
            assert np.array_equal(file.mask[0, 0, 0], mask)
        for place in range(file.shape[1]):
            lines = file.mask[0, place, 0]
            found = file.read(0, place)[:, :, lines]
            assert error(found[..., 8:24], wanted(place)[:, :, lines][..., 8:24]) < 0.01
        assert not file.info.geometry.known
        assert not file.info.whitened
    assert b"SENTINEL" not in (tmp_path / "k.h5").read_bytes()
    return summary


def test_axes_and_oversampling(tmp_path) -> None:
    summary = read(fastmri(tmp_path / "a.h5", kspace()), tmp_path)
    assert summary["matrix"] == [1, 40, 32]
    assert summary["slices"] == 2


def test_padded_columns_were_not_acquired(tmp_path) -> None:
    data = kspace()
    data[..., :6] = data[..., 36:] = 0
    # as the scanner counts: 30 lines, the centre at line 14
    text = xml(SCAN).replace(
        "<minimum>0</minimum><maximum>39</maximum><center>20</center>",
        "<minimum>0</minimum><maximum>29</maximum><center>14</center>",
    )
    mask = np.zeros(40, bool)
    mask[6:36] = True
    summary = read(fastmri(tmp_path / "a.h5", data, text), tmp_path, mask)
    assert not any("columns" in sentence for sentence in summary["warnings"])


def test_columns_against_the_header_are_believed_and_said(tmp_path) -> None:
    text = xml(SCAN).replace(
        "<maximum>39</maximum><center>20</center>", "<maximum>29</maximum><center>14</center>"
    )
    summary = read(fastmri(tmp_path / "a.h5", kspace(), text), tmp_path)
    assert any("the data were believed" in sentence for sentence in summary["warnings"])


def test_the_masked_test_split(tmp_path) -> None:
    mask = np.zeros(40, bool)
    mask[::4] = mask[16:24] = True
    data = kspace() * mask
    summary = read(fastmri(tmp_path / "a.h5", data, mask=mask), tmp_path, mask)
    assert summary["acceleration"] == [4, 1]


def test_averages_of_the_prostate_layout(tmp_path) -> None:
    averages = np.stack([kspace(), kspace(), kspace()])
    averages[0, ..., 1::2] = averages[1, ..., ::2] = averages[2, ..., 1::2] = 0
    summary = read(fastmri(tmp_path / "a.h5", averages), tmp_path, np.ones(40, bool))
    assert summary["sampling"] == "fully sampled"


def test_diffusion_of_the_prostate_layout_is_refused(tmp_path) -> None:
    members = fastmri(tmp_path / "a.h5", kspace(), trace_b50=np.zeros(3))
    with pytest.raises(PermanentError) as refused:
        readers.inspect(members, LIMITS)
    assert refused.value.code is Code.UNSUPPORTED


@pytest.mark.parametrize(
    "data", [kspace()[0], kspace().real, kspace().real.astype(np.int16), kspace()[None, None]]
)
def test_other_shapes_are_refused(data, tmp_path) -> None:
    with pytest.raises(PermanentError) as refused:
        readers.inspect(fastmri(tmp_path / "a.h5", data), LIMITS)
    assert refused.value.code is Code.H5_SCHEMA


def test_nan_and_nothing(tmp_path) -> None:
    data = kspace()
    data[1, 2, 3, 4] = np.nan
    for number, (array, code) in enumerate(((data, Code.NON_FINITE), (0 * kspace(), Code.NO_ACQUISITIONS))):
        with pytest.raises(PermanentError) as refused:
            readers.inspect(fastmri(tmp_path / f"{number}.h5", array), LIMITS)
        assert refused.value.code is code
