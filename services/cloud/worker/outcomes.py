"""How a scan's stage ends when it does not end well: quarantined, tried again, or given up."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

from ...aws.clock import iso
from ...aws.ports import Claim, Ledger, ObjectStore, Row
from ...aws.queue import backoff
from ...contract import keys
from ...contract import metrics as names
from ...contract.causes import ours
from ...contract.codes import Code, MrireconError, PermanentError
from ...contract.messages import Delivery
from ...contract.states import Stage, State
from . import logs, metrics
from .hold import HandBack, Hold, Wait


def known(error: Exception) -> MrireconError:
    """Return ``error`` as one of ours; one that the worker did not raise on purpose is logged."""
    if not isinstance(error, MrireconError):
        logs.get().error("unforeseen error", **logs.describe(error))
    return ours(error)


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
        """Record the end, then keep the archive with its reason under quarantine, then release the original.

        The record comes first: it is the one step that a worker whose claim is lost cannot take, so nothing
        reaches the quarantine of a scan that another worker has published.  A worker that dies afterwards
        leaves the rest to the next receive of the message (:meth:`keep_rejected`).

        Raises
        ------
        LostClaim
            When another worker holds a newer token; nothing was done.
        """
        # The scan before its delivery: whoever finds the delivery ended may rely on the scan's end.
        for claim in reversed(claims):
            hold.settle(claim, State.REJECTED, code=error.code.value, message=error.message)
        logs.get().warning("scan rejected", **logs.describe(error))
        self.count(State.REJECTED, error.code)
        self._keep(error.code.value, error.message, raw, ident)
        self.release(hold, raw)

    def keep_rejected(self, row: Row, raw: Delivery, ident: str) -> None:
        """Keep the archive of a scan that ``row`` says is rejected, unless it is kept already."""
        self._keep(str(row.get("code") or ""), str(row.get("message") or ""), raw, ident)

    def _keep(self, code: str, message: str, raw: Delivery | None, ident: str) -> None:
        reason = {
            "scan_id": ident,
            "stage": self.stage.value,
            "code": code,
            "message": message,
            "rejected_at": iso(self.ledger.clock.now()),
        }
        if raw is not None and code != Code.GONE.value:
            target = keys.quarantine(ident)
            if self.store.head(self.quarantine_bucket, target) is None:
                try:
                    self.store.copy((raw.bucket, raw.key, raw.version), self.quarantine_bucket, target)
                except PermanentError:
                    reason["archive"] = "removed before it could be kept"
        text = json.dumps(reason, indent=2) + "\n"
        self.store.put_if_absent(self.quarantine_bucket, keys.quarantine(ident, "reason.json"), text.encode())

    def release(self, hold: Hold, raw: Delivery | None) -> None:
        """Mark the archive of an ended scan, so that it moves to the archive tier.

        The scan has ended whatever becomes of the mark: a refused one is tried again by the next receives of
        the message, and on the last one only logged.

        Raises
        ------
        Wait
            When the mark could not be set and the message may come again.
        """
        if raw is None:
            return
        try:
            self.store.tag_ended(raw.bucket, raw.key, raw.version)
        except MrireconError as error:
            said = logs.describe(error)
            if hold.last_try:
                logs.get().error("the scan has ended, but its archive could not be marked as ended", **said)
                return
            logs.get().warning("archive not marked as ended; the mark is tried again", **said)
            raise Wait(backoff(hold.message.receives, self.retry_base)) from None

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
