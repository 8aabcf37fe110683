"""A release is one deployment and a roll-back another: the templates of two versions, compared both ways."""

import copy
import shutil

import pytest
import yaml

from infra import function
from infra.config import CONFIG_DIR, parse
from tests.infra.releases import Versions

ANOTHER_SITE = {"name": "clinic", "sender": "s3"}


def next_version():
    """Return production's configuration as a later release may have it."""
    told = yaml.safe_load((CONFIG_DIR / "production.yaml").read_text())
    told["images"] = {
        "source": "build",
        "decompress_base": "registry.example/python:next",
        "recon_base": "registry.example/python:next",
    }
    told["sites"].append(ANOTHER_SITE)
    told["lustre"]["capacity_gib"] = 2400
    for stage in ("decompress", "recon"):
        told[stage]["scaling"]["max_workers"] += 700
        told[stage].setdefault("times", {})["silence_seconds"] = 1200
    told["operations"]["oldest_stat_minutes"] += 5
    return parse(told)


@pytest.fixture(scope="module")
def versions(synth, production, tmp_path_factory):
    """Production's templates, and those of the next release, which has other Lambda code too."""
    compose = function.compose

    def other_code(asset):
        folder, digest = compose(asset)
        changed = tmp_path_factory.mktemp("code") / asset
        shutil.copytree(folder, changed)
        (changed / "next.py").write_text("")
        return changed, f"{digest[:-4]}beef"

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(function, "compose", other_code)
        after = synth("production-next", next_version())
    return production.templates, after.templates


def both_ways(versions):
    before, after = versions
    return {"the release": Versions(before, after), "the roll-back": Versions(after, before)}


def test_the_two_versions_differ_in_what_a_release_changes(versions):
    """The comparison is of something: images, ceilings, the site, code and the file system differ."""
    before, after = versions
    kinds = {
        resource["Type"]
        for part, template in before.items()
        for name, resource in template["Resources"].items()
        if after[part]["Resources"].get(name) != resource
    }
    assert kinds >= {
        "AWS::ECS::TaskDefinition",
        "AWS::Batch::JobDefinition",
        "AWS::Batch::ComputeEnvironment",
        "AWS::Lambda::Function",
        "AWS::Events::Rule",
        "AWS::FSx::FileSystem",
        "AWS::CloudWatch::Alarm",
    }


@pytest.mark.parametrize("way", ["the release", "the roll-back"])
def test_no_export_in_use_changes(versions, way):
    assert both_ways(versions)[way].broken_exports() == []


@pytest.mark.parametrize("way", ["the release", "the roll-back"])
def test_nothing_stateful_is_replaced(versions, way):
    assert both_ways(versions)[way].stateful_losses() == []


def test_only_a_file_system_that_grew_stands_in_the_way_back(versions):
    """FSx never shrinks one: a roll-back keeps the capacity, as the runbook says."""
    ways = both_ways(versions)
    assert ways["the release"].refused() == []
    (told,) = ways["the roll-back"].refused()
    assert "StorageCapacity" in told


def changed(templates, part, logical, change):
    after = copy.deepcopy(templates)
    change(after[part]["Resources"][logical])
    return Versions(templates, after)


def resource(templates, kind):
    return next(
        (part, name)
        for part, template in templates.items()
        for name, found in template["Resources"].items()
        if found["Type"] == kind
    )


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [
        ("AWS::S3::Bucket", "BucketName", "mine"),
        ("AWS::DynamoDB::Table", "TableName", "mine"),
        ("AWS::FSx::FileSystem", "SubnetIds", ["subnet-1"]),
        ("AWS::SageMaker::Domain", "DomainName", "mine"),
        ("AWS::EC2::Subnet", "CidrBlock", "10.40.9.0/24"),
    ],
)
def test_a_replacement_is_seen(production, kind, name, value):
    part, logical = resource(production.templates, kind)
    found = changed(
        production.templates, part, logical, lambda one: one["Properties"].__setitem__(name, value)
    )
    assert any(line.startswith(f"{part}.{logical} ({kind}) is replaced") for line in found.stateful_losses())


def test_a_replacement_is_seen_through_a_reference(production):
    """A subnet with another range takes what lies in it along."""
    part, logical = resource(production.templates, "AWS::EC2::VPC")
    found = changed(
        production.templates,
        part,
        logical,
        lambda one: one["Properties"].__setitem__("CidrBlock", "10.99.0.0/16"),
    )
    assert {"AWS::EC2::Subnet", "AWS::EC2::VPC"} <= {
        line.partition("(")[2].partition(")")[0] for line in found.stateful_losses()
    }
    assert found.broken_exports()


def test_a_deletion_is_seen(production):
    part, logical = resource(production.templates, "AWS::KMS::Key")
    after = copy.deepcopy(production.templates)
    del after[part]["Resources"][logical]
    assert f"{part}.{logical} (AWS::KMS::Key) goes" in Versions(production.templates, after).stateful_losses()


def test_an_export_of_a_revision_is_seen():
    """The fault that made every second release fail: a job definition's ``Ref`` is its revision's ARN."""

    def templates(image):
        definition = {
            "Type": "AWS::Batch::JobDefinition",
            "Properties": {"ContainerProperties": {"Image": image}},
        }
        return {
            "Recon": {
                "Resources": {"Definition": definition},
                "Outputs": {"Out": {"Value": {"Ref": "Definition"}, "Export": {"Name": "recon:definition"}}},
            },
            "Control": {
                "Resources": {
                    "Scaler": {
                        "Type": "AWS::Lambda::Function",
                        "Properties": {"Code": {"Fn::ImportValue": "recon:definition"}},
                    }
                }
            },
        }

    (told,) = Versions(templates("one"), templates("two")).broken_exports()
    assert "names its revision" in told
    assert Versions(templates("one"), templates("one")).broken_exports() == []


def test_an_image_that_is_looked_up_at_every_deployment_is_seen():
    """The fault that replaced the gateway: an AMI named ``latest``."""
    templates = {
        "FileShare": {
            "Parameters": {
                "Ami": {"Type": "AWS::SSM::Parameter::Value<AWS::EC2::Image::Id>", "Default": "/x/latest"}
            },
            "Resources": {
                "Gateway": {"Type": "AWS::EC2::Instance", "Properties": {"ImageId": {"Ref": "Ami"}}}
            },
        }
    }
    (told,) = Versions(templates, templates).stateful_losses()
    assert "/x/latest" in told
