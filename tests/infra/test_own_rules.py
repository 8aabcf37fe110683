"""Rules of our own, where the policy packs are blind: Batch, FSx, file shares, queues, networks, logs."""

import json

import pytest


@pytest.fixture(params=["production", "dev", "emulated"])
def any_synth(request, synth):
    return synth(request.param)


def test_every_queue_is_encrypted_and_takes_no_plain_http(any_synth):
    queues = any_synth.resources("AWS::SQS::Queue")
    assert queues
    refusing = set()
    for (stack, _), policy in any_synth.resources("AWS::SQS::QueuePolicy").items():
        for statement in policy["PolicyDocument"]["Statement"]:
            if statement["Effect"] == "Deny" and statement["Condition"]["Bool"] == {
                "aws:SecureTransport": "false"
            }:
                refusing |= {(stack, queue["Ref"]) for queue in policy["Queues"]}
    for key, queue in queues.items():
        assert queue["KmsMasterKeyId"], key
        assert key in refusing, key
        assert "QueueName" not in queue, "a given name collides at a redeployment"


def test_every_key_turns_and_every_topic_is_encrypted(any_synth):
    keys = any_synth.resources("AWS::KMS::Key")
    assert len(keys) == 3
    assert all(key["EnableKeyRotation"] for key in keys.values())
    assert all(topic["KmsMasterKeyId"] for topic in any_synth.resources("AWS::SNS::Topic").values())


def test_no_key_is_open_to_another_account(any_synth):
    for key in any_synth.resources("AWS::KMS::Key").values():
        for statement in key["KeyPolicy"]["Statement"]:
            if "*" in json.dumps(statement["Principal"]):
                assert statement["Condition"]["StringEquals"]["kms:CallerAccount"]
            if "Service" in statement["Principal"]:
                assert statement.get("Condition"), "a service principal is held to this account"


def test_logs_end_and_are_encrypted(any_synth):
    for key, group in any_synth.resources("AWS::Logs::LogGroup").items():
        assert group["RetentionInDays"], key
        assert group["KmsKeyId"], key


def test_nothing_is_open_to_the_world(any_synth):
    for (stack, name), group in any_synth.resources("AWS::EC2::SecurityGroup").items():
        for rule in group.get("SecurityGroupIngress", []):
            assert rule.get("CidrIp") != "0.0.0.0/0", (stack, name)
    for key, rule in any_synth.resources("AWS::EC2::SecurityGroupIngress").items():
        assert rule.get("CidrIp") != "0.0.0.0/0", key
    assert not any_synth.resources("AWS::EC2::NatGateway")


def test_nothing_gets_out_but_by_named_ports(any_synth):
    for key, group in any_synth.resources("AWS::EC2::SecurityGroup").items():
        for rule in group.get("SecurityGroupEgress", []):
            nothing = rule.get("CidrIp") == "255.255.255.255/32"
            assert nothing or rule["IpProtocol"] != "-1", key


def test_the_isolated_network_reaches_all_services_that_are_called(production):
    services = {json.dumps(e["ServiceName"]) for e in production.resources("AWS::EC2::VPCEndpoint").values()}
    text = " ".join(sorted(services))
    for service in (
        "s3",
        "dynamodb",
        "sqs",
        "ecs",
        "ecs-agent",
        "ecs-telemetry",
        "ecr.api",
        "ecr.dkr",
        "logs",
        "batch",
        "monitoring",
        "storagegateway",
    ):
        assert f'.{service}"' in text, service
    assert not production.resources("AWS::EC2::InternetGateway")
    assert production.resources("AWS::EC2::FlowLog")


def test_the_smallest_environment_has_no_standing_machines_or_endpoints(dev):
    for kind in (
        "AWS::FSx::FileSystem",
        "AWS::EC2::Instance",
        "AWS::EC2::NatGateway",
        "AWS::SageMaker::Domain",
    ):
        assert not dev.resources(kind)
    kinds = {e["VpcEndpointType"] for e in dev.resources("AWS::EC2::VPCEndpoint").values()}
    assert kinds == {"Gateway"}, "gateway endpoints cost nothing"


def test_no_batch_job_is_privileged_or_endless(any_synth):
    for key, job in any_synth.resources("AWS::Batch::JobDefinition").items():
        found = job["ContainerProperties"]
        assert found["Privileged"] is False, key
        assert found["ReadonlyRootFilesystem"] is True, key
        assert found["LogConfiguration"]["LogDriver"] == "awslogs"
        assert job["Timeout"]["AttemptDurationSeconds"] > 0
        assert job["RetryStrategy"] == {"Attempts": 1}


