"""Configuration errors that name the field, what it got and what it takes."""

from __future__ import annotations

import types
from collections.abc import Mapping
from typing import Any, NoReturn, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticCustomError


class ConfigError(ValueError):
    """The configuration is not usable. ``problems`` holds one sentence a field."""

    def __init__(self, source: str, problems: list[str]) -> None:
        self.source = source
        self.problems = problems
        lines = "\n".join(f"  {problem}" for problem in problems)
        super().__init__(f"{source}: {len(problems)} problem(s)\n{lines}")


def reject(field: str, got: object, takes: str) -> NoReturn:
    """Raise the error of a rule between fields; ``field`` is relative to the model that checks."""
    raise PydanticCustomError(
        "rule", "{field}: got {got}; takes {takes}", {"field": field, "got": repr(got), "takes": takes}
    )


def from_validation(source: str, root: type[BaseModel], error: ValidationError) -> ConfigError:
    """Turn pydantic's errors into sentences that name the field, what it got and what it takes."""
    items: list[dict[str, Any]] = [dict(item) for item in error.errors(include_url=False)]
    # A list whose entries are wrong is also told to be too short: that sentence would mislead.
    told = [
        item
        for item in items
        if item["type"] != "too_short" or not any(_below(other["loc"], item["loc"]) for other in items)
    ]
    return ConfigError(source, [_sentence(root, item) for item in told])


def _below(one: tuple[Any, ...], other: tuple[Any, ...]) -> bool:
    return len(one) > len(other) and one[: len(other)] == other


def _sentence(root: type[BaseModel], item: Mapping[str, Any]) -> str:
    path = [str(part) for part in item["loc"] if not str(part).startswith("function-")]
    context = item.get("ctx") or {}
    if item["type"] == "rule":
        field = ".".join([*path, *([context["field"]] if context["field"] else [])])
        return f"{field}: got {context['got']}; takes {context['takes']}"
    field = ".".join(path) or "(the whole file)"
    if item["type"] == "extra_forbidden":
        known = ", ".join(_fields_at(root, path[:-1])) or "no such field"
        return f"{field}: no such field; takes one of {known}"
    if item["type"] == "missing":
        return f"{field}: got nothing; takes {_described(root, path)}"
    if item["type"] == "value_error":
        return f"{field}: got {item['input']!r}; takes another value: {context.get('error', item['msg'])}"
    takes = item["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
    described = _described(root, path)
    more = "" if described == "a value" else f" ({described})"
    return f"{field}: got {item['input']!r}; takes {takes}{more}"


def _model_at(root: type[BaseModel], path: list[str]) -> type[BaseModel] | None:
    model: type[BaseModel] | None = root
    for part in path:
        if model is None or part.isdigit():
            continue
        if part not in model.model_fields:
            continue  # the tag of a union
        candidates = _models(model.model_fields[part].annotation)
        model = _chosen(candidates, path) if candidates else None
    return model


def _chosen(candidates: list[type[BaseModel]], path: list[str]) -> type[BaseModel]:
    for candidate in candidates:
        kind = candidate.model_fields.get("kind")
        if kind is not None and any(part in get_args(kind.annotation) for part in path):
            return candidate
    return candidates[0]


def _fields_at(root: type[BaseModel], path: list[str]) -> list[str]:
    model = _model_at(root, path)
    return sorted(model.model_fields) if model else []


def _described(root: type[BaseModel], path: list[str]) -> str:
    model = _model_at(root, path[:-1])
    if model is None or not path or path[-1] not in model.model_fields:
        return "a value"
    return model.model_fields[path[-1]].description or "a value"


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if get_origin(annotation) in (Union, types.UnionType, tuple, list) or get_args(annotation):
        return [model for part in get_args(annotation) for model in _models(part)]
    return []
