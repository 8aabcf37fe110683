import json
import subprocess
import sys

from mrirecon.phantom.scanner import Protocol, pack, simulate


def test_what_is_dropped_into_a_share_becomes_images(tmp_path):
    share, out = tmp_path / "share", tmp_path / "out"
    (share / "stat").mkdir(parents=True)
    protocol = Protocol(
        matrix=(48, 40), fov_mm=(240.0, 200.0), n_slices=1, n_coils=4, acceleration=1, n_acs=0
    )
    simulate(tmp_path / "meas.h5", protocol)
    pack(share / "routine.tar", [tmp_path / "meas.h5"])
    pack(share / "stat" / "bad.tar", [share / "routine.tar"])
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
    again = subprocess.run(done.args, capture_output=True, text=True, timeout=200, check=True)
    assert again.stdout == "", "a restart does nothing twice"


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
