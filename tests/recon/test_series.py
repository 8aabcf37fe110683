"""What becomes a series, and what it is called: contrasts apart, repetitions as temporal positions."""

import dataclasses

import pydicom
import pytest

from mrirecon.kspace.geometry import ImageIndex, unknown
from mrirecon.recon.outputs import dicom, series
from tests.recon.recon_cases import GEOMETRIES, a_facts, a_volume

OBLIQUE = GEOMETRIES["oblique_gap_nonsquare"]


def written(folder, images, **changes):
    facts = dataclasses.replace(a_facts(GEOMETRIES["axial_odd"], images, sequence="GR"), **changes)
    dicom.write_all(folder, facts, lambda image: a_volume(facts.geometry, image) * (image + 1))
    return [pydicom.dcmread(path) for path in sorted(folder.iterdir())]


def test_repetitions_are_temporal_positions_of_one_series_with_one_scale(tmp_path):
    files = written(tmp_path, [ImageIndex(repetition=n) for n in (0, 1, 2)])
    assert len({ds.SeriesInstanceUID for ds in files}) == 1
    assert [ds.InstanceNumber for ds in files] == list(range(1, 10))
    assert [ds.TemporalPositionIdentifier for ds in files] == [1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert {ds.NumberOfTemporalPositions for ds in files} == {3}
    assert len({ds.SOPInstanceUID for ds in files}) == 9
    peaks = [max(int(ds.pixel_array.max()) for ds in files[n : n + 3]) for n in (0, 3, 6)]
    assert peaks[2] == 4095
    assert peaks[0] / 4095 == pytest.approx(
        a_volume(GEOMETRIES["axial_odd"]).max() / 3 / a_volume(GEOMETRIES["axial_odd"], 2).max(), rel=0.01
    )
    assert len({ds.WindowWidth for ds in files}) == 1


def test_cardiac_phases_are_temporal_positions_too(tmp_path):
    files = written(tmp_path, [ImageIndex(phase=n) for n in (0, 1)])
    assert len({ds.SeriesInstanceUID for ds in files}) == 1
    assert [ds.TemporalPositionIdentifier for ds in files] == [1, 1, 1, 2, 2, 2]


def test_echoes_are_series_that_name_their_echo(tmp_path):
    images = [
        ImageIndex(contrast=c, repetition=r, echo_time_s=0.01 * (c + 1)) for r in (0, 1) for c in (0, 1)
    ]
    files = written(tmp_path, images)
    by_series = {}
    for ds in files:
        by_series.setdefault(ds.SeriesInstanceUID, []).append(ds)
    assert len(by_series) == 2
    for n, mine in enumerate(by_series.values(), 1):
        assert {ds.EchoNumbers for ds in mine} == {n}
        assert {float(ds.EchoTime) for ds in mine} == {10.0 * n}
        assert {ds.NumberOfTemporalPositions for ds in mine} == {2}
        assert {ds.SeriesNumber for ds in mine} == {21000 + n}
        assert {ds.SeriesDescription for ds in mine} == {f"AX 2D GRE mrirecon GRAPPA echo {n}"}
    assert len({ds.FrameOfReferenceUID for ds in files}) == len({ds.StudyInstanceUID for ds in files}) == 1


def test_a_single_image_claims_no_time(tmp_path):
    for ds in written(tmp_path, [ImageIndex()]):
        assert "TemporalPositionIdentifier" not in ds
        assert "NumberOfTemporalPositions" not in ds
        assert ds.EchoNumbers == 1


def test_numbers_and_descriptions_differ_by_method_and_plane():
    seen = set()
    for method in ("fourier", "grappa", "raki", "pics", "zero-filled"):
        for geometry in (
            GEOMETRIES["axial_odd"],
            GEOMETRIES["sagittal_descending"],
            unknown(2, (1, 8, 8), (5.0,) * 3),
        ):
            facts = dataclasses.replace(a_facts(geometry), method=method)
            (one,) = series.plan(facts)
            seen.add((one.number, one.description))
    assert len({number for number, _ in seen}) == len({words for _, words in seen}) == 15
    assert {(11001, "AX 2D mrirecon Fourier"), (32001, "COR 2D mrirecon RAKI")} <= seen
    assert (20001, "ORIENTATION NOT KNOWN 2D mrirecon GRAPPA") in seen


def test_a_series_names_what_helps_to_hang_it_and_nothing_of_the_scanner():
    facts = a_facts(OBLIQUE, sequence="SE")
    assert series.description(facts, 0) == "AX OBL 2D SE mrirecon GRAPPA"
    assert series.description(dataclasses.replace(facts, profile="phase"), 0).endswith("GRAPPA phase")
    assert series.protocol_class(a_facts(GEOMETRIES["slab_oblique"])) == "AX OBL 3D"
    many = [ImageIndex(contrast=c, set=s) for c in range(3) for s in range(40)]
    assert len({one.number for one in series.plan(a_facts(OBLIQUE, many))}) == 120
    assert not any(one.number % 1000 == series.NOTES for one in series.plan(a_facts(OBLIQUE, many)))


def test_the_sites_label_is_the_study_description(tmp_path):
    assert {ds.StudyDescription for ds in written(tmp_path, [ImageIndex()], label="knee 7")} == {"knee 7"}
