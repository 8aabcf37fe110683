"""MRD files: what is believed, what is refused, what never leaves."""

from __future__ import annotations

import io
import json

import h5py
import ismrmrd
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mrirecon.contract.codes import Code, PermanentError
from mrirecon.decompress.archive.members import Member, RawKind
from mrirecon.decompress.limits import Limits
from mrirecon.decompress.preparation import prepare as readers
from mrirecon.kspace.file import open_kspace
from mrirecon.phantom.mrd import HEAD, Flag
from tests.support.feature_scans import LIMITS, Scan, acquire, error, member, truth, write, xml

SMALL = Scan(matrix=(1, 16, 12), coils=2, noise=4)


def refused(path, limits: Limits = LIMITS) -> PermanentError:
    with pytest.raises(PermanentError) as error_:
        readers.inspect([member(path)], limits)
    return error_.value


def spoiled(tmp_path, change, scan: Scan = SMALL, text=None):
    writer = acquire(scan)
    change(writer)
    writer.write(tmp_path / "a.h5", text or xml(scan))
    return refused(tmp_path / "a.h5")


def each_head(name, value, only=None):
    def change(writer):
        for number, head in enumerate(writer._heads):
            if only is None or number == only:
                head[name] = value

    return change


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (each_head("number_of_samples", 60_000, only=9), Code.LENGTH_MISMATCH),
        (each_head("number_of_samples", 12), Code.LENGTH_MISMATCH),
        (each_head("number_of_samples", 0, only=9), Code.LENGTH_MISMATCH),
        (each_head("active_channels", 32), Code.CHANNEL_MISMATCH),
        (each_head("active_channels", 1, only=9), Code.CHANNEL_MISMATCH),
        (each_head("discard_pre", 24), Code.LENGTH_MISMATCH),
    ],
)
def test_headers_that_lie_about_the_samples(change, code, tmp_path) -> None:
    assert spoiled(tmp_path, change).code is code


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38, 1e16])
def test_samples_that_no_image_can_hold(value, tmp_path) -> None:
    def change(writer):
        writer._data[12][7] = value

    assert spoiled(tmp_path, change).code is Code.NON_FINITE


def test_noise_samples_that_are_not_finite(tmp_path) -> None:
    def change(writer):
        writer._data[1][7] = np.nan

    assert spoiled(tmp_path, change).code is Code.NON_FINITE


def test_no_readouts_and_only_noise(tmp_path) -> None:
    def empty(writer):
        writer._heads.clear()
        writer._data.clear()

    assert spoiled(tmp_path, empty).code is Code.NO_ACQUISITIONS
    (tmp_path / "a.h5").unlink()
    assert spoiled(tmp_path, each_head("flags", Flag.NOISE_MEASUREMENT.mask)).code is Code.NO_ACQUISITIONS


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        ("<TE>4.0</TE>", "<TE>NaN</TE>", Code.XML_INVALID),
        ("<TE>4.0</TE>", "<TE>four</TE>", Code.XML_INVALID),
        ("<TR>250.0</TR>", "<TR>-3</TR>", Code.XML_INVALID),
        ("<y>240.0</y>", "<y>-240.0</y>", Code.XML_INVALID),
        ("<y>240.0</y>", "<y>0</y>", Code.XML_INVALID),
        ("<y>240.0</y>", "<y>inf</y>", Code.XML_INVALID),
        ("<y>16</y>", "<y>0</y>", Code.XML_INVALID),
        ("<y>16</y>", "<y>16.5</y>", Code.XML_INVALID),
        ("<y>16</y>", "<y>-16</y>", Code.XML_INVALID),
        ("<y>16</y>", "<y>99999999999</y>", Code.XML_INVALID),
        ("ismrmrdHeader", "someOtherHeader", Code.XML_INVALID),
        ("<x>24</x>", "<x>60000</x>", Code.LENGTH_MISMATCH),
        ("<y>16</y>", "<y>60000</y>", Code.TOO_LARGE),
    ],
)
def test_headers_with_impossible_numbers(old, new, code, tmp_path) -> None:
    text = xml(SMALL)
    assert old in text
    limits = Limits(memory_bytes=32 * 1024**2)
    acquire(SMALL).write(tmp_path / "a.h5", text.replace(old, new))
    assert refused(tmp_path / "a.h5", limits).code is code


