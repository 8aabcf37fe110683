"""Who announces archives, and to which queue.

An archive's lane is its folder: ``incoming/<site>/stat/`` or ``incoming/<site>/routine/``. Senders that put
objects themselves are announced by S3's events; what comes through the file gateway is announced by the
gateway's own upload notification, after its settling time, because a gateway writes an object several
times. Nothing is silently lost: whatever is not in a stat folder goes to the routine lane, misplaced files
too, where the worker says what is wrong with their place. A second announcement would do no harm (the
ledger finds the work done), only cost.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from aws_cdk import Duration
from aws_cdk import aws_events as events
from aws_cdk import aws_events_targets as targets
from aws_cdk import aws_s3 as s3
from aws_cdk import aws_sqs as sqs
from constructs import Construct

from mrirecon.contract import keys
from mrirecon.contract.keys import Priority
from mrirecon.contract.publications import REFRESH_DONE

from .config_parts import Site
from .queues import StageQueues

Pattern = list[dict[str, Any]]

S3_EVENT = "Object Created"
GATEWAY_EVENT = "Storage Gateway Object Upload Event"
"""What a share's upload notification sends for each file; the *File* Upload Event answers an API call."""


class Routing(Construct):
    """Rules from the raw bucket and the gateway to the lanes of the decompress stage."""

    def __init__(
        self,
        scope: Construct,
        name: str,
        *,
        raw: s3.IBucket,
        queues: StageQueues,
        sites: Sequence[Site],
        gateway: bool,
    ) -> None:
        super().__init__(scope, name)
        by_s3 = [site.name for site in sites if site.sender == "s3"]
        by_gateway = [site.name for site in sites if site.sender == "gateway"]
        urgent = _stat_folders(by_s3) if sites else [f"{keys.INCOMING}*/{Priority.STAT.value}/*"]
        elsewhere = [f"{keys.INCOMING}{site}/*" for site in by_gateway]
        lanes: list[tuple[str, Priority, Pattern]] = [
            ("Routine", Priority.ROUTINE, [{"anything-but": {"wildcard": [*urgent, *elsewhere]}}])
        ]
        if urgent:
            lanes.append(("Stat", Priority.STAT, [{"wildcard": folder} for folder in urgent]))
        for label, lane, pattern in lanes:
            detail = {"bucket": {"name": [raw.bucket_name]}, "object": {"key": pattern}}
            self._rule(f"S3{label}", queues, lane, source="aws.s3", event=S3_EVENT, detail=detail)
        if gateway:
            self._announce_gateway(raw, queues, _stat_folders(by_gateway))

    def _announce_gateway(self, raw: s3.IBucket, queues: StageQueues, urgent: list[str]) -> None:
        folders: dict[Priority, Pattern] = {
            Priority.STAT: [{"wildcard": folder} for folder in urgent],
            Priority.ROUTINE: [{"anything-but": {"wildcard": urgent}}],
        }
        for lane, pattern in folders.items():
            detail = {
                "event-type": ["object-upload-complete"],
                "bucket-name": [raw.bucket_name, raw.bucket_arn],
                "object-key": pattern,
            }
            self._rule(
                f"Gateway{lane.value.title()}",
                queues,
                lane,
                source="aws.storagegateway",
                event=GATEWAY_EVENT,
                detail=detail,
            )

    def _rule(
        self,
        name: str,
        queues: StageQueues,
        lane: Priority,
        *,
        source: str,
        event: str,
        detail: dict[str, Any],
    ) -> None:
        pattern = events.EventPattern(source=[source], detail_type=[event], detail=detail)
        rule = events.Rule(self, name, event_pattern=pattern)
        rule.add_target(
            targets.SqsQueue(
                queues.lane(lane),
                dead_letter_queue=queues.dead_letters,
                max_event_age=Duration.hours(24),
                retry_attempts=185,
            )
        )


class Publication(Construct):
    """Rules to the queue of share refreshes: a record was put, so images are out; a refresh has ended."""

    def __init__(
        self, scope: Construct, name: str, *, images: s3.IBucket, queue: sqs.IQueue, dead: sqs.IQueue
    ) -> None:
        super().__init__(scope, name)
        patterns = {
            "Records": events.EventPattern(
                source=["aws.s3"],
                detail_type=[S3_EVENT],
                detail={
                    "bucket": {"name": [images.bucket_name]},
                    "object": {"key": [{"suffix": "/" + keys.RECORD_FILE}]},
                },
            ),
            "RefreshEnds": events.EventPattern(source=["aws.storagegateway"], detail_type=[REFRESH_DONE]),
        }
        for label, pattern in patterns.items():
            rule = events.Rule(self, label, event_pattern=pattern)
            rule.add_target(targets.SqsQueue(queue, dead_letter_queue=dead, max_event_age=Duration.hours(24)))


def _stat_folders(sites: Sequence[str]) -> list[str]:
    return [f"{keys.INCOMING}{site}/{Priority.STAT.value}/*" for site in sites]
