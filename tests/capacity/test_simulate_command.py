"""``mrirecon simulate``: a user's own numbers, by flags and by file; a wrong one ends with a sentence."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from mrirecon.capacity import command


def simulate(*words: str) -> int:
    parser = argparse.ArgumentParser()
    command.register(parser)
    arguments = parser.parse_args(words)
    return int(arguments.command(arguments))


def test_flags_reach_the_day_the_machines_and_the_policies() -> None:
    parser = argparse.ArgumentParser()
    command.register(parser)
    words = "--scanners 7 --scans 30 --recon-seconds 200 --recon-price 0.9 --max-workers 9 --seed 4"
    config = command.configuration(parser.parse_args(words.split()))
    assert (config.day.scanners, config.day.scans_per_scanner, config.day.seed) == (7, 30, 4)
    assert (config.recon.scan_seconds, config.recon.policy.scan_seconds, config.recon.price) == (
        200,
        200,
        0.9,
    )
    assert config.recon.policy.max_workers == config.decompress.policy.max_workers == 9


def test_a_table_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    assert simulate("--scanners", "3") == 0
    said = capsys.readouterr().out
    assert "Scanners 3," in said
    assert "clairvoyant (lower bound)" in said


def test_json_for_programs_and_a_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = tmp_path / "day.svg"
    words = ("--scanners", "3", "--json", "--policy", "scaler", "--policy", "fixed", "--plot", str(picture))
    assert simulate(*words) == 0
    told = json.loads(capsys.readouterr().out)
    assert [row["policy"] for row in told["policies"]] == ["scaler", "fixed"]
    assert told["config"]["day"]["scanners"] == 3
    assert picture.read_text(encoding="utf-8").lstrip().startswith("<?xml")


def test_a_file_of_ones_own_numbers(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(
        "tick_seconds = 30\n[day]\nscanners = 4\nprofile = [" + "1," * 24 + "]\n"
        "[recon]\nprice = 2.5\n[recon.policy]\ntarget_seconds = 400\n",
        encoding="utf-8",
    )
    parser = argparse.ArgumentParser()
    command.register(parser)
    config = command.configuration(parser.parse_args(["--config", str(path), "--scanners", "5"]))
    assert config.tick_seconds == 30
    assert config.day.scanners == 5
    assert config.day.profile == (1,) * 24
    assert (config.recon.price, config.recon.policy.target_seconds) == (2.5, 400)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("scanners = ", "not TOML"),
        ("scanners = 3", "scanners"),
        ("day = 3", "day"),
        ("[day]\nscanner = 3", "scanner"),
        ("[day]\nscanners = 0", "scanners"),
        ("[day]\nscanners = 'many'", "type"),
        ("[recon.policy]\ntarget_seconds = 10", "target_seconds"),
        ("[recon]\npolicy = 3", "policy"),
        ("policies = ['clever']", "clever"),
    ],
)
def test_a_wrong_file_ends_with_a_sentence(
    tmp_path: Path, text: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text, encoding="utf-8")
    assert simulate("--config", str(path)) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert words in said.err
    assert "Traceback" not in said.err


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--scanners", "0"), "scanners"),
        (("--recon-seconds", "-1"), "scan_seconds"),
        (("--max-workers", "0"), "max_workers"),
        (("--policy", "clever"), "clever"),
        (("--plot", "day.gif"), "--plot"),
        (("--config", "nowhere.toml"), "read"),
    ],
)
def test_a_wrong_flag_ends_with_a_sentence(
    flags: tuple[str, str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert simulate(*flags) == 2
    assert words in capsys.readouterr().err
