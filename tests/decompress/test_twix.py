"""Siemens twix: the scan that the reference converter and two other libraries read; damage is refused."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

import numpy as np
import pytest

from mrirecon.contract.codes import Code, PermanentError
from mrirecon.contract.progress import silent
from mrirecon.decompress.archive.members import RawKind
from mrirecon.decompress.gates.sniff import sniff
from mrirecon.decompress.preparation import prepare as readers
from mrirecon.decompress.readers import twix
from mrirecon.kspace.file import open_kspace
from tests.support.feature_scans import LIMITS, error, member
from tests.support.twix_writer import DWELL_NS, FOV_MM, POSITION, write_twix

PAIRS = ["twixtools_gre", "pulseq_rf_meas_MID00243"]
COILS, LINES, SAMPLES = 2, 160, 320
"""Of the scan that most tests take, our own as the scanner's."""


def own_kspace(coils: int = COILS, lines: int = LINES, samples: int = SAMPLES) -> np.ndarray:
    """Return random samples ``(coil, ky, kx)`` as strong as a scanner's."""
    rng = np.random.default_rng(7)
    shape = (coils, lines, samples)
    return (1e-3 * (rng.normal(size=shape) + 1j * rng.normal(size=shape))).astype(np.complex64)


@pytest.fixture(scope="module")
def own(tmp_path_factory) -> dict[str, Path]:
    """The same scan in both layouts, written by our own writer."""
    folder = tmp_path_factory.mktemp("twix")
    return {
        layout: write_twix(folder / f"{layout}.dat", own_kspace(), vb=layout == "vb")
        for layout in ("vd", "vb")
    }


@pytest.fixture(scope="module", params=["own", "scanner"])
def gre(request) -> Path:
    """A gradient-echo scan of one slice: our own, and a scanner's where the test data are at hand."""
    if request.param == "own":
        return request.getfixturevalue("own")["vd"]
    return request.getfixturevalue("shared_data") / "scans/siemens_twix/twixtools_gre.dat"


@pytest.mark.parametrize("layout", ["vd", "vb"])
def test_samples_and_header_are_what_was_written(layout, own) -> None:
    (part,) = twix.read(member(own[layout], RawKind.TWIX), LIMITS, silent)
    wanted = own_kspace()
    assert part.table.shape == (LINES,)
    assert part.table["ky"].tolist() == list(range(LINES))
    assert all(np.array_equal(part.samples(ky), wanted[:, ky]) for ky in range(LINES))
    assert np.allclose(part.table["position"], POSITION)
    assert np.allclose(part.table["dwell_s"], DWELL_NS * 1e-9)
    assert (part.header.coil_labels[1], part.header.patient_position) == ("Head::H2", "HFS")
    assert (part.header.tr_ms, part.header.te_ms, part.header.flip_deg) == ((8.0,), (3.2,), (15.0,))


@pytest.mark.parametrize("layout", ["vd", "vb"])
def test_lines_left_out_are_missing_and_the_rest_is_cropped_to_the_field_of_view(layout, tmp_path) -> None:
    wanted = own_kspace(3, 32, 64)
    wanted[:, 1::2] = 0
    path = write_twix(tmp_path / "thin.dat", wanted, vb=layout == "vb", acceleration=2)
    readers.read([member(path, RawKind.TWIX)], tmp_path / "k.h5", LIMITS)
    rows = np.fft.fftshift(np.fft.ifft(np.fft.ifftshift(wanted, axes=-1), norm="ortho"), axes=-1)
    rows = np.fft.ifftshift(rows[..., 16:48], axes=-1)
    with open_kspace(tmp_path / "k.h5") as file:
        assert file.shape == (1, 1, 3, 1, 32, 32)
        assert file.mask[0, 0, 0].tolist() == [ky % 2 == 0 for ky in range(32)]
        cropped = np.fft.fftshift(np.fft.fft(rows, norm="ortho"), axes=-1)
        assert error(file.read(0, 0)[:, 0], cropped) < 1e-5
        assert file.info.geometry.fov_mm[-1] == pytest.approx(FOV_MM)


