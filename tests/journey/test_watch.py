import hashlib
import json
import subprocess
import sys
from dataclasses import replace

from mrirecon.cli.watch import scan_name
from mrirecon.local.runner import Outcome
from mrirecon.phantom.scanner import Protocol, pack, simulate


def test_what_is_dropped_into_a_share_becomes_images(tmp_path):
    share, out = tmp_path / "share", tmp_path / "out"
    (share / "stat").mkdir(parents=True)
    protocol = Protocol(
        matrix=(48, 40), fov_mm=(240.0, 200.0), n_slices=1, n_coils=4, acceleration=1, n_acs=0
    )
    simulate(tmp_path / "meas.h5", protocol)
    (tmp_path / "scan.json").write_text('{"label": "knee 7", "profile": "fast"}')
    pack(share / "DOE_JANE.tar", [tmp_path / "meas.h5", tmp_path / "scan.json"])
    pack(share / "stat" / "DOE_bad.tar", [share / "DOE_JANE.tar"])
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "mrirecon.cli",
            "watch",
            str(share),
            "--out",
            str(out),
            "--settle",
            "0.5",
            "--once",
            "--json",
        ],
        capture_output=True,
        text=True,
        timeout=200,
        check=True,
    )
    first, second = (json.loads(line) for line in done.stdout.splitlines())
    assert (first["status"], first["code"]) == ("rejected", "nested_archive"), "stat goes first"
    assert second["status"] == "done"
    assert (out / second["scan_id"] / "image.h5").exists()
    assert (out / "quarantine" / first["scan_id"] / "archive").exists()
    assert "Traceback" not in done.stderr
    digest = hashlib.sha256(b"DOE_JANE.tar").hexdigest()[:32]
    assert (second["archive"], second["label"]) == (digest, "knee 7"), "who knows the name finds the scan"
    record = json.loads((out / second["scan_id"] / "scan.json").read_text())
    assert record["label"] == "knee 7"
    assert "knee 7" in (out / second["scan_id"] / "report.html").read_text()
    assert "DOE" not in done.stdout + done.stderr
    again = subprocess.run(done.args, capture_output=True, text=True, timeout=200, check=True)
    assert again.stdout == "", "a restart does nothing twice"


def test_the_log_calls_a_scan_by_label_and_id_and_never_by_the_archives_name():
    told = Outcome("ab" * 16, "done", "", "", "0" * 16, "out", "grappa", 1.0, label="knee 7")
    assert scan_name(told) == "knee 7, 0000000000000000"
    assert scan_name(replace(told, label=None)) == "0000000000000000"
    assert scan_name(replace(told, label=None, scan_id=None)) == "file " + "ab" * 16


def test_results_inside_the_share_are_refused(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "mrirecon.cli", "watch", str(tmp_path), "--out", str(tmp_path / "out")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert "share" in done.stderr
