"""What AWS's own rules ask of the templates, where emulators and policy packs notice nothing.

``docs/aws-findings.md`` gives AWS's sentence for each. ``MRIRECON_TEMPLATES=FOLDER pytest FILE`` runs the
checks on the templates of another version (``FOLDER/production/*.template.json``, and so on).
"""

import ast
import ipaddress
import json
import re
from pathlib import Path

import pytest

from infra.config import load
from mrirecon.contract import environment as env
from mrirecon.contract import keys

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(params=["production", "dev"])
def deployed(request, synth):
    return synth(request.param)


def listed(value):
    return value if isinstance(value, list) else [value]


def statements(policies):
    return [one for policy in policies for one in listed(policy["PolicyDocument"]["Statement"])]


def rights(synth, role):
    """Return (action, resource as text) of every allowance of the role whose logical id contains a word."""
    found = {
        name: policy
        for (_, name), policy in synth.resources("AWS::IAM::Policy").items()
        if role in json.dumps(policy["Roles"])
    }
    assert found, role
    return {
        (action, json.dumps(resource))
        for one in statements(found.values())
        if one["Effect"] == "Allow"
        for action in listed(one["Action"])
        for resource in listed(one["Resource"])
    }


def may(allowed, action, resource):
    return any(action == one and resource in where for one, where in allowed)


# 1: keys


def key_statements(synth):
    return [
        one
        for key in synth.resources("AWS::KMS::Key").values()
        for one in listed(key["KeyPolicy"]["Statement"])
    ]


def test_a_key_names_the_whole_account_only_to_delegate_to_iam(deployed):
    for one in key_statements(deployed):
        if ":root" in json.dumps(one["Principal"]):
            assert one["Action"] == "kms:*", one.get("Sid")
            assert "Condition" not in one


def test_the_services_that_launch_machines_may_use_the_key_of_their_disks(deployed):
    open_to = [
        one
        for one in key_statements(deployed)
        if one["Principal"] == {"AWS": "*"} and "AWSServiceRoleForAutoScaling" in json.dumps(one["Condition"])
    ]
    given = {action for one in open_to for action in listed(one["Action"])}
    assert {
        "kms:Encrypt",
        "kms:Decrypt",
        "kms:ReEncrypt*",
        "kms:GenerateDataKey*",
        "kms:DescribeKey",
        "kms:CreateGrant",
    } <= given
    for one in open_to:
        if "kms:CreateGrant" in listed(one["Action"]):
            assert one["Condition"]["Bool"] == {"kms:GrantIsForAWSResource": "true"}


def test_fsx_may_decrypt_the_k_space(production):
    (one,) = [one for one in key_statements(production) if one.get("Sid") == "LustreReadsThroughS3"]
    assert one["Principal"] == {"AWS": "*"}
    assert one["Condition"]["StringLike"]["aws:userid"] == "*:FSx"
    assert set(one["Condition"]["StringEquals"]) == {"kms:CallerAccount", "kms:ViaService"}


def test_a_key_open_to_anybody_is_held_to_this_account(deployed):
    for one in key_statements(deployed):
        if one["Principal"] == {"AWS": "*"}:
            assert one["Condition"]["StringEquals"]["kms:CallerAccount"]


# 2: releases


def test_no_stack_exports_what_a_release_renumbers(deployed):
    definitions = {name for _, name in deployed.resources("AWS::Batch::JobDefinition")}
    for part, template in deployed.templates.items():
        for name, output in template.get("Outputs", {}).items():
            refers = set(re.findall(r'"Ref": "(\w+)"', json.dumps(output["Value"])))
            assert not ("Export" in output and refers & definitions), (part, name)


def test_jobs_are_submitted_by_the_definitions_name(deployed):
    name = deployed.one("AWS::Batch::JobDefinition").get("JobDefinitionName")
    scaler = deployed.one("AWS::Lambda::Function", "Control", containing="ControlScaler")
    assert name
    assert scaler["Environment"]["Variables"][env.BATCH_JOB_DEFINITION] == name
    allowed = rights(deployed, "ScalerRole")
    ends = {where.strip('"').rpartition("/")[2] for action, where in allowed if action == "batch:SubmitJob"}
    assert {name, f"{name}:*"} <= ends


