"""Ask a file gateway's machine in the VPC for its activation key, and return it: ``{"key": "…"}``.

An operator's ``mrirecon gateway activate --function NAME`` calls it, because the machine's port 80 is open to
this function alone. A machine takes minutes to boot, so the function waits within its own time.
It calls no AWS service.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from typing import Any

from aws_lambda_powertools import Logger

from mrirecon.contract import activation, environment

logger = Logger(service="activate_gateway")
POLL_SECONDS = 10.0
MARGIN_SECONDS = 30.0
"""Left of the function's time to answer with a sentence instead of being cut off."""


@logger.inject_lambda_context
def handler(event: dict[str, Any], context: Any) -> dict[str, str]:
    """Return the machine's activation key."""
    return run(os.environ, lambda: context.get_remaining_time_in_millis() / 1000)


def run(
    environ: Mapping[str, str], left: Callable[[], float], sleep: Callable[[float], None] = time.sleep
) -> dict[str, str]:
    """Ask until the machine gives its key or no time is ``left`` (seconds).

    Raises
    ------
    NotReadyError
        With what the machine last answered.
    """
    address = environment.required(environ, activation.ADDRESS)
    region = environment.required(environ, activation.REGION)
    endpoint = environ.get(activation.ENDPOINT, "")
    while True:
        try:
            return {"key": activation.activation_key(address, region, endpoint=endpoint)}
        except activation.NotReadyError as error:
            if left() < POLL_SECONDS + MARGIN_SECONDS:
                raise
            logger.info("waiting for the machine", reason=str(error))
            sleep(POLL_SECONDS)
