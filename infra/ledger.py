"""The ledger: one table, one index by state, every second of the last 35 days restorable."""

from __future__ import annotations

from aws_cdk import aws_dynamodb as dynamodb
from aws_cdk import aws_kms as kms
from constructs import Construct

from mrirecon.contract import states

from .acknowledge import acknowledge, controls
from .config import Environment
from .retention import removal


class Ledger(Construct):
    """The table whose keys :mod:`mrirecon.contract.states` describes."""

    def __init__(self, scope: Construct, name: str, *, env: Environment, key: kms.IKey) -> None:
        super().__init__(scope, name)
        text = dynamodb.AttributeType.STRING
        self.table = dynamodb.Table(
            self,
            "Table",
            partition_key=dynamodb.Attribute(name=states.PK, type=text),
            sort_key=dynamodb.Attribute(name=states.SK, type=text),
            billing_mode=dynamodb.BillingMode.PAY_PER_REQUEST,
            encryption=dynamodb.TableEncryption.CUSTOMER_MANAGED,
            encryption_key=key,
            point_in_time_recovery_specification=dynamodb.PointInTimeRecoverySpecification(
                point_in_time_recovery_enabled=True
            ),
            deletion_protection=env.keep_data,
            removal_policy=removal(env),
        )
        self.table.add_global_secondary_index(
            index_name=states.BY_STATE,
            partition_key=dynamodb.Attribute(name=states.STATE, type=text),
            sort_key=dynamodb.Attribute(name=states.UPDATED_AT, type=text),
        )
        acknowledge(
            self.table,
            "Point-in-time recovery restores every second of 35 days; older rows can be made from the "
            "records beside the images.",
            *controls("DynamoDBInBackupPlan"),
        )