@pytest.mark.parametrize("layout", ["vd", "vb"])
def test_two_libraries_read_what_our_writer_wrote(layout, own) -> None:
    """So that writer and reader do not agree on a layout that no scanner has."""
    import twixtools

    mapvbvd = pytest.importorskip("mapvbvd")
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        blocks = twixtools.read_twix(str(own[layout]), parse_pmu=False, parse_geometry=False, verbose=False)
        found = mapvbvd.mapVBVD(str(own[layout]), quiet=True)
    found = found[-1] if isinstance(found, list) else found
    found.image.flagRemoveOS = False
    wanted = own_kspace()
    readouts = [block for block in blocks[-1]["mdb"] if block.is_image_scan()]
    assert np.array_equal(np.stack([block.data for block in readouts], axis=1), wanted)
    assert np.array_equal(found.image.unsorted().transpose(1, 2, 0), wanted)


@pytest.mark.parametrize("name", PAIRS)
def test_the_same_scan_as_the_reference_converter_gives(name, shared_data, tmp_path) -> None:
    dat = shared_data / "scans/siemens_twix" / f"{name}.dat"
    h5 = shared_data / "scans/ismrmrd_from_siemens" / f"{name}.h5"
    readers.read([member(dat, RawKind.TWIX)], tmp_path / "twix.h5", LIMITS)
    readers.read([member(h5)], tmp_path / "mrd.h5", LIMITS)
    with open_kspace(tmp_path / "twix.h5") as ours, open_kspace(tmp_path / "mrd.h5") as theirs:
        assert ours.shape == theirs.shape
        assert np.array_equal(ours.mask, theirs.mask)
        a, b = (file.read(0, 0).astype(np.complex128) for file in (ours, theirs))
        assert error(a, np.vdot(b, a) / np.vdot(b, b) * b) < 1e-4
        one, two = ours.info.geometry, theirs.info.geometry
        for field in ("position", "read_dir", "phase_dir", "slice_dir", "fov_mm", "recon_fov_mm"):
            assert np.allclose(getattr(one, field), getattr(two, field), atol=1e-4), field
        assert (one.matrix, one.recon_matrix) == (two.matrix, two.recon_matrix)
        assert one.patient_position == two.patient_position == "HFS"
        for key in ("repetition_times_s", "echo_times_s", "inversion_times_s", "flip_angles_deg"):
            assert ours.info.header[key] == theirs.info.header[key]
        assert ours.info.header["field_strength_t"] == pytest.approx(theirs.info.header["field_strength_t"])
        assert ours.info.header["frame_of_reference"] == theirs.info.header["frame_of_reference"]


@pytest.mark.parametrize("name", PAIRS)
def test_samples_and_counters_are_those_of_twixtools(name, shared_data) -> None:
    import twixtools

    path = shared_data / "scans/siemens_twix" / f"{name}.dat"
    (part,) = twix.read(member(path, RawKind.TWIX), LIMITS, silent)
    with contextlib.redirect_stdout(io.StringIO()):
        theirs = twixtools.read_twix(str(path), parse_pmu=False, parse_geometry=False, verbose=False)[-1][
            "mdb"
        ]
    assert len(theirs) == part.table.shape[0]
    for index, block in enumerate(theirs):
        assert np.array_equal(part.samples(index), block.data)
        assert (part.table["ky"][index], part.table["slice"][index]) == (block.cLin, block.cSlc)


@pytest.mark.parametrize("name", PAIRS)
def test_samples_are_those_of_mapvbvd(name, shared_data) -> None:
    mapvbvd = pytest.importorskip("mapvbvd")
    path = shared_data / "scans/siemens_twix" / f"{name}.dat"
    (part,) = twix.read(member(path, RawKind.TWIX), LIMITS, silent)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        found = mapvbvd.mapVBVD(str(path), quiet=True)
        found = found[-1] if isinstance(found, list) else found
        found.image.flagRemoveOS = False
        theirs = found.image.unsorted()  # (column, channel, readout)
    ours = np.stack([part.samples(index).T for index in range(part.table.shape[0])], axis=-1)
    assert np.array_equal(ours, theirs)


def test_reading_prints_nothing(gre, capfd) -> None:
    readers.inspect([member(gre, RawKind.TWIX)], LIMITS)
    assert capfd.readouterr() == ("", "")


