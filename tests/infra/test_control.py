"""Lambdas, schedule, dashboard, alarms: what steers the pipeline and what tells about it."""

import json
import re
from pathlib import Path

import pytest

from infra.config import load
from mrirecon.contract import environment as env
from mrirecon.contract import metrics
from mrirecon.contract.scaling import Policy
from tests.support import lambda_loader

ROOT = Path(__file__).resolve().parents[2]
PIPELINE = ("Scaler", "Refresh", "Redrive")


def function(production, name):
    return production.one("AWS::Lambda::Function", "Control", containing=f"Control{name}")


@pytest.mark.parametrize("name", PIPELINE)
def test_a_function_is_bounded_logged_and_inside_the_network(production, name):
    found = function(production, name)
    assert found["ReservedConcurrentExecutions"] >= 1
    assert found["Runtime"].startswith("python3.")
    assert found["VpcConfig"]["SubnetIds"]
    group = production.resources("AWS::Logs::LogGroup")[
        ("Control", found["LoggingConfig"]["LogGroup"]["Ref"])
    ]
    assert group["RetentionInDays"] == 365
    assert group["KmsKeyId"]


def test_the_scaler_is_told_the_policies_of_the_configuration(production):
    told = function(production, "Scaler")["Environment"]["Variables"]
    config = load("production")
    assert Policy.from_json(told[env.DECOMPRESS_SCALING]) == config.decompress.scaling
    assert Policy.from_json(told[env.RECON_SCALING]) == config.recon.scaling
    for name in (
        env.ECS_CLUSTER,
        env.ECS_SERVICE,
        env.BATCH_JOB_QUEUE,
        env.BATCH_JOB_DEFINITION,
        env.LEDGER_TABLE,
    ):
        assert told[name]


@pytest.mark.parametrize("name", PIPELINE)
def test_a_function_accepts_what_the_stacks_tell_it(production, name):
    folder = {"Scaler": "scaler", "Refresh": "refresh_cache", "Redrive": "redrive"}[name]
    told = {
        key: value if isinstance(value, str) else "resolved-at-deployment"
        for key, value in function(production, name)["Environment"]["Variables"].items()
    }
    module = lambda_loader.load(folder, "scaler_settings" if name == "Scaler" else "handler")
    assert module.Settings.from_environ(told)


def test_the_scaler_looks_every_minute_and_a_missed_look_is_not_repeated(production):
    (rule,) = [
        r for r in production.resources("AWS::Events::Rule", "Control").values() if "ScheduleExpression" in r
    ]
    assert rule["ScheduleExpression"] == "rate(1 minute)"
    assert rule["Targets"][0]["RetryPolicy"] == {"MaximumEventAgeInSeconds": 60, "MaximumRetryAttempts": 0}
    assert rule["Targets"][0]["DeadLetterConfig"]


def test_the_scaler_may_set_one_service_and_submit_one_definition(production):
    (policy,) = [
        found
        for (_, name), found in production.resources("AWS::IAM::Policy", "Control").items()
        if "ScalerRole" in name
    ]
    by_sid = {s["Sid"]: s for s in policy["PolicyDocument"]["Statement"] if "Sid" in s}
    assert "Service" in json.dumps(by_sid["SetService"]["Resource"])
    assert set(by_sid["SetService"]["Action"]) == {"ecs:DescribeServices", "ecs:UpdateService"}
    assert len(by_sid["SubmitWorkers"]["Resource"]) == 3  # the queue; the definition and its revisions


def test_redrive_may_look_at_archives_and_change_none(production):
    """It asks for the version of what a gateway announced: a HEAD of the object, 404 where there is none."""
    (policy,) = [
        found
        for (_, name), found in production.resources("AWS::IAM::Policy", "Control").items()
        if "RedriveRole" in name
    ]
    by_sid = {s["Sid"]: s for s in policy["PolicyDocument"]["Statement"] if "Sid" in s}
    assert by_sid["LookAtArchives"]["Action"] == "s3:GetObject"
    objects, bucket = (json.dumps(by_sid[sid]["Resource"]) for sid in ("LookAtArchives", "ListRaw"))
    assert "Raw" in objects
    assert '"/incoming/*"' in objects
    assert "Raw" in bucket
    assert by_sid["ListRaw"]["Action"] == "s3:ListBucket"
    assert by_sid["DataKey"]["Action"] == "kms:Decrypt"
    actions = [a for s in policy["PolicyDocument"]["Statement"] for a in [s["Action"]] if isinstance(a, str)]
    actions += [
        a for s in policy["PolicyDocument"]["Statement"] if isinstance(s["Action"], list) for a in s["Action"]
    ]
    assert {action for action in actions if action.startswith("s3:")} == {"s3:GetObject", "s3:ListBucket"}


