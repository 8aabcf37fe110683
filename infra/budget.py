"""The budget alarm: four fifths spent, and the whole to be spent by the month's end."""

from __future__ import annotations

from aws_cdk import aws_budgets as budgets
from aws_cdk import aws_iam as iam
from aws_cdk import aws_sns as sns
from constructs import Construct

from .config import Environment


class MonthlyBudget(Construct):
    """A monthly cost budget over the environment's cost-allocation tag, told to the alarm topic."""

    def __init__(self, scope: Construct, name: str, *, env: Environment, topic: sns.Topic) -> None:
        super().__init__(scope, name)
        tag = env.operations.cost_tag
        topic.add_to_resource_policy(
            iam.PolicyStatement(
                sid="BudgetTells",
                actions=["sns:Publish"],
                resources=[topic.topic_arn],
                principals=[iam.ServicePrincipal("budgets.amazonaws.com")],
                conditions={"StringEquals": {"aws:SourceAccount": env.account}},
            )
        )

        def told(kind: str, percent: int) -> budgets.CfnBudget.NotificationWithSubscribersProperty:
            return budgets.CfnBudget.NotificationWithSubscribersProperty(
                notification=budgets.CfnBudget.NotificationProperty(
                    comparison_operator="GREATER_THAN",
                    notification_type=kind,
                    threshold=percent,
                    threshold_type="PERCENTAGE",
                ),
                subscribers=[
                    budgets.CfnBudget.SubscriberProperty(address=topic.topic_arn, subscription_type="SNS")
                ],
            )

        self.budget = budgets.CfnBudget(
            self,
            "Budget",
            budget=budgets.CfnBudget.BudgetDataProperty(
                budget_type="COST",
                time_unit="MONTHLY",
                budget_limit=budgets.CfnBudget.SpendProperty(
                    amount=env.operations.monthly_budget_usd, unit="USD"
                ),
                cost_filters={"TagKeyValue": [f"user:{tag}${env.tags[tag]}"]},
            ),
            notifications_with_subscribers=[told("ACTUAL", 80), told("FORECASTED", 100)],
        )