def test_a_header_without_encoding(tmp_path) -> None:
    text = xml(SMALL)
    cut = text[: text.index("<encoding>")] + text[text.index("</encoding>") + len("</encoding>") :]
    acquire(SMALL).write(tmp_path / "a.h5", cut)
    assert refused(tmp_path / "a.h5").code is Code.XML_INVALID


@pytest.mark.parametrize("zero", ["<x>0</x>", ""])
def test_a_recon_matrix_that_is_not_told_is_the_encoded_one(zero, tmp_path) -> None:
    # seen in the wild: reconSpace.matrixSize.x is 0
    text = xml(SMALL).replace("<x>12</x>", zero)
    acquire(SMALL).write(tmp_path / "a.h5", text)
    found = readers.inspect([member(tmp_path / "a.h5")], LIMITS)
    assert found["matrix"] == [1, 16, 12]


def test_the_budget_is_decided_before_anything_is_allocated(tmp_path) -> None:
    write(Scan(coils=16, matrix=(1, 64, 64)), tmp_path / "a.h5")
    assert refused(tmp_path / "a.h5", Limits(memory_bytes=1024**2)).code is Code.TOO_LARGE


@pytest.mark.parametrize("fault", ["table", "no xml", "floats", "two dimensions", "integers"])
def test_files_of_another_layout(fault, tmp_path) -> None:
    path = write(SMALL, tmp_path / "a.h5")
    with h5py.File(path, "a") as file:
        data = file["dataset/data"][()]
        if fault == "no xml":
            del file["dataset/xml"]
        else:
            del file["dataset/data"]
            if fault == "table":
                file["dataset/data"] = np.zeros(4, [("head", "f4"), ("data", "f4")])
            if fault == "floats":
                file["dataset/data"] = np.zeros(100, "f4")
            if fault == "two dimensions":
                file["dataset/data"] = data.reshape(2, -1)
            if fault == "integers":
                kind = np.dtype(
                    [
                        ("head", data.dtype["head"]),
                        ("traj", h5py.vlen_dtype("f4")),
                        ("data", h5py.vlen_dtype("i2")),
                    ]
                )
                file.create_dataset("dataset/data", (4,), kind)
    assert refused(path).code is Code.H5_SCHEMA


def test_a_damaged_table_of_readouts(tmp_path) -> None:
    path = write(SMALL, tmp_path / "a.h5")
    with h5py.File(path) as file:
        place = file["dataset/data"].id.get_chunk_info(0).byte_offset
        width = file["dataset/data"].dtype.itemsize
        at = file["dataset/data"].dtype.fields["data"][1]
    raw = bytearray(path.read_bytes())
    raw[place + 3 * width + at : place + 3 * width + at + 4] = (2**31 - 1).to_bytes(4, "little")
    path.write_bytes(raw)
    assert refused(path).code is Code.H5_CORRUPT


def test_a_filtered_table_reads_the_same(tmp_path) -> None:
    path = write(SMALL, tmp_path / "a.h5")
    with h5py.File(path) as file, h5py.File(tmp_path / "b.h5", "w") as packed:
        packed.create_dataset(
            "dataset/data", data=file["dataset/data"][()], chunks=(8,), compression="gzip", shuffle=True
        )
        packed.create_dataset("dataset/xml", data=file["dataset/xml"][()], dtype=h5py.string_dtype())
    ours, theirs = (readers.inspect([member(tmp_path / n)], LIMITS) for n in ("a.h5", "b.h5"))
    assert ours["acquisitions_digest"] == theirs["acquisitions_digest"]


