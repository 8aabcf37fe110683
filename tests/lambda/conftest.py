"""Lambdas are loaded from their folders as the runtime does; AWS is moto in this process, or a small stub."""

from __future__ import annotations

import functools
import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from moto import mock_aws

LAMBDAS = Path(__file__).resolve().parents[2] / "lambda"
REGION = "eu-central-1"


@pytest.fixture(autouse=True)
def aws_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": REGION,
        "AWS_REGION": REGION,
        "AWS_EC2_METADATA_DISABLED": "true",
        "POWERTOOLS_TRACE_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)
    for name in ("AWS_PROFILE", "AWS_ENDPOINT_URL", "POWERTOOLS_SERVICE_NAME"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def aws() -> Iterator[None]:
    with mock_aws(config={"batch": {"use_docker": False}}):
        yield


class _Stdout:
    def write(self, text: str) -> None:
        sys.stdout.write(text)

    def flush(self) -> None:
        sys.stdout.flush()


def load(name: str, module: str = "handler") -> ModuleType:
    folder = LAMBDAS / name
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    unique = f"lambda_{name}_{module}" if module == "handler" else module
    if unique not in sys.modules:
        spec = importlib.util.spec_from_file_location(unique, folder / f"{module}.py")
        assert spec is not None
        assert spec.loader is not None
        sys.modules[unique] = loaded = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(loaded)
        if hasattr(loaded, "logger"):
            # The logger keeps the stream it found at import: one that pytest has closed by the next test.
            for handler in loaded.logger.handlers:
                handler.stream = _Stdout()
    return sys.modules[unique]


@pytest.fixture
def context() -> SimpleNamespace:
    return SimpleNamespace(
        function_name="f",
        memory_limit_in_mb=128,
        invoked_function_arn="arn:aws:lambda:eu-central-1:123456789012:function:f",
        aws_request_id="r",
        get_remaining_time_in_millis=lambda: 50_000,
    )


def fail(client: Any, operation: str, code: str = "ThrottlingException", times: int = 10**6) -> list[str]:
    """Let every call of ``operation`` fail as the service would say it; return the list of the calls."""
    calls: list[str] = []

    def refuse(**_: Any) -> None:
        calls.append(operation)
        if len(calls) <= times:
            raise ClientError({"Error": {"Code": code, "Message": "Jane Doe"}}, operation)

    client.meta.events.register(f"before-call.*.{operation}", refuse)
    return calls


def watch(client: Any, operation: str) -> list[dict[str, Any]]:
    """Return the list in which the parameters of every call of ``operation`` will be found."""
    calls: list[dict[str, Any]] = []
    client.meta.events.register(
        f"provide-client-params.*.{operation}", lambda params, **_: calls.append(dict(params))
    )
    return calls


def emitted(text: str) -> list[dict[str, Any]]:
    """Return the embedded-format lines of what a function wrote."""
    lines = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    return [line for line in lines if "_aws" in line]


def values(line: dict[str, Any]) -> dict[str, float]:
    names = [metric["Name"] for block in line["_aws"]["CloudWatchMetrics"] for metric in block["Metrics"]]
    return {name: line[name][0] if isinstance(line[name], list) else line[name] for name in names}


@functools.cache
def session() -> boto3.session.Session:
    """Return one session for all tests: reading the services' models is what makes a client dear."""
    return boto3.session.Session(
        aws_access_key_id="testing", aws_secret_access_key="testing", region_name=REGION
    )


@pytest.fixture
def ledger(aws: None) -> Any:
    client = session().client("dynamodb")
    client.create_table(
        TableName="ledger",
        KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}, {"AttributeName": "sk", "KeyType": "RANGE"}],
        AttributeDefinitions=[
            {"AttributeName": "pk", "AttributeType": "S"},
            {"AttributeName": "sk", "AttributeType": "S"},
        ],
        BillingMode="PAY_PER_REQUEST",
    )
    return client