def test_a_release_takes_no_definition_from_jobs_that_wait(deployed):
    definition = deployed.one("AWS::Batch::JobDefinition")
    assert definition.get("ResourceRetentionPolicy") == {"SkipDeregisterOnUpdate": True}


# 3: alarms


def test_alarms_may_publish_to_their_topic(deployed):
    topics = {
        action["Ref"]
        for alarm in deployed.resources("AWS::CloudWatch::Alarm").values()
        for action in alarm["AlarmActions"]
    }
    assert topics
    for policy in deployed.resources("AWS::SNS::TopicPolicy").values():
        allowed = [
            one
            for one in listed(policy["PolicyDocument"]["Statement"])
            if one["Effect"] == "Allow" and one["Principal"] == {"Service": "cloudwatch.amazonaws.com"}
        ]
        assert any("sns:Publish" in listed(one["Action"]) for one in allowed), "nobody is told of an alarm"
        topics -= {topic["Ref"] for topic in policy["Topics"]}
    assert not topics, "these have SNS's default policy"


# 4: workers


@pytest.mark.parametrize(
    ("role", "stage"), [("StageTaskRole", "DecompressQueues"), ("StageJobRole", "ReconQueues")]
)
def test_a_worker_sends_to_its_own_lanes_and_reads_its_dead_letters(deployed, role, stage):
    allowed = rights(deployed, role)
    for lane in ("Stat", "Routine"):
        assert may(allowed, "sqs:SendMessage", f"{stage}{lane}"), "a waiting scan is sent again"
    for action in ("sqs:ReceiveMessage", "sqs:ChangeMessageVisibility"):
        assert may(allowed, action, f"{stage}DeadLetters"), "scans of dead letters are recorded"
    assert not may(allowed, "sqs:SendMessage", f"{stage}DeadLetters"), "SQS itself moves dead letters"


# 5 to 8: the gateway in the VPC

CONTROL_PORTS = {443, 1026, 1027, 1028, 1031, 2222}


def test_the_gateways_endpoint_lets_its_control_ports_in(appliance):
    (endpoint,) = [
        one
        for one in appliance.resources("AWS::EC2::VPCEndpoint").values()
        if json.dumps(one["ServiceName"]).endswith('storagegateway"')
    ]
    opened = set()
    for identity in endpoint["SecurityGroupIds"]:
        group = appliance.resources("AWS::EC2::SecurityGroup")[("Foundation", identity["Fn::GetAtt"][0])]
        for rule in group.get("SecurityGroupIngress", []):
            opened |= set(range(rule["FromPort"], rule["ToPort"] + 1))
    assert opened >= CONTROL_PORTS


def test_the_key_is_asked_for_the_endpoint(appliance):
    (function,) = [
        one for (_, name), one in appliance.resources("AWS::Lambda::Function").items() if "Activation" in name
    ]
    endpoint = function.get("Environment", {}).get("Variables", {}).get("MRIRECON_GATEWAY_ENDPOINT")
    assert "DnsEntries" in json.dumps(endpoint)


def directory_ports(appliance):
    machine = next(
        group
        for (_, name), group in appliance.resources("AWS::EC2::SecurityGroup").items()
        if name.startswith("ApplianceMachine")
    )
    return {
        (rule["IpProtocol"], rule["FromPort"], rule["ToPort"])
        for rule in machine["SecurityGroupEgress"]
        if rule.get("CidrIp") == "10.10.1.0/28"
    }


def test_a_gateway_in_a_directory_reaches_the_domain_controllers(appliance):
    opened = directory_ports(appliance)
    for protocol, port in (
        *(("tcp", port) for port in (53, 88, 135, 389, 445, 464, 636)),
        *(("udp", port) for port in (53, 88, 389, 464)),
    ):
        assert (protocol, port, port) in opened
    assert ("tcp", 49152, 65535) in opened


