"""One queue lane: SQS through boto3, long poll, visibility as heartbeat and as backoff."""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING

from ..contract.codes import Code, PermanentError
from . import client as aws
from .ports import Message

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_sqs.literals import QueueAttributeNameType
    from mypy_boto3_sqs.type_defs import SendMessageRequestTypeDef

MAX_VISIBILITY = 12 * 3600
MAX_DELAY = 900


def backoff(receives: int, base: float = 5.0, most: float = 900.0) -> float:
    """Return the seconds to wait before the next try: doubling up to ``most``, a quarter by chance."""
    full = min(most, base * 2.0 ** min(receives - 1, 30))
    return float(full * (0.75 + 0.25 * random.random()))


class SqsQueue:
    """See :class:`~mrirecon.aws.ports.Queue`.

    Parameters
    ----------
    visibility
        Seconds a received message is hidden until the first heartbeat.
    """

    def __init__(
        self, client: SQSClient, url: str, *, name: str, visibility: float, max_receives: int = 0
    ) -> None:
        self._sqs = client
        self._url = url
        self.name = name
        self._visibility = visibility
        self.max_receives = max_receives

    def load_policy(self) -> None:
        """Read after how many receives SQS moves a message to the dead letters.

        Raises
        ------
        PermanentError
            ``bad_settings`` when the queue has no dead-letter queue: a poison message would come for ever.
        """
        attributes = self.attributes("RedrivePolicy")
        policy = json.loads(attributes.get("RedrivePolicy") or "{}")
        if "maxReceiveCount" not in policy:
            raise PermanentError(
                Code.BAD_SETTINGS,
                f"The {self.name} queue has no dead-letter queue: give it a redrive policy "
                "with a maxReceiveCount.",
            )
        self.max_receives = int(policy["maxReceiveCount"])

    def attributes(self, *names: QueueAttributeNameType) -> dict[str, str]:
        """Return attributes of the queue."""
        with aws.translated("The queue"):
            found = self._sqs.get_queue_attributes(QueueUrl=self._url, AttributeNames=names)
        return {str(name): value for name, value in found.get("Attributes", {}).items()}

    def receive(self, wait: float) -> Message | None:
        """Long-poll for one message."""
        with aws.translated("The queue"):
            told = self._sqs.receive_message(
                QueueUrl=self._url,
                MaxNumberOfMessages=1,
                WaitTimeSeconds=min(20, round(wait)),
                VisibilityTimeout=round(self._visibility),
                MessageSystemAttributeNames=["ApproximateReceiveCount", "MessageGroupId"],
            )
        for found in told.get("Messages", []):
            told_of_it = found.get("Attributes", {})
            return Message(
                id=found["MessageId"],
                body=found["Body"],
                receipt=found["ReceiptHandle"],
                receives=int(told_of_it.get("ApproximateReceiveCount", 1)),
                group=told_of_it.get("MessageGroupId"),
            )
        return None

    def extend(self, message: Message, seconds: float) -> bool:
        """Hide the message for ``seconds`` from now."""
        with aws.translated("The queue"):
            try:
                self._sqs.change_message_visibility(
                    QueueUrl=self._url,
                    ReceiptHandle=message.receipt,
                    VisibilityTimeout=max(0, min(MAX_VISIBILITY, round(seconds))),
                )
            except self._sqs.exceptions.ClientError as error:
                gone = {"ReceiptHandleIsInvalid", "MessageNotInflight", "InvalidParameterValue"}
                if aws.error_code(error).rpartition(".")[2] in gone:
                    return False
                raise
        return True

    def delete(self, message: Message) -> None:
        """Delete the message; one that is gone already is no error."""
        with aws.translated("The queue"):
            try:
                self._sqs.delete_message(QueueUrl=self._url, ReceiptHandle=message.receipt)
            except self._sqs.exceptions.ClientError as error:
                if aws.error_code(error).rpartition(".")[2] != "ReceiptHandleIsInvalid":
                    raise

    def send(self, body: str, *, group: str, delay: float = 0) -> None:
        """Send a message. ``group`` (the site) makes it a fair queue: no site waits for another's burst."""
        request: SendMessageRequestTypeDef = {
            "QueueUrl": self._url,
            "MessageBody": body,
            "MessageGroupId": group,
        }
        if delay:
            request["DelaySeconds"] = min(MAX_DELAY, round(delay))
        with aws.translated("The queue"):
            self._sqs.send_message(**request)