def test_published_results_are_gathered_before_the_share_is_refreshed(production):
    mapping = production.one("AWS::Lambda::EventSourceMapping")
    assert mapping["MaximumBatchingWindowInSeconds"] == 30
    assert mapping["FunctionResponseTypes"] == ["ReportBatchItemFailures"]
    assert mapping["Enabled"] is True


def test_without_a_share_nothing_waits_for_a_refresh(dev):
    assert dev.one("AWS::Lambda::EventSourceMapping")["Enabled"] is False


def alarms(production):
    return production.resources("AWS::CloudWatch::Alarm")


def test_every_alarm_names_a_page_that_exists_and_tells_somebody(production):
    found = alarms(production)
    assert len(found) >= 20
    for (_, name), alarm in found.items():
        match = re.search(r"docs/runbook/([a-z-]+\.md)$", alarm["AlarmDescription"])
        assert match, name
        page = (ROOT / "docs" / "runbook" / match[1]).read_text()
        assert len(page) > 400, f"{match[1]} says too little"
        assert alarm["AlarmActions"]
        assert alarm["OKActions"]


def test_every_page_of_the_runbook_is_named_by_an_alarm(production):
    named = set(re.findall(r"docs/runbook/([a-z-]+\.md)", json.dumps(list(alarms(production).values()))))
    pages = {path.name for path in (ROOT / "docs" / "runbook").glob("*.md")} - {"README.md", "budget.md"}
    assert named == pages


def test_a_dead_letter_of_any_queue_alarms(production):
    dead = {
        name for (_, name), queue in production.resources("AWS::SQS::Queue").items() if "DeadLetters" in name
    }
    watched = json.dumps([a for (_, n), a in alarms(production).items() if n.startswith("WatchDeadLetters")])
    assert len(dead) == 4
    for name in dead:
        assert name[:20] in watched, name


def test_the_scalers_silence_alarms(production):
    (alarm,) = [a for (_, n), a in alarms(production).items() if n.startswith("WatchScalerSilentRecon")]
    assert alarm["TreatMissingData"] == "breaching"
    assert alarm["MetricName"] == metrics.WORKERS_WANTED


def test_the_dashboard_shows_what_a_night_operator_asks(production):
    body = json.dumps(production.one("AWS::CloudWatch::Dashboard")["DashboardBody"])
    for asked in (
        "ApproximateAgeOfOldestMessage",
        "ApproximateNumberOfMessagesVisible",
        metrics.WORKERS_WANTED,
        metrics.WORKERS_RUNNING,
        metrics.STAGE_SECONDS,
        metrics.JOURNEY_SECONDS,
        metrics.COST,
        metrics.ENDS,
        "CachePercentDirty",
        "FreeDataStorageCapacity",
    ):
        assert asked in body, asked


def test_every_metric_shown_is_one_of_the_contract(production):
    names = {value for name, value in vars(metrics).items() if name.isupper() and isinstance(value, str)}
    body = json.dumps(production.one("AWS::CloudWatch::Dashboard")["DashboardBody"])
    shown = set(re.findall(r'\\"Mrirecon\\",\\"(\w+)\\"', body))
    assert shown
    assert shown <= names


def test_the_budget_tells_the_alarm_topic(production):
    budget = production.one("AWS::Budgets::Budget")
    assert budget["Budget"]["BudgetLimit"] == {"Amount": 8000, "Unit": "USD"}
    assert [n["Notification"]["Threshold"] for n in budget["NotificationsWithSubscribers"]] == [80, 100]


def test_queries_over_all_logs_of_the_pipeline_are_saved(production):
    found = production.resources("AWS::Logs::QueryDefinition")
    assert len(found) == 5
    for query in found.values():
        assert query["Name"].startswith("Mrirecon-production/")
        assert len(query["LogGroupNames"]) == 5