def test_echo_planar_data_are_refused_by_name(shared_data) -> None:
    path = shared_data / "scans/siemens_twix/twixtools_epi.dat"
    with pytest.raises(PermanentError) as refused:
        readers.inspect([member(path, RawKind.TWIX)], LIMITS)
    assert refused.value.code is Code.UNSUPPORTED
    assert "EPI" in refused.value.message


@pytest.mark.parametrize("share", [0.002, 0.3, 0.6, 0.9, 0.99])
def test_a_file_cut_anywhere_is_truncated(share, gre, tmp_path) -> None:
    whole = gre.read_bytes()
    (tmp_path / "cut.dat").write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(PermanentError) as refused:
        readers.inspect([member(tmp_path / "cut.dat", RawKind.TWIX)], LIMITS)
    assert refused.value.code is Code.TRUNCATED


def first_readout(raw: bytes) -> int:
    """Return where the first readout of a one-measurement file begins."""
    start = int.from_bytes(raw[16:24], "little")
    return start + int.from_bytes(raw[start : start + 4], "little")


@pytest.mark.parametrize(
    ("offset", "value", "code"),
    [
        (48, 0, Code.LENGTH_MISMATCH),  # no samples
        (50, 0, Code.LENGTH_MISMATCH),  # no channels
        (48, 65_535, None),  # more samples than there are
    ],
)
def test_lengths_that_lie_are_refused(offset, value, code, gre, tmp_path) -> None:
    raw = bytearray(gre.read_bytes())
    at = first_readout(raw) + offset
    raw[at : at + 2] = value.to_bytes(2, "little")
    (tmp_path / "bad.dat").write_bytes(raw)
    with pytest.raises(PermanentError) as refused:
        readers.inspect([member(tmp_path / "bad.dat", RawKind.TWIX)], LIMITS)
    assert code is None or refused.value.code is code


def test_a_synchronisation_block_without_length_does_not_hang(gre, tmp_path) -> None:
    raw = bytearray(gre.read_bytes())
    at = first_readout(raw)
    raw[at : at + 4] = bytes(4)
    raw[at + 40 : at + 48] = (1 << 5).to_bytes(8, "little")
    (tmp_path / "bad.dat").write_bytes(raw)
    with pytest.raises(PermanentError) as refused:
        readers.inspect([member(tmp_path / "bad.dat", RawKind.TWIX)], LIMITS)
    assert refused.value.code is Code.LENGTH_MISMATCH


def test_a_protocol_that_would_fill_memory_is_refused(gre, tmp_path) -> None:
    raw = gre.read_bytes()
    old = b"asSlice[0].dThickness"
    new = b"asSlice[99999999].dTh"
    assert len(old) == len(new)
    assert old in raw
    (tmp_path / "bad.dat").write_bytes(raw.replace(old, new))
    with pytest.raises(PermanentError) as refused:
        readers.inspect([member(tmp_path / "bad.dat", RawKind.TWIX)], LIMITS)
    assert refused.value.code is Code.LENGTH_MISMATCH


def multi_measurement(raw: bytes, shared_noise: bool) -> bytes:
    """Return a file of two measurements: readouts marked as noise adjustment first, then the scan."""
    start = int.from_bytes(raw[16:24], "little")
    length = int.from_bytes(raw[24:32], "little")
    measurement = raw[start : start + length]
    noise = bytearray(measurement)
    at = first_readout(raw) - start
    rng = np.random.default_rng(1)
    step = 192 + 2 * (32 + 320 * 8)
    for number in range(160):
        place = at + number * step
        if shared_noise:
            flags = int.from_bytes(noise[place + 40 : place + 48], "little") | 1 << 25
            noise[place + 40 : place + 48] = flags.to_bytes(8, "little")
        for channel in range(2):
            begin = place + 192 + channel * (32 + 320 * 8) + 32
            white = rng.normal(size=(320, 2)).astype("<f4") * (1 + channel) / np.float32(np.sqrt(2))
            noise[begin : begin + 320 * 8] = white.tobytes()
    pad = (-length) % 512
    head = bytearray(raw[:start])
    head[4:8] = (2).to_bytes(4, "little")
    entry = head[8 : 8 + 152]
    head[8 + 152 : 8 + 304] = entry
    head[8 + 152 + 8 : 8 + 152 + 16] = (start + length + pad).to_bytes(8, "little")
    return bytes(head) + bytes(noise) + bytes(pad) + measurement


