"""A deployment that fails says why: the command line's own reason and the end of what it printed."""

import pytest

from emulator.deploy_local import main
from emulator.emulated_cloud import DeployError, EmulatedCloud, reason
from infra import cdk


def printing(code, text):
    """Return a command line that prints ``text`` and ends with ``code``."""

    def run(_arguments, *, log, **_):
        log.write(text.encode())
        return code

    return run


FAILED = "\n".join([*(f"line {number}" for number in range(100)), " ❌  Mrirecon-emulated-Data failed: no"])


def test_the_reason_and_the_last_lines_are_told(tmp_path, monkeypatch):
    monkeypatch.setattr(cdk, "run", printing(1, FAILED))
    cloud = EmulatedCloud(tmp_path)
    with pytest.raises(DeployError) as caught:
        cloud._cdk(["deploy", "--all"], {})
    told = str(caught.value).splitlines()
    assert told[0] == "cdk deploy ended with 1: ❌  Mrirecon-emulated-Data failed: no"
    assert "    line 99" in told
    assert "    line 1" not in told
    assert (tmp_path / "cdk-deploy.log").read_text() == FAILED


def test_a_command_line_that_says_nothing_is_told_so():
    assert reason(["all is well"]) == "it printed no reason"


def test_a_good_deployment_prints_nothing_of_the_command_lines(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(cdk, "run", printing(0, FAILED))
    EmulatedCloud(tmp_path)._cdk(["deploy"], {})
    assert capfd.readouterr() == ("", "")


def test_the_whole_run_fails_with_the_deployment(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(EmulatedCloud, "_start", lambda cloud: setattr(cloud, "url", "http://127.0.0.1:9"))
    monkeypatch.setattr(EmulatedCloud, "environment", {"AWS_REGION": "eu-central-1"})
    monkeypatch.setattr(cdk, "run", printing(1, FAILED))
    assert main(["--folder", str(tmp_path)]) == 1
    told = capfd.readouterr().out
    assert "FAILED: DeployError: cdk bootstrap ended with 1: ❌  Mrirecon-emulated-Data failed: no" in told