@pytest.mark.parametrize("chunks", [None, (1,), (7,)])
def test_any_layout_of_the_table_reads_the_same(chunks, tmp_path) -> None:
    path = write(SMALL, tmp_path / "a.h5")
    with h5py.File(path) as file, h5py.File(tmp_path / "b.h5", "w") as other:
        other.create_dataset("g/data", data=file["dataset/data"][()], chunks=chunks)
        other.create_dataset("g/xml", data=file["dataset/xml"][()][0], dtype=h5py.string_dtype())
    ours, theirs = (readers.inspect([member(tmp_path / n)], LIMITS) for n in ("a.h5", "b.h5"))
    assert ours["acquisitions_digest"] == theirs["acquisitions_digest"]


def test_a_window_of_an_archive_reads_as_the_file_does(tmp_path) -> None:
    path = write(SMALL, tmp_path / "a.h5")
    blob = path.read_bytes()
    window = Member(0, len(blob), RawKind.MRD, lambda: io.BytesIO(blob))
    assert readers.inspect([window], LIMITS) | {"seconds": 0} == readers.inspect([member(path)], LIMITS) | {
        "seconds": 0
    }


def test_the_digest_does_not_depend_on_order_or_files_but_on_samples(tmp_path) -> None:
    whole = acquire(SMALL)
    whole.write(tmp_path / "a.h5", xml(SMALL))
    first, second = acquire(SMALL), acquire(SMALL)
    half = len(first._heads) // 2
    first._heads, first._data = first._heads[half:][::-1], first._data[half:][::-1]
    second._heads, second._data = second._heads[:half], second._data[:half]
    first.write(tmp_path / "b.h5", xml(SMALL))
    second.write(tmp_path / "c.h5", xml(SMALL))
    apart = [member(tmp_path / "b.h5"), member(tmp_path / "c.h5", index=1)]
    together = readers.read([member(tmp_path / "a.h5")], tmp_path / "k1.h5", LIMITS)
    split = readers.read(apart, tmp_path / "k2.h5", LIMITS)
    assert split["acquisitions_digest"] == together["acquisitions_digest"]
    with open_kspace(tmp_path / "k1.h5") as one, open_kspace(tmp_path / "k2.h5") as two:
        assert np.allclose(one.read(0, 0), two.read(0, 0), atol=1e-5)
    whole._data[8][0] += 1e-3
    whole.write(tmp_path / "d.h5", xml(SMALL))
    changed = readers.inspect([member(tmp_path / "d.h5")], LIMITS)
    assert changed["acquisitions_digest"] != together["acquisitions_digest"]


def test_the_same_scan_gives_the_same_bytes(tmp_path) -> None:
    path = write(SMALL, tmp_path / "a.h5")
    for name in ("k1.h5", "k2.h5"):
        readers.read([member(path)], tmp_path / name, LIMITS)
    assert (tmp_path / "k1.h5").read_bytes() == (tmp_path / "k2.h5").read_bytes()


def test_a_file_sent_twice_counts_once(tmp_path) -> None:
    path = write(SMALL, tmp_path / "a.h5")
    found = readers.inspect([member(path), member(path, index=1)], LIMITS)
    assert found["readouts"] == 16
    assert any("bit for bit" in sentence for sentence in found["warnings"])


@pytest.mark.parametrize("what", ["uid", "matrix", "frame", "no uid"])
def test_two_scans_in_one_archive_are_refused(what, tmp_path) -> None:
    one, other = Scan(matrix=(1, 16, 12), coils=2), Scan(matrix=(1, 16, 12), coils=2)
    text = xml(other)
    if what == "uid":
        other.uid = 8
    if what == "matrix":
        other.matrix = (1, 18, 12)
        text = xml(other)
    if what == "frame":
        text = text.replace(
            "</patientPosition>", "</patientPosition><frameOfReferenceUID>1.2.3</frameOfReferenceUID>"
        )
    if what == "no uid":
        one.uid = other.uid = 0
    acquire(one).write(tmp_path / "a.h5", xml(one))
    second = acquire(other)
    second._data = [1.5 * samples for samples in second._data]
    second.write(tmp_path / "b.h5", text)
    with pytest.raises(PermanentError) as error_:
        readers.inspect([member(tmp_path / "a.h5"), member(tmp_path / "b.h5", index=1)], LIMITS)
    assert error_.value.code is Code.MIXED_SCANS