def test_noise_of_the_first_measurement_whitens_the_second(gre, tmp_path) -> None:
    raw = gre.read_bytes()
    (tmp_path / "two.dat").write_bytes(multi_measurement(raw, shared_noise=True))
    (tmp_path / "one.dat").write_bytes(raw)
    found = readers.read([member(tmp_path / "two.dat", RawKind.TWIX)], tmp_path / "w.h5", LIMITS)
    readers.read([member(tmp_path / "one.dat", RawKind.TWIX)], tmp_path / "plain.h5", LIMITS)
    assert found["whitened"]
    with open_kspace(tmp_path / "w.h5") as white, open_kspace(tmp_path / "plain.h5") as plain:
        # channel 1 is twice as noisy as channel 0; noise dwell 7.68 ms / 320, image 11.6 us, bandwidth 0.793
        scale = np.sqrt(11.6e-6 / (7.68e-3 / 320) * 0.793)
        wanted = plain.read(0, 0) * (scale / np.array([1, 2]))[:, None, None, None]
        assert error(white.read(0, 0), wanted) < 0.02


def test_two_scans_in_one_file_are_refused(gre, tmp_path) -> None:
    raw = bytearray(multi_measurement(gre.read_bytes(), shared_noise=False))
    start = int.from_bytes(raw[16:24], "little")
    at = first_readout(bytes(raw))
    step = 192 + 2 * (32 + 320 * 8)
    for number in range(160):
        raw[at + number * step + 4 : at + number * step + 8] = (999).to_bytes(4, "little")
    assert start
    (tmp_path / "two.dat").write_bytes(raw)
    with pytest.raises(PermanentError) as refused:
        readers.inspect([member(tmp_path / "two.dat", RawKind.TWIX)], LIMITS)
    assert refused.value.code is Code.MIXED_SCANS


def as_vb(raw: bytes) -> bytes:
    """Return a one-measurement file in the layout of VB: no list of measurements, headers by channel."""
    from twixtools import mdh_def

    scan, vb = np.dtype(mdh_def.Scan_header), np.dtype(mdh_def.VB17_header)
    start = int.from_bytes(raw[16:24], "little")
    at = first_readout(raw)
    blocks = [raw[start:at]]
    while True:
        head = np.frombuffer(raw, scan, 1, at)[0]
        ending = int(head["EvalInfoMask"]) & 1
        for channel in range(1 if ending else int(head["UsedChannels"])):
            old = np.zeros((), vb)
            for name in set(vb.names) & set(scan.names) - {"IceProgramPara"}:
                old[name] = head[name]
            old["ChannelId"] = channel
            begin = at + 192 + channel * (32 + 320 * 8) + 32
            blocks += [old.tobytes(), b"" if ending else raw[begin : begin + 320 * 8]]
        at += 192 + 2 * (32 + 320 * 8)
        if ending:
            break
    return b"".join(blocks) + bytes(300)


def test_the_layout_of_vb_reads_the_same(gre, tmp_path) -> None:
    raw = gre.read_bytes()
    (tmp_path / "ve.dat").write_bytes(raw)
    (tmp_path / "vb.dat").write_bytes(as_vb(raw))
    found = [
        readers.inspect([member(tmp_path / name, RawKind.TWIX)], LIMITS) for name in ("ve.dat", "vb.dat")
    ]
    assert found[0] | {"seconds": 0} == found[1] | {"seconds": 0}


def test_a_measurement_of_length_0_is_read_to_its_end(shared_data, tmp_path) -> None:
    """Scanners leave the length of the last measurement 0 where they do not come back to fill it in."""
    raw = bytearray((shared_data / "scans/siemens_twix/twixtools_gre.dat").read_bytes())
    whole = tmp_path / "whole.dat"
    whole.write_bytes(raw)
    count = int.from_bytes(raw[4:8], "little")
    at = 8 + 152 * (count - 1) + 16
    raw[at : at + 8] = bytes(8)
    path = tmp_path / "zero.dat"
    path.write_bytes(raw)
    with path.open("rb") as file:
        assert sniff(file, len(raw)) is RawKind.TWIX
    found, wanted = (readers.inspect([member(p, RawKind.TWIX)], LIMITS) for p in (path, whole))
    assert found["acquisitions_digest"] == wanted["acquisitions_digest"]
