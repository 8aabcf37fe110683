"""The series of notes: a picture that a PACS shows, marked not for diagnosis, with the warnings."""

import dataclasses

import numpy as np
import pydicom
import pytest
from PIL import Image, ImageDraw

from mrirecon.contract.profiles import PROFILES, profile
from mrirecon.recon.outputs import dicom, notes
from mrirecon.recon.stage import reconstruct
from tests.recon.recon_cases import GEOMETRIES, SCAN_ID, a_facts, a_record, a_volume, scan_file

GEOMETRY = GEOMETRIES["axial_odd"]


@pytest.fixture
def words(monkeypatch):
    """What is written onto the page, where, and in which font size."""
    told = []
    write = ImageDraw.ImageDraw.text

    def spy(self, at, text, *arguments, **options):
        told.append((at, text, options["font"].getbbox(text, anchor=options.get("anchor"))))
        return write(self, at, text, *arguments, **options)

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", spy)
    return told


def test_the_page_says_what_the_record_says(tmp_path, words):
    facts = dataclasses.replace(a_facts(GEOMETRY), label="knee 7")
    volume = a_volume(GEOMETRY)
    notes.write(tmp_path / "notes.dcm", facts, a_record(["Left is not right."]), volume, volume)
    said = " ".join(text for _, text, _ in words)
    for part in (
        "NOT FOR DIAGNOSIS",
        "1 warning",
        "Left is not right.",
        "knee 7",
        SCAN_ID,
        "GRAPPA",
        "1.25",
        "0.04",
    ):
        assert part in said
    assert "RAKI" not in said.replace("GRAPPA or RAKI", ""), "a candidate without an error is left out"
    ds = pydicom.dcmread(tmp_path / "notes.dcm")
    assert ds.Modality == "OT"
    assert "not for diagnosis" in ds.SeriesDescription
    assert ds.PatientIdentityRemoved == "YES"
    assert ds.pixel_array.shape == (ds.Rows, ds.Columns, 3)
    assert ds.Rows <= notes.HEIGHT
    dicom.write_all(tmp_path, facts, lambda _: volume)
    image = pydicom.dcmread(tmp_path / "001_0001.dcm")
    assert ds.StudyInstanceUID == image.StudyInstanceUID
    assert ds.SeriesInstanceUID != image.SeriesInstanceUID
    assert ds.SeriesNumber != image.SeriesNumber


def test_many_long_warnings_stay_on_the_page_and_those_left_out_are_counted(words):
    long = [f"Warning {n}: " + "the calibration is short and the coils are few; " * 6 for n in range(12)]
    page = notes.draw(a_facts(GEOMETRY), a_record(long), a_volume(GEOMETRY), None)
    assert page.size[0] == notes.WIDTH
    assert page.size[1] <= notes.HEIGHT
    said = [text for _, text, _ in words]
    assert any(text.startswith("and ") and "see the report" in text for text in said)
    assert any("Warning 0" in text for text in said)
    assert any("SNR" in text for text in said), "the figures must not be pushed off the page"
    for at, text, (left, _, right, bottom) in words:
        assert at[0] + left >= 0, text
        assert at[0] + right <= notes.WIDTH, text
        assert at[1] + bottom <= page.size[1], text


def test_no_character_is_shown_as_a_box():
    boxes = notes.plain("≥ 3 × 4 – 5 … é 中")
    assert boxes.isascii()


def test_the_same_notes_have_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        notes.write(tmp_path / name, a_facts(GEOMETRY), a_record([]), a_volume(GEOMETRY), None)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize("name", sorted(PROFILES))
def test_a_profile_decides_whether_the_study_gets_notes(tmp_path, name):
    rng = np.random.default_rng(0)
    kspace = (rng.standard_normal((1, 1, 2, 1, 16, 16)) + 0j).astype(np.complex64)
    path = scan_file(tmp_path / "kspace.h5", kspace, np.ones((1, 1, 1, 16), bool))
    reconstruct(path, tmp_path / "out", scan_id=SCAN_ID, profile=profile(name), device="cpu")
    assert (
        (tmp_path / "out/dicom/notes.dcm").exists() == (name != "images-only") == PROFILES[name].notes_series
    )


def test_the_noise_map_is_on_the_page(tmp_path):
    volume = a_volume(GEOMETRY)
    without = notes.draw(a_facts(GEOMETRY), a_record([]), volume, None)
    with_map = notes.draw(a_facts(GEOMETRY), a_record([]), volume, np.ones_like(volume) * 1.3)
    assert isinstance(with_map, Image.Image)
    grey = lambda page: float(np.ptp(np.asarray(page, int)[100:], axis=2).mean())  # noqa: E731
    assert grey(with_map) > 2 * grey(without)