def test_two_measurements_in_one_table_are_refused(tmp_path) -> None:
    def change(writer):
        for head in writer._heads[12:]:
            head["measurement_uid"] = 99

    assert spoiled(tmp_path, change).code is Code.MIXED_SCANS


def test_the_group_is_picked_by_content(tmp_path) -> None:
    scan = Scan(matrix=(1, 16, 12), coils=2)
    prescan = acquire(Scan(matrix=(1, 16, 12), coils=2, noise=40, uid=3))
    wide = acquire(Scan(matrix=(1, 16, 12), coils=4, uid=3))
    prescan._heads += wide._heads
    prescan._data += wide._data
    prescan.write(tmp_path / "p.h5", xml(scan))
    write(scan, tmp_path / "i.h5")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for group, name in (("dataset", "p.h5"), ("dataset_1", "i.h5")):
            with h5py.File(tmp_path / name) as part:
                part.copy("dataset", file, group)
    summary = readers.read([member(tmp_path / "a.h5")], tmp_path / "k.h5", LIMITS)
    assert summary["coils"] == 2
    assert summary["whitened"]
    assert any("adjustment" in sentence for sentence in summary["warnings"])


SENTINELS = {
    "studyInformation": "<studyInformation><studyDate>1999-01-02</studyDate>"
    "<accessionNumber>77123</accessionNumber>"
    "<referringPhysicianName>SENTINEL_DOCTOR</referringPhysicianName></studyInformation>",
    "subjectInformation": "<subjectInformation><patientName>SENTINEL^NAME</patientName>"
    "<patientID>SENTINEL_ID</patientID><patientBirthdate>1961-02-03</patientBirthdate></subjectInformation>",
}
IN_MEASUREMENT = (
    "<measurementID>SENTINEL_MEASUREMENT</measurementID><seriesDate>1999-01-02</seriesDate>"
    "<protocolName>SENTINEL_PROTOCOL</protocolName><seriesDescription>SENTINEL_SERIES</seriesDescription>"
)
IN_SYSTEM = (
    "<institutionName>SENTINEL_HOSPITAL</institutionName><stationName>SENTINEL_STATION</stationName>"
    "<deviceID>SENTINEL_DEVICE</deviceID>"
)


def identified(text: str) -> str:
    head = "".join(SENTINELS.values())
    text = text.replace("<measurementInformation>", head + "<measurementInformation>" + IN_MEASUREMENT)
    text = text.replace(
        "</patientPosition>",
        "</patientPosition><frameOfReferenceUID>1.2.840.SENTINEL.99</frameOfReferenceUID>",
    )
    text = text.replace("</systemModel>", "</systemModel>" + IN_SYSTEM)
    return text.replace(
        "</ismrmrdHeader>",
        "<userParameters><userParameterString><name>SENTINEL_KEY</name><value>SENTINEL_VALUE</value>"
        "</userParameterString></userParameters></ismrmrdHeader>",
    )


