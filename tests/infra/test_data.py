"""Buckets, ledger, queues and the events between them, as the template of the full environment has them."""

import fnmatch
import json

import pytest

from infra.stacks import build_app
from mrirecon.contract import keys, states
from mrirecon.contract.keys import Priority
from mrirecon.contract.publications import REFRESH_DONE

BUCKETS = ("Raw", "Kspace", "Images", "Quarantine")


def bucket(production, name):
    return production.one("AWS::S3::Bucket", "Data", containing=f"Buckets{name}")


def rules_of(properties):
    return {rule["Id"]: rule for rule in properties["LifecycleConfiguration"]["Rules"]}


@pytest.mark.parametrize("name", BUCKETS)
def test_a_bucket_is_private_encrypted_versioned_and_logged(production, name):
    found = bucket(production, name)
    assert set(found["PublicAccessBlockConfiguration"].values()) == {True}
    encryption = found["BucketEncryption"]["ServerSideEncryptionConfiguration"][0]
    assert encryption["ServerSideEncryptionByDefault"]["SSEAlgorithm"] == "aws:kms"
    assert encryption["BucketKeyEnabled"] is True
    assert found["VersioningConfiguration"]["Status"] == "Enabled"
    assert found["LoggingConfiguration"]["LogFilePrefix"] == f"{name.lower()}/"
    assert found["OwnershipControls"]["Rules"] == [{"ObjectOwnership": "BucketOwnerEnforced"}]
    assert "BucketName" not in found, "a given name collides with one in use"


def test_every_bucket_refuses_plain_http(production):
    buckets = production.resources("AWS::S3::Bucket")
    refused = set()
    for (stack, _), policy in production.resources("AWS::S3::BucketPolicy").items():
        for statement in policy["PolicyDocument"]["Statement"]:
            plain = statement.get("Condition", {}).get("Bool", {}).get("aws:SecureTransport")
            if statement["Effect"] == "Deny" and plain == "false" and statement["Principal"] == {"AWS": "*"}:
                refused.add((stack, policy["Bucket"]["Ref"]))
    assert refused == set(buckets)


@pytest.mark.parametrize("name", BUCKETS)
def test_a_bucket_is_kept_and_cleaned(production, name):
    (raw,) = [r for (s, n), r in production.raw("AWS::S3::Bucket").items() if n.startswith(f"Buckets{name}")]
    assert (raw["DeletionPolicy"], raw["UpdateReplacePolicy"]) == ("RetainExceptOnCreate", "Retain")
    hygiene = rules_of(raw["Properties"])["hygiene"]
    assert hygiene["AbortIncompleteMultipartUpload"]["DaysAfterInitiation"] == 7
    assert hygiene["NoncurrentVersionExpiration"]["NoncurrentDays"] >= 1


def test_a_raw_archive_goes_to_deep_archive_only_when_its_scan_has_ended(production):
    rules = rules_of(bucket(production, "Raw"))
    moving = [rule for rule in rules.values() if "Transitions" in rule]
    assert len(moving) == 1
    assert moving[0]["TagFilters"] == [{"Key": keys.DONE_TAG[0], "Value": keys.DONE_TAG[1]}]
    assert moving[0]["Prefix"] == keys.INCOMING
    assert moving[0]["Transitions"] == [{"StorageClass": "DEEP_ARCHIVE", "TransitionInDays": 1}]
    assert not any("ExpirationInDays" in rule for rule in rules.values()), "raw data are never deleted"


def test_images_are_tiered_and_never_deleted(production):
    found = bucket(production, "Images")
    moving = rules_of(found)["images-to-intelligent-tiering"]
    assert moving["Transitions"] == [{"StorageClass": "INTELLIGENT_TIERING", "TransitionInDays": 0}]
    (tiers,) = found["IntelligentTieringConfigurations"]
    assert {tier["AccessTier"]: tier["Days"] for tier in tiers["Tierings"]} == {
        "ARCHIVE_ACCESS": 180,
        "DEEP_ARCHIVE_ACCESS": 730,
    }
    assert not any("ExpirationInDays" in rule for rule in rules_of(found).values())


def test_kspace_and_quarantine_expire(production):
    assert rules_of(bucket(production, "Kspace"))["kspace-can-be-made-anew"]["ExpirationInDays"] == 14
    assert rules_of(bucket(production, "Quarantine"))["rejected-archives-end"]["ExpirationInDays"] == 365


def test_the_ledger_has_the_contracts_keys_and_can_be_restored(production):
    table = production.one("AWS::DynamoDB::Table")
    assert {item["KeyType"]: item["AttributeName"] for item in table["KeySchema"]} == {
        "HASH": states.PK,
        "RANGE": states.SK,
    }
    (index,) = table["GlobalSecondaryIndexes"]
    assert index["IndexName"] == states.BY_STATE
    assert [item["AttributeName"] for item in index["KeySchema"]] == [states.STATE, states.UPDATED_AT]
    assert table["PointInTimeRecoverySpecification"]["PointInTimeRecoveryEnabled"] is True
    assert table["DeletionProtectionEnabled"] is True
    assert table["SSESpecification"]["SSEType"] == "KMS"


def test_every_lane_ends_in_its_stages_dead_letters(production):
    queues = production.resources("AWS::SQS::Queue", "Data")
    lanes = {name: q for (_, name), q in queues.items() if "RedrivePolicy" in q}
    assert len(lanes) == 5
    for name, queue in lanes.items():
        target = queue["RedrivePolicy"]["deadLetterTargetArn"]["Fn::GetAtt"][0]
        stage = name.split("Queue")[0]
        assert target.startswith(stage)
        assert "DeadLetters" in target
        dead = queues[("Data", target)]
        assert dead["MessageRetentionPeriod"] > queue["MessageRetentionPeriod"]
    assert {q["RedrivePolicy"]["maxReceiveCount"] for n, q in lanes.items() if "Refresh" not in n} == {4}
    for name in ("DecompressQueuesStat", "ReconQueuesRoutine"):
        (queue,) = [q for n, q in lanes.items() if n.startswith(name)]
        assert queue["VisibilityTimeout"] == 120


