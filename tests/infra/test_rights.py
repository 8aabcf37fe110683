"""Every recorded AWS call is allowed by the policies of the synthesised environments, and no right is idle.

``tables/calls.json`` holds the calls that workers, Lambdas and operators' commands make while the suites run
(``tests/support/aws_calls.py`` records them and fails a test that makes another); ``tables/unused.yaml`` the
rights that none of them needs, each with its reason.
"""

import fnmatch
import json
from pathlib import Path

import pytest
import yaml

from infra.config import load
from tests.infra import simulator
from tests.infra.needs import UnknownCallError, needs
from tests.infra.rights import Rights
from tests.support import aws_calls

TABLES = Path(__file__).parent / "tables"
CALLS = json.loads(aws_calls.TABLE.read_text())
UNUSED = yaml.safe_load((TABLES / "unused.yaml").read_text())
ENDPOINTS = yaml.safe_load((TABLES / "endpoints.yaml").read_text())
NAMES = ("production", "dev")


@pytest.fixture(scope="module")
def of(synth):
    """Return the rights of an environment, with all requests that are made there."""
    done = {}

    def read(name):
        if name not in done:
            config = load(name)
            rights = Rights(synth(name), config.account, config.region)
            done[name] = rights, rights.all_asked(CALLS)
        return done[name]

    return read


@pytest.mark.parametrize("name", NAMES)
def test_every_recorded_call_is_allowed(of, name):
    rights, asked = of(name)
    assert {request.role for request in asked} >= {"decompress", "recon", "scaler", "operator", "redrive"}
    answers = simulator.allowed(rights.simulation(request) for request in asked)
    denied = [
        f"{request}: {request.call}" for request, allowed in zip(asked, answers, strict=True) if not allowed
    ]
    assert denied == []


@pytest.mark.parametrize("name", NAMES)
def test_each_right_is_needed_or_has_a_reason(of, name):
    """Each right is taken away in turn: either a call is denied then, or the right is in the table."""
    rights, asked = of(name)
    unneeded = {str(right): right for right in taken_in_turn(rights, asked) if not is_explained(right)}
    assert sorted(unneeded) == []


def taken_in_turn(rights, asked):
    """Return the rights without which every call is still allowed."""
    tried, simulations = [], []
    for label in rights.roles:
        for number, right in rights.rights(label):
            tried.append(right)
            left = rights.without(number, right)
            for request in asked:
                if request.role == label and fnmatch.fnmatchcase(request.action, right.action):
                    simulations.append((right, rights.simulation(request, left)))
    answers = simulator.allowed(simulation for _, simulation in simulations)
    missed = {right for (right, _), allowed in zip(simulations, answers, strict=True) if not allowed}
    return [right for right in tried if right not in missed]


def is_explained(right):
    return any(
        right.role in row["roles"]
        and right.action in row["actions"]
        and row["thing"] in right.resource.lower()
        for row in UNUSED
    )


def test_the_table_of_unused_rights_holds_no_right_that_is_gone_or_used(of):
    unused = [right for name in NAMES for right in taken_in_turn(*of(name))]
    for row in UNUSED:
        assert row["reason"]
        for role in row["roles"]:
            for action in row["actions"]:
                found = [
                    right
                    for right in unused
                    if (right.role, right.action) == (role, action) and row["thing"] in right.resource.lower()
                ]
                assert found, f"{role} {action} on {row['on']}: no such right, or a call needs it"


def test_each_service_that_is_called_from_the_network_has_an_endpoint_there(of):
    """An isolated network reaches AWS by endpoints alone; each endpoint has a call or a reason."""
    rights, asked = of("production")
    assert rights.isolated
    called = {
        PREFIXES.get(service, service)
        for request in asked
        if rights.roles[request.role].in_vpc and not request.call.startswith(("Lambda", "the agent"))
        # A service that uses a key for its caller asks KMS itself.
        if (service := request.action.partition(":")[0]) != "kms"
    }
    reasons = {row["endpoint"] for row in ENDPOINTS if row["reason"] and row["page"]}
    assert called - set(rights.endpoints) == set(), "calls without an endpoint"
    assert set(rights.endpoints) - called - reasons == set(), "endpoints without a call or reason"
    assert reasons - (set(rights.endpoints) - called) == set(), "reasons for nothing"


PREFIXES = {"cloudwatch": "monitoring"}


def test_an_unknown_call_is_an_error_and_no_silence():
    with pytest.raises(UnknownCallError):
        needs({"call": "s3:DeleteBucket", "Bucket": "MRIRECON_RAW_BUCKET", "role": "recon"})
    with pytest.raises(UnknownCallError):
        needs({"call": "s3:HeadBucket", "Bucket": "unknown", "role": "recon"})


# The simulator against what AWS documents.

ACCOUNT = "123456789012"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/worker"
KEY = f"arn:aws:kms:eu-central-1:{ACCOUNT}:key/k"
QUEUE = f"arn:aws:sqs:eu-central-1:{ACCOUNT}:q"
BUCKET = "arn:aws:s3:::b"


def allow(action, resource, **more):
    return {"Effect": "Allow", "Action": action, "Resource": resource, **more}


def policy(*statements):
    return {"Version": "2012-10-17", "Statement": list(statements)}


