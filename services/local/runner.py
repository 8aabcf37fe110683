"""A scan's journey on one machine: the two stages, and images that appear whole or not at all."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..contract import causes, ids
from ..contract.codes import Code, End, PermanentError, RetryableError
from ..contract.keys import RECORD_FILE
from ..contract.profiles import Profile, profile
from ..contract.progress import Progress, silent
from ..contract.record import dumps, end_record, new_record


@dataclass(frozen=True)
class Outcome:
    """How one archive ended: what ``--json`` prints."""

    archive: str
    status: str
    code: str
    message: str
    scan_id: str | None
    out: str | None
    method: str | None
    seconds: float
    warnings: tuple[str, ...] = ()
    reason: str = ""
    """Why that method. Warnings and reason are for people, and in the record; not in the JSON line."""
    label: str | None = None
    """What the site calls the scan."""

    @property
    def end(self) -> End:
        """Return the end as the contract names it."""
        return End(self.status)

    def dumps(self) -> str:
        """Return one line of JSON."""
        told = asdict(self)
        del told["warnings"], told["reason"]
        return json.dumps(told, ensure_ascii=False)


def run_archive(
    archive: Path,
    out: Path,
    *,
    profile_name: str | None = None,
    method: str | None = None,
    device: str = "auto",
    progress: Progress = silent,
) -> Outcome:
    """Turn one raw archive into images below ``out``; never raises for what the archive holds.

    A bare raw file, a BART pair (by either file) or a folder is taken as an archive of one scan.

    The results appear at ``out/<scan_id>`` in one rename, their record already inside; where another
    reconstruction of the scan lies there, this one goes beside it as ``out/<scan_id>.<recon_id>``. A
    scan that is rejected or failed leaves its record alone; one that is incomplete leaves nothing.

    ``profile_name`` overrides what the archive itself asks for; ``method`` overrides the profile's.
    """
    begun = time.monotonic()
    record = new_record()
    place: Path | None = None
    try:
        with _scratch(out) as (scratch, stage):
            record, place = _journey(
                archive, out, scratch, stage, (profile_name, method, device), record, progress
            )
    except Exception as caught:
        record = end_record(record, caught)
        record["scan_id"] = record["scan_id"] or (
            # the intake gives what it rejects an id, but where reading all of it would take too long
            caught.scan_id if isinstance(caught, PermanentError) else _scan_id(archive)
        )
        place = _keep_record(record, out)
    return Outcome(
        archive=str(archive),
        status=record["status"],
        code=record["code"] or "",
        message=record["message"],
        scan_id=record["scan_id"],
        out=str(place) if place else None,
        method=record["method"],
        seconds=round(time.monotonic() - begun, 3),
        warnings=tuple(record["warnings"]),
        reason=record["method_reason"] or "",
        label=record.get("label"),
    )


def _journey(
    archive: Path,
    out: Path,
    scratch: Path,
    stage: Path,
    wishes: tuple[str | None, str | None, str],
    record: dict[str, Any],
    progress: Progress,
) -> tuple[dict[str, Any], Path]:
    from ..decompress.stage import decompress
    from .bare import archive_of

    profile_name, method, device = wishes
    kspace = scratch / "kspace.h5"
    packed = archive_of(archive, scratch)
    try:
        intake = decompress(packed, kspace, progress=progress, work_dir=scratch)
    except PermanentError:
        raise
    except Exception:
        record["scan_id"] = _scan_id(packed)
        raise
    record["scan_id"], record["format"] = intake.scan_id, intake.format
    record["label"] = intake.label
    record["acquisitions_digest"] = intake.acquisitions_digest
    record["seconds"], record["warnings"] = dict(intake.seconds), list(intake.warnings)
    chosen = _profile(profile_name or intake.profile, method)
    recon_id = chosen.recon_id(intake.scan_id)
    record["recon_id"] = recon_id
    record["profile"] = chosen.settings()
    if (already := _published(out, intake.scan_id, recon_id)) is not None:
        return already

    from ..recon.stage import reconstruct

    made = reconstruct(
        kspace,
        stage,
        scan_id=intake.scan_id,
        profile=chosen,
        device=device,
        progress=progress,
        intake_seconds=intake.seconds,
        intake_warnings=intake.warnings,
        label=intake.label,
    )
    (stage / RECORD_FILE).write_text(dumps(made), encoding="utf-8")
    place = out / intake.scan_id
    if place.exists():
        place = out / f"{intake.scan_id}.{recon_id}"
    try:
        stage.rename(place)
    except OSError as taken:
        if (already := _published(out, intake.scan_id, recon_id)) is not None:
            return already
        raise RetryableError(Code.STORAGE, "The results could not be put in their place.") from taken
    return made, place


def _profile(name: str | None, method: str | None) -> Profile:
    return profile(method=method) if name is None else profile(name, method)


def _published(out: Path, scan_id: str, recon_id: str) -> tuple[dict[str, Any], Path] | None:
    """Return the record and place of this very reconstruction where it is done already."""
    for place in (out / scan_id, out / f"{scan_id}.{recon_id}"):
        try:
            record: dict[str, Any] = json.loads((place / RECORD_FILE).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if record.get("recon_id") == recon_id and record.get("status") == End.DONE:
            return record, place
        if record.get("status") != End.DONE and not any(p.name != RECORD_FILE for p in place.iterdir()):
            shutil.rmtree(place)
    return None


def _keep_record(record: dict[str, Any], out: Path) -> Path | None:
    """Leave the record of a scan that made no images, unless images of it are there already."""
    if record["status"] == End.INCOMPLETE or record["scan_id"] is None:
        return None
    place: Path = out / record["scan_id"]
    if place.exists() and any(p.name != RECORD_FILE for p in place.iterdir()):
        return None
    partial = place / f".{RECORD_FILE}.partial"
    try:
        place.mkdir(parents=True, exist_ok=True)
        partial.write_text(dumps(record), encoding="utf-8")
        partial.replace(place / RECORD_FILE)
    except OSError:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
            place.rmdir()
        return None
    return place


def _scan_id(archive: Path) -> str | None:
    """Return the scan id of an archive; ``None`` for what had to be packed into one first."""
    from .bare import needs_packing

    try:
        if not archive.is_file() or needs_packing(archive):  # a pipe or a device may never end
            return None
        with archive.open("rb") as file:
            return ids.scan_id(file)
    except OSError:
        return None


@contextmanager
def _scratch(out: Path) -> Iterator[tuple[Path, Path]]:
    """Yield a temporary folder and a stage on the results' own disk; neither outlives the block."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        probe = Path(tempfile.mkdtemp(prefix=".partial-", dir=out))
        probe.rmdir()
    except OSError as error:
        if causes.cause_of(error) is causes.DISK_FULL:
            raise
        raise RetryableError(
            Code.STORAGE, "The results folder cannot be written: check --out and its rights."
        ) from error
    with (
        tempfile.TemporaryDirectory(prefix="mrirecon-") as scratch,
        tempfile.TemporaryDirectory(prefix=".partial-", dir=out, ignore_cleanup_errors=True) as holder,
    ):
        stage = Path(holder) / "results"
        stage.mkdir()
        yield Path(scratch), stage
