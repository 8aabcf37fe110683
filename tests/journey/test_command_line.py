import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from dataclasses import replace
from pathlib import Path

import h5py
import jsonschema
import numpy as np
import pytest

from mrirecon.cli import screen
from mrirecon.cli.main import main
from mrirecon.contract.record import schema
from mrirecon.phantom.scanner import Protocol, pack, simulate
from tests.support.wrapping import wrap

SMALL = Protocol(
    matrix=(64, 48),
    fov_mm=(240.0, 180.0),
    n_slices=2,
    n_coils=6,
    acceleration=2,
    n_acs=16,
    subject="SENTINEL^DOE",
)


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    folder = tmp_path_factory.mktemp("archive")
    simulate(folder / "meas.h5", SMALL)
    pack(folder / "scan.tar", [folder / "meas.h5"])
    return folder / "scan.tar"


@pytest.fixture(scope="module")
def bad_archive(tmp_path_factory):
    path = tmp_path_factory.mktemp("bad") / "bad.tar"
    path.write_bytes(b"PK\x03\x04" + bytes(4000))
    return path


def lines(captured):
    return [json.loads(line) for line in captured.out.splitlines()]


def everything_in(folder):
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def test_an_archive_becomes_images_and_a_record(archive, tmp_path, capsys):
    assert main(["run", str(archive), "--out", str(tmp_path), "--method", "grappa", "--json"]) == 0
    (line,) = lines(capsys.readouterr())
    told = "archive status code message scan_id out method seconds label"
    assert set(line) == set(told.split())
    assert (line["status"], line["code"], line["method"]) == ("done", "", "grappa")
    assert line["out"] == str(tmp_path / line["scan_id"])
    made = everything_in(tmp_path / line["scan_id"])
    assert {"image.h5", "image.nii.gz", "preview.png", "report.html", "scan.json"} <= set(made)
    assert {name for name in made if name.startswith("dicom/")} == {
        "dicom/001_0001.dcm",
        "dicom/001_0002.dcm",
        "dicom/notes.dcm",
    }
    record = json.loads((tmp_path / line["scan_id"] / "scan.json").read_text())
    jsonschema.validate(record, schema())
    assert record["acceleration"]["ky"] == 2
    assert 16 <= record["acs_lines"] <= 17, "the adjoining regular line counts"
    assert [p.name for p in tmp_path.iterdir()] == [line["scan_id"]], "nothing half-made is left beside it"


def test_no_name_from_the_scanner_is_in_any_output(archive, tmp_path, capsys):
    main(["run", str(archive), "--out", str(tmp_path), "--method", "grappa"])
    told = capsys.readouterr()
    assert "SENTINEL" not in told.out + told.err
    for path in tmp_path.rglob("*"):
        assert "SENTINEL" not in str(path)
        if path.is_file():
            assert b"SENTINEL" not in path.read_bytes(), path.name


def test_a_second_run_finds_its_work_done(archive, tmp_path, capsys):
    call = ["run", str(archive), "--out", str(tmp_path), "--method", "zero-filled", "--json"]
    assert main(call) == 0
    first = lines(capsys.readouterr())[0]
    before = {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in tmp_path.rglob("*") if p.is_file()}
    assert main(call) == 0
    second = lines(capsys.readouterr())[0]
    assert second["out"] == first["out"]
    assert before == {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in tmp_path.rglob("*") if p.is_file()}


def test_another_method_goes_beside_the_first(archive, tmp_path, capsys):
    call = ["run", str(archive), "--out", str(tmp_path), "--json", "--method"]
    assert main([*call, "zero-filled"]) == 0
    assert main([*call, "grappa"]) == 0
    first, second = lines(capsys.readouterr())
    assert first["out"] != second["out"]
    assert first["method"] == "zero-filled"
    assert second["method"] == "grappa"


def test_reruns_give_the_same_bytes(archive, tmp_path):
    made = []
    for name in ("a", "b"):
        assert main(["run", str(archive), "--out", str(tmp_path / name), "--method", "raki"]) == 0
        (place,) = (tmp_path / name).iterdir()
        with h5py.File(place / "image.h5") as file:
            image = file["image"][()]
        files = {p.name: p.read_bytes() for p in [*place.glob("dicom/*"), place / "image.nii.gz"]}
        made.append((image, files))
    np.testing.assert_array_equal(made[0][0], made[1][0])
    assert made[0][1] == made[1][1]


