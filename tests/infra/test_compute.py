"""The two stages: roles with the least rights, readable roots, scaling left to the scaler, mounts, limits."""

import json

import pytest

from infra.config import load
from mrirecon.contract import environment as env

WILDCARD_OK = {
    # these actions know no resources
    "ecr:GetAuthorizationToken",
    "batch:ListJobs",
    "batch:DescribeJobs",
    "cloudwatch:GetMetricData",
}


def container(production):
    return production.one("AWS::ECS::TaskDefinition")["ContainerDefinitions"][0]


def job(production):
    return production.one("AWS::Batch::JobDefinition")


def variables(entries):
    return {entry.get("Name"): entry.get("Value") for entry in entries}


def statements(synth, stack, role_word):
    """Return the statements of the inline policies of one role."""
    found = []
    for (_, name), policy in synth.resources("AWS::IAM::Policy", stack).items():
        if role_word in name:
            found += policy["PolicyDocument"]["Statement"]
    return found


def test_the_service_has_no_desired_count_and_nothing_else_scales_it(production):
    service = production.one("AWS::ECS::Service")
    assert "DesiredCount" not in service, "a deployment would undo what the scaler decided"
    assert not production.resources("AWS::ApplicationAutoScaling::ScalableTarget")


def test_a_failing_deployment_is_rolled_back(production):
    service = production.one("AWS::ECS::Service")
    assert service["DeploymentConfiguration"]["DeploymentCircuitBreaker"] == {
        "Enable": True,
        "Rollback": True,
    }
    network = service["NetworkConfiguration"]["AwsvpcConfiguration"]
    assert network["AssignPublicIp"] == "DISABLED"


def test_the_decompress_container_is_confined(production):
    found = container(production)
    assert found["ReadonlyRootFilesystem"] is True
    assert found["User"] == "10001"
    assert found["LinuxParameters"]["Capabilities"] == {"Drop": ["ALL"]}
    assert found["StopTimeout"] == 120
    assert [(m["ContainerPath"], m["ReadOnly"]) for m in found["MountPoints"]] == [("/scratch", False)]
    assert "heartbeat" in found["HealthCheck"]["Command"][1]
    assert production.one("AWS::ECS::TaskDefinition")["EphemeralStorage"]["SizeInGiB"] == 100


def test_the_recon_container_is_confined_and_has_a_gpu(production):
    found = job(production)["ContainerProperties"]
    assert found["ReadonlyRootFilesystem"] is True
    assert found["Privileged"] is False
    assert found["User"] == "10001"
    wanted = {item["Type"]: item["Value"] for item in found["ResourceRequirements"]}
    assert wanted == {"GPU": "1", "VCPU": "4", "MEMORY": str(14 * 1024)}
    mounts = {mount["ContainerPath"]: mount.get("ReadOnly", False) for mount in found["MountPoints"]}
    assert mounts == {"/scratch": False, "/fsx": True}


def test_a_job_is_tried_once_and_ends(production):
    found = job(production)
    assert found["RetryStrategy"] == {"Attempts": 1}
    times = load("production").recon.times
    assert found["Timeout"]["AttemptDurationSeconds"] > times.lifetime_seconds + times.scan_seconds


@pytest.mark.parametrize("stage", ["decompress", "recon"])
def test_a_worker_is_told_all_it_needs_by_the_contracts_names(production, stage):
    entries = (
        container(production)["Environment"]
        if stage == "decompress"
        else (job(production)["ContainerProperties"]["Environment"])
    )
    told = variables(entries)
    needed = {
        env.RAW_BUCKET,
        env.KSPACE_BUCKET,
        env.IMAGES_BUCKET,
        env.QUARANTINE_BUCKET,
        env.LEDGER_TABLE,
        env.DECOMPRESS_STAT_QUEUE_URL,
        env.DECOMPRESS_ROUTINE_QUEUE_URL,
        env.RECON_STAT_QUEUE_URL,
        env.RECON_ROUTINE_QUEUE_URL,
        env.VISIBILITY_SECONDS,
        env.SCRATCH_DIR,
        env.HEARTBEAT_FILE,
    }
    assert needed <= set(told)
    assert env.FAILPOINT not in told
    known = {value for name, value in vars(env).items() if isinstance(value, str) and name.isupper()}
    assert {name for name in told if name.startswith(env.PREFIX)} <= known
    assert told[env.LUSTRE_MOUNT] == ("/fsx/kspace" if stage == "recon" else "")
    times = getattr(load("production"), stage).times
    assert told[env.IDLE_SECONDS] == str(times.idle_seconds)
    assert told[env.SPOT_NOTICE] == ("1" if stage == "recon" else "0")


def test_the_workers_settings_accept_what_the_stacks_tell_them(production, tmp_path, monkeypatch):
    from mrirecon.cloud.worker.settings import DecompressSettings, ReconSettings

    for entries, settings in (
        (container(production)["Environment"], DecompressSettings),
        (job(production)["ContainerProperties"]["Environment"], ReconSettings),
    ):
        for name, value in variables(entries).items():
            monkeypatch.setenv(name, value if isinstance(value, str) else "resolved-at-deployment")
        monkeypatch.setenv(env.SCRATCH_DIR, str(tmp_path))
        told = settings.load()
        assert told.visibility_seconds == 120


@pytest.mark.parametrize(
    ("stack", "role", "may_not"),
    [
        ("Decompress", "TaskRole", {"s3:DeleteObject", "s3:DeleteObjectVersion"}),
        ("Recon", "JobRole", {"s3:DeleteObject", "s3:DeleteObjectVersion"}),
    ],
)
def test_a_worker_may_do_named_things_on_named_resources(production, stack, role, may_not):
    found = statements(production, stack, role)
    assert found
    actions = {a for s in found for a in ([s["Action"]] if isinstance(s["Action"], str) else s["Action"])}
    assert not {action for action in actions if "*" in action}
    assert not may_not & actions
    assert not any(s["Resource"] == "*" for s in found)


