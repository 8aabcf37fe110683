"""The canary scan: small, whole, and never the same."""

from mrirecon.cli.canary import make
from mrirecon.cli.main import main
from mrirecon.contract.codes import End
from mrirecon.contract.ids import scan_id_from_digest
from mrirecon.local.runner import run_archive


def test_two_canaries_are_two_scans_and_each_makes_images(tmp_path):
    import hashlib

    digests = set()
    for name in ("one", "two"):
        archive = tmp_path / f"{name}.tar"
        make(archive)
        digests.add(scan_id_from_digest(hashlib.sha256(archive.read_bytes()).hexdigest()))
        assert archive.stat().st_size < 20e6
    assert len(digests) == 2
    assert run_archive(tmp_path / "one.tar", tmp_path / "out").end is End.DONE


def test_a_canary_that_nobody_takes_fails_in_time(world, monkeypatch, capsys):
    for name, value in world.environ.items():
        monkeypatch.setenv(name, value)
    assert main(["canary", "--site", "main", "--timeout", "2"]) == 1
    assert "has not ended within 2 s" in capsys.readouterr().err
