"""How a scan's stage ends when it does not end well: quarantined, tried again, or given up."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

from ...aws.clock import iso
from ...aws.ports import Claim, Ledger, ObjectStore
from ...aws.queue import backoff
from ...contract import keys
from ...contract import metrics as names
from ...contract.codes import Code, MrireconError, PermanentError, RetryableError
from ...contract.messages import Delivery
from ...contract.states import Stage, State
from . import logs, metrics
from .hold import HandBack, Hold, Wait


def known(error: Exception) -> MrireconError:
    """Return ``error`` as one of ours: an unforeseen one may pass, so it is retryable."""
    if isinstance(error, MrireconError):
        return error
    logs.get().error("unforeseen error", **logs.describe(error))
    return RetryableError(
        Code.INTERNAL, f"An unexpected {type(error).__name__} stopped the scan; the archive is untouched."
    )


def cost(seconds: float | None, price_per_hour: float | None) -> float | None:
    """Return US dollars of ``seconds`` on this machine, ``None`` when its price is not known."""
    return None if seconds is None or price_per_hour is None else seconds * price_per_hour / 3600


@dataclass(frozen=True)
class Endings:
    """Records ends; the same for both stages."""

    stage: Stage
    ledger: Ledger
    store: ObjectStore
    quarantine_bucket: str
    retry_base: float = 5.0

    def reject(
        self, hold: Hold, error: PermanentError, claims: Sequence[Claim], raw: Delivery | None, ident: str
    ) -> None:
        """Keep the archive with its reason under quarantine, then record the end, then release the original.

        Every step may be done twice; a worker that dies between two leaves the message to the next.
        """
        reason = {
            "scan_id": ident,
            "stage": self.stage.value,
            "code": error.code.value,
            "message": error.message,
            "rejected_at": iso(self.ledger.clock.now()),
        }
        if raw is not None and error.code is not Code.GONE:
            target = keys.quarantine(ident)
            if self.store.head(self.quarantine_bucket, target) is None:
                try:
                    self.store.copy((raw.bucket, raw.key, raw.version), self.quarantine_bucket, target)
                except PermanentError:
                    reason["archive"] = "removed before it could be kept"
        text = json.dumps(reason, indent=2) + "\n"
        self.store.put_if_absent(self.quarantine_bucket, keys.quarantine(ident, "reason.json"), text.encode())
        for claim in claims:
            hold.settle(claim, State.REJECTED, code=error.code.value, message=error.message)
        if raw is not None:
            self.store.tag_ended(raw.bucket, raw.key, raw.version)
        logs.get().warning("scan rejected", **logs.describe(error))
        self.count(State.REJECTED, error.code)

    def retry(self, hold: Hold, error: MrireconError, claims: Sequence[Claim]) -> NoReturn:
        """Let the next try have the scan, after a while; or record that the tries are spent.

        Raises
        ------
        Wait
            Always.
        """
        told = {"code": error.code.value, "message": error.message}
        if hold.last_try:
            for claim in claims:
                hold.settle(claim, State.FAILED, **told)
            logs.get().error("scan failed: tries spent", **logs.describe(error))
            self.count(State.FAILED, error.code)
            raise Wait(0)
        for claim in claims:
            hold.settle(claim, State.QUEUED, **told)
        logs.get().warning("scan tried again", receives=hold.message.receives, **logs.describe(error))
        metrics.emit({names.STAGE: self.stage.value}, {names.RETRIES: 1})
        raise Wait(backoff(hold.message.receives, self.retry_base))

    def hand_back(self, hold: Hold, claims: Sequence[Claim]) -> NoReturn:
        """The machine stops: free the scan for another at once.

        Raises
        ------
        HandBack
            Always.
        """
        for claim in claims:
            hold.settle(claim, State.QUEUED)
        logs.get().warning("scan handed back")
        metrics.emit({names.STAGE: self.stage.value}, {names.HANDED_BACK: 1})
        raise HandBack

    def count(self, state: State, code: Code | None = None) -> None:
        """Emit one ended scan."""
        metrics.emit(
            {
                names.STAGE: self.stage.value,
                names.STATUS: state.value,
                names.CODE: code.value if code else "none",
            },
            {names.ENDS: 1},
        )
