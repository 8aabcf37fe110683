"""The child process that parses, started by :mod:`.parent` alone.

It reads one job as a line of JSON from standard input, takes every right from itself that the job does not
need, and writes lines of JSON to the job's pipe: progress, perhaps a question that the parent answers on
standard input, and at the end a result or an error.  Standard output and error lead nowhere, so that no
library can print what a file says.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...contract.causes import cause_of, outside_archive
from ...contract.codes import Code, IncompleteError, MrireconError, PermanentError
from ...contract.progress import Progress
from ..limits import GIB, Limits
from . import landlock, seccomp

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_QUIET_SECONDS = 0.1


@dataclass(frozen=True)
class Tools:
    """What the sandboxed function gets beside its arguments.

    ``ask`` returns what the parent knows only later (a scan id is the digest of the whole archive).
    """

    limits: Limits
    progress: Progress
    ask: Callable[[], str]


def main() -> int:
    """Do the one job; the exit status is 0 whenever a result or an error was reported."""
    job = json.loads(sys.stdin.buffer.readline())
    _bind_to_parent(job["parent"])
    limits = Limits(**job["limits"])
    _limit_resources(limits)
    report = _Report(job["pipe"])
    try:
        # Imported before the rights are gone: libraries are found in many places.
        module, _, name = job["target"].partition(":")
        function = getattr(importlib.import_module(module), name)
        landlock.restrict(read=_program_folders() | set(job["read"]), write={"/dev/null", *job["write"]})
        seccomp.restrict()
        result = function(Tools(limits, _throttled(report), report.ask), **job["arguments"])
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        report.line({"result": result, "peak": peak})
    except BaseException as error:
        if job["debug"]:
            traceback.print_exc()
        report.line({"error": describe(error)})
    return 0


def describe(error: BaseException) -> dict[str, Any]:
    """Return an error as family, code and sentence; of a foreign one nothing but its type is told."""
    known = error if isinstance(error, MrireconError) and not _blames_wrongly(error) else _known(error)
    family = "permanent"
    if isinstance(known, IncompleteError):
        family = "incomplete"
    elif not isinstance(known, PermanentError):
        family = "retryable"
    return {
        "family": family,
        "code": known.code.value,
        "message": known.message,
        "where": [] if known is error else _where(error),
    }


def _known(error: BaseException) -> MrireconError:
    """Return the error of ours that a foreign one means: what the table does not know is the archive's."""
    cause = cause_of(error, confined=True)
    if cause is not None:
        return cause.error()
    if isinstance(error, OSError) or _in_h5py(error):
        return PermanentError(
            Code.H5_CORRUPT,
            "An HDF5 file is damaged: its data cannot be read. Export and send the scan again.",
        )
    return PermanentError(
        Code.PARSER_CRASH,
        f"The reader met something it does not know ({type(error).__name__}). "
        "Export the scan again; if it stays, report it with this code.",
    )


def _blames_wrongly(error: MrireconError) -> bool:
    """Tell whether a file is called damaged although the machine could not read it."""
    return error.code is Code.H5_CORRUPT and outside_archive(error)


def _in_h5py(error: BaseException) -> bool:
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and ("h5py" in Path(frames[-1].filename).parts or "h5py" in frames[-1].filename)


def _where(error: BaseException) -> list[str]:
    """Return the places in our own code an error came through: file names and lines, no values."""
    return [
        f"{Path(frame.filename).name}:{frame.lineno}"
        for frame in traceback.extract_tb(error.__traceback__)
        if "mrirecon" in frame.filename
    ][-8:]


class _Report:
    """Lines of JSON to the parent."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def line(self, value: dict[str, Any]) -> None:
        data = memoryview(json.dumps(value, allow_nan=False, default=_number).encode() + b"\n")
        while data:
            data = data[os.write(self._descriptor, data) :]

    def ask(self) -> str:
        """Return the parent's answer to its one question."""
        self.line({"ask": True})
        return str(json.loads(sys.stdin.buffer.readline()))


def _number(value: Any) -> Any:
    """Return a numpy scalar as the number it is."""
    if hasattr(value, "item"):
        return value.item()
    raise TypeError("only plain values can be reported")


def _throttled(report: _Report) -> Progress:
    """Return a progress call that reports a stage's begin, end and a few times a second."""
    last: dict[str, Any] = {"stage": None, "time": 0.0}

    def tell(stage: str, fraction: float, message: str = "", /) -> None:
        now = time.monotonic()
        if stage == last["stage"] and fraction < 1 and now - last["time"] < _QUIET_SECONDS:
            return
        last.update(stage=stage, time=now)
        report.line({"progress": [stage, float(fraction), message]})

    return tell


def _bind_to_parent(parent: int) -> None:
    """Die with the parent, whatever it dies of; let nobody attach or dump (Linux)."""
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def _limit_resources(limits: Limits) -> None:
    for kind, soft, hard in (
        # Address space is reserved generously by thread stacks and allocators; DATA counts what can be used.
        (resource.RLIMIT_AS, limits.memory_bytes + 6 * GIB, None),
        (resource.RLIMIT_DATA, limits.memory_bytes + GIB // 2, None),
        (resource.RLIMIT_FSIZE, limits.max_raw_bytes + GIB, None),
        (resource.RLIMIT_CPU, limits.cpu_seconds, limits.cpu_seconds + 5),
        (resource.RLIMIT_CORE, 0, None),
        (resource.RLIMIT_NOFILE, 512, None),
    ):
        ceiling = resource.getrlimit(kind)[1]
        wanted_hard = soft if hard is None else hard
        if ceiling == resource.RLIM_INFINITY:
            ceiling = max(soft, wanted_hard)
        try:
            resource.setrlimit(kind, (min(soft, ceiling), min(wanted_hard, ceiling)))
        except (ValueError, OSError):
            if sys.platform == "linux":
                raise  # elsewhere some limits do not exist; the others stand


def _program_folders() -> set[str]:
    """Return what the interpreter may still have to read: itself, the packages, the system's libraries."""
    folders = {sys.prefix, sys.base_prefix, *filter(None, sys.path), "/usr", "/lib", "/lib64"}
    folders.add(str(Path(__file__).resolve().parents[2]))
    folders |= {"/etc/ld.so.cache", "/dev/urandom", "/dev/null", "/proc/self", "/sys/devices/system/cpu"}
    folders |= {"/proc/cpuinfo", "/proc/meminfo", "/etc/localtime", "/sys/fs/cgroup"}
    return folders


if __name__ == "__main__":
    # All is said and closed; libhdf5's own end crashes where a file could not be written (a full disk).
    os._exit(main())
