"""Walk a dead-letter queue, and give letters back to the lane they came from.

A letter is sent before it is deleted: what dies between the two is done again, and a scan announced twice
ends once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..contract.codes import PermanentError
from ..contract.keys import Priority, parse_incoming
from ..contract.messages import NotAMessageError, ReconRequest, announcement
from ..contract.states import Stage, State

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

LOOK_SECONDS = 120
"""How long a letter that was looked at stays hidden, should the walk die before it shows it again."""
WAIT_SECONDS = 1
"""A long poll, however short, asks all of SQS's servers; a short poll may miss letters that are there."""
POISON = "poison"
"""The reason of a letter that is no message of ours; it is given back only when asked for by this name."""
UNKNOWN = "unknown"
"""The reason of a letter whose scan's end nobody recorded."""


@dataclass(frozen=True)
class Letter:
    """A dead letter. ``group`` is the message group (the site) it was sent in, if any; ``id`` is SQS's."""

    body: str
    receipt: str
    group: str | None = None
    id: str = ""


@dataclass(frozen=True)
class Redriven:
    """What a redrive did: letters looked at by reason, how many were given back, whether more are left."""

    seen: Mapping[str, int] = field(default_factory=dict)
    given_back: int = 0
    limited: bool = False


def letters(
    sqs: SQSClient, url: str, *, look_seconds: int = LOOK_SECONDS, wait_seconds: int | None = None
) -> Generator[Letter, None, None]:
    """Yield each dead letter once; when the walk is over, all that were not deleted are visible again."""
    wait_seconds = WAIT_SECONDS if wait_seconds is None else wait_seconds
    seen: set[str] = set()
    receipts: list[str] = []
    try:
        while True:
            told = sqs.receive_message(
                QueueUrl=url,
                MaxNumberOfMessages=10,
                WaitTimeSeconds=wait_seconds,
                VisibilityTimeout=look_seconds,
                MessageSystemAttributeNames=["MessageGroupId"],
            ).get("Messages", [])
            receipts += [found["ReceiptHandle"] for found in told]
            new = [found for found in told if found["MessageId"] not in seen]
            if not new:
                return
            for found in new:
                seen.add(found["MessageId"])
                group = found.get("Attributes", {}).get("MessageGroupId")
                yield Letter(found["Body"], found["ReceiptHandle"], group, found["MessageId"])
    finally:
        for receipt in receipts:
            _show(sqs, url, receipt)


def lane(stage: Stage, body: str) -> Priority:
    """Return the lane a message belongs in: a scan's own, routine for what tells none."""
    try:
        if stage is Stage.RECON:
            return Priority(ReconRequest.loads(body).priority)
        told = [parse_incoming(delivery.key).priority for delivery in announcement(body).deliveries]
    except (NotAMessageError, PermanentError, ValueError):
        return Priority.ROUTINE
    return Priority.STAT if Priority.STAT in told else Priority.ROUTINE


def cause(items: Iterable[tuple[str, str]]) -> str:
    """Return why a letter is dead, from the (state, code) of all ledger items that it is about.

    The code of the first that failed; ``unknown`` where none is told, ``poison`` where there are no items.
    """
    told = list(items)
    if not told:
        return POISON
    return next((code for state, code in told if state == State.FAILED.value and code), UNKNOWN)


def redrive(
    sqs: SQSClient,
    dead_letters: str,
    lanes: Mapping[Priority, str],
    stage: Stage,
    reason_of: Callable[[str], str],
    *,
    reason: str | None = None,
    is_about: Callable[[str], bool] | None = None,
    before: Callable[[Letter], None] | None = None,
    limit: int | None = None,
    dry_run: bool = False,
    look_seconds: int = LOOK_SECONDS,
    wait_seconds: int | None = None,
) -> Redriven:
    """Give dead letters back: of one ``reason``, of one scan (``is_about`` its body), or all except poison.

    Parameters
    ----------
    sqs
        Client.
    dead_letters
        URL of the dead-letter queue.
    lanes
        URLs of the stage's lanes.
    stage
        The stage, which tells what the bodies are.
    reason_of
        Tells from a body why its scan failed: :func:`cause` of the items that the ledger has of it.
    reason
        Give back only these.
    is_about
        Give back only those for whose body it is true.
    before
        Called with each letter before it is sent: the place to set its ledger items back to ``queued``.
    limit
        At most so many are given back; ``None``: all.
    dry_run
        Give none back, only count.
    look_seconds, wait_seconds
        See ``LOOK_SECONDS``, ``WAIT_SECONDS``.
    """
    seen: Counter[str] = Counter()
    count = 0
    walk = letters(sqs, dead_letters, look_seconds=look_seconds, wait_seconds=wait_seconds)
    try:
        for letter in walk:
            why = reason_of(letter.body)
            seen[why] += 1
            if (why != reason) if reason is not None else (why == POISON):
                continue
            if is_about is not None and not is_about(letter.body):
                continue
            if limit is not None and count >= limit:
                return Redriven(dict(seen), count, limited=True)
            count += 1
            if dry_run:
                continue
            if before is not None:
                before(letter)
            to = lanes[lane(stage, letter.body)]
            if letter.group is None:
                sqs.send_message(QueueUrl=to, MessageBody=letter.body)
            else:
                sqs.send_message(QueueUrl=to, MessageBody=letter.body, MessageGroupId=letter.group)
            sqs.delete_message(QueueUrl=dead_letters, ReceiptHandle=letter.receipt)
    finally:
        walk.close()
    return Redriven(dict(seen), count)


def _show(sqs: SQSClient, url: str, receipt: str) -> None:
    try:
        sqs.change_message_visibility(QueueUrl=url, ReceiptHandle=receipt, VisibilityTimeout=0)
    except sqs.exceptions.ClientError:
        return  # deleted, or visible again by itself
