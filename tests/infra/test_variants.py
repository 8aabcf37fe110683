"""Whole synths that span the configuration: what differs from the reviewed environments, and only that."""

import copy
import json

import pytest
import yaml

from infra.config import CONFIG_DIR, parse

GATEWAY = "arn:aws:storagegateway:eu-central-1:123456789012:gateway/sgw-12A3456B"
pytestmark = pytest.mark.slow


def variant(synth, name, **changes):
    values = copy.deepcopy(yaml.safe_load((CONFIG_DIR / "production.yaml").read_text()))
    values |= {"name": name, **changes}
    return synth(name, parse(values))


def test_a_hospitals_own_gateway_is_used_by_its_name(synth):
    share = {
        "gateway": {"kind": "existing", "gateway_arn": GATEWAY, "gateway_name": "own"},
        "protocols": ["nfs"],
        "clients": ["192.168.10.0/24"],
    }
    found = variant(synth, "own-gateway", file_share=share, lustre=None, development=None)
    shares = found.resources("AWS::StorageGateway::NFSFileShare")
    assert {one["GatewayARN"] for one in shares.values()} == {GATEWAY}
    assert not found.resources("AWS::StorageGateway::SMBFileShare")
    assert not found.resources("AWS::EC2::Instance")
    assert "Gateway" not in found.templates
    assert "sgw-12A3456B" in json.dumps(found.one("AWS::CloudWatch::Dashboard"))


def test_with_a_nat_there_is_one_and_no_interface_endpoint(synth):
    network = {"cidr": "10.50.0.0/16", "egress": "nat"}
    found = variant(synth, "with-nat", network=network, lustre=None, development=None)
    assert len(found.resources("AWS::EC2::NatGateway")) == 1
    kinds = {one["VpcEndpointType"] for one in found.resources("AWS::EC2::VPCEndpoint").values()}
    assert kinds == {"Gateway"}
    service = found.one("AWS::ECS::Service")["NetworkConfiguration"]["AwsvpcConfiguration"]
    assert service["AssignPublicIp"] == "DISABLED"


def test_a_site_that_may_not_build_pulls(synth):
    registry = "123456789012.dkr.ecr.eu-central-1.amazonaws.com"
    images = {"source": "pull", "decompress": f"{registry}/d:1.2", "recon": f"{registry}/r:1.2"}
    found = variant(synth, "pulls", images=images, file_share=None, sites=[], lustre=None, development=None)
    container = found.one("AWS::ECS::TaskDefinition")["ContainerDefinitions"][0]
    assert container["Image"] == f"{registry}/d:1.2"
    assert found.one("AWS::Batch::JobDefinition")["ContainerProperties"]["Image"] == f"{registry}/r:1.2"
    for path in found.folder.glob("*.assets.json"):
        assert not json.loads(path.read_text()).get("dockerImages")


def test_without_spot_there_is_one_kind_of_machine_and_no_look_for_the_notice(synth):
    recon = yaml.safe_load((CONFIG_DIR / "production.yaml").read_text())["recon"] | {"spot": False}
    found = variant(synth, "no-spot", recon=recon, file_share=None, sites=[], lustre=None, development=None)
    kinds = [
        one["ComputeResources"]["Type"] for one in found.resources("AWS::Batch::ComputeEnvironment").values()
    ]
    assert kinds == ["EC2"]
    told = found.one("AWS::Batch::JobDefinition")["ContainerProperties"]["Environment"]
    assert {"Name": "MRIRECON_SPOT_NOTICE", "Value": "0"} in told


def test_guests_of_an_appliance_need_no_directory(synth):
    share = {
        "gateway": {"kind": "appliance", "ami_id": "ami-0123456789abcdef0", "gateway_arn": GATEWAY},
        "protocols": ["smb"],
        "clients": ["10.10.0.0/16"],
        "smb_authentication": "GuestAccess",
    }
    found = variant(synth, "guests", file_share=share, lustre=None, development=None)
    shares = found.resources("AWS::StorageGateway::SMBFileShare", "FileShare")
    assert {one["Authentication"] for one in shares.values()} == {"GuestAccess"}
    assert not [one for one in shares.values() if "ValidUserList" in one]
