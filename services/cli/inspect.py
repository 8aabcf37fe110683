"""``mrirecon inspect``: what is in an archive, without reconstructing it."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from typing import Any

from ..contract.codes import MrireconError
from .exits import gravest


def inspect(arguments: Namespace) -> int:
    """Print what was found in the archive, as a table or as JSON."""
    from ..decompress.stage import inspect as look

    try:
        facts = look(arguments.archive)
    except MrireconError as error:
        if arguments.json:
            print(json.dumps({"status": error.end, "code": error.code, "message": error.message}))
        else:
            print(f"{error.end}: {error}", file=sys.stderr)
        return gravest([error.end])
    if arguments.json:
        print(json.dumps(facts, ensure_ascii=False))
    else:
        for name, value in facts.items():
            for line, text in enumerate(_lines(value)):
                print(f"{name.replace('_', ' ') if line == 0 else '':<22} {text}")
    return 0


def _lines(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [f"{name}: {_plain(inner)}" for name, inner in value.items()] or ["none"]
    if isinstance(value, list) and value and all(isinstance(item, str) for item in value):
        return value
    return [_plain(value)]


def _plain(value: Any) -> str:
    if value is None:
        return "not known"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        return " × ".join(_plain(item) for item in value) if value else "none"
    return str(value)