def test_memory_asked_for_is_below_what_a_machine_offers(any_synth):
    """A job that asks for a machine's nominal memory is never placed: agent and kernel need theirs."""
    nominal = {"g5.xlarge": 16, "g6.xlarge": 16, "g6.2xlarge": 32, "g5.2xlarge": 32}
    jobs = any_synth.resources("AWS::Batch::JobDefinition")
    for job in jobs.values():
        wanted = {r["Type"]: int(r["Value"]) for r in job["ContainerProperties"]["ResourceRequirements"]}
        for found in any_synth.resources("AWS::Batch::ComputeEnvironment").values():
            for kind in found["ComputeResources"]["InstanceTypes"]:
                assert wanted["MEMORY"] <= nominal[kind] * 1024 * 0.92, kind


def test_lustre_is_encrypted_and_reached_only_by_its_ports(production):
    assert production.one("AWS::FSx::FileSystem")["KmsKeyId"]
    for (_, name), rule in production.resources("AWS::EC2::SecurityGroupIngress", "Lustre").items():
        ports = rule["FromPort"], rule["ToPort"]
        # CDK adds a wider range, among the servers themselves only.
        among_servers = rule["SourceSecurityGroupId"] == rule["GroupId"]
        assert ports in {(988, 988), (1018, 1023)} or (ports == (988, 1023) and among_servers), name
        assert "CidrIp" not in rule
    for (_, name), group in production.resources("AWS::EC2::SecurityGroup", "Lustre").items():
        for rule in (*group["SecurityGroupIngress"], *group["SecurityGroupEgress"]):
            assert (rule["FromPort"], rule["ToPort"]) in {(988, 988), (1018, 1023)}, name
            assert rule["CidrIp"] == "10.40.0.0/16", "only the VPC"


SHARES = ("AWS::StorageGateway::SMBFileShare", "AWS::StorageGateway::NFSFileShare")


def test_shares_are_encrypted_closed_and_announce_what_rests(production):
    found = {k: s for kind in SHARES for k, s in production.resources(kind).items()}
    assert len(found) == 4
    for (_, name), share in found.items():
        assert share["EncryptionType"] == "SseKms"
        assert share["KMSKey"]
        assert share["ObjectACL"] == "bucket-owner-full-control"
        raw = "Raw" in name
        assert share["ReadOnly"] is not raw, name
        policy = json.loads(share["NotificationPolicy"])
        assert policy == ({"Upload": {"SettlingTimeInSeconds": 60}} if raw else {})


def test_only_named_users_and_the_hospitals_machines_reach_the_shares(production):
    for share in production.resources(SHARES[0]).values():
        assert share["Authentication"] == "ActiveDirectory"
        assert share["ValidUserList"] == ["@MR-Scanners", "@Radiology"]
        assert share["AuditDestinationARN"]
    for share in production.resources(SHARES[1]).values():
        assert share["ClientList"] == ["10.10.0.0/16"]
        assert share["Squash"] == "RootSquash"


def test_only_the_raw_share_may_write_and_none_may_change_who_owns(production):
    for (_, name), policy in production.resources("AWS::IAM::Policy", "FileShare").items():
        if "SharesImagesRole" in name:
            assert "s3:PutObject" not in json.dumps(policy)
            assert "s3:DeleteObject" not in json.dumps(policy)


def test_containers_cannot_be_entered(any_synth):
    for service in any_synth.resources("AWS::ECS::Service").values():
        assert service["EnableExecuteCommand"] is False


def test_images_in_repositories_never_move(any_synth):
    for repository in any_synth.resources("AWS::ECR::Repository").values():
        assert repository["ImageTagMutability"] == "IMMUTABLE"
        assert repository["ImageScanningConfiguration"] == {"ScanOnPush": True}
        assert "untagged" in repository["LifecyclePolicy"]["LifecyclePolicyText"]


def test_every_resource_bears_the_environments_tags(production):
    untagged = []
    for (stack, name), bucket in production.resources("AWS::S3::Bucket").items():
        tags = {tag["Key"]: tag["Value"] for tag in bucket["Tags"]}
        if tags.get("environment") != "production" or tags.get("project") != "mrirecon":
            untagged.append((stack, name))
    assert not untagged


def test_no_patient_data_can_enter_a_template(any_synth):
    text = json.dumps(any_synth.templates)
    assert "FAILPOINT" not in text
    assert "PatientName" not in text
