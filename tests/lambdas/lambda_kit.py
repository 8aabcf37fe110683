"""What the tests of the Lambdas share: loading them, AWS calls that fail or are watched, what was emitted."""

from __future__ import annotations

import functools
import json
import os
import sys
from types import ModuleType
from typing import Any

import boto3
from botocore.exceptions import ClientError

from tests.support import aws_calls, lambda_loader

REGION = "eu-central-1"


class _Stdout:
    def write(self, text: str) -> None:
        sys.stdout.write(text)

    def flush(self) -> None:
        sys.stdout.flush()


def load(name: str, module: str = "handler") -> ModuleType:
    """Return a Lambda's module, its logger writing to whatever stdout is at the time."""
    loaded = lambda_loader.load(name, module)
    if hasattr(loaded, "logger"):
        # The logger keeps the stream it found at import: one that pytest has closed by the next test.
        for handler in loaded.logger.handlers:
            if not isinstance(handler.stream, _Stdout):
                handler.stream = _Stdout()
    return loaded


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


def recorder(role: str, more: dict[str, str] | None = None) -> aws_calls.Recorder:
    """Return what records a function's calls: ``with recorder("scaler").during(*clients):``.

    ``more`` names things that the function meets and no variable of its own names.
    """
    return aws_calls.Recorder(aws_calls.recorded_to(), role, {**os.environ, **(more or {})})


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
