"""Run a function on untrusted bytes in a child process that can do nothing else.

A fresh interpreter (no fork: threads and their locks stay here) with limits on memory, file size, processor
and wall time, without the parent's secrets in its environment, without core dumps, and where the kernel can
do it without files and network (:mod:`.landlock`).  What comes back is JSON, checked and cut to size: a child
that was taken over can send wrong numbers, not objects.
"""

from __future__ import annotations

import json
import os
import selectors
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from ...contract.causes import DISK_FULL
from ...contract.codes import Code, IncompleteError, MrireconError, PermanentError, RetryableError
from ...contract.progress import Progress, silent
from ..limits import MIB, Limits

_MAX_LINE = 16 * MIB
_MAX_SENTENCE = 600
_ROOM = 16 * MIB
_KEPT_VARIABLES = frozenset(
    {"PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "LD_LIBRARY_PATH", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"}
)
DEBUG_VARIABLE = "MRIRECON_DEBUG"
"""Set, the child's traceback goes to standard error. For development: it may quote the file."""


@dataclass(frozen=True)
class Returned:
    """What a child gave back: the function's value and the child's peak memory in bytes."""

    value: dict[str, Any]
    peak_memory: int


def run(
    target: str,
    arguments: Mapping[str, Any],
    *,
    limits: Limits,
    work_dir: Path,
    write: Sequence[Path] = (),
    descriptors: Sequence[int] = (),
    progress: Progress = silent,
    answer: Callable[[], str] = str,
) -> Returned:
    """Call ``target`` (``module:function``) in a child as ``function(tools, **arguments)``.

    Parameters
    ----------
    target
        Must return a dict of plain JSON values.
    arguments
        Plain JSON values.
    limits
        Memory, file size and times of the child; handed to the function.
    work_dir
        Private folder: the child's home and temporary folder.
    write
        Further folders it may write in.
    descriptors
        Open files it inherits, under the same numbers.
    progress
        Called here for every progress line of the child.
    answer
        Called when the child asks for what is known only later.

    Raises
    ------
    MrireconError
        What the function raised; ``parser_crash`` when the child died, ``out_of_memory`` (retryable) when the
        system killed it, ``timed_out`` (retryable) when the wall time was over.
    """
    receiving, sending = os.pipe()
    with ending_cleanly(), os.fdopen(receiving, "rb", buffering=0) as pipe:
        try:
            debug = bool(os.environ.get(DEBUG_VARIABLE))
            process = subprocess.Popen(
                [sys.executable, "-P", "-s", "-m", "mrirecon.decompress.sandbox.child"],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=None if debug else subprocess.DEVNULL,
                cwd=work_dir,
                env=_environment(work_dir),
                pass_fds=(sending, *descriptors),
                start_new_session=True,
            )
        finally:
            os.close(sending)
        try:
            job = {
                "target": target,
                "arguments": dict(arguments),
                "limits": limits.as_dict(),
                "pipe": sending,
                "parent": os.getpid(),
                "read": [],
                "write": [str(work_dir), *map(str, write)],
                "debug": debug,
            }
            return _converse(process, pipe.fileno(), json.dumps(job), limits, progress, answer)
        except PermanentError as error:
            if error.code is Code.PARSER_CRASH and _disk_is_full([work_dir, *write]):
                raise DISK_FULL.error() from None
            raise
        finally:
            _kill(process)


def _converse(
    process: subprocess.Popen[bytes],
    pipe: int,
    job: str,
    limits: Limits,
    progress: Progress,
    answer: Callable[[], str],
) -> Returned:
    """Send the job, follow the child's lines, and turn its end into a value or an error."""
    _send(process, job)
    deadline = time.monotonic() + limits.wall_seconds
    for line in _lines(pipe, deadline):
        if "progress" in line:
            _tell(progress, line["progress"])
        elif "ask" in line:
            _send(process, json.dumps(answer()))
        elif "error" in line:
            raise _error(line["error"])
        elif isinstance(line.get("result"), dict):
            peak = line.get("peak")
            return Returned(line["result"], peak if isinstance(peak, int) else 0)
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        raise _crashed("closed its pipe and went on") from None
    raise _ended_without_a_word(process.returncode, limits)


def _send(process: subprocess.Popen[bytes], line: str) -> None:
    assert process.stdin is not None
    with suppress(BrokenPipeError):  # it is dead: how it ended is judged when its pipe ends
        process.stdin.write(line.encode() + b"\n")
        process.stdin.flush()