def test_shares_are_made_by_another_stack_than_their_machine(appliance):
    stacks = {part for part, _ in appliance.resources("AWS::EC2::Instance")}
    kinds = ("AWS::StorageGateway::SMBFileShare", "AWS::StorageGateway::NFSFileShare")
    shares = {part for kind in kinds for part, _ in appliance.resources(kind)}
    assert stacks
    assert shares
    assert not stacks & shares, "the machine joins its domain before its shares can be made"


def test_a_failed_creation_can_undo_itself(appliance):
    for key, machine in appliance.raw("AWS::EC2::Instance").items():
        assert not machine["Properties"].get("DisableApiTermination"), key
        assert machine["DeletionPolicy"] == "RetainExceptOnCreate"
        assert machine["UpdateReplacePolicy"] == "Retain"


def test_no_machine_takes_the_newest_image_at_every_deployment(appliance):
    for key, machine in appliance.resources("AWS::EC2::Instance").items():
        image = machine["ImageId"]
        assert isinstance(image, str), (key, image)
        assert image.startswith("ami-"), key


def test_nobody_imports_anything_of_the_gateways_machine(appliance):
    (stack,) = {part for part, _ in appliance.resources("AWS::EC2::Instance")}
    exports = [
        name for name, output in appliance.templates[stack].get("Outputs", {}).items() if "Export" in output
    ]
    assert not exports


def test_at_first_only_the_machine_is_made(synth):
    import yaml

    from infra.config import CONFIG_DIR, parse

    values = yaml.safe_load((CONFIG_DIR / "dev.yaml").read_text()) | {
        "name": "fresh",
        "sites": [{"name": "main", "sender": "gateway"}],
        "network": {"cidr": "10.41.0.0/20", "egress": "endpoints"},
        "file_share": {
            "gateway": {"kind": "appliance", "ami_id": "ami-0123456789abcdef0"},
            "clients": ["10.10.0.0/16"],
            "smb_authentication": "GuestAccess",
        },
    }
    found = synth("fresh", parse(values))
    assert found.resources("AWS::EC2::Instance", "Gateway")
    assert "FileShare" not in found.templates


# 9, 10, 15: Lustre


def test_the_file_system_waits_for_the_rules_of_its_group(production):
    ((stack, _), system), *more = production.raw("AWS::FSx::FileSystem").items()
    assert not more
    (identity,) = system["Properties"]["SecurityGroupIds"]
    group = identity["Fn::GetAtt"][0]
    waits = set(listed(system.get("DependsOn", [])))
    for kind in ("AWS::EC2::SecurityGroupIngress", "AWS::EC2::SecurityGroupEgress"):
        for (part, name), rule in production.resources(kind, stack).items():
            if group in json.dumps(rule["GroupId"]):
                assert name in waits, (part, name)
    inline = production.resources("AWS::EC2::SecurityGroup", stack)[(stack, group)]
    ports = {(rule["FromPort"], rule["ToPort"]) for rule in inline.get("SecurityGroupIngress", [])}
    assert ports >= {(988, 988), (1018, 1023)}, "part of the group, not rules that come later"


def test_a_worker_looks_for_k_space_where_the_file_system_has_it(production):
    job = production.one("AWS::Batch::JobDefinition")["ContainerProperties"]
    told = {one["Name"]: one["Value"] for one in job["Environment"]}[env.LUSTRE_MOUNT]
    hosts = {volume["Name"]: volume["Host"]["SourcePath"] for volume in job["Volumes"]}
    mount = next(one for one in job["MountPoints"] if hosts[one["SourceVolume"]] == "/fsx")["ContainerPath"]
    script = json.dumps(production.one("AWS::EC2::LaunchTemplate", "Recon")["LaunchTemplateData"]["UserData"])
    assert re.search(r" /fsx(\\+n|\")", script), "where a machine mounts the file system's root"
    link = production.one("AWS::FSx::DataRepositoryAssociation")
    key = keys.kspace("a" * 64) if hasattr(keys, "kspace") else f"{keys.KSPACE}{'a' * 64}/kspace.h5"
    assert json.dumps(link["DataRepositoryPath"]).rstrip(']}"').endswith(keys.KSPACE)
    lies = Path(mount) / link["FileSystemPath"].strip("/") / key.removeprefix(keys.KSPACE)
    looks = Path(told) / key.removeprefix(keys.KSPACE)
    assert looks == lies