def writable(found):
    for statement in found:
        actions = [statement["Action"]] if isinstance(statement["Action"], str) else statement["Action"]
        if "s3:PutObject" in actions:
            resources = statement["Resource"]
            yield from (json.dumps(r) for r in (resources if isinstance(resources, list) else [resources]))


def test_each_stage_writes_only_where_the_contract_says(production):
    decompress = "".join(writable(statements(production, "Decompress", "TaskRole")))
    assert "/kspace/*" in decompress
    assert "/quarantine/*" in decompress
    assert "BucketsRaw" not in decompress
    assert "BucketsImages" not in decompress
    recon = "".join(writable(statements(production, "Recon", "JobRole")))
    assert "/images/*" in recon
    assert "/quarantine/*" in recon
    assert "BucketsRaw" not in recon
    assert "BucketsKspace" not in recon


def test_no_role_of_ours_has_a_wildcard_action(production):
    for (stack, name), policy in production.resources("AWS::IAM::Policy").items():
        if not any(
            word in name
            for word in (
                "TaskRole",
                "JobRole",
                "FunctionRole",
                "ScalerRole",
                "RefreshRole",
                "RedriveRole",
                "ShareRole",
            )
        ):
            continue
        for statement in policy["PolicyDocument"]["Statement"]:
            actions = [statement["Action"]] if isinstance(statement["Action"], str) else statement["Action"]
            assert not [a for a in actions if "*" in a], (stack, name, actions)
            if statement["Resource"] == "*":
                assert set(actions) <= WILDCARD_OK, (stack, name, actions)


def test_spot_comes_first_and_on_demand_behind_it(production):
    queue = production.one("AWS::Batch::JobQueue")
    order = {
        entry["Order"]: entry["ComputeEnvironment"]["Fn::GetAtt"][0]
        for entry in queue["ComputeEnvironmentOrder"]
    }
    kinds = {
        name: found["ComputeResources"]["Type"]
        for (_, name), found in production.resources("AWS::Batch::ComputeEnvironment").items()
    }
    assert [kinds[order[number]] for number in sorted(order)] == ["SPOT", "EC2"]


def test_machines_are_none_when_idle_and_gpu_images_when_not(production):
    for found in production.resources("AWS::Batch::ComputeEnvironment").values():
        machines = found["ComputeResources"]
        assert machines["MinvCpus"] == 0
        assert machines["MaxvCpus"] == load("production").recon.scaling.max_workers * 4
        assert machines["Ec2Configuration"] == [{"ImageType": "ECS_AL2023_NVIDIA"}]
        assert "ComputeEnvironmentName" not in found, "a name makes replacement impossible"
        version = machines["LaunchTemplate"]["Version"]
        assert version not in ("$Latest", "$Default")
        assert "LatestVersionNumber" in json.dumps(version)


def test_a_job_that_cannot_be_placed_is_cancelled(production):
    actions = production.one("AWS::Batch::JobQueue")["JobStateTimeLimitActions"]
    assert len(actions) == 3
    assert {action["State"] for action in actions} == {"RUNNABLE"}
    assert {action["MaxTimeSeconds"] for action in actions} == {1800}


def test_a_machine_mounts_lustre_read_only_or_does_not_join(production):
    data = production.one("AWS::EC2::LaunchTemplate", "Recon")["LaunchTemplateData"]
    assert data["MetadataOptions"]["HttpTokens"] == "required"
    assert all(d["Ebs"]["Encrypted"] for d in data["BlockDeviceMappings"])
    text = json.dumps(data["UserData"])
    assert "multipart/mixed" in text
    assert "mount -t lustre -o ro," in text
    assert "shutdown -h now" in text
    assert "ECS_ENABLE_SPOT_INSTANCE_DRAINING=true" in text


def test_without_lustre_nothing_is_mounted(dev):
    assert "lustre" not in json.dumps(dev.one("AWS::EC2::LaunchTemplate")["LaunchTemplateData"]["UserData"])
    mounts = dev.one("AWS::Batch::JobDefinition")["ContainerProperties"]["MountPoints"]
    assert [mount["ContainerPath"] for mount in mounts] == ["/scratch"]
    assert not dev.resources("AWS::FSx::FileSystem")


def test_lustre_imports_kspace_and_exports_nothing(production):
    system = production.one("AWS::FSx::FileSystem")
    assert system["LustreConfiguration"]["DeploymentType"] == "PERSISTENT_2"
    assert system["LustreConfiguration"]["DataCompressionType"] == "LZ4"
    assert system["StorageCapacity"] == 1200
    link = production.one("AWS::FSx::DataRepositoryAssociation")
    assert set(link["S3"]) == {"AutoImportPolicy"}
    assert link["S3"]["AutoImportPolicy"]["Events"] == ["NEW", "CHANGED", "DELETED"]
    assert link["FileSystemPath"] == "/kspace"


def test_the_same_containers_come_from_the_rooms_they_need():
    from infra.images import SERVICES, context_patterns

    for stage, absent in (("decompress", "!raki"), ("recon", "!decompress")):
        patterns = context_patterns(stage)
        assert absent not in patterns
        assert f"!{stage}" in patterns
        text = (SERVICES / stage / "Dockerfile").read_text()
        rooms = {
            line.split()[1] for line in text.splitlines() if line.startswith("COPY ") and "mrirecon/" in line
        }
        assert {f"!{room}" for room in rooms} <= set(patterns)