def test_a_scan_refused_for_its_calibration_tells_what_was_found(tmp_path, capsys):
    """Every second line and only four of calibration: the intake knows all but how to fill the gaps."""
    simulate(tmp_path / "meas.h5", replace(SMALL, n_acs=4, acceleration=3))
    pack(tmp_path / "scan.tar", [tmp_path / "meas.h5"])
    assert main(["run", str(tmp_path / "scan.tar"), "--out", str(tmp_path / "out"), "--json"]) == 3
    (end,) = lines(capsys.readouterr())
    assert (end["code"], end["method"]) == ("too_few_acs", None)
    record = json.loads((Path(end["out"]) / "scan.json").read_text())
    jsonschema.validate(record, schema())
    assert (record["status"], record["code"]) == ("rejected", "too_few_acs")
    assert record["acceleration"]["ky"] == 3
    assert 4 <= record["acs_lines"] <= 6
    assert f"Found {record['acs_lines']} " in record["message"]
    assert record["geometry"]["image_matrix"] == [2, *SMALL.matrix]
    assert record["geometry"]["coils"] == SMALL.n_coils
    assert record["sampling"]["acquired_lines"] < record["sampling"]["lines"]
    assert record["sampling"]["description"].startswith("R=3")
    assert record["profile"]["name"] == "routine"
    assert record["seconds"]["decompress"] > 0
    assert record["preprocessing"]
    assert record["method"] is record["quality"] is None


def test_noise_is_warned_of_on_the_terminal(tmp_path, capsys):
    random = np.random.default_rng(0)
    noise = random.standard_normal((4, 64, 64)) + 1j * random.standard_normal((4, 64, 64))
    mask = np.zeros(64, bool)
    mask[::2] = mask[20:44] = True
    archive = wrap(noise.astype(np.complex64), mask, tmp_path / "scan.tar", 2)
    for form in ([], ["--json"]):
        call = ["run", str(archive), "--out", str(tmp_path / "out"), "--method", "grappa", *form]
        assert main(call) == 0
        told = capsys.readouterr()
        (said,) = [line for line in told.err.splitlines() if "interpolated lines" in line]
        assert said.startswith("  warning: Do not rely on")
        assert "warning" not in told.out
    record = json.loads((Path(json.loads(told.out)["out"]) / "scan.json").read_text())
    assert said == f"  warning: {record['warnings'][0]}"


def test_times_and_warnings_of_the_intake_are_on_the_page(archive, tmp_path, capsys):
    with tarfile.open(archive) as whole:
        whole.extractall(tmp_path / "raw", filter="data")
    (raw,) = (tmp_path / "raw").iterdir()
    (tmp_path / "scan.json").write_text('{"profile": "fast", "remark": "SENTINEL"}')
    pack(tmp_path / "scan.tar", [raw, tmp_path / "scan.json"])
    assert main(["run", str(tmp_path / "scan.tar"), "--out", str(tmp_path / "out"), "--json"]) == 0
    place = Path(lines(capsys.readouterr())[0]["out"])
    record = json.loads((place / "scan.json").read_text())
    assert {"unpack", "gate", "read", "sort", "decompress", "load", "write"} <= set(record["seconds"])
    page = (place / "report.html").read_text()
    assert f"Intake, {record['seconds']['decompress']:.1f} s" in page
    assert page.index("read the raw data") < page.index("write images")
    (unheeded,) = [warning for warning in record["warnings"] if "scan.json" in warning]
    assert unheeded.replace("'", "&#39;") in page
    assert "SENTINEL" not in page + json.dumps(record)


def test_one_bad_archive_does_not_stop_the_others(archive, bad_archive, tmp_path, capsys):
    empty = tmp_path / "empty"
    empty.mkdir()
    call = [
        "run",
        str(bad_archive),
        str(empty),
        str(archive),
        "--out",
        str(tmp_path / "o"),
        "--method",
        "grappa",
    ]
    assert main([*call, "--json"]) == 3
    ends = lines(capsys.readouterr())
    assert [end["status"] for end in ends] == ["rejected", "rejected", "done"]
    assert [end["code"] for end in ends] == ["not_an_archive", "no_raw_data", ""]
    assert all(end["message"] for end in ends)


