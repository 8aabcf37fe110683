"""What AWS's services do by themselves with our queues, topics, buckets and keys is allowed there."""

from pathlib import Path

import pytest
import yaml

from infra.config import load
from tests.infra import simulator
from tests.infra.rights import Rights

ROWS = yaml.safe_load((Path(__file__).parent / "tables" / "services.yaml").read_text())


@pytest.fixture(scope="module", params=["production", "dev"])
def rights(request, synth):
    config = load(request.param)
    return Rights(synth(request.param), config.account, config.region)


def places(rights, case):
    """Yield (resource's ARN, its key's ARN, what else is filled in) wherever a case occurs."""
    deployed = rights.deployed

    def on(arn, **more):
        return arn, rights.key_of(arn.partition("/")[0] if arn.startswith("arn:aws:s3") else arn), more

    if case in {"a rule's target", "a rule's dead letters"}:
        for key, rule in deployed.of("AWS::Events::Rule").items():
            for target in rule["Targets"]:
                arn = (
                    target["Arn"]
                    if case == "a rule's target"
                    else target.get("DeadLetterConfig", {}).get("Arn")
                )
                if arn and ":sqs:" in arn:
                    yield on(arn, source=deployed.arn(*key))
    elif case == "an alarm's topic":
        for key, alarm in deployed.of("AWS::CloudWatch::Alarm").items():
            for arn in {*alarm.get("AlarmActions", []), *alarm.get("OKActions", [])}:
                yield on(arn, source=deployed.arn(*key))
    elif case == "a budget's topic":
        for budget in deployed.of("AWS::Budgets::Budget").values():
            for told in budget["NotificationsWithSubscribers"]:
                for subscriber in told["Subscribers"]:
                    if subscriber["SubscriptionType"] == "SNS":
                        yield on(subscriber["Address"])
    elif case == "a log group":
        for key, group in deployed.of("AWS::Logs::LogGroup").items():
            if "KmsKeyId" in group:
                yield "", group["KmsKeyId"], {"group": deployed.arn(*key).removesuffix(":*")}
    elif case == "a disk that Auto Scaling makes":
        for template in deployed.of("AWS::EC2::LaunchTemplate").values():
            for disk in template["LaunchTemplateData"].get("BlockDeviceMappings", []):
                yield "", rights._key_arn(disk["Ebs"]["KmsKeyId"]), {}
    elif case == "a Lustre file system's bucket":
        for link in deployed.of("AWS::FSx::DataRepositoryAssociation").values():
            bucket = link["DataRepositoryPath"].removeprefix("s3://").partition("/")[0]
            yield "", rights.key_of(f"arn:aws:s3:::{bucket}"), {}
    elif case == "a bucket of access logs":
        for key, bucket in deployed.of("AWS::S3::Bucket").items():
            if "LoggingConfiguration" in bucket:
                logs = bucket["LoggingConfiguration"]
                where = f"arn:aws:s3:::{logs['DestinationBucketName']}/{logs.get('LogFilePrefix', '')}x"
                yield on(where, source=deployed.arn(*key))
    else:
        raise LookupError(case)


def asked(rights):
    """Return (sentence, simulation) of everything that the table says happens in an environment."""
    deployed = rights.deployed
    here = {"account": deployed.account, "region": deployed.region}
    for row in ROWS:
        assert row["page"].startswith("https://"), row
        principal = row["principal"].format(**here)
        for arn, key, more in places(rights, row["case"]):
            context = {name: value.format(**here, **more) for name, value in row["context"].items()}
            requests = [(action, arn) for action in row["actions"]]
            requests += [(action, key) for action in row["on_key"] if key]
            for action, resource in requests:
                told = {"aws:SecureTransport": "true", **context}
                if action.startswith("kms:"):
                    told |= {"kms:CallerAccount": deployed.account}
                if principal.startswith("arn:"):
                    told |= {"aws:PrincipalArn": principal, "aws:PrincipalAccount": deployed.account}
                yield (
                    f"{row['case']}: {principal} may not {action} on {resource} ({more.get('source', '')})",
                    simulator.simulation(
                        principal,
                        action,
                        resource,
                        deployed.account,
                        resource_policy=rights.policy_on(resource),
                        context=told,
                    ),
                )


def test_every_service_may_do_what_it_does(rights):
    requests = list(asked(rights))
    assert len(requests) > 50
    answers = simulator.allowed(simulation for _, simulation in requests)
    assert [sentence for (sentence, _), allowed in zip(requests, answers, strict=True) if not allowed] == []


def test_each_row_happens_somewhere(production):
    config = load("production")
    rights = Rights(production, config.account, config.region)
    for row in ROWS:
        assert list(places(rights, row["case"])), row["case"]