def test_no_identity_reaches_the_kspace_file_or_a_message(tmp_path) -> None:
    acquire(SMALL).write(tmp_path / "a.h5", identified(xml(SMALL, ["SENTINEL_COIL_A", "SENTINEL_COIL_B"])))
    summary = readers.read([member(tmp_path / "a.h5")], tmp_path / "k.h5", LIMITS)
    blob = (tmp_path / "k.h5").read_bytes() + json.dumps(summary).encode()
    for word in (b"SENTINEL", b"1961", b"1999", b"77123", b"1.2.840"):
        assert word not in blob
    with open_kspace(tmp_path / "k.h5") as file:
        header = ismrmrd.xsd.CreateFromDocument(file.info.ismrmrd_header)
        assert file.info.header["manufacturer"] == "mrirecon"
        assert file.info.header["echo_times_s"] == [0.004]
        assert len(file.info.header["frame_of_reference"]) == 64
    assert header.subjectInformation is None
    assert header.studyInformation is None
    assert header.encoding[0].encodedSpace.matrixSize.y == 16
    assert header.sequenceParameters.TE == [4.0]


def test_errors_do_not_repeat_what_the_scanner_wrote(tmp_path) -> None:
    text = identified(xml(SMALL)).replace("<TE>4.0</TE>", "<TE>SENTINEL</TE>")
    acquire(SMALL).write(tmp_path / "a.h5", text)
    assert "SENTINEL" not in refused(tmp_path / "a.h5").message


def test_echo_and_inversion_times_belong_to_their_images(tmp_path) -> None:
    scan = Scan(matrix=(1, 16, 12), coils=2, contrasts=3, sets=2)
    text = (
        xml(scan)
        .replace("<TE>4.0</TE>", "<TE>4.0</TE>")
        .replace("<flipAngle_deg>", "<TI>100</TI><TI>900</TI><flipAngle_deg>")
    )
    acquire(scan).write(tmp_path / "a.h5", text)
    readers.read([member(tmp_path / "a.h5")], tmp_path / "k.h5", LIMITS)
    with open_kspace(tmp_path / "k.h5") as file:
        found = [(i.contrast, i.set, i.echo_time_s, i.inversion_time_s) for i in file.info.images]
    assert found == [
        (c, s, pytest.approx((4 + 3 * c) / 1000), pytest.approx((0.1, 0.9)[s]))
        for c in range(3)
        for s in range(2)
    ]


def test_unknown_geometry_is_not_an_error(tmp_path) -> None:
    def change(writer):
        for head in writer._heads:
            for name in ("position", "read_dir", "phase_dir", "slice_dir"):
                head[name] = 0

    writer = acquire(SMALL)
    change(writer)
    writer.write(tmp_path / "a.h5", xml(SMALL))
    readers.read([member(tmp_path / "a.h5")], tmp_path / "k.h5", LIMITS)
    with open_kspace(tmp_path / "k.h5") as file:
        assert not file.info.geometry.known


def test_a_centre_sample_never_set_is_found_by_the_signal(tmp_path) -> None:
    scan = Scan(matrix=(1, 24, 24))
    writer = acquire(scan)
    for head in writer._heads:
        head["center_sample"] = 0
    writer.write(tmp_path / "a.h5", xml(scan))
    summary = readers.read([member(tmp_path / "a.h5")], tmp_path / "k.h5", LIMITS)
    assert any("centre sample" in sentence for sentence in summary["warnings"])
    with open_kspace(tmp_path / "k.h5") as file:
        assert error(file.read(0, 0)[..., 6:18], truth(scan, 0, 0)[..., 6:18]) < 0.006


