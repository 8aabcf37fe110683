"""Every acquired line is placed exactly once, or the scan is refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mrirecon.contract.codes import Code, PermanentError
from mrirecon.decompress.acquisitions import TABLE, Flag, Part
from mrirecon.decompress.header import Encoding, Limit, ScanHeader, Space
from mrirecon.decompress.preparation import prepare as readers
from mrirecon.decompress.preparation import sorter
from mrirecon.decompress.preparation.assemble import lines_of
from mrirecon.decompress.preparation.notes import Notes
from mrirecon.decompress.preparation.sorter import Sorted, sort
from mrirecon.kspace.file import open_kspace
from mrirecon.phantom import mrd as phantom
from tests.support.feature_scans import LIMITS, Scan, acquire, error, member, truth, write, xml

NY, NZ, NX = 8, 4, 6

_USUAL = [
    0,
    0,
    0,
    0,
    Flag.NAVIGATION,
    Flag.DUMMY,
    Flag.NOISE,
    Flag.CALIBRATION,
    Flag.CALIBRATION_AND_IMAGING,
    Flag.CALIBRATION | Flag.CALIBRATION_AND_IMAGING,
]


def readouts(more: list[int]) -> st.SearchStrategy[list[dict[str, int]]]:
    """Dozens of readouts of one scan, in any order, whose flags are the usual ones and ``more``."""
    readout = st.fixed_dictionaries(
        {
            "ky": st.integers(0, NY - 1),
            "kz": st.integers(0, NZ - 1),
            "average": st.integers(0, 2),
            "slice": st.sampled_from([0, 0, 0, 1]),
            "contrast": st.integers(0, 2),
            "repetition": st.integers(0, 1),
            "phase": st.just(0),
            "set": st.sampled_from([0, 0, 3]),
            "segment": st.integers(0, 3),
            "flags": st.sampled_from(_USUAL + more),
        }
    )
    return st.lists(readout, min_size=24, max_size=96)


# Phase correction beside reversed readouts is an echo train, which is refused.
scans = readouts([Flag.REVERSE]) | readouts([Flag.PHASE_CORRECTION])


def part_of(entries: list[dict[str, int]], volume: bool) -> Part:
    """Return a part whose readout ``i`` carries the value ``i + 1`` in every sample."""
    table = np.zeros(len(entries), TABLE)
    for index, entry in enumerate(entries):
        for name, value in entry.items():
            table[name][index] = value
        if not volume:
            table["kz"][index] = 0
        else:
            table["slice"][index] = 0
        # slice labels run against their positions
        table["position"][index] = [0, 0, -5.0 * table["slice"][index]]
    table["read_dir"], table["phase_dir"], table["slice_dir"] = np.eye(3)
    table["samples"], table["channels"], table["centre"] = NX, 2, NX // 2
    # a reversed readout counts its centre from the other end
    table["centre"][(table["flags"] & Flag.REVERSE) != 0] = NX - 1 - NX // 2
    table["row"] = np.arange(len(entries))
    values = np.arange(1, len(entries) + 1, dtype=np.complex64)
    store = np.broadcast_to(values[:, None, None], (len(entries), 2, NX)).copy()
    space = Space((NZ if volume else 1, NY, NX), (10.0, 80.0, 60.0))
    limits = {
        "kspace_encoding_step_1": Limit(0, NY - 1, NY // 2),
        "kspace_encoding_step_2": Limit(0, NZ - 1, NZ // 2),
    }
    header = ScanHeader((Encoding(space, space, limits=limits),))
    return Part(header, table, [store], np.zeros((len(entries), 32), np.uint8))


def check_placement(part: Part, found: Sorted) -> None:
    """Check that each readout lies where its counters say, once, and that no other one does."""
    flags = part.table["flags"]
    dropped = Flag.NAVIGATION | Flag.DUMMY | Flag.NOISE | Flag.PHASE_CORRECTION
    expected = set(np.flatnonzero((flags & dropped) == 0).tolist())
    placed, apart = found.block.rows.tolist(), found.acs_rows.tolist()
    assert sorted(placed + apart) == sorted(expected), "each once, none lost, none invented"
    for row in apart:
        assert flags[row] & Flag.CALIBRATION
        assert not flags[row] & Flag.CALIBRATION_AND_IMAGING
    # each line holds the mean of exactly the readouts that carry its counters
    names = ("contrast", "repetition", "phase", "set")
    keys = [tuple(int(v) for v in key) for key in found.keys]
    sums: dict[tuple[int, ...], list[int]] = {}
    for row in placed:
        entry = part.table[row]
        image = keys.index(tuple(int(entry[name]) for name in names))
        place = found.slices.labels.index(int(entry["slice"]))
        kz = int(entry["kz"]) if found.block.shape[2] > 1 else 0
        sums.setdefault((image, place, kz, int(entry["ky"])), []).append(row + 1)
    seen = {}
    for places, lines in lines_of(found.block, None):
        for where, line in zip(places, lines, strict=True):
            assert tuple(where) not in seen
            seen[tuple(int(v) for v in where)] = line
    assert seen.keys() == sums.keys()
    for where, values in sums.items():
        assert np.allclose(seen[where], np.mean(values), rtol=1e-6)


def test_every_line_is_placed_once() -> None:
    sizes: list[int] = []

    @settings(max_examples=100, deadline=None)
    @given(entries=scans, volume=st.booleans())
    def holds(entries, volume) -> None:
        part = part_of(entries, volume)
        assume(sorter.imaging_candidates(part).size > 0)
        check_placement(part, sort(part, Notes()))
        sizes.append(len(entries))

    holds()  # sort raises for what it refuses: all of these are placed
    assert len(sizes) >= 100
    assert np.median(sizes) >= 24


@settings(max_examples=40, deadline=None)
@given(
    entries=scans,
    volume=st.booleans(),
    pick=st.integers(0, 1 << 16),
    # Near it, or far away: lines enough in between would be another matrix.
    far=st.sampled_from([NY, NY + 1, 2 * NY, 3 * NY]),
)
def test_a_readout_outside_the_matrix_refuses_the_scan(entries, volume, pick, far) -> None:
    part = part_of(entries, volume)
    images = np.flatnonzero((part.table["flags"] & ~np.int64(Flag.REVERSE)) == 0)
    assume(images.size > 0)
    part.table["ky"][images[pick % images.size]] = far
    with pytest.raises(PermanentError) as refused:
        sort(part, Notes())
    assert refused.value.code is Code.INDEX_RANGE


@settings(max_examples=40, deadline=None)
@given(entries=scans, volume=st.booleans(), pick=st.integers(0, 1 << 16), axis=st.sampled_from(["ky", "kz"]))
def test_the_check_finds_one_readout_that_is_one_line_off(entries, volume, pick, axis) -> None:
    part, true_positions = part_of(entries, volume), sorter.line_positions
    assume(sorter.imaging_candidates(part).size > 0)
    assume(volume or axis == "ky")

    def one_off(part, rows, of, *more):
        found = true_positions(part, rows, of, *more)
        if of == axis:
            row = pick % found.size
            found[row] += 1 if found[row] == 0 else -1
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sorter, "line_positions", one_off)
        found = sort(part, Notes())
    with pytest.raises(AssertionError):
        check_placement(part, found)


def test_slices_lie_in_order_of_position_not_of_label() -> None:
    entries = [{"ky": ky, "slice": s} for s in (0, 1) for ky in range(NY)]
    found = sort(part_of(entries, volume=False), Notes())
    assert found.slices.labels == [1, 0]
    assert found.geometry.position[:, 2].tolist() == [-5.0, 0.0]


def _refused(scan: Scan, tmp_path, change=None) -> PermanentError:
    writer = acquire(scan)
    if change is not None:
        change(writer)
    writer.write(tmp_path / "a.h5", xml(scan))
    with pytest.raises(PermanentError) as refused:
        readers.inspect([member(tmp_path / "a.h5")], LIMITS)
    return refused.value


def test_a_counter_far_out_is_refused(tmp_path) -> None:
    def change(writer):
        writer._heads[3]["idx"]["repetition"] = 60_000

    assert _refused(Scan(), tmp_path, change).code is Code.INDEX_RANGE


def test_a_position_that_is_not_finite_is_refused(tmp_path) -> None:
    def change(writer):
        writer._heads[3]["position"] = [np.nan, 0, 0]

    assert _refused(Scan(), tmp_path, change).code is Code.GEOMETRY


def test_a_lost_line_is_refused(tmp_path) -> None:
    def change(writer):
        del writer._heads[20], writer._data[20]

    assert _refused(Scan(), tmp_path, change).code is Code.INCOMPLETE_KSPACE


def test_an_encoding_that_is_not_there_is_refused(tmp_path) -> None:
    def change(writer):
        for head in writer._heads:
            head["encoding_space_ref"] = 2

    assert _refused(Scan(), tmp_path, change).code is Code.INDEX_RANGE


def test_an_echo_train_is_refused_by_its_data_alone(tmp_path) -> None:
    def change(writer):
        writer._heads[0]["flags"] = phantom.Flag.PHASE_CORRECTION.mask
        for head in writer._heads[1::2]:
            head["flags"] |= phantom.Flag.REVERSE.mask

    refused = _refused(Scan(averages=[2]), tmp_path, change)
    assert refused.code is Code.UNSUPPORTED
    assert "EPI" in refused.message


@pytest.mark.parametrize("trajectory", ["epi", "radial", "spiral", "goldenangle", "other"])
def test_other_trajectories_are_refused_by_name(trajectory, tmp_path) -> None:
    scan = Scan()
    acquire(scan).write(tmp_path / "a.h5", xml(scan).replace(">cartesian<", f">{trajectory}<"))
    with pytest.raises(PermanentError) as refused:
        readers.inspect([member(tmp_path / "a.h5")], LIMITS)
    assert refused.value.code is Code.UNSUPPORTED


# ------------------------------------------------------------------------------------------- calibration


def separate_calibration(scan: Scan, **changes) -> tuple[phantom.MrdWriter, Scan]:
    """Return the readouts of a low-resolution calibration of the same object, all flagged."""
    low = Scan(matrix=(1, 16, 20), fov_mm=scan.fov_mm, coils=scan.coils, slices=scan.slices, **changes)
    writer = acquire(low)
    for head in writer._heads:
        head["flags"] |= phantom.Flag.PARALLEL_CALIBRATION.mask
    return writer, low


@pytest.mark.parametrize("slices", [1, 3])
def test_calibration_from_its_own_file(slices, tmp_path) -> None:
    scan = Scan(r=(3, 1), slices=slices)
    write(scan, tmp_path / "image.h5")
    writer, low = separate_calibration(scan, uid=8)
    writer.write(tmp_path / "acs.h5", xml(low, ["coil:2", "coil:0", "coil:1"]))
    members = [member(tmp_path / "image.h5"), member(tmp_path / "acs.h5", index=1)]
    summary = readers.read(members, tmp_path / "k.h5", LIMITS)
    assert summary["acs_apart"]
    assert summary["acs_lines"] == 16
    with open_kspace(tmp_path / "k.h5") as file:
        assert np.array_equal(file.mask[0, 0], scan.sampled())
        assert file.acs_mask.shape == (1, slices, 1, 16)
        for place in range(slices):
            acs = file.read_acs(0, place)
            # its file names the coils in another order: row i of it is coil (i + 2) % 3 of the image
            wanted = truth(low, 0, place)[[1, 2, 0]]
            assert error(acs[..., 6:14], wanted[..., 6:14]) < 0.01


def test_calibration_in_the_same_file_that_visits_lines_again_is_kept_apart(tmp_path) -> None:
    scan = Scan(r=(2, 1))
    writer, low = separate_calibration(scan)
    for head in writer._heads:
        head["idx"]["kspace_encode_step_1"] += 16  # the counters of the image's own matrix
    acquire(scan, writer)
    writer.write(tmp_path / "a.h5", xml(scan))
    summary = readers.read([member(tmp_path / "a.h5")], tmp_path / "k.h5", LIMITS)
    assert summary["acs_apart"]
    with open_kspace(tmp_path / "k.h5") as file:
        assert np.array_equal(file.mask[0, 0], scan.sampled())
        first = file.read(0, 0)
        assert error(first[..., 10:30], truth(scan, 0, 0)[..., 10:30]) < 0.006
        acs = file.read_acs(0, 0)
        # the short readout fills the middle of the image's
        assert error(acs[:, :, :, 15:25], truth(low, 0, 0)[..., 5:15]) < 0.02


def test_calibration_of_the_first_repetition_serves_the_others(tmp_path) -> None:
    first = Scan(r=(3, 1), acs=12)
    later = Scan(r=(3, 1))
    writer = acquire(first)
    before = len(writer._heads)
    acquire(later, writer)
    for head in writer._heads[before:]:
        head["idx"]["repetition"] = 1
    writer.write(tmp_path / "a.h5", xml(first))
    summary = readers.read([member(tmp_path / "a.h5")], tmp_path / "k.h5", LIMITS)
    assert summary["images"] == 2
    with open_kspace(tmp_path / "k.h5") as file:
        assert np.array_equal(file.mask[0, 0], first.sampled())
        assert np.array_equal(file.mask[1, 0], later.sampled())
        acs = file.read_acs(1, 0)
        assert error(acs[..., 10:30], truth(first, 0, 0)[:, :, 18:30][..., 10:30]) < 0.006


def test_calibration_with_another_field_of_view_is_left_out_and_said(tmp_path) -> None:
    scan = Scan(r=(2, 1), acs=12)
    write(scan, tmp_path / "image.h5")
    writer, low = separate_calibration(scan, uid=8)
    low.fov_mm = (5.0, 300.0, 200.0)
    writer.write(tmp_path / "acs.h5", xml(low))
    found = readers.inspect([member(tmp_path / "image.h5"), member(tmp_path / "acs.h5", index=1)], LIMITS)
    assert not found["acs_apart"]
    assert any("lie elsewhere in k-space" in sentence for sentence in found["warnings"])


def test_calibration_of_other_coils_is_refused(tmp_path) -> None:
    scan = Scan(r=(2, 1))
    write(scan, tmp_path / "image.h5")
    writer, low = separate_calibration(scan, uid=8)
    writer.write(tmp_path / "acs.h5", xml(low, ["x", "y", "z"]))
    with pytest.raises(PermanentError) as refused:
        readers.inspect([member(tmp_path / "image.h5"), member(tmp_path / "acs.h5", index=1)], LIMITS)
    assert refused.value.code is Code.CHANNEL_MISMATCH
