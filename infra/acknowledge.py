"""Say aloud where a rule of a policy pack does not hold, and why; the reason is kept with the construct."""

from __future__ import annotations

from aws_cdk import Acknowledgment, Validations
from constructs import IConstruct

BUILT_IN = "CloudFormation-Validate::"
"""Namespace of the rules that CDK itself checks at synth."""


def acknowledge(construct: IConstruct, reason: str, *rules: str) -> None:
    """Acknowledge ``rules`` on ``construct`` and what is below it, for one ``reason``."""
    Validations.of(construct).acknowledge(*(Acknowledgment(id=rule, reason=reason) for rule in rules))


def controls(*rules: str) -> tuple[str, ...]:
    """Return the ids of rules that HIPAA's pack and NIST's share."""
    return tuple(f"{pack}-{rule}" for pack in ("HIPAA.Security", "NIST.800.53.R5") for rule in rules)


def managed_policy(name: str) -> str:
    """Return the id of AwsSolutions' finding about an AWS managed policy."""
    return f"AwsSolutions-IAM4[Policy::arn:<AWS::Partition>:iam::aws:policy/{name}]"