def test_space_of_unread_k_space_is_given_back(production):
    tasks = [
        (schedule, json.dumps(schedule["Target"]["Input"]))
        for schedule in production.resources("AWS::Scheduler::Schedule").values()
        if schedule["Target"]["Arn"].endswith(":fsx:createDataRepositoryTask")
    ]
    assert tasks, "a bucket sends no event of removal for what its lifecycle deletes"
    (schedule, text), *_ = tasks
    assert "RELEASE_DATA_FROM_FILESYSTEM" in text
    assert "DurationSinceLastAccess" in text
    assert schedule.get("State", "ENABLED") == "ENABLED"
    allowed = rights(production, "ReleaseRole")
    assert may(allowed, "fsx:CreateDataRepositoryTask", "file-system/")
    assert may(allowed, "fsx:CreateDataRepositoryTask", "task/*")


# 11: metrics of the gateway


def test_a_gateways_metrics_have_both_dimensions_and_five_minutes(production):
    seen = [
        (alarm, {one["Name"] for one in alarm["Dimensions"]})
        for alarm in production.resources("AWS::CloudWatch::Alarm").values()
        if alarm.get("Namespace") == "AWS/StorageGateway"
    ]
    assert seen
    for alarm, dimensions in seen:
        assert dimensions == {"GatewayId", "GatewayName"}
        assert alarm["Period"] >= 300, alarm["MetricName"]
    body = json.dumps(production.one("AWS::CloudWatch::Dashboard")["DashboardBody"])
    shown = re.findall(r'AWS/StorageGateway\\\\?\\?",\\\\?\\?"\w+\\\\?\\?",.{0,30}', body)
    assert shown
    assert body.count("GatewayName") == len(shown)


# 12: NFS


def test_a_scanner_of_any_user_may_write_to_the_raw_share_by_nfs(production):
    shares = {
        name: share["NFSFileShareDefaults"]
        for (_, name), share in production.resources("AWS::StorageGateway::NFSFileShare").items()
    }
    raw = next(defaults for name, defaults in shares.items() if "Raw" in name)
    assert int(raw["DirectoryMode"], 8) & 0o003 == 0o003
    assert int(raw["FileMode"], 8) & 0o002
    images = next(defaults for name, defaults in shares.items() if "Images" in name)
    assert not int(images["DirectoryMode"], 8) & 0o022


# 13, 14: GPU machines


def test_a_machine_that_shuts_down_is_gone(deployed):
    data = deployed.one("AWS::EC2::LaunchTemplate", "Recon")["LaunchTemplateData"]
    assert data.get("InstanceInitiatedShutdownBehavior") == "terminate"


def test_a_worker_on_a_gpu_machine_is_told_to_leave_without_a_gpu(deployed):
    told = deployed.one("AWS::Batch::JobDefinition")["ContainerProperties"]["Environment"]
    assert {"Name": "MRIRECON_REQUIRE_GPU", "Value": "1"} in told


# 16: the studio


def test_the_studio_can_be_opened(production):
    profile = production.one("AWS::SageMaker::UserProfile")
    assert profile["DomainId"]
    allowed = rights(production, "StudioRole")
    for action, resource in (
        ("sagemaker:CreateSpace", "space/"),
        ("sagemaker:CreateApp", "app/"),
        ("sagemaker:DescribeDomain", "domain/"),
        ("sagemaker:DescribeApp", "app/"),
        ("sagemaker:DescribeSpace", "space/"),
        ("kms:CreateGrant", "DataKey"),
    ):
        assert may(allowed, action, resource), action
    for _, where in allowed:
        if "/space/" in where or ":space/" in where:
            assert "DomainId" in where, "a space's ARN begins with the domain's id"