def test_an_archive_still_arriving_is_incomplete_and_leaves_nothing(archive, tmp_path, capsys):
    cut = tmp_path / "cut.tar"
    cut.write_bytes(archive.read_bytes()[:5000])
    assert main(["run", str(cut), "--out", str(tmp_path / "o"), "--json"]) == 4
    assert lines(capsys.readouterr())[0]["status"] == "incomplete"
    assert everything_in(tmp_path / "o") == []


@pytest.mark.parametrize(
    "call", [["run"], ["run", "x.tar"], ["run", "x.tar", "--out", "o", "--method", "magic"], ["unknown"], []]
)
def test_a_wrong_call_is_usage(call):
    with pytest.raises(SystemExit) as stopped:
        main(call)
    assert stopped.value.code == 2


def test_results_that_cannot_be_written_are_a_sentence(archive, tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    assert main(["run", str(archive), "--out", str(tmp_path / "file"), "--json"]) == 1
    (end,) = lines(capsys.readouterr())
    assert end["status"] == "failed"
    assert "Error" not in end["message"]


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="needs a device without end")
@pytest.mark.parametrize(
    ("kind", "found", "to_do"),
    [
        ("pipe", "no regular file", "Pack"),
        ("device", "no regular file", "Pack"),
    ],
)
def test_a_path_that_is_no_file_ends_in_a_sentence(kind, found, to_do, tmp_path, capsys):
    path = {
        "pipe": tmp_path / "janedoe.tar",
        "device": Path("/dev/zero"),
    }[kind]
    if kind == "pipe":
        os.mkfifo(path)
    assert main(["run", str(path), "--out", str(tmp_path / "out"), "--json"]) == 3
    (end,) = lines(capsys.readouterr())
    assert (end["code"], end["scan_id"], end["out"]) == ("not_an_archive", None, None)
    for said in ("Expected", "tar", found, to_do):
        assert said in end["message"]
    assert "janedoe" not in end["message"]
    main(["run", str(path), "--out", str(tmp_path / "out")])
    told = capsys.readouterr().err
    assert path.name in told, "which of many is meant"
    assert end["message"] in told
    assert everything_in(tmp_path / "out") == []


def test_a_path_that_cannot_be_asked_about_ends_in_a_sentence(tmp_path, capsys):
    assert main(["run", "n" * 300, "--out", str(tmp_path / "out"), "--json"]) == 1
    (end,) = lines(capsys.readouterr())
    assert (end["status"], end["code"], end["scan_id"]) == ("failed", "storage", None)
    assert "Error" not in end["message"]


def test_an_archive_beyond_all_limits_is_refused_unread(tmp_path, capsys):
    path = tmp_path / "scan.tar"
    path.touch()
    try:
        os.truncate(path, 1 << 42)
    except OSError:
        pytest.skip("needs a file system with sparse files")
    assert main(["run", str(path), "--out", str(tmp_path / "out"), "--json"]) == 3
    (end,) = lines(capsys.readouterr())
    assert (end["code"], end["scan_id"]) == ("too_large", None)


