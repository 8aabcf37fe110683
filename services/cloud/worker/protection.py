"""Keep the machine while a scan is on it: ECS task protection, and the notice a spot machine gets."""

from __future__ import annotations

import json
import math
import threading
import urllib.error
import urllib.request
from collections.abc import Callable

from . import logs

_TIMEOUT = 2.0
IMDS = "http://169.254.169.254"


class TaskProtection:
    """Tells the ECS agent that this task must not be scaled in while a scan is on it.

    Parameters
    ----------
    agent
        ``$ECS_AGENT_URI``; empty: there is no agent, and nothing happens.
    """

    def __init__(self, agent: str = "") -> None:
        self._url = f"{agent}/task-protection/v1/state" if agent else ""

    def protect(self, seconds: float) -> None:
        """Ask for protection of at least ``seconds`` (the agent knows whole minutes, 1 to 2880)."""
        minutes = max(1, min(2880, math.ceil(seconds / 60)))
        self._put({"ProtectionEnabled": True, "ExpiresInMinutes": minutes})

    def release(self) -> None:
        """The task may be scaled in again."""
        self._put({"ProtectionEnabled": False})

    def _put(self, body: dict[str, object]) -> None:
        if not self._url:
            return
        request = urllib.request.Request(  # noqa: S310 (the agent's own address, set by ECS)
            self._url,
            data=json.dumps(body).encode(),
            method="PUT",
            headers={"Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT):  # noqa: S310
                pass
        except (urllib.error.URLError, OSError) as error:
            # Unprotected work is still safe: it is handed back at SIGTERM.
            logs.get().warning("task protection not set", error=type(error).__name__)


class SpotNotice:
    """Looks every few seconds whether this spot machine is to be taken away (two minutes ahead)."""

    def __init__(self, told: Callable[[], None], *, endpoint: str = IMDS, every: float = 5.0) -> None:
        self._told = told
        self._endpoint = endpoint.rstrip("/")
        self._every = every
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True, name="spot-notice")

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._stop.set()

    def noticed(self) -> bool:
        """Ask the instance's metadata once (IMDSv2); whatever goes wrong means no notice."""
        try:
            token = self._ask("/latest/api/token", "PUT", {"X-aws-ec2-metadata-token-ttl-seconds": "60"})
            self._ask("/latest/meta-data/spot/instance-action", "GET", {"X-aws-ec2-metadata-token": token})
        except (urllib.error.URLError, OSError, ValueError):
            return False
        return True

    def _ask(self, path: str, method: str, headers: dict[str, str]) -> str:
        request = urllib.request.Request(self._endpoint + path, method=method, headers=headers)  # noqa: S310
        with urllib.request.urlopen(request, timeout=_TIMEOUT) as answer:  # noqa: S310
            text: bytes = answer.read(1024)
        return text.decode("ascii")

    def _watch(self) -> None:
        while not self._stop.wait(self._every):
            if self.noticed():
                logs.get().warning("spot notice: this machine is taken away")
                self._told()
                return