def matches(pattern, key):
    """Judge one EventBridge content filter as EventBridge does."""
    for one in pattern:
        if isinstance(one, str) and one == key:
            return True
        if not isinstance(one, dict):
            continue
        if "wildcard" in one and fnmatch.fnmatchcase(key, one["wildcard"]):
            return True
        if "suffix" in one and key.endswith(one["suffix"]):
            return True
        if "anything-but" in one:
            refused = one["anything-but"]["wildcard"]
            refused = [refused] if isinstance(refused, str) else refused
            if not any(fnmatch.fnmatchcase(key, item) for item in refused):
                return True
    return False


def announced(synth, source, key):
    """Return the lanes to which an event about ``key`` goes."""
    lanes = []
    for properties in synth.resources("AWS::Events::Rule", "Data").values():
        pattern = properties.get("EventPattern", {})
        if pattern.get("source") != [source]:
            continue
        detail = pattern.get("detail", {})
        at = detail.get("object", {}).get("key") if source == "aws.s3" else detail.get("object-key")
        if at and matches(at, key):
            (target,) = properties["Targets"]
            lanes.append(target["Arn"]["Fn::GetAtt"][0])
    return sorted(
        "".join(part for part in ("stat", "routine", "refresh") if part in lane.lower()[:30])
        for lane in lanes
    )


S3, GATEWAY = "aws.s3", "aws.storagegateway"


@pytest.mark.parametrize(
    ("source", "key", "lanes"),
    [
        (S3, keys.incoming("research", Priority.STAT, "a.tar"), ["stat"]),
        (S3, keys.incoming("research", Priority.ROUTINE, "a.tar"), ["routine"]),
        (S3, keys.incoming("main", Priority.STAT, "a.tar"), []),
        (S3, keys.incoming("main", Priority.ROUTINE, "a.tar"), []),
        (S3, "incoming/research/misplaced.tar", ["routine"]),
        (S3, keys.incoming("unlisted", Priority.STAT, "a.tar"), ["routine"]),
        (GATEWAY, keys.incoming("main", Priority.STAT, "a.tar"), ["stat"]),
        (GATEWAY, keys.incoming("main", Priority.ROUTINE, "a.tar"), ["routine"]),
        (GATEWAY, "misplaced.tar", ["routine"]),
    ],
)
def test_an_archive_is_announced_once_and_to_its_lane(production, source, key, lanes):
    # records in the images bucket end in /scan.json; no archive here does
    assert announced(production, source, key) == lanes


@pytest.mark.parametrize("site", ["anywhere", "main"])
def test_without_named_sites_every_folder_is_announced(dev, site):
    assert announced(dev, S3, keys.incoming(site, Priority.STAT, "a.tar")) == ["stat"]
    assert announced(dev, S3, keys.incoming(site, Priority.ROUTINE, "a.tar")) == ["routine"]
    assert announced(dev, S3, "incoming/lost.tar") == ["routine"]


def test_events_are_of_the_raw_bucket_and_of_the_right_kind(production):
    rules = production.resources("AWS::Events::Rule", "Data")
    kinds = {rule["EventPattern"]["detail-type"][0] for rule in rules.values()}
    assert kinds == {"Object Created", "Storage Gateway Object Upload Event", REFRESH_DONE}
    for (_, name), rule in rules.items():
        if not name.startswith("Routing"):
            continue
        detail = rule["EventPattern"]["detail"]
        named = detail.get("bucket", {}).get("name") or detail["bucket-name"]
        assert "BucketsRaw" in json.dumps(named)
        assert len(json.dumps(rule["EventPattern"])) < 2048
        (target,) = rule["Targets"]
        assert "DeadLetters" in json.dumps(target["DeadLetterConfig"])


@pytest.mark.parametrize("name", ["Raw", "Images"])
def test_a_bucket_sends_its_events_without_a_custom_resource(production, name):
    found = bucket(production, name)["NotificationConfiguration"]
    assert found == {"EventBridgeConfiguration": {"EventBridgeEnabled": True}}
    assert not production.resources("Custom::S3BucketNotifications")


def test_twenty_sites_fit_an_event_pattern(tmp_path):
    import yaml

    from infra.config import CONFIG_DIR, parse

    values = yaml.safe_load((CONFIG_DIR / "production.yaml").read_text())
    values["sites"] = [
        {"name": f"{n:02d}" + "x" * 61, "sender": "gateway" if n % 2 else "s3"} for n in range(20)
    ]
    values |= {"name": "many", "lustre": None, "development": None}
    build_app(parse(values), outdir=str(tmp_path)).synth()
    template = json.loads((tmp_path / "Mrirecon-many-Data.template.json").read_text())
    rules = [r["Properties"] for r in template["Resources"].values() if r["Type"] == "AWS::Events::Rule"]
    assert max(len(json.dumps(rule["EventPattern"], separators=(",", ":"))) for rule in rules) < 2048


def test_development_keeps_nothing_and_production_all(production, dev):
    kinds = ("AWS::S3::Bucket", "AWS::DynamoDB::Table", "AWS::KMS::Key")
    for synth, policy in ((production, "RetainExceptOnCreate"), (dev, "Delete")):
        for kind in kinds:
            assert {resource["DeletionPolicy"] for resource in synth.raw(kind).values()} == {policy}
