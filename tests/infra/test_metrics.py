"""Every alarm and graph looks at a metric that code or a service sends, with its dimensions and period.

Ours are read from the code: each place that emits says which dimensions and which names. AWS's are in
``tables/metrics.yaml``, each with its page.
"""

import ast
import json
import re
from pathlib import Path

import pytest
import yaml

from infra.config import load
from mrirecon.contract import metrics
from tests.infra.deployed import Deployed

ROOT = Path(__file__).resolve().parents[2]
OF_AWS = yaml.safe_load((Path(__file__).parent / "tables" / "metrics.yaml").read_text())
BY_STAGE = (metrics.STAGE,)
BY_END = (metrics.STAGE, metrics.STATUS, metrics.CODE)


def constants(node):
    """Return the values of the contract's metric names that a piece of code mentions."""
    found = set()
    for part in ast.walk(node):
        if isinstance(part, ast.Attribute) and isinstance(part.value, ast.Name):
            value = getattr(metrics, part.attr, None)
            if isinstance(value, str) and part.value.id in {"metrics", "names"}:
                found.add(value)
    return found


def emitted():
    """Return what code emits: ``{(name, dimensions)}``.

    Workers: ``metrics.emit({dimensions}, {names})``. Lambdas: names and dimensions that a module hands to
    its ``EphemeralMetrics``.
    """
    found = set()
    for path in sorted((ROOT / "services").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "metrics.emit":
                dimensions, values = node.args
                order = [name for name in BY_END if name in constants(dimensions)]
                found |= {(name, tuple(order)) for name in constants(values)}
    for path in sorted((ROOT / "lambda").rglob("*.py")):
        tree = ast.parse(path.read_text())
        if "EphemeralMetrics(" not in path.read_text():
            continue
        added = [
            node
            for node in ast.walk(tree)
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(".add_dimension")
        ]
        dimensions = tuple(name for node in added for name in constants(node))
        others = constants(tree) - {metrics.NAMESPACE, *BY_END}
        found |= {(name, dimensions) for name in others}
    return found


def looked_at(deployed):
    """Yield (who, namespace, name, dimensions, period) of every metric of alarms and graphs."""
    for (part, logical), alarm in deployed.of("AWS::CloudWatch::Alarm").items():
        who = f"alarm {part}.{logical}"
        stats = [item["MetricStat"] for item in alarm.get("Metrics", []) if "MetricStat" in item]
        if "MetricName" in alarm:
            stats.append({"Metric": alarm, "Period": alarm["Period"]})
        assert stats, who
        for stat in stats:
            metric = stat["Metric"]
            names = tuple(sorted(item["Name"] for item in metric.get("Dimensions", [])))
            yield who, metric["Namespace"], metric["MetricName"], names, stat["Period"]
    for dashboard in deployed.of("AWS::CloudWatch::Dashboard").values():
        for widget in json.loads(dashboard["DashboardBody"])["widgets"]:
            properties = widget["properties"]
            for line in properties.get("metrics", []):
                who = f"graph {properties.get('title')}"
                options = line[-1] if isinstance(line[-1], dict) else {}
                if "expression" in options:
                    yield from of_search(who, options)
                    continue
                words = [word for word in line if isinstance(word, str)]
                yield who, words[0], words[1], tuple(sorted(words[2::2])), options.get("period", 300)


def of_search(who, options):
    """Yield the metric of a search expression; other expressions only combine lines of their own graph."""
    found = re.search(r"SEARCH\('\{(\w[\w/,]*)\} MetricName=\"(\w+)\"", options["expression"])
    if found:
        namespace, *names = found[1].split(",")
        yield who, namespace, found[2], tuple(sorted(names)), options.get("period", 300)


@pytest.fixture(scope="module", params=["production", "dev"])
def lines(request, synth):
    config = load(request.param)
    return list(looked_at(Deployed(synth(request.param), config.account, config.region)))


def test_every_metric_looked_at_is_sent_with_these_dimensions(lines):
    assert len(lines) > 40
    ours = {(name, tuple(sorted(dimensions))) for name, dimensions in emitted()}
    theirs = {
        (row["namespace"], name, tuple(sorted(row["dimensions"]))) for row in OF_AWS for name in row["names"]
    }
    wrong = [
        f"{who}: {namespace} {name} by {dimensions}"
        for who, namespace, name, dimensions, _ in lines
        if (
            (name, dimensions) not in ours
            if namespace == metrics.NAMESPACE
            else (namespace, name, dimensions) not in theirs
        )
    ]
    assert wrong == []


def test_no_period_is_shorter_than_the_metrics_own(lines):
    shortest = {(row["namespace"], name): row["period"] for row in OF_AWS for name in row["names"]}
    wrong = [
        f"{who}: {name} every {period} s"
        for who, namespace, name, _, period in lines
        if period < shortest.get((namespace, name), 60)
    ]
    assert wrong == []


def test_each_row_of_the_table_is_looked_at(synth):
    config = load("production")
    seen = {line[1:3] for line in looked_at(Deployed(synth("production"), config.account, config.region))}
    for row in OF_AWS:
        assert row["page"].startswith("https://docs.aws.amazon.com/")
        assert [name for name in row["names"] if (row["namespace"], name) not in seen] == []


def test_the_codes_metrics_are_found():
    """What the reader of the code must find, or it looks in the wrong place."""
    found = emitted()
    assert (metrics.ENDS, BY_END) in found
    assert {(metrics.STAGE_SECONDS, BY_STAGE), (metrics.POISON, BY_STAGE)} <= found
    assert {(metrics.WORKERS_WANTED, BY_STAGE), (metrics.SCALER_ERRORS, BY_STAGE)} <= found
    assert (metrics.REFRESHED_FOLDERS, ()) in found
    assert (metrics.WORKERS_WANTED, ()) not in found