def test_surface_coil_flags_on_every_line_are_not_believed(tmp_path) -> None:
    writer = acquire(SMALL)
    for head in writer._heads:
        head["flags"] |= 1 << 28
    writer.write(tmp_path / "a.h5", xml(SMALL))
    found = readers.inspect([member(tmp_path / "a.h5")], LIMITS)
    assert any("surface coil" in sentence for sentence in found["warnings"])


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_header_ends_in_a_file_without_nan_or_in_a_sentence(data, tmp_path_factory) -> None:
    writer = acquire(Scan(matrix=(1, 12, 8), coils=2, noise=3, r=(2, 1), acs=8))
    folder = tmp_path_factory.mktemp("any")
    for _ in range(data.draw(st.integers(1, 3))):
        rows = data.draw(st.lists(st.integers(0, len(writer._heads) - 1), min_size=1, max_size=20))
        name = data.draw(st.sampled_from([*HEAD.names, *HEAD["idx"].names]))
        inside = name in HEAD["idx"].names
        kind = (HEAD["idx"] if inside else HEAD)[name].base.kind
        odd = [0, np.nan, np.inf, -1, 1e30, 5] if kind == "f" else [0, 1, 2, 7, 63, 255, 32_767]
        value = data.draw(st.sampled_from(odd))
        for row in rows:
            head = writer._heads[row]["idx"] if inside else writer._heads[row]
            if name != "idx":
                head[name] = value
    writer.write(
        folder / "a.h5", xml(SMALL).replace("<y>16</y>", "<y>12</y>").replace("<x>24</x>", "<x>16</x>")
    )
    try:
        summary = readers.read([member(folder / "a.h5")], folder / "k.h5", LIMITS)
    except PermanentError:
        return
    json.dumps(summary, allow_nan=False)
    with open_kspace(folder / "k.h5") as file:
        json.dumps([file.info.header, file.info.history], allow_nan=False)
        for image in range(file.shape[0]):
            for slice_ in range(file.shape[1]):
                assert np.isfinite(file.read(image, slice_)).all()


# ---------------------------------------------------------------------------- real and other tools' data


@pytest.mark.parametrize("name", ["shepp_oblique_5sl", "shepp_128_c8_r2a2_cal_noise"])
def test_the_generators_own_phantom_comes_back(name, shared_data, tmp_path) -> None:
    path = shared_data / "scans/ismrmrd" / f"{name}.h5"
    summary = readers.read([member(path)], tmp_path / "k.h5", LIMITS)
    with h5py.File(path) as file:
        whole = file["dataset/coil_images"][()].view(np.complex64)[0]
    n = whole.shape[1]
    coil_images = whole[:, :, whole.shape[2] // 4 : 3 * whole.shape[2] // 4]
    with open_kspace(tmp_path / "k.h5") as file:
        # the generator adds noise: the middle of k-space stands far above it
        middle = slice(n // 2 - 8, n // 2 + 8)
        lines = np.flatnonzero(file.mask[0, 0, 0])
        lines = lines[(lines >= middle.start) & (lines < middle.stop)]
        kspace = np.fft.fftshift(
            np.fft.fft2(np.fft.ifftshift(coil_images, axes=(-2, -1)), norm="ortho"), axes=(-2, -1)
        )[:, lines, middle].reshape(len(whole), -1)
        found = file.read(0, 0)[:, 0][:, lines, middle].reshape(len(whole), -1)
        # how noise was whitened is not known here, but it mixes coils only
        mix, *_ = np.linalg.lstsq(kspace.T, found.T, rcond=None)
    assert error(found, mix.T @ kspace) < 0.08
    if not summary["whitened"]:
        scale = np.trace(mix) / len(mix)
        assert np.abs(mix - scale * np.eye(len(mix))).max() < 0.08 * abs(scale)


@pytest.mark.tools
@pytest.mark.parametrize(
    "options", [["-m", "64", "-c", "4"], ["-m", "64", "-c", "4", "-a", "2", "-w", "16", "-C"]]
)
def test_the_generator_of_debian(options, need_tool, tmp_path) -> None:
    import subprocess

    tool = need_tool("ismrmrd_generate_cartesian_shepp_logan")
    path = tmp_path / "made.h5"
    subprocess.run(
        [tool, *options, "-n", "0.0005", "-o", str(path)], check=True, capture_output=True, timeout=60
    )
    summary = readers.read([member(path)], tmp_path / "k.h5", LIMITS)
    assert summary["coils"] == 4
    assert summary["whitened"] == ("-C" in options)
    assert summary["acceleration"] == [2 if "-a" in options else 1, 1]