# 17: endpoints


def clients_of_the_code():
    """Return the services for which workers and Lambdas make a client, by boto3's names."""
    found = set()
    operators = ROOT / "services" / "cloud" / "operators"
    for folder in ("services", "lambda"):
        for path in (ROOT / folder).rglob("*.py"):
            if path.is_relative_to(operators):
                continue  # an operator's computer is not in the network
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
                    name = getattr(node.func, "attr", getattr(node.func, "id", ""))
                    if name == "client":
                        found.add(node.args[0].value)
    return found


AGENTS = {"ecr.api", "ecr.dkr", "ecs", "ecs-agent", "ecs-telemetry", "logs"}
"""Called by AWS's own agents on machines and tasks; ``infra/endpoints.py`` names the page of each."""
STUDIO = {"sagemaker.api", "sagemaker.runtime", "sts"}
BOTO = {"cloudwatch": "monitoring"}


def test_every_endpoint_has_a_caller_and_every_call_an_endpoint(production):
    called = {BOTO.get(name, name) for name in clients_of_the_code()}
    assert {"s3", "sqs", "dynamodb", "batch", "ecs", "monitoring", "storagegateway"} <= called
    there = {
        re.search(
            r"([a-z0-9-]+|[a-z]+\.[a-z]+)$", re.sub(r'["\]}]+$', "", text).replace("com.amazonaws.", "")
        )[0]
        for endpoint in production.resources("AWS::EC2::VPCEndpoint").values()
        for text in [json.dumps(endpoint["ServiceName"])]
    }
    assert called <= there, "a call without a way out of the network"
    assert there <= called | AGENTS | STUDIO, "an endpoint that nobody calls"


def test_an_endpoint_names_who_calls_it():
    from infra.endpoints import DEVELOPMENT_ENDPOINTS, ENDPOINTS, STORAGE_GATEWAY

    for endpoint in (*ENDPOINTS, *DEVELOPMENT_ENDPOINTS, STORAGE_GATEWAY):
        assert endpoint.client or endpoint.agent.startswith("docs.aws.amazon.com/"), endpoint.name
        if endpoint.client:
            assert endpoint.client in clients_of_the_code(), endpoint.name


# 18: operators


def test_operators_may_do_what_their_commands_do(deployed):
    policy = deployed.one("AWS::IAM::ManagedPolicy", "Control")
    allowed = {
        (action, json.dumps(resource))
        for one in statements([policy])
        for action in listed(one["Action"])
        for resource in listed(one["Resource"])
    }
    for action, resource in (
        ("dynamodb:GetItem", "LedgerTable"),
        ("dynamodb:Query", "LedgerTable"),
        ("dynamodb:Query", "/index/*"),
        ("dynamodb:UpdateItem", "LedgerTable"),
        ("sqs:GetQueueAttributes", "DecompressQueuesStat"),
        ("sqs:SendMessage", "ReconQueuesRoutine"),
        ("sqs:ReceiveMessage", "DecompressQueuesDeadLetters"),
        ("sqs:DeleteMessage", "ReconQueuesDeadLetters"),
        ("s3:PutObject", "BucketsRaw"),
        ("s3:GetObject", "BucketsRaw"),
        ("kms:GenerateDataKey", "DataKey"),
        ("kms:Decrypt", "MessageKey"),
    ):
        assert may(allowed, action, resource), (action, resource)


# 20, 21: the network


def needed(config):
    return 2 * config.decompress.scaling.max_workers + config.recon.scaling.max_workers


def test_every_zone_holds_all_workers(deployed):
    config = load(deployed.name)
    sizes = [
        ipaddress.ip_network(subnet["CidrBlock"]).num_addresses
        for (_, name), subnet in deployed.resources("AWS::EC2::Subnet").items()
        if "work" in name
    ]
    assert len(sizes) == len(config.availability_zones)
    assert min(sizes) - 5 >= needed(config) + 50


