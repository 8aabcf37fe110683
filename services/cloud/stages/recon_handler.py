"""The reconstruction stage around its stage function: from a request to published images, once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...aws.clock import seconds_between
from ...aws.ports import Claim, Ledger, ObjectStore, Row
from ...aws.store import file_sha256, require_free
from ...contract import keys, states
from ...contract import metrics as names
from ...contract import record as records
from ...contract.codes import Code, PermanentError, RetryableError
from ...contract.messages import ReconRequest
from ...contract.profiles import profile
from ...contract.states import Stage, State, TimePoint
from ..worker import logs, metrics
from ..worker import outcomes as endings
from ..worker.attempt import Trail
from ..worker.failpoints import Failpoints
from ..worker.hold import HandBack, Hold, LostClaim, Wait
from ..worker.scratch import scratch_folder
from ..worker.supervisor import Supervisor

DISK_FACTOR = 2.0
"""Scratch space for the k-space file (when it is not read from Lustre) and the results, over its size."""


@dataclass(frozen=True, kw_only=True)
class ImagingHandler:
    """See :class:`~mrirecon.cloud.worker.loop.StageHandler`."""

    store: ObjectStore
    ledger: Ledger
    supervisor: Supervisor
    owner: str
    kspace_bucket: str
    images_bucket: str
    quarantine_bucket: str
    scratch: Path
    lustre: Path | None = None
    price_per_hour: float | None = None
    retry_base: float = 5.0
    failpoints: Failpoints = field(default_factory=Failpoints)
    stage: Stage = Stage.RECON

    @property
    def _endings(self) -> endings.Endings:
        return endings.Endings(self.stage, self.ledger, self.store, self.quarantine_bucket, self.retry_base)

    def handle(self, hold: Hold) -> None:
        """Make the images that a message asks for, unless they are there."""
        request = ReconRequest.loads(hold.message.body)
        named = {"label": request.label} if request.label else {}
        logs.bind(scan_id=request.scan_id, **named)
        trail = Trail(self.ledger, self.stage, self.owner, hold, self.failpoints)
        trail.mark(TimePoint.RECON_RECEIVED)
        taken = self.ledger.claim(
            states.scan_pk(request.scan_id),
            states.recon_sk(request.recon_id),
            self.owner,
            hold.lease,
            scan_id=request.scan_id,
            recon_id=request.recon_id,
            profile=request.profile,
            site=request.site,
            priority=request.priority,
            announced_at=request.announced_at,
            **named,
        )
        if isinstance(taken, Row):
            if not taken.ended:
                left = taken.lease_until - self.ledger.clock.now()
                raise Wait(max(1.0, left + 1), counts=False)
            if taken.state is State.REJECTED and request.raw is not None:
                self._endings.keep_rejected(taken, request.raw, request.scan_id)
            self._endings.release(hold, request.raw)
            logs.get().info("this request found its work done")
            metrics.emit({names.STAGE: self.stage.value}, {names.DUPLICATES: 1})
            return
        hold.keep(taken)
        self._guarded(request, taken, hold, trail)

    def _guarded(self, request: ReconRequest, claim: Claim, hold: Hold, trail: Trail) -> None:
        try:
            trail.name(request.scan_id, claim)
            trail.mark(TimePoint.RECON_CLAIMED)
            self._images(request, claim, hold, trail)
        except (Wait, LostClaim):
            raise
        except HandBack:
            trail.close("handed back")
            self._endings.hand_back(hold, [claim])
        except PermanentError as error:
            trail.close("rejected", code=error.code.value)
            self._endings.reject(hold, error, [claim], request.raw, request.scan_id)
        except Exception as error:
            ours = endings.known(error)
            trail.close("failed" if hold.last_try else "tried again", code=ours.code.value)
            self._endings.retry(hold, ours, [claim])

    def _images(self, request: ReconRequest, claim: Claim, hold: Hold, trail: Trail) -> None:
        # A worker that died after publishing left nothing to do but to say so.
        published = self.store.read(self.images_bucket, _record_key(request))
        if published is None:
            wanted = profile(request.profile, request.method)
            with scratch_folder(self.scratch, "recon-") as folder:
                out = Path(folder, "out")
                out.mkdir()
                with self._kspace(request, Path(folder), hold) as kspace:
                    trail.mark(TimePoint.RECON_READ)
                    record = self.supervisor.run(
                        {
                            "kspace": str(kspace),
                            "out": str(out),
                            "scan_id": request.scan_id,
                            "profile": wanted.name,
                            "method": request.method,
                            "intake_seconds": request.intake_seconds,
                            "intake_warnings": request.intake_warnings,
                            "label": request.label,
                        },
                        hold.check,
                    )
                trail.mark(TimePoint.RECONSTRUCTED)
                for file in sorted(path for path in out.rglob("*") if path.is_file()):
                    if file.name != keys.RECORD_FILE:
                        self._put(file, request, file.relative_to(out).as_posix(), claim, hold)
            trail.mark(TimePoint.UPLOADED)
            published = self._publish(request, record, claim, hold)
        trail.mark(TimePoint.PUBLISHED)
        hold.settle(claim, State.DONE, body=published.decode(), code="", message="Images were made.")
        self._finished(request, trail)
        self._endings.release(hold, request.raw)

    @contextmanager
    def _kspace(self, request: ReconRequest, folder: Path, hold: Hold) -> Iterator[Path]:
        """Give the k-space file: from the Lustre mount when it holds just these bytes, else from S3."""
        if self.lustre is not None:
            near = self.lustre / request.kspace_key.removeprefix(keys.KSPACE)
            try:
                same = near.stat().st_size == request.kspace_bytes
                # Reading it all for its digest is what brings it from S3 to the disks the stage reads from.
                if same and file_sha256(near, hold.check) == request.kspace_sha256:
                    yield near
                    return
            except OSError as error:
                logs.get().warning("not read from Lustre", error=type(error).__name__)
        info = self.store.head(self.kspace_bucket, request.kspace_key)
        if info is None:
            raise RetryableError(
                Code.STORAGE, "The k-space file is no longer there: submit the archive again to make it anew."
            )
        require_free(self.scratch, int(info.size * DISK_FACTOR), "The k-space file")
        path = folder / keys.KSPACE_FILE
        digest = self.store.download(self.kspace_bucket, request.kspace_key, path, info, hold.check)
        if request.kspace_sha256 and digest != request.kspace_sha256:
            raise RetryableError(Code.STORAGE, "The k-space file is not the one that was announced.")
        yield path

    def _put(self, file: Path, request: ReconRequest, name: str, claim: Claim, hold: Hold) -> None:
        """Write a result file once; what a dead attempt left is replaced, unpublished and under our token."""
        key = keys.images(request.scan_id, request.recon_id, name)
        for _ in range(3):
            if self.store.upload(file, self.images_bucket, key, check=hold.check):
                return
            there = self.store.head(self.images_bucket, key)
            if there is None:
                continue
            if there.sha256 == file_sha256(file):
                return
            hold.confirm(claim)
            if self.store.head(self.images_bucket, _record_key(request)) is not None:
                return
            if self.store.upload(file, self.images_bucket, key, replace=there.etag, check=hold.check):
                return
        raise RetryableError(Code.STORAGE, "A result file could not be written: another writes it, too.")

    def _publish(self, request: ReconRequest, record: dict[str, Any], claim: Claim, hold: Hold) -> bytes:
        """Put the record only if it is absent, the token confirmed just before; return what is there then."""
        record = {**record, "recon_id": request.recon_id, "scan_id": request.scan_id}
        body = records.dumps(record).encode()
        hold.confirm(claim)
        if self.store.put_if_absent(self.images_bucket, _record_key(request), body):
            return body
        there = self.store.read(self.images_bucket, _record_key(request))
        if there is None:
            raise RetryableError(Code.STORAGE, "The record was refused as present, yet it is not there.")
        return there

    def _finished(self, request: ReconRequest, trail: Trail) -> None:
        seconds = trail.seconds(TimePoint.RECON_RECEIVED, TimePoint.PUBLISHED)
        cost = endings.cost(seconds, self.price_per_hour)
        trail.close("done", bytes=request.kspace_bytes, seconds=seconds, cost_usd=cost)
        journey = seconds_between(request.announced_at, trail.points[TimePoint.PUBLISHED])
        metrics.emit(
            {names.STAGE: self.stage.value},
            {
                names.SCANS: 1,
                names.BYTES: request.kspace_bytes,
                names.STAGE_SECONDS: seconds,
                names.COST: cost,
                names.JOURNEY_SECONDS: None if journey is None else max(0.0, journey),
            },
        )
        self._endings.count(State.DONE)
        logs.get().info("images published", seconds=seconds, journey_seconds=journey)


def _record_key(request: ReconRequest) -> str:
    return keys.record(request.scan_id, request.recon_id)
