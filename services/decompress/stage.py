"""The first stage of a scan's journey: from an archive of raw files to a k-space file or one sentence."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..contract.causes import cause_of
from ..contract.codes import Code, IncompleteError, PermanentError, RetryableError
from ..contract.ids import scan_id_from_digest
from ..contract.progress import Progress, silent
from .limits import MIB, Limits
from .sandbox import parent as sandbox

_AN_ARCHIVE = "one tar file (.tar, .tar.gz, .tar.zst, .tar.xz or .tar.bz2)"
_TOLD_APART = frozenset({"format", "acquisitions_digest", "profile", "label", "seconds", "warnings"})


@dataclass(frozen=True, kw_only=True)
class Intake:
    """What is known of a scan once its k-space file is written.

    Attributes
    ----------
    scan_id
        First 16 hex digits of the SHA-256 of the archive.
    archive_bytes
        Its size.
    format
        ``mrd``, ``fastmri``, ``twix`` or ``bart``.
    acquisitions_digest
        Of the readouts themselves: the same for the same scan packed anew.
    profile
        What the archive's ``scan.json`` asks for, or None.
    label
        What the site calls the scan there (:mod:`..contract.labels`), or None.
    seconds
        Wall time of each step; ``decompress`` is the whole.
    warnings
        Sentences without anything a scanner wrote.
    summary
        Matrix, coils, slices and the like, plain JSON values.
    peak_memory_bytes
        Of the process that parsed.
    """

    scan_id: str
    archive_bytes: int
    format: str
    acquisitions_digest: str
    profile: str | None = None
    label: str | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    peak_memory_bytes: int = 0


def decompress(
    archive: Path,
    kspace_path: Path,
    *,
    limits: Limits | None = None,
    progress: Progress | None = None,
    work_dir: Path | None = None,
) -> Intake:
    """Read an archive of raw files and write its k-space file.

    ``kspace_path`` appears in one rename when it is complete, and not at all otherwise; its folder must be
    there.  Nothing else is left on disk, however this ends.

    Parameters
    ----------
    archive
        A tar, plain or packed by gzip, zstd, xz or bzip2.
    kspace_path
        The k-space file to write.
    limits
        Budgets; from the environment where not given.
    progress
        Told how far it is.
    work_dir
        Where the temporary folder is made (the system's place where not given).

    Raises
    ------
    PermanentError
        The scan is rejected.
    IncompleteError
        The archive may still be arriving.
    RetryableError
        The machine, not the archive, was at fault.
    """
    with _opened(archive, limits, work_dir) as job:
        target = _private_folder(".mrirecon-", kspace_path.parent)
        try:
            found = job.run("decompress", progress, out=target / "kspace.h5")
            result = job.intake(found)
            os.replace(target / "kspace.h5", kspace_path)  # noqa: PTH105 - atomic is the point
        finally:
            shutil.rmtree(target, ignore_errors=True)
    return result


def inspect(
    archive: Path,
    *,
    limits: Limits | None = None,
    progress: Progress | None = None,
    work_dir: Path | None = None,
) -> dict[str, Any]:
    """Return what an archive holds without writing k-space: the fields of :class:`Intake` as one dict.

    Raises
    ------
    MrireconError
        As :func:`decompress`.
    """
    with _opened(archive, limits, work_dir) as job:
        result = job.intake(job.run("inspect", progress))
    return result.summary | {
        "scan_id": result.scan_id,
        "archive_bytes": result.archive_bytes,
        "format": result.format,
        "acquisitions_digest": result.acquisitions_digest,
        "profile": result.profile,
        "label": result.label,
        "seconds": result.seconds,
        "warnings": result.warnings,
    }


class _Digest(threading.Thread):
    """The archive's SHA-256, reckoned beside the child's work (hashing lets other threads run)."""

    def __init__(self, descriptor: int) -> None:
        super().__init__(name="archive-digest", daemon=True)
        self._descriptor = descriptor
        self._stopped = threading.Event()
        self._sha = hashlib.sha256()
        self._error: OSError | None = None

    def run(self) -> None:
        """Read from the first byte to the last."""
        at = 0
        buffer = memoryview(bytearray(4 * MIB))
        try:
            while not self._stopped.is_set() and (got := os.preadv(self._descriptor, [buffer], at)):
                self._sha.update(buffer[:got])
                at += got
        except OSError as error:
            self._error = error

    def stop(self) -> None:
        """Give up."""
        self._stopped.set()
        self.join()

    def scan_id(self) -> str:
        """Wait for the end and return the scan id."""
        self.join()
        if self._error is not None:
            raise RetryableError(Code.STORAGE, "The archive could not be read; the scan is tried again.")
        return scan_id_from_digest(self._sha.hexdigest())


@dataclass
class _Job:
    descriptor: int
    limits: Limits
    work_dir: Path
    digest: _Digest
    before: os.stat_result
    began: float

    def run(self, name: str, progress: Progress | None, out: Path | None = None) -> sandbox.Returned:
        """Run a function of :mod:`.intake` in the sandbox."""
        arguments = {"archive": self.descriptor, "work_dir": str(self.work_dir)}
        return sandbox.run(
            f"mrirecon.decompress.in_child:{name}",
            arguments | ({"out": str(out.absolute())} if out else {}),
            limits=self.limits,
            work_dir=self.work_dir,
            write=[out.parent.absolute()] if out else [],
            descriptors=[self.descriptor],
            progress=progress or silent,
            answer=self.digest.scan_id,
        )

    def intake(self, returned: sandbox.Returned) -> Intake:
        """Return what the child found, with what is known here."""
        self.refuse_changed()
        value = returned.value
        identity = self.digest.scan_id()
        seconds = {k: float(v) for k, v in dict(value.get("seconds", {})).items()}
        return Intake(
            scan_id=identity,
            archive_bytes=self.before.st_size,
            format=str(value.get("format", "")),
            acquisitions_digest=str(value.get("acquisitions_digest", "")),
            profile=value.get("profile"),
            label=value.get("label"),
            seconds=seconds | {"decompress": round(time.perf_counter() - self.began, 3)},
            warnings=[str(warning) for warning in value.get("warnings", [])],
            summary={k: v for k, v in value.items() if k not in _TOLD_APART},
            peak_memory_bytes=returned.peak_memory,
        )

    def refuse_changed(self) -> None:
        """Raise when the archive was written while it was read: its id and its images would not agree."""
        after = os.fstat(self.descriptor)
        if (after.st_size, after.st_mtime_ns) != (self.before.st_size, self.before.st_mtime_ns):
            raise IncompleteError("The archive changed while it was being read: it may still be arriving.")


@contextmanager
def _opened(archive: Path, limits: Limits | None, work_dir: Path | None) -> Iterator[_Job]:
    """Open the archive, reckon its digest, and clean up; errors get the scan's id where it is known."""
    began = time.perf_counter()
    limits = limits or Limits.from_env()
    descriptor = _open(archive)
    with sandbox.ending_cleanly():
        digest = _Digest(descriptor)
        folder = None
        try:
            before = os.fstat(descriptor)
            folder = _private_folder("mrirecon-", work_dir)
            if before.st_size <= limits.max_archive_bytes:
                digest.start()
            job = _Job(descriptor, _timely(limits, before.st_size), folder, digest, before, began)
            try:
                yield job
            except PermanentError as error:
                job.refuse_changed()
                if before.st_size <= limits.max_archive_bytes:
                    error.scan_id = digest.scan_id()
                raise
        finally:
            if digest.ident is not None:
                digest.stop()
            os.close(descriptor)
            if folder is not None:
                shutil.rmtree(folder, ignore_errors=True)


def _timely(limits: Limits, size: int) -> Limits:
    """Return ``limits`` with processor time by the archive's size: ten minutes and a second for each MB."""
    return replace(limits, cpu_seconds=min(limits.cpu_seconds, 600 + size // 1_000_000))


def _private_folder(prefix: str, parent: Path | None) -> Path:
    try:
        return Path(tempfile.mkdtemp(prefix=prefix, dir=parent)).absolute()
    except OSError as error:
        cause = cause_of(error)
        raise RetryableError(
            cause.code if cause else Code.STORAGE,
            "No temporary folder could be made: check the disk of TMPDIR and its access rights.",
        ) from None


def _open(archive: Path) -> int:
    try:
        descriptor = os.open(archive, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError):
        raise PermanentError(
            Code.NOT_AN_ARCHIVE,
            f"Expected is {_AN_ARCHIVE}; there is nothing at the path given. Check the path, and that its "
            "disk or share is connected.",
        ) from None
    except PermissionError:
        raise RetryableError(
            Code.STORAGE, "The archive may not be read by this user. Change its rights, then try again."
        ) from None
    except OSError:
        raise RetryableError(
            Code.STORAGE, "The archive could not be opened. Check its disk or share, then try again."
        ) from None
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        found = "a folder" if stat.S_ISDIR(mode) else "no regular file (a pipe or a device)"
        raise PermanentError(
            Code.NOT_AN_ARCHIVE,
            f"Expected is {_AN_ARCHIVE}; the path given is {found}. Pack the raw files of one scan, as "
            "tar -cf SCAN.tar FILES does, and give the path of that tar.",
        )
    return descriptor
