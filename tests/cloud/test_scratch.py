"""What killed workers leave on a scratch disk that others are working on."""

import subprocess
import sys

from mrirecon.cloud.worker.scratch import clean_scratch, scratch_folder

HOLDER = """
import sys, time
from pathlib import Path
from mrirecon.cloud.worker.scratch import scratch_folder
with scratch_folder(Path(sys.argv[1]), "recon-") as folder:
    (folder / "kspace").write_bytes(b"1")
    print(folder, flush=True)
    time.sleep(60)
"""


def test_the_folder_of_a_living_worker_stays_and_that_of_a_killed_one_goes(tmp_path):
    other = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        theirs = tmp_path / other.stdout.readline().strip()
        clean_scratch(tmp_path)
        assert (theirs / "kspace").exists()
    finally:
        other.kill()
        other.wait()
        other.stdout.close()
    assert theirs.exists()
    clean_scratch(tmp_path)
    assert not theirs.exists()


def test_a_folder_is_removed_after_use_and_foreign_ones_are_left_alone(tmp_path):
    (tmp_path / "somebody").mkdir()
    with scratch_folder(tmp_path, "intake-") as folder:
        (folder / "archive").write_bytes(b"1")
        clean_scratch(tmp_path)
        assert (folder / "archive").exists()
    clean_scratch(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["somebody"]
