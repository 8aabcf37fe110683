"""Echo-planar scans that carry no flags are refused from their samples; other Cartesian scans are read."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mrirecon.contract.codes import Code, PermanentError
from mrirecon.decompress.preparation import prepare as readers
from mrirecon.phantom.trains import Train, write
from tests.support.feature_scans import LIMITS, member

SCANS = {
    "plain": Train(),
    "one_coil": Train(coils=1),
    "SNR_3": Train(snr=3.0, what="ellipses"),
    "navigators": Train(navigators=True),
    "four_trains": Train(trains=4),
    "partial_from_the_end": Train(partial=0.75, order="reversed"),
    "interleaved_slices": Train(order="interleaved", slices=3, what="ellipses"),
    "from_the_centre": Train(order="centre_out", coils=1, what="ellipses"),
    "every_second_line": Train(acceleration=2, coils=8),
    "own_mirror_image": Train(what="symmetric", coils=1),
}


def inspect(train: Train, tmp_path) -> dict[str, object]:
    return readers.inspect([member(write(train, tmp_path / "scan.h5"))], LIMITS)


@pytest.mark.parametrize("name", SCANS)
def test_alternating_readouts_without_flags_are_refused(name: str, tmp_path) -> None:
    with pytest.raises(PermanentError, match="readouts of alternating polarity") as caught:
        inspect(SCANS[name], tmp_path)
    assert caught.value.code is Code.UNSUPPORTED


@pytest.mark.parametrize("name", SCANS)
def test_the_same_scan_read_one_way_is_not(name: str, tmp_path) -> None:
    assert inspect(replace(SCANS[name], alternating=False, flagged=True), tmp_path)["matrix"][1] == 64


def test_echoes_of_alternating_polarity_are_no_echo_train(tmp_path) -> None:
    found = inspect(Train(alternating=False, echoes=3, delay=1.0), tmp_path)
    assert found["images"] == 3


def test_turned_lines_are_refused_where_their_echoes_were_not_brought_together(tmp_path) -> None:
    turned = Train(flagged=True, delay=1.0, what="ellipses")
    with pytest.raises(PermanentError, match="echoes of odd and even readouts") as caught:
        inspect(turned, tmp_path)
    assert caught.value.code is Code.UNSUPPORTED


def test_lines_sorted_by_place_are_told_too(tmp_path) -> None:
    """A converter that sorts the lines of two interleaved trains loses the order of acquisition."""
    path = write(Train(trains=2, what="ellipses", seed=3), tmp_path / "scan.h5")
    _sort_lines(path)
    with pytest.raises(PermanentError, match="readouts of alternating polarity"):
        readers.inspect([member(path)], LIMITS)


def _sort_lines(path) -> None:
    import h5py
    import numpy as np

    with h5py.File(path, "r+") as file:
        table = file["dataset/data"][:]
        order = np.argsort(table["head"]["idx"]["kspace_encode_step_1"], kind="stable")
        file["dataset/data"][:] = table[order]
