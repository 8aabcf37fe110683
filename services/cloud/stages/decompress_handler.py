"""The decompress stage around its stage function: from an announced archive to a request for images.

Two state items are claimed one after the other.  The *delivery* (bucket, key, version) keeps two receipts of
one announcement apart before a byte is read; the *intake* (by the bytes' digest) keeps two deliveries of the
same bytes apart.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ...aws.clock import iso
from ...aws.ports import Claim, Ledger, ObjectInfo, ObjectStore, Queue, Row
from ...aws.references import delivery_pk, pinned
from ...aws.store import SHA256, ReplacedError, require_free
from ...contract import keys, states
from ...contract import metrics as names
from ...contract.codes import Code, IncompleteError, PermanentError, RetryableError
from ...contract.ids import scan_id_from_digest
from ...contract.messages import Delivery, NotAMessageError, ReconRequest, announcement
from ...contract.profiles import DEFAULT_PROFILE, Profile, profile
from ...contract.states import Stage, State, TimePoint
from ..worker import logs, metrics
from ..worker import outcomes as endings
from ..worker.attempt import Trail
from ..worker.failpoints import Failpoints
from ..worker.hold import HandBack, Hold, LostClaim, Wait
from ..worker.scratch import scratch_folder
from ..worker.supervisor import Supervisor

DISK_FACTOR = 3.0
"""Scratch space (archive, k-space file, what a reader must lay down) over the archive's size."""
_PROFILE = "profile"
_LABEL = "label"
_TOLD = "told"
"""Attribute of the intake item: its seconds and warnings, which the record tells."""


