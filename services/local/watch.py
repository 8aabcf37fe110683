"""``mrirecon watch``: a folder on one machine served as the cloud would do it. No boto3, no service.

The share's files are only read, never moved or changed: the scanner's side owns them.  What is known of them
lies in the output folder, so the watch may be stopped or killed at any moment and begins again where it was:
a scan is published whole, or kept under quarantine, or it is done again.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from ..contract.causes import cause_of, translated
from ..contract.codes import Code, End, MrireconError, PermanentError
from ..contract.ids import scan_id
from ..contract.keys import Priority
from .pairs import partner

STATE_FOLDER = ".mrirecon"
QUARANTINE_FOLDER = "quarantine"


class Outcome(Protocol):
    """How one archive ended, as the local runner tells it: a dataclass."""

    @property
    def archive(self) -> str:
        """Return the archive's path; of what a watch yields, the digest of its path below the share."""
        ...

    @property
    def status(self) -> str:
        """Return a value of :class:`~mrirecon.contract.codes.End`."""
        ...

    @property
    def code(self) -> str:
        """Return why, empty when done."""
        ...

    @property
    def message(self) -> str:
        """Return the sentence for a person."""
        ...

    @property
    def scan_id(self) -> str | None:
        """Return the scan's id, where it was known."""
        ...


RunArchive = Callable[[Path, Path], Outcome]
"""``run_archive(archive, out)`` publishes below ``out``, whole or not at all, and does not raise."""


@dataclass(frozen=True)
class Seen:
    """What a file looked like; a file that looks the same twice, some time apart, has settled."""

    size: int
    modified_ns: int
    inode: int

    @classmethod
    def of(cls, path: Path) -> Seen | None:
        """Look at a file; ``None`` when it is gone or is no regular file."""
        try:
            status = path.stat(follow_symlinks=False)
        except OSError:
            return None
        if not path.is_file() or path.is_symlink():
            return None
        return cls(status.st_size, status.st_mtime_ns, status.st_ino)


def _look(path: Path) -> Seen | None:
    """Look at a file; the two of a BART pair are one, found at its ``.cfl``, and settle together."""
    seen, other = Seen.of(path), partner(path)
    if seen is None or other is None:
        return seen
    theirs = Seen.of(other)
    if theirs is None or path.suffix.lower() == ".hdr":
        return None
    return Seen(
        seen.size + theirs.size, max(seen.modified_ns, theirs.modified_ns), seen.inode ^ (theirs.inode << 1)
    )


