"""Saved Logs Insights queries: the first three questions about one scan, and the two about all."""

from __future__ import annotations

from collections.abc import Sequence

from aws_cdk import aws_logs as logs
from constructs import Construct

QUERIES: dict[str, logs.QueryString] = {
    "one scan from end to end": logs.QueryString(
        fields=["@timestamp", "stage", "attempt", "event", "message"],
        filter_statements=['scan_id = "PUT-SCAN-ID-HERE"'],
        sort="@timestamp asc",
        limit=1000,
    ),
    "attempts that failed": logs.QueryString(
        fields=["@timestamp", "scan_id", "stage", "attempt", "code", "message"],
        filter_statements=["ispresent(code)", 'code != ""'],
        sort="@timestamp desc",
        limit=200,
    ),
    "failures by code": logs.QueryString(
        filter_statements=["ispresent(code)", 'code != ""'],
        stats_statements=["count(*) as scans by stage, code"],
        sort="scans desc",
    ),
    "slowest scans": logs.QueryString(
        fields=["@timestamp", "scan_id", "stage", "StageSeconds"],
        filter_statements=["ispresent(StageSeconds)"],
        sort="StageSeconds desc",
        limit=50,
    ),
    "what the scaler decided": logs.QueryString(
        fields=["@timestamp", "stage", "wanted", "reason"],
        filter_statements=["ispresent(reason)"],
        sort="@timestamp desc",
        limit=200,
    ),
}


class SavedQueries(Construct):
    """The queries, over the log groups of workers and Lambdas, under one folder of the console."""

    def __init__(self, scope: Construct, name: str, *, folder: str, groups: Sequence[logs.ILogGroup]) -> None:
        super().__init__(scope, name)
        for title, query in QUERIES.items():
            logs.QueryDefinition(
                self,
                title.title().replace(" ", ""),
                query_definition_name=f"{folder}/{title}",
                query_string=query,
                log_groups=list(groups),
            )
