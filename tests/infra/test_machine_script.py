"""The boot script of a GPU machine, run with stub commands: it is set up, or it is gone."""

import os
import re
import subprocess

import pytest


def joined(value):
    """Return a template's text, with a word for what is known at the deployment only."""
    if isinstance(value, str):
        return value
    if "Fn::Base64" in value:
        return joined(value["Fn::Base64"])
    return "".join(map(joined, value["Fn::Join"][1])) if "Fn::Join" in value else "later"


def script_of(synth):
    """Return the boot script of the GPU machines."""
    text = joined(synth.one("AWS::EC2::LaunchTemplate", "Recon")["LaunchTemplateData"]["UserData"])
    return re.search(r"#!/bin/bash\n(.*?)\n--", text, re.DOTALL)[1]


STUB = """#!/bin/sh
echo "{name} $*" >> "$CALLS"
grep -qx "{name}" "$FAILING" && exit 32
n=$(grep -x "{name} [0-9]*" "$FAILING" | cut -d' ' -f2)
[ -n "$n" ] && [ "$(grep -c "^{name} " "$CALLS")" -le "$n" ] && exit 32
exit 0
"""


class Machine:
    """Runs the script; ``failing`` holds command names, with how often they fail before they work."""

    def __init__(self, folder, scripts):
        self.scripts = scripts
        self.folder = folder
        self.commands = folder / "bin"
        self.commands.mkdir()
        for name in ("dnf", "mount", "mountpoint", "shutdown", "sleep", "install"):
            path = self.commands / name
            path.write_text(STUB.format(name=name))
            path.chmod(0o755)

    def boot(self, environment="production", failing=()):
        script = script_of(self.scripts(environment)).replace("/etc/ecs", f"{self.folder}/ecs")
        script = script.replace(" /fsx", f" {self.folder}/fsx")
        calls, faults = self.folder / "calls", self.folder / "failing"
        calls.write_text("")
        faults.write_text("".join(f"{one}\n" for one in failing))
        done = subprocess.run(
            ["/bin/bash", "-c", script],
            env={
                "PATH": f"{self.commands}:{os.environ['PATH']}",
                "CALLS": str(calls),
                "FAILING": str(faults),
            },
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return done, [line.split() for line in calls.read_text().splitlines()]


@pytest.fixture
def machine(tmp_path, synth):
    return Machine(tmp_path, synth)


def names(calls):
    return [call[0] for call in calls]


def test_a_machine_mounts_the_file_system_and_stays(machine):
    done, calls = machine.boot()
    assert done.returncode == 0, done.stderr
    assert "shutdown" not in names(calls)
    (mount,) = [call for call in calls if call[0] == "mount"]
    assert mount[1:5] == ["-t", "lustre", "-o", "ro,relatime,flock"]
    assert re.fullmatch(r"later\S*@tcp:/later", mount[5])
    assert mount[6:] == [f"{machine.folder}/fsx"]
    assert ["dnf", "install", "-y", "lustre-client"] in calls
    text = (machine.folder / "ecs" / "ecs.config").read_text()
    assert "ECS_ENABLE_SPOT_INSTANCE_DRAINING=true\n" in text


@pytest.mark.parametrize("command", ["dnf", "mount", "mountpoint", "install"])
def test_a_machine_on_which_anything_fails_shuts_down(machine, command):
    done, calls = machine.boot(failing=[command])
    assert done.returncode != 0
    assert calls[-1] == ["shutdown", "-h", "now"]
    assert names(calls).count("shutdown") == 1
    assert "set-up failed" in done.stderr


@pytest.mark.parametrize("command", ["dnf", "mount"])
def test_what_fails_at_first_is_tried_again(machine, command):
    done, calls = machine.boot(failing=[f"{command} 2"])
    assert done.returncode == 0, done.stderr
    assert names(calls).count(command) == 3
    assert "shutdown" not in names(calls)


def test_a_machine_does_not_try_for_ever(machine):
    _, calls = machine.boot(failing=["mount"])
    assert 2 <= names(calls).count("mount") <= 10
    assert sum(float(call[1]) for call in calls if call[0] == "sleep") <= 300


def test_without_a_file_system_nothing_is_mounted(machine):
    done, calls = machine.boot("dev")
    assert done.returncode == 0
    assert names(calls) == ["install"]