@dataclass(frozen=True, kw_only=True)
class IntakeHandler:
    """See :class:`~mrirecon.cloud.worker.loop.StageHandler`."""

    store: ObjectStore
    ledger: Ledger
    recon_lanes: dict[keys.Priority, Queue]
    supervisor: Supervisor
    owner: str
    kspace_bucket: str
    quarantine_bucket: str
    scratch: Path
    settle_seconds: float = 900
    price_per_hour: float | None = None
    retry_base: float = 5.0
    failpoints: Failpoints = field(default_factory=Failpoints)
    stage: Stage = Stage.DECOMPRESS

    @property
    def _endings(self) -> endings.Endings:
        return endings.Endings(self.stage, self.ledger, self.store, self.quarantine_bucket, self.retry_base)

    def handle(self, hold: Hold) -> None:
        """Do all deliveries that a message announces (S3 puts one into each).

        Raises
        ------
        NotAMessageError
            When the message, or one of its records, cannot be read; those that can be read are done first.
        """
        announced = announcement(hold.message.body)
        waits: list[Wait] = []
        for delivery in announced.deliveries:
            try:
                self._deliver(delivery, hold)
            except Wait as wait:
                waits.append(wait)
        if announced.unreadable:
            raise NotAMessageError(f"{announced.unreadable} records of the event could not be read.")
        if waits:
            raise min(waits, key=lambda wait: wait.seconds)

    def _deliver(self, told: Delivery, hold: Hold) -> None:
        trail = Trail(self.ledger, self.stage, self.owner, hold, self.failpoints)
        trail.mark(TimePoint.ANNOUNCED, told.announced_at)
        trail.mark(TimePoint.RECEIVED)
        try:
            info = self.store.head(told.bucket, told.key, told.version)
        except RetryableError as error:
            self._endings.retry(hold, error, [])
        delivery = pinned(told, info)
        taken = self.ledger.claim(
            delivery_pk(delivery),
            states.DELIVERY_SK,
            self.owner,
            hold.lease,
            announced_at=delivery.announced_at,
        )
        if isinstance(taken, Row):
            if not taken.ended:
                raise self._busy(taken)
            if taken.state is State.REJECTED:
                # Its worker may have died between recording the end and keeping the archive.
                ident = str(taken.get("scan_id") or taken.pk.partition("#")[2])
                self._endings.keep_rejected(taken, delivery, ident)
                self._endings.release(hold, delivery)
            self._duplicate(hold)
            return
        hold.keep(taken)
        self._guarded(delivery, info, taken, hold, trail)

    def _guarded(
        self, delivery: Delivery, info: ObjectInfo | None, claim: Claim, hold: Hold, trail: Trail
    ) -> None:
        """Run the intake under its claims and see that they are left in the right state whatever happens."""
        held = [claim]
        ident = claim.pk.partition("#")[2]
        try:
            trail.mark(TimePoint.CLAIMED)
            self._intake(delivery, info, held, hold, trail)
        except (Wait, LostClaim):
            raise
        except HandBack:
            trail.close("handed back")
            self._endings.hand_back(hold, held)
        except IncompleteError as error:
            trail.close("incomplete")
            self._incomplete(delivery, info, error, held, hold)
        except ReplacedError as error:
            # What this delivery announced is nowhere any more; what took its place is looked at at once.
            for mine in held:
                hold.settle(mine, State.SUPERSEDED, code=error.code.value, message=error.message)
            raise Wait(1, counts=False) from None
        except PermanentError as error:
            trail.close("rejected", code=error.code.value)
            ident = _scan_of(held) or ident
            self._endings.reject(hold, error, held, delivery, ident)
        except Exception as error:
            ours = endings.known(error)
            trail.close("failed" if hold.last_try else "tried again", code=ours.code.value)
            self._endings.retry(hold, ours, held)

    def _intake(
        self, delivery: Delivery, info: ObjectInfo | None, held: list[Claim], hold: Hold, trail: Trail
    ) -> None:
        place = keys.parse_incoming(delivery.key)
        if info is None:
            raise PermanentError(
                Code.GONE, "The archive was removed before it was read: drop it on the share again."
            )
        if delivery.version is None and delivery.etag != info.etag:
            gone = ReplacedError()  # and what took its place has its own announcement
            hold.settle(held.pop(), State.SUPERSEDED, code=gone.code.value, message=gone.message)
            return
        scan = held[0].known.get("scan_id")
        if scan and self._ended_before(str(scan), delivery, place, held[0], hold):
            return
        with scratch_folder(self.scratch, "intake-") as folder:
            archive = folder / "archive"
            require_free(self.scratch, int(info.size * DISK_FACTOR), "The archive")
            digest = self.store.download(delivery.bucket, delivery.key, archive, info, hold.check)
            scan = scan_id_from_digest(digest)
            logs.bind(scan_id=scan)
            if not self.ledger.note(held[0], scan_id=scan):
                raise LostClaim
            taken = self.ledger.claim(
                states.scan_pk(scan),
                states.INTAKE_SK,
                self.owner,
                hold.lease,
                scan_id=scan,
                site=place.site,
                priority=place.priority.value,
                announced_at=delivery.announced_at,
                archive_bytes=info.size,
            )
            if isinstance(taken, Row):
                if not self._ended_before(scan, delivery, place, held[0], hold):
                    hold.settle(held[0], State.QUEUED)
                    raise self._busy(taken)
                return
            hold.keep(taken)
            held.append(taken)
            trail.name(scan, taken)
            trail.mark(TimePoint.READ)
            self._convert(archive, scan, folder, taken, hold)
        trail.mark(TimePoint.DECOMPRESSED)
        self._announce(scan, delivery, place, held, hold, trail)
        self._finished(info, trail)

    def _convert(self, archive: Path, scan: str, folder: Path, claim: Claim, hold: Hold) -> None:
        """Make the k-space object, unless an earlier attempt has made it."""
        key = keys.kspace(scan)
        if self.store.head(self.kspace_bucket, key) is not None:
            return
        made = folder / keys.KSPACE_FILE
        job = {"archive": str(archive), "kspace": str(made), "work_dir": str(folder)}
        intake: dict[str, Any] = self.supervisor.run(job, hold.check)
        # What the archive asks for is checked before it is written anywhere.
        wanted = profile(intake.get("profile") or DEFAULT_PROFILE).name
        # Noted before the k-space object is there: who finds that finds this, too.
        told = {"seconds": intake.get("seconds") or {}, "warnings": list(intake.get("warnings") or [])}
        label = intake.get(_LABEL)
        if label:
            logs.bind(label=label)
        if not self.ledger.note(claim, **{_TOLD: json.dumps(told)}, **({_LABEL: label} if label else {})):
            raise LostClaim
        self.store.upload(made, self.kspace_bucket, key, metadata={_PROFILE: wanted}, check=hold.check)

    def _announce(
        self, scan: str, delivery: Delivery, place: keys.Incoming, held: list[Claim], hold: Hold, trail: Trail
    ) -> None:
        """Ask for the images; only then is the intake done."""
        request = self._request(scan, delivery, place)
        if request is None:
            raise RetryableError(Code.STORAGE, "The k-space file that was just written is not there.")
        intake = held[-1]
        hold.confirm(intake)
        self._send(request, place)
        trail.mark(TimePoint.QUEUED)
        facts = {"recon_id": request.recon_id, "kspace_bytes": request.kspace_bytes}
        hold.settle(held.pop(), State.DONE, code="", message="", **facts)
        hold.settle(held.pop(), State.DONE, code="", message="")

    def _request(self, scan: str, delivery: Delivery, place: keys.Incoming) -> ReconRequest | None:
        key = keys.kspace(scan)
        info = self.store.head(self.kspace_bucket, key)
        if info is None:
            return None
        wanted: Profile = profile(info.metadata.get(_PROFILE, DEFAULT_PROFILE))
        intake = self.ledger.get(states.scan_pk(scan), states.INTAKE_SK)
        told = json.loads((intake.get(_TOLD) if intake else None) or "{}")
        return ReconRequest(
            scan_id=scan,
            recon_id=wanted.recon_id(scan),
            profile=wanted.name,
            site=place.site,
            priority=place.priority.value,
            kspace_key=key,
            kspace_sha256=info.sha256 or info.metadata.get(SHA256, ""),
            kspace_bytes=info.size,
            raw=delivery,
            announced_at=delivery.announced_at,
            intake_seconds=told.get("seconds", {}),
            intake_warnings=told.get("warnings", []),
            label=(intake.get(_LABEL) if intake else None) or None,
        )

    def _send(self, request: ReconRequest, place: keys.Incoming) -> Row:
        row = self.ledger.queue(
            states.scan_pk(request.scan_id),
            states.recon_sk(request.recon_id),
            scan_id=request.scan_id,
            recon_id=request.recon_id,
            profile=request.profile,
            site=place.site,
            priority=place.priority.value,
            announced_at=request.announced_at,
            **({_LABEL: request.label} if request.label else {}),
        )
        if row.state is State.FAILED and self.ledger.requeue(row.pk, row.sk):
            # The archive was delivered again: that asks for another try, as a redrive would.
            row = replace(row, state=State.QUEUED)
        if not row.ended:
            self.recon_lanes[place.priority].send(request.dumps(), group=place.site)
        return row

    def _ended_before(
        self, scan: str, delivery: Delivery, place: keys.Incoming, claim: Claim, hold: Hold
    ) -> bool:
        """Whether this scan's intake has ended; then this delivery of it ends in the same way."""
        row = self.ledger.get(states.scan_pk(scan), states.INTAKE_SK)
        if row is None or row.state not in {State.DONE, State.REJECTED}:
            return False
        if row.state is State.DONE:
            request = self._request(scan, delivery, place)
            if request is not None:
                images: Row | None = self._send(request, place)
            else:
                images = self._images_of(row)
                if images is None or images.state not in {State.DONE, State.REJECTED}:
                    # The k-space file has expired before its images were made: make it anew.
                    self.ledger.reopen(row)
                    return False
            # While the images are outstanding, who makes them releases this copy of the archive, too.
            ended = images is not None and images.state in {State.DONE, State.REJECTED}
        else:
            self._endings.keep_rejected(row, delivery, scan)
            ended = True
        hold.settle(claim, row.state, code=row.get("code") or "", message=row.get("message") or "")
        if ended:
            self._endings.release(hold, delivery)
        self._duplicate(hold)
        return True

    def _images_of(self, intake: Row) -> Row | None:
        """Return the state item of the reconstruction that an intake asked for."""
        ident = intake.get("recon_id")
        return self.ledger.get(intake.pk, states.recon_sk(str(ident))) if ident else None

    def _incomplete(
        self,
        delivery: Delivery,
        info: ObjectInfo | None,
        error: IncompleteError,
        held: list[Claim],
        hold: Hold,
    ) -> None:
        """Wait for the rest of the archive; when there is a newer version, that one is the scan."""
        newest = self.store.head(delivery.bucket, delivery.key)
        told = {"code": Code.INCOMPLETE.value, "message": error.message}
        if newest is not None and info is not None and newest.etag != info.etag:
            for claim in held:
                hold.settle(claim, State.SUPERSEDED, **told)
            logs.get().info("delivery superseded by a newer version")
            return
        since = info.modified if info is not None else self.ledger.clock.now()
        left = since + self.settle_seconds - self.ledger.clock.now()
        if left > 0:
            for claim in held:
                hold.settle(claim, State.WAITING, **told)
            raise Wait(left + 1, counts=False)
        final = PermanentError(
            Code.TRUNCATED,
            f"The archive does not end, and no further part came within {self.settle_seconds:.0f} s: "
            "copy it to the share again, whole.",
        )
        self._endings.reject(hold, final, held, delivery, _scan_of(held) or held[0].pk.partition("#")[2])

    def _busy(self, row: Row) -> Wait:
        # Either its worker ends it, then the next look finds that; or its lease runs out.
        return Wait(max(1.0, row.lease_until - self.ledger.clock.now() + 1), counts=False)

    def _duplicate(self, hold: Hold) -> None:
        logs.get().info("this delivery found its work done")
        metrics.emit({names.STAGE: self.stage.value}, {names.DUPLICATES: 1})

    def _finished(self, info: ObjectInfo, trail: Trail) -> None:
        seconds = trail.seconds(TimePoint.RECEIVED, TimePoint.QUEUED)
        cost = endings.cost(seconds, self.price_per_hour)
        trail.close("done", bytes=info.size, seconds=seconds, cost_usd=cost)
        metrics.emit(
            {names.STAGE: self.stage.value},
            {
                names.SCANS: 1,
                names.BYTES: info.size,
                names.STAGE_SECONDS: seconds,
                names.COST: cost,
                names.WAIT_SECONDS: trail.seconds(TimePoint.ANNOUNCED, TimePoint.RECEIVED),
            },
        )
        logs.get().info("k-space ready", seconds=seconds, bytes=info.size, at=iso(self.ledger.clock.now()))


def _scan_of(held: list[Claim]) -> str | None:
    for claim in held:
        if claim.pk.startswith("scan#"):
            return claim.pk.partition("#")[2]
    return None