def decide(action, resource, *, principal=ROLE, context=None, **policies):
    told = {"aws:SecureTransport": "true", **(context or {})}
    (answer,) = simulator.allowed(
        [simulator.simulation(principal, action, resource, ACCOUNT, context=told, **policies)]
    )
    return answer


ROOT = {"AWS": f"arn:aws:iam::{ACCOUNT}:root"}
TO_IAM = allow("kms:*", "*", Principal=ROOT)
"""https://docs.aws.amazon.com/kms/latest/developerguide/key-policy-default.html: leaves the key to IAM."""
INSECURE = {
    "Effect": "Deny",
    "Principal": {"AWS": "*"},
    "Action": "s3:*",
    "Resource": "arn:aws:s3:::b/*",
    "Condition": {"Bool": {"aws:SecureTransport": "false"}},
}
SEND = allow("sqs:SendMessage", QUEUE, Principal={"Service": "events.amazonaws.com"})


def test_evaluation_is_as_aws_documents_it():
    """https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_evaluation-logic_policy-eval-basics.html

    In one account an allow of either policy is enough, an explicit deny of any wins, and what nobody allows
    is denied.
    """
    mine = [allow("s3:GetObject", "arn:aws:s3:::b/*")]
    assert decide("s3:GetObject", "arn:aws:s3:::b/x", identity=mine)
    assert not decide("s3:PutObject", "arn:aws:s3:::b/x", identity=mine)
    theirs = policy(allow("s3:GetObject", "arn:aws:s3:::b/*", Principal={"AWS": ROLE}))
    assert decide("s3:GetObject", "arn:aws:s3:::b/x", resource_policy=theirs)
    assert decide("s3:GetObject", "arn:aws:s3:::b/x", identity=mine, resource_policy=policy(INSECURE))
    plain = {"aws:SecureTransport": "false"}
    assert not decide(
        "s3:GetObject", "arn:aws:s3:::b/x", identity=mine, resource_policy=policy(INSECURE), context=plain
    )


def test_a_key_is_used_only_by_leave_of_its_policy():
    """https://docs.aws.amazon.com/kms/latest/developerguide/key-policies.html

    "No AWS principal, including the account root user or key creator, has any permissions to a KMS key unless
    they are explicitly allowed" by the key's policy; one that names the account leaves the rest to IAM.
    """
    mine = [allow("kms:Decrypt", KEY)]
    assert decide("kms:Decrypt", KEY, identity=mine, resource_policy=policy(TO_IAM))
    assert not decide("kms:Decrypt", KEY, identity=mine)
    assert not decide("kms:Decrypt", KEY, resource_policy=policy(TO_IAM))
    assert decide(
        "kms:Decrypt", KEY, resource_policy=policy(allow("kms:Decrypt", "*", Principal={"AWS": ROLE}))
    )


def test_a_key_policy_that_names_the_account_gives_a_service_linked_role_nothing():
    """https://docs.aws.amazon.com/autoscaling/ec2/userguide/key-policy-requirements-EBS-encryption.html

    The fault that kept every machine from booting: a condition on the principal's ARN does not make the
    account's statement a grant to that principal.
    """
    linked = (
        f"arn:aws:iam::{ACCOUNT}:role/aws-service-role/autoscaling.amazonaws.com/AWSServiceRoleForAutoScaling"
    )
    condition = {"ArnLike": {"aws:PrincipalArn": linked}}
    old = allow("kms:CreateGrant", "*", Principal=ROOT, Condition=condition)
    new = allow("kms:CreateGrant", "*", Principal={"AWS": linked})
    context = {"aws:PrincipalArn": linked}
    ask = {"principal": linked, "context": context}
    assert not decide("kms:CreateGrant", KEY, resource_policy=policy(TO_IAM, old), **ask)
    assert decide("kms:CreateGrant", KEY, resource_policy=policy(TO_IAM, new), **ask)


def test_an_endpoints_policy_must_allow_too():
    """https://docs.aws.amazon.com/vpc/latest/privatelink/vpc-endpoints-access.html"""
    mine = [allow("s3:GetObject", "arn:aws:s3:::b/*")]
    own = {"StringEquals": {"aws:ResourceAccount": ACCOUNT}}
    door = policy(allow("s3:*", "*", Principal="*", Condition=own))
    ask = {"identity": mine, "endpoint": door}
    assert decide("s3:GetObject", "arn:aws:s3:::b/x", context={"aws:ResourceAccount": ACCOUNT}, **ask)
    assert not decide(
        "s3:GetObject", "arn:aws:s3:::b/x", context={"aws:ResourceAccount": "999999999999"}, **ask
    )


def test_a_service_needs_the_resources_policy():
    """https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-use-resource-based.html"""
    rule = f"arn:aws:events:eu-central-1:{ACCOUNT}:rule/r"
    ours = {**SEND, "Condition": {"ArnEquals": {"aws:SourceArn": rule}}}
    ask = {"principal": "events.amazonaws.com", "resource_policy": policy(ours)}
    assert decide("sqs:SendMessage", QUEUE, context={"aws:SourceArn": rule}, **ask)
    assert not decide("sqs:SendMessage", QUEUE, context={"aws:SourceArn": rule + "2"}, **ask)
    assert not decide("sqs:SendMessage", QUEUE, principal="events.amazonaws.com")