class Watch:
    """Serves ``share`` into ``out``.

    Parameters
    ----------
    run_archive
        The reconstruction of one archive.
    settle
        Seconds for which a file must not have changed before it is read; an archive that still does not end
        is looked at again after as long, then rejected as truncated.
    retries, retry_after
        How often, and after how many seconds, a scan is tried again that failed for a reason that may pass.
    clock
        Seconds since 1970, as the file system's times are.
    """

    def __init__(
        self,
        share: Path,
        out: Path,
        run_archive: RunArchive,
        *,
        settle: float = 10.0,
        retries: int = 3,
        retry_after: float = 60.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if out.resolve() == share.resolve() or share.resolve() in out.resolve().parents:
            raise PermanentError(
                Code.BAD_SETTINGS, "The results must not lie inside the watched share: choose another folder."
            )
        self._share = share
        self._out = out
        self._run = run_archive
        self._settle = settle
        self._retries = retries
        self._retry_after = retry_after
        self._clock = clock
        self._tries: dict[Path, tuple[int, float]] = {}
        self._looks: dict[Path, tuple[Seen, float]] = {}
        self._state = out / STATE_FOLDER
        with translated():
            self._state.mkdir(parents=True, exist_ok=True)

    def serve(
        self,
        *,
        every: float = 2.0,
        stop: Callable[[], bool] = lambda: False,
        sleep: Callable[[float], None] = time.sleep,
    ) -> Iterator[Outcome]:
        """Yield how each archive ended, until ``stop`` says so."""
        while not stop():
            outcome = self.step()
            if outcome is not None:
                yield outcome
            else:
                sleep(every)

    def step(self) -> Outcome | None:
        """Do settled files, ``stat`` first, then the oldest, until one ends; ``None`` when none does."""
        for path, seen in self._settled():
            outcome = self._unnamed(path, self._final(path, self._run(path, self._out)))
            try:
                if self._ends(path, seen, outcome):
                    return outcome
            except OSError as error:
                if (cause := cause_of(error)) is None:
                    continue  # the file is gone: the next look decides
                # It stays unnoted, so it is done again, after a while, until its end can be kept.
                self._tries[path] = (self._tries.get(path, (0, 0.0))[0], self._clock() + self._retry_after)
                told = cause.error()
                return _changed(outcome, told.end, told.code, told.message)
        return None

    def _settled(self) -> list[tuple[Path, Seen]]:
        now = self._clock()
        ready: list[tuple[bool, int, Path, Seen]] = []
        present: set[Path] = set()
        for folder, folders, files in os.walk(self._share):
            folders[:] = [name for name in folders if not name.startswith(".")]
            for name in files:
                path = Path(folder, name)
                seen = None if name.startswith(".") else _look(path)
                if seen is None or self._noted(path) == seen:
                    continue
                present.add(path)
                if self._looks.get(path, (None,))[0] != seen:
                    self._looks[path] = (seen, now)
                    self._tries.pop(path, None)
                # By our own looks, not by the file's time alone: a copy may carry its original's.
                quiet = now - self._looks[path][1] >= self._settle
                if quiet and self._tries.get(path, (0, 0.0))[1] <= now:
                    routine = Priority.STAT.value not in path.relative_to(self._share).parts[:-1]
                    ready.append((routine, seen.modified_ns, path, seen))
        for gone in self._looks.keys() - present:
            del self._looks[gone]
        return [(path, seen) for _, _, path, seen in sorted(ready, key=lambda item: item[:2])]

    def _final(self, path: Path, outcome: Outcome) -> Outcome:
        """Return the second ``incomplete`` of an archive as the rejection it is: no more of it came."""
        if End(outcome.status) is not End.INCOMPLETE or path not in self._tries:
            return outcome
        return _changed(outcome, End.REJECTED, Code.TRUNCATED, _TRUNCATED)

    def _unnamed(self, path: Path, outcome: Outcome) -> Outcome:
        """Return ``outcome`` with the file's digest in place of its path, which may hold a patient's name."""
        told: Any = outcome
        unnamed: Outcome = replace(told, archive=self._note_of(path).stem)
        return unnamed

    def _ends(self, path: Path, seen: Seen, outcome: Outcome) -> bool:
        """Note the end of an archive, or when it is to be tried again; tell whether it ended.

        Raises
        ------
        OSError
            Where its end could not be kept.
        """
        if _look(path) != seen:
            return False  # written or taken away while it was read: it is looked at anew
        end = End(outcome.status)
        tries = self._tries.get(path, (0, 0.0))[0]
        if end is End.INCOMPLETE:
            self._tries[path] = (1, self._clock() + self._settle)
            return False
        if end is End.FAILED and tries < self._retries:
            self._tries[path] = (tries + 1, self._clock() + self._retry_after)
            return False
        if end is End.REJECTED:
            self._quarantine(path, outcome.scan_id or _scan_id(path), outcome.code, outcome.message)
        self._note(path, seen)
        return True

    def _quarantine(self, path: Path, scan: str, code: str, message: str) -> None:
        kept = self._out / QUARANTINE_FOLDER / scan
        kept.mkdir(parents=True, exist_ok=True)
        part = kept / "archive.part"
        _copy(path, part)
        part.rename(kept / "archive")
        told = {"scan_id": scan, "status": End.REJECTED.value, "code": code, "message": message}
        _write(kept / "reason.json", told)

    def _noted(self, path: Path) -> Seen | None:
        """Return what a file looked like when its end was noted."""
        try:
            return Seen(*json.loads(self._note_of(path).read_text(encoding="utf-8"))["seen"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _note(self, path: Path, seen: Seen) -> None:
        self._state.mkdir(parents=True, exist_ok=True)
        _write(self._note_of(path), {"seen": [seen.size, seen.modified_ns, seen.inode]})
        self._tries.pop(path, None)

    def _note_of(self, path: Path) -> Path:
        # By digest: the file's name may hold a patient's.
        name = hashlib.sha256(os.fsencode(path.relative_to(self._share))).hexdigest()[:32]
        return self._state / f"{name}.json"


def _changed(outcome: Outcome, end: End, code: Code, message: str) -> Outcome:
    told: Any = outcome
    other: Outcome = replace(told, status=end.value, code=code.value, message=message)
    return other


_TRUNCATED = "The archive does not end, and no more of it came: copy it to the share again, whole."


def _write(file: Path, told: dict[str, Any]) -> None:
    """Write whole or not at all."""
    part = file.with_suffix(".part")
    part.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
    part.rename(file)


def _copy(path: Path, target: Path) -> None:
    """Copy an archive, and what was taken as one in the form in which it was read."""
    from .bare import archive_of

    with tempfile.TemporaryDirectory(prefix=".packing-", dir=target.parent) as folder:
        try:
            archive = archive_of(path, Path(folder))
        except MrireconError:
            archive = path
        if archive == path:
            shutil.copyfile(path, target)
        else:
            archive.replace(target)


def _scan_id(path: Path) -> str:
    with path.open("rb") as file:
        return scan_id(file)
