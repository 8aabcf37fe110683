"""The synth itself: the same twice, asking nobody, quiet about nothing that is wrong; and the snapshot."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from infra import cdk
from infra.config import load
from infra.lambda_asset import AssetError, compose, dependencies, digest
from infra.stacks import build_app

ROOT = Path(__file__).resolve().parents[2]
SNAPSHOT = Path(__file__).with_name("snapshot") / "production.json"
HASH = re.compile(r"[0-9a-f]{64}")


def normal(templates):
    """Return the templates without what changes with every line of code: the hashes of assets."""
    text = json.dumps(templates, indent=1, sort_keys=True)
    text = HASH.sub("<asset>", text)
    return re.sub(r"(LatestNodeRuntimeMap|AssetParameters)\w*", r"\1", text) + "\n"


def test_the_full_environment_is_as_it_was_reviewed(production):
    """A change of the templates is a change of this file, to be read by whoever reviews it.

    ``MRIRECON_UPDATE_SNAPSHOT=1 pytest tests/infra/test_synth.py`` writes it anew.
    """
    found = normal(production.templates)
    if os.environ.get("MRIRECON_UPDATE_SNAPSHOT"):
        SNAPSHOT.parent.mkdir(exist_ok=True)
        SNAPSHOT.write_text(found)
    expected = SNAPSHOT.read_text()
    if found != expected:
        told, known = json.loads(found), json.loads(expected)
        changed = [
            f"{stack}/{name}"
            for stack in sorted({*told, *known})
            for name in sorted(
                {*told.get(stack, {}).get("Resources", {}), *known.get(stack, {}).get("Resources", {})}
            )
            if told.get(stack, {}).get("Resources", {}).get(name)
            != known.get(stack, {}).get("Resources", {}).get(name)
        ]
        pytest.fail("resources differ from the snapshot: " + ", ".join(changed[:20]))


def files_of(folder):
    names = [*folder.glob("*.template.json"), *folder.glob("*.assets.json")]
    return {path.name: path.read_bytes() for path in names}


def test_two_synths_are_equal(dev, tmp_path):
    build_app(load("dev"), outdir=str(tmp_path)).synth()
    assert files_of(tmp_path) == files_of(dev.folder)


@pytest.mark.parametrize("name", ["production", "dev", "emulated"])
def test_the_stacks_need_no_lookup(synth, name):
    manifest = json.loads((synth(name).folder / "manifest.json").read_text())
    assert not manifest.get("missing")


OTHERWISE = {
    "@aws-cdk/aws-ecs:removeEmptyLoadBalancers": "the service has never had a load balancer to remove",
    "@aws-cdk/core:defaultCrossStackReferences": "a stack whose output is in use must not be deletable",
    "@aws-cdk/core:enableAdditionalMetadataCollection": "nothing is told to anybody",
    "@aws-cdk/core:target-partitions": "every stack names its region, so no table of regions is needed",
}
"""Feature flags that are set to another value than CDK recommends, and why."""


def test_every_feature_flag_is_decided(production):
    """A flag that nobody decided is counted at every synth, and an upgrade may decide it."""
    manifest = json.loads((production.folder / "manifest.json").read_text())
    report = next(
        one["properties"]
        for one in manifest["artifacts"].values()
        if one["type"] == "cdk:feature-flag-report"
    )
    flags = report["flags"]
    known = {name for name, flag in flags.items() if "userValue" in flag}
    assert len(known) > 80
    open_ = [
        name
        for name, flag in flags.items()
        if name not in known
        and flag["recommendedValue"] != flag.get("unconfiguredBehavesLike", {}).get("v2", False)
    ]
    assert not open_
    differ = {name for name in known if flags[name]["userValue"] != flags[name]["recommendedValue"]}
    assert differ == set(OTHERWISE)


@pytest.mark.parametrize("name", ["production", "dev", "emulated"])
def test_a_synth_warns_of_nothing(synth, name):
    report = json.loads((synth(name).folder / "validation-report.json").read_text())
    found = [
        violation["ruleName"] for plugin in report["pluginReports"] for violation in plugin["violations"]
    ]
    assert found == []


def test_what_the_emulator_lacks_is_left_out_by_name_and_nothing_else(emulated):
    present = {r["Type"] for t in emulated.templates.values() for r in t["Resources"].values()}
    absent = load("emulated").emulator.absent
    gone = {
        "batch": "AWS::Batch::",
        "budget": "AWS::Budgets::",
        "flow_logs": "AWS::EC2::FlowLog",
        "log_queries": "AWS::Logs::QueryDefinition",
        "lustre": "AWS::FSx::",
        "sagemaker": "AWS::SageMaker::",
        "storage_gateway": "AWS::StorageGateway::",
    }
    for part, start in gone.items():
        assert part in absent
        assert not [kind for kind in present if kind.startswith(start)]
    for kind in (
        "AWS::S3::Bucket",
        "AWS::SQS::Queue",
        "AWS::Events::Rule",
        "AWS::Lambda::Function",
        "AWS::DynamoDB::Table",
        "AWS::ECS::Service",
        "AWS::CloudWatch::Alarm",
    ):
        assert kind in present


def test_an_asset_is_the_same_bytes_each_time(tmp_path):
    first, mark = compose("scaler", build=tmp_path / "a")
    shutil.rmtree(first)
    second, again = compose("scaler", build=tmp_path / "a")
    assert mark == again == digest(second)
    assert (second / "handler.py").is_file()
    assert (second / "mrirecon" / "contract" / "keys.py").is_file()
    assert not list(second.rglob("__pycache__"))


def test_dependencies_without_a_version_are_refused(tmp_path):
    folder = tmp_path / "some"
    folder.mkdir()
    (folder / "requirements.txt").write_text("boto3>=1\n")
    with pytest.raises(AssetError, match=r"some/requirements.txt: expected name==version, got 'boto3>=1'"):
        dependencies(folder / "requirements.txt", build=tmp_path)


def test_a_lambda_that_is_not_there_is_told(tmp_path):
    with pytest.raises(AssetError, match=r"lambda/none: expected handler\.py"):
        compose("none", build=tmp_path)


def test_the_containers_install_what_the_project_pins():
    from infra.requirements import EXTRAS, render

    for stage in EXTRAS:
        assert (ROOT / "services" / stage / "requirements.txt").read_text() == render(stage)
    text = (ROOT / "services" / "decompress" / "requirements.txt").read_text()
    assert "torch" not in text
    assert "boto3==" in text


def without_credentials(home):
    values = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    return cdk.environment({**values, "HOME": str(home)})


def test_an_unknown_environment_is_told_by_the_app(tmp_path):
    environment = {**without_credentials(tmp_path), "CDK_CONTEXT_JSON": '{"env": "prod"}'}
    done = subprocess.run(
        [sys.executable, "app.py"], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "env: got 'prod'; takes one of dev, emulated, production" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow  # it wants the command line from npm's registry
def test_the_command_lines_output_goes_to_a_log(tmp_path, capfd):
    cdk.install()
    with (tmp_path / "cdk.log").open("wb") as log:
        code = cdk.run(
            ["synth", "--quiet", "-c", "env=prod", "--output", str(tmp_path / "out")],
            base=without_credentials(tmp_path),
            log=log,
        )
    assert code
    assert "takes one of dev, emulated, production" in (tmp_path / "cdk.log").read_text()
    assert capfd.readouterr() == ("", "")


def test_a_command_line_that_cannot_be_installed_is_told_in_a_sentence(tmp_path, monkeypatch, capsys):
    (tmp_path / "package.json").write_text('{"name": "x", "private": true, "dependencies": {"y": "1.0.0"}}')
    (tmp_path / "package-lock.json").write_text("{}")
    monkeypatch.setattr(cdk, "NODE_PROJECT", tmp_path)
    monkeypatch.setattr(cdk, "CLI", tmp_path / "node_modules" / ".bin" / "cdk")
    assert cdk.main(["synth"]) == 1
    told = capsys.readouterr().err
    assert told.startswith("npm could not install the CDK command line")
    assert "npm error" in told


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_command_line_synthesises_with_no_credentials_and_no_network(tmp_path):
    cdk.install()
    build_app(
        load("production"), outdir=str(tmp_path / "before")
    )  # dependencies of the Lambdas are installed
    alone = ["unshare", "--user", "--map-root-user", "--net"] if _can_unshare() else []
    for number in (1, 2):
        done = subprocess.run(
            [
                *alone,
                str(cdk.CLI),
                "synth",
                "--quiet",
                "-c",
                "env=production",
                "--output",
                str(tmp_path / str(number)),
            ],
            cwd=ROOT,
            env=without_credentials(tmp_path),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-3000:]
    assert files_of(tmp_path / "1") == files_of(tmp_path / "2")
    assert len(list((tmp_path / "1").glob("*.template.json"))) == 9


def _can_unshare():
    if not shutil.which("unshare"):
        return False
    return (
        subprocess.run(
            ["unshare", "--user", "--map-root-user", "--net", "true"], check=False, capture_output=True
        ).returncode
        == 0
    )
