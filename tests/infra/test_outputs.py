"""What the stacks put out is what an operator's commands read."""

import json

import pytest

from infra.outputs import VARIABLES, exports, main


def outputs_of(synth):
    return {
        part: {name: f"value of {name}" for name in template.get("Outputs", {})}
        for part, template in synth.templates.items()
    }


def test_every_variable_has_an_output_of_the_full_environment(production):
    told = exports(json.dumps(outputs_of(production)))
    assert {line.split("=")[0].removeprefix("export ") for line in told.splitlines()} == set(VARIABLES)
    assert "export MRIRECON_RAW_BUCKET='value of RawBucket'" in told


def test_a_file_without_the_data_stack_is_refused(tmp_path, capsys):
    (tmp_path / "outputs.json").write_text("{}")
    assert main([str(tmp_path / "outputs.json")]) == 2
    assert "expected outputs of the stack Data" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["", "[]", "{"])
def test_a_file_that_is_none_is_refused(tmp_path, text):
    (tmp_path / "outputs.json").write_text(text)
    assert main([str(tmp_path / "outputs.json")]) == 2