def _lines(pipe: int, deadline: float) -> Iterator[dict[str, Any]]:
    """Yield the child's lines until the pipe ends."""
    buffer = bytearray()
    with selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        while True:
            left = deadline - time.monotonic()
            if left <= 0:
                raise RetryableError(
                    Code.TIMED_OUT,
                    "The intake took longer than its time limit and was ended; it is tried again.",
                )
            if not selector.select(min(left, 1.0)):
                continue
            data = os.read(pipe, 1 << 16)
            if not data:
                return
            buffer += data
            if len(buffer) > _MAX_LINE:
                raise _crashed("sent more than a report holds")
            if b"\n" not in data:
                continue
            *complete, rest = bytes(buffer).split(b"\n")
            buffer = bytearray(rest)
            for text in complete:
                try:
                    line = json.loads(text)
                except (ValueError, RecursionError):
                    raise _crashed("sent what is no report") from None
                if not isinstance(line, dict):
                    raise _crashed("sent what is no report")
                yield line


def _tell(progress: Progress, value: object) -> None:
    match value:
        case [str(stage), int() | float() as fraction, str(message)] if stage.isidentifier():
            progress(stage[:32], min(1.0, max(0.0, float(fraction))), _plain(message)[:120])


def _error(value: object) -> MrireconError:
    """Return the error a child reported."""
    match value:
        case {"family": str(family), "code": str(code), "message": str(message), "where": list(where)}:
            pass
        case _:
            return _crashed("sent what is no report")
    try:
        known = Code(code)
    except ValueError:
        return _crashed("sent what is no report")
    sentence = _plain(message)[:_MAX_SENTENCE]
    error: MrireconError
    if family == "incomplete":
        error = IncompleteError(sentence)
    elif family == "permanent":
        error = PermanentError(known, sentence)
    else:
        error = RetryableError(known, sentence)
    for place in where[:8]:
        error.add_note(f"at {_plain(str(place))[:80]}")
    return error


def _plain(text: str) -> str:
    return "".join(sign for sign in text if sign.isprintable())


def _ended_without_a_word(status: int | None, limits: Limits) -> MrireconError:
    if status == -signal.SIGKILL:
        return RetryableError(
            Code.OUT_OF_MEMORY, "The system ended the intake, most likely for memory; it is tried again."
        )
    if status == -signal.SIGPROF:
        return PermanentError(
            Code.H5_CORRUPT,
            "An HDF5 file is damaged: its structure leads round in circles. Export and send the scan again.",
        )
    if status == -signal.SIGXCPU:
        return _crashed(f"took more than {limits.cpu_seconds} seconds of processor time")
    if status is not None and status < 0:
        return _crashed(f"was ended by signal {-status}")
    return _crashed("ended without a report")


def _crashed(what: str) -> PermanentError:
    return PermanentError(
        Code.PARSER_CRASH,
        f"The process that reads raw files {what}; the raw data cannot be read safely. "
        "Export the scan again.",
    )


def _disk_is_full(folders: Sequence[Path]) -> bool:
    """Tell whether a crash may be the disk's fault: libraries do not always survive a write that fails."""
    return any(shutil.disk_usage(folder).free < _ROOM for folder in folders)


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End the child and whatever it started, and wait for it."""
    # The group, not the child alone, and also when the child is gone: nothing it started may stay.
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if process.stdin is not None and not process.stdin.closed:
        with suppress(BrokenPipeError):
            process.stdin.close()


def _environment(work_dir: Path) -> dict[str, str]:
    """Return the child's environment: no credentials, no plugins, its home in the work folder."""
    kept = {name: value for name, value in os.environ.items() if name in _KEPT_VARIABLES}
    return kept | {
        "PYTHONPATH": os.pathsep.join(str(Path(folder).absolute()) for folder in sys.path if folder),
        "PYTHONDONTWRITEBYTECODE": "1",
        "HDF5_PLUGIN_PRELOAD": "::",
        "HDF5_USE_FILE_LOCKING": "FALSE",
        "HOME": str(work_dir),
        "TMPDIR": str(work_dir),
        "MPLCONFIGDIR": str(work_dir),
    }


@contextmanager
def ending_cleanly() -> Iterator[None]:
    """Turn SIGTERM into SystemExit, so that the child and its files go; leave a handler that is set alone."""
    if (
        threading.current_thread() is not threading.main_thread()
        or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
    ):
        yield
        return

    def leave(_signal: int, _frame: FrameType | None) -> None:
        raise SystemExit(128 + signal.SIGTERM)

    signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