def test_ten_thousand_scanners_get_addresses(synth):
    import yaml

    from infra.config import CONFIG_DIR, parse

    values = yaml.safe_load((CONFIG_DIR / "dev.yaml").read_text()) | {"name": "large"}
    values["decompress"]["scaling"]["max_workers"] = 298
    values["recon"]["scaling"]["max_workers"] = 965
    found = synth("large", parse(values))
    for (_, name), subnet in found.resources("AWS::EC2::Subnet").items():
        assert ipaddress.ip_network(subnet["CidrBlock"]).num_addresses - 5 >= 2 * 298 + 965 + 50, name


EXISTING = {
    "vpc_id": "vpc-0a1b2c3d4e5f60718",
    "cidrs": ["10.60.0.0/16"],
    "subnets": [
        {
            "id": f"subnet-0{zone}1b2c3d4e5f60718",
            "cidr": f"10.60.{zone}.0/24",
            "route_table_id": "rtb-0a1b2c3d",
        }
        for zone in (1, 2)
    ],
}


def in_an_existing_network(**changes):
    import yaml

    from infra.config import CONFIG_DIR, parse

    values = yaml.safe_load((CONFIG_DIR / "production.yaml").read_text())
    values["network"] = {"egress": "endpoints", "existing": {**EXISTING, **changes}}
    return parse(values | {"name": "landing"})


def test_an_existing_network_is_used_by_its_ids_and_nothing_of_it_is_made(synth):
    groups = {"worker_security_group_id": "sg-0aaaaaaa", "endpoint_security_group_id": "sg-0eeeeeee"}
    found = synth("landing", in_an_existing_network(**groups))
    for kind in ("VPC", "Subnet", "RouteTable", "InternetGateway", "NatGateway", "FlowLog"):
        assert not found.resources(f"AWS::EC2::{kind}"), kind
    subnets = [subnet["id"] for subnet in EXISTING["subnets"]]
    service = found.one("AWS::ECS::Service")["NetworkConfiguration"]["AwsvpcConfiguration"]
    assert (service["Subnets"], service["SecurityGroups"]) == (subnets, ["sg-0aaaaaaa"])
    for machines in found.resources("AWS::Batch::ComputeEnvironment").values():
        assert machines["ComputeResources"]["Subnets"] == subnets
        assert "sg-0aaaaaaa" in machines["ComputeResources"]["SecurityGroupIds"]
    for function in found.resources("AWS::Lambda::Function", "Control").values():
        assert function["VpcConfig"]["SubnetIds"] == subnets
    assert found.one("AWS::FSx::FileSystem")["SubnetIds"] == subnets[:1]
    for endpoint in found.resources("AWS::EC2::VPCEndpoint").values():
        assert endpoint["VpcId"] == EXISTING["vpc_id"]
        if endpoint["VpcEndpointType"] == "Interface":
            assert endpoint["SecurityGroupIds"] == ["sg-0eeeeeee"]
        else:
            assert set(endpoint["RouteTableIds"]) == {"rtb-0a1b2c3d"}
    manifest = json.loads((found.folder / "manifest.json").read_text())
    assert not manifest.get("missing"), "nothing is looked up"


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"subnets": EXISTING["subnets"][:1]}, "network.existing.subnets"),
        ({"subnets": [EXISTING["subnets"][0]] * 2}, "network.existing.subnets"),
        ({"cidrs": ["10.61.0.0/16"]}, "network.existing.subnets.0.cidr"),
        (
            {"subnets": [{**subnet, "cidr": subnet["cidr"][:-3] + "/28"} for subnet in EXISTING["subnets"]]},
            "network.existing.subnets.0.cidr",
        ),
        ({"vpc_id": "my-vpc"}, "network.existing.vpc_id"),
        ({"worker_security_group_id": "workers"}, "network.existing.worker_security_group_id"),
    ],
)
def test_an_existing_network_that_does_not_fit_is_refused_by_field(changes, field):
    from infra.errors import ConfigError

    with pytest.raises(ConfigError) as told:
        in_an_existing_network(**changes)
    assert told.value.problems[0].startswith(f"{field}: got ")