def test_a_full_disk_is_a_sentence_and_leaves_no_half_record(archive, tmp_path, capsys):
    """On a real small disk: libhdf5 crashes when it closes a file that cannot be written."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(disk)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount a small file system")
    try:
        call = [
            sys.executable,
            "-m",
            "mrirecon.cli",
            "run",
            str(archive),
            "--out",
            str(disk / "out"),
            "--json",
        ]
        for filled in (False, True):
            if filled:
                with pytest.raises(OSError, match="No space"):
                    (disk / "filler").write_bytes(bytes(300_000))
            done = subprocess.run(
                [*call, "--method", "zero-filled"], capture_output=True, text=True, check=False
            )
            assert done.returncode == 1, done.stderr
            assert json.loads(done.stdout)["code"] == "disk_full"
            assert set(everything_in(disk / "out")) <= {f"{json.loads(done.stdout)['scan_id']}/scan.json"}
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_inspect_tells_what_is_inside_without_making_anything(archive, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["inspect", str(archive), "--json"]) == 0
    text = capsys.readouterr().out
    assert json.loads(text)
    assert "SENTINEL" not in text
    assert main(["inspect", str(archive)]) == 0
    assert "SENTINEL" not in capsys.readouterr().out
    assert everything_in(tmp_path) == []


def test_inspect_and_the_page_tell_the_same_grid(tmp_path, capsys):
    """y before x in both, and both say so; partial Fourier on its own axis."""
    mask = np.arange(64) >= 16
    random = np.random.default_rng(0)
    archive = wrap(random.standard_normal((3, 64, 48)).astype(np.complex64), mask, tmp_path / "scan.tar")
    assert main(["inspect", str(archive)]) == 0
    told = capsys.readouterr().out
    assert re.search(r"^image, y × x .* 64 × 48, 64 × 48 mm", told, re.MULTILINE)
    assert re.search(r"^partial Fourier .* along ky$", told, re.MULTILINE)
    assert main(["run", str(archive), "--out", str(tmp_path / "out"), "--method", "zero-filled"]) == 0
    page = (Path(capsys.readouterr().out.strip()) / "report.html").read_text()
    assert re.search(r"Matrix, y × x</dt>\s*<dd>64 × 48</dd>", page)
    assert re.search(r"Field of view, y × x</dt>\s*<dd>64 × 48 mm", page)
    assert re.search(r"Voxel, y × x × z</dt>\s*<dd>1 × 1 × 5 mm", page)


def test_inspect_of_a_bad_archive_has_a_code(bad_archive, capsys):
    assert main(["inspect", str(bad_archive), "--json"]) == 3
    assert json.loads(capsys.readouterr().out)["code"] == "not_an_archive"


def test_the_doctor_reconstructs(capsys):
    assert main(["doctor"]) == 0
    assert "tiny reconstruction" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("missing", "command"),
    [("boto3", ["status"]), ("simpy", ["simulate"]), ("aws_cdk", ["cost", "--env", "dev"])],
)
def test_a_package_that_is_not_installed_is_named_in_a_sentence(missing, command):
    code = (
        f"import sys; sys.modules[{missing!r}] = None; from mrirecon.cli.main import main; "
        f"sys.exit(main({command}))"
    )
    environment = {**os.environ, "MRIRECON_LEDGER_TABLE": "ledger"}
    told = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert told.returncode == 2
    assert missing in told.stderr
    assert "Traceback" not in told.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_leaves_nothing_half_published(archive, tmp_path, number):
    out, temporary = tmp_path / "out", tmp_path / "tmp"
    temporary.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-m", "mrirecon.cli", "run", str(archive), "--out", str(out), "--method", "raki"],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={"PATH": "/usr/bin:/bin", "TMPDIR": str(temporary)},
    )
    deadline = time.monotonic() + 60
    while not list(out.glob(".partial-*")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(number)
    _, told = process.communicate(timeout=60)
    # a shell reports both as 130: CPython dies of the signal where it came amid an exec() of an import
    assert process.returncode in {130, -signal.SIGINT}, told
    assert "Traceback" not in told
    assert list(out.iterdir()) == []
    assert [p for p in temporary.iterdir() if not p.name.startswith("mrirecon-cache-")] == []


def test_nothing_is_written_outside_the_results_and_the_temporary_folder(archive, tmp_path):
    home, out, temporary = (tmp_path / name for name in ("home", "out", "tmp"))
    home.mkdir()
    temporary.mkdir()
    subprocess.run(
        [sys.executable, "-m", "mrirecon.cli", "run", str(archive), "--out", str(out), "--method", "pics"],
        check=True,
        cwd=home,
        capture_output=True,
        env={"PATH": "/usr/bin:/bin", "TMPDIR": str(temporary), "HOME": str(home)},
    )
    assert everything_in(home) == []
    assert [p.name for p in temporary.iterdir() if not p.name.startswith("mrirecon-cache-")] == []


def test_sentences_break_between_words_on_a_terminal_alone(monkeypatch, capsys):
    sentence = "Expected is one tar file; there is nothing at the path given. " * 3
    screen.say(sentence, indent="  ")
    assert capsys.readouterr().err == f"  {sentence}\n", "one line a sentence for tools that read it"
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "50")
    screen.say(sentence, indent="  ")
    told = capsys.readouterr().err.splitlines()
    assert len(told) > 3
    assert all(line.startswith("  ") and len(line) < 50 for line in told)
    assert " ".join(line.strip() for line in told).split() == sentence.split()


def test_a_stage_is_told_once_where_nothing_moves(capsys):
    with screen.progress("Scan") as progress:
        for stage in ("read", "reconstruct", "choose", "reconstruct", "train", "reconstruct", "choose"):
            progress(stage, 0.5, "")
    told = capsys.readouterr().err.splitlines()
    assert told == [f"Scan: {screen.STAGES[name]}" for name in ("read", "reconstruct", "choose", "train")]
