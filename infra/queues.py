"""The queues: two lanes and the dead letters of a stage, and the queue of share refreshes."""

from __future__ import annotations

from aws_cdk import Duration
from aws_cdk import aws_kms as kms
from aws_cdk import aws_sqs as sqs
from constructs import Construct

from mrirecon.contract.keys import Priority

from .config_parts import WorkerTimes

KEPT = Duration.days(10)
DEAD_KEPT = Duration.days(14)
"""Longer than the lanes keep: a dead letter's clock goes on from when it was sent first."""


class StageQueues(Construct):
    """``stat``, ``routine`` and the dead letters of one stage."""

    def __init__(self, scope: Construct, name: str, *, key: kms.IKey, times: WorkerTimes) -> None:
        super().__init__(scope, name)
        self.dead_letters = _queue(self, "DeadLetters", key=key, kept=DEAD_KEPT)
        spent = sqs.DeadLetterQueue(queue=self.dead_letters, max_receive_count=times.max_receives)
        visible_again = Duration.seconds(times.visibility_seconds)
        self.stat = _queue(self, "Stat", key=key, kept=KEPT, dead=spent, visibility=visible_again)
        self.routine = _queue(self, "Routine", key=key, kept=KEPT, dead=spent, visibility=visible_again)

    def lane(self, priority: Priority) -> sqs.Queue:
        """Return the queue of ``priority``."""
        return {Priority.STAT: self.stat, Priority.ROUTINE: self.routine}[priority]

    @property
    def lanes(self) -> tuple[sqs.Queue, sqs.Queue]:
        """The two lanes, the urgent one first."""
        return self.stat, self.routine


class RefreshQueue(Construct):
    """Published results whose folders the share must look at."""

    def __init__(self, scope: Construct, name: str, *, key: kms.IKey, visibility: Duration) -> None:
        super().__init__(scope, name)
        self.dead_letters = _queue(self, "DeadLetters", key=key, kept=DEAD_KEPT)
        # Many receives: a share that is busy refreshing makes the Lambda hand messages back.
        spent = sqs.DeadLetterQueue(queue=self.dead_letters, max_receive_count=50)
        self.queue = _queue(self, "Queue", key=key, kept=KEPT, dead=spent, visibility=visibility)


def _queue(
    scope: Construct,
    name: str,
    *,
    key: kms.IKey,
    kept: Duration,
    dead: sqs.DeadLetterQueue | None = None,
    visibility: Duration | None = None,
) -> sqs.Queue:
    return sqs.Queue(
        scope,
        name,
        encryption=sqs.QueueEncryption.KMS,
        encryption_master_key=key,
        data_key_reuse=Duration.hours(1),
        enforce_ssl=True,
        retention_period=kept,
        receive_message_wait_time=Duration.seconds(20),
        dead_letter_queue=dead,
        visibility_timeout=visibility,
    )
