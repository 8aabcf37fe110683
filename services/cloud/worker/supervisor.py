"""Each scan in its own child process, with its imports and GPU context made ready while the last scan ran.

CUDA cannot be used in a process forked from one that has used it, and starting one anew costs seconds.  So a
*standby* child is made ahead: a fork server (no threads, no CUDA) has imported the heavy modules once; the
standby is forked from it, warms itself up (on a GPU it makes its CUDA context) and waits.  A scan takes the
standby, which ends with that scan; the next standby warms up beside it.  So a crash, a leak or a kill costs
one scan, and no scan waits for an import.

A child is the leader of its own process group and ends itself, with its group, when the pipe to its
supervisor closes: nothing survives a worker that was killed.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, is_dataclass
from multiprocessing.connection import Connection
from typing import Any

from ...aws.ports import Check, never
from ...contract.causes import ours
from ...contract.codes import Code, IncompleteError, MrireconError, PermanentError, RetryableError
from ...contract.progress import Progress

Job = Mapping[str, Any]
Work = Callable[[Job, Progress], Any]
"""A stage as the supervisor calls it: plain values in, plain values (or a dataclass of such) out.

It must be importable by name: it runs in another process."""

_KINDS: dict[str, type[MrireconError]] = {"rejected": PermanentError, "failed": RetryableError}


class Supervisor:
    """Runs one scan at a time, each in a child of its own.

    Parameters
    ----------
    work
        What a child does with a job.
    silence, total
        Seconds without progress, and seconds in all, after which a scan is ended; 0: no limit.
    preload
        Modules the fork server imports once.
    warm_up
        Called in a standby child before it waits for its scan.
    """

    def __init__(
        self,
        work: Work,
        *,
        silence: float,
        total: float,
        preload: Sequence[str] = (),
        warm_up: Callable[[], None] | None = None,
        progress: Progress | None = None,
    ) -> None:
        self._work = work
        self._silence = silence
        self._total = total
        self._warm_up = warm_up
        self._progress = progress
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload([__name__, work.__module__, *preload])
        self._standby: _Child | None = None

    def prepare(self) -> None:
        """Make the standby child, unless there is a living one."""
        if self._standby is None or not self._standby.alive:
            self._standby = _Child(self._context, self._work, self._warm_up)

    def run(self, job: Job, check: Check = never) -> dict[str, Any]:
        """Do ``job`` in a child and return what it returns.

        Raises
        ------
        PermanentError, IncompleteError, RetryableError
            What the stage raised; or a retryable one with the reason when the child died, fell silent
            (``silent``), took too long (``timed_out``) or ran out of memory (``out_of_memory``).
        Exception
            Whatever ``check`` raised; the child has been killed.
        """
        self.prepare()
        child, self._standby = self._standby, None
        assert child is not None
        try:
            child.send(job)
            self.prepare()
            return self._follow(child, check)
        finally:
            child.kill()

    def close(self) -> None:
        """End the standby child."""
        if self._standby is not None:
            self._standby.kill()
            self._standby = None

    def _follow(self, child: _Child, check: Check) -> dict[str, Any]:
        begun = heard = time.monotonic()
        while True:
            check()
            told = child.hear(0.1)
            now = time.monotonic()
            if told is None:
                if self._total and now - begun > self._total:
                    raise RetryableError(
                        Code.TIMED_OUT, f"The scan was ended after {now - begun:.0f} s, its total limit."
                    )
                if self._silence and now - heard > self._silence:
                    raise RetryableError(
                        Code.SILENT, f"The scan told no progress for {now - heard:.0f} s and was ended."
                    )
                continue
            heard = now
            if "progress" in told:
                if self._progress is not None:
                    self._progress(*told["progress"])
            elif "result" in told:
                result: dict[str, Any] = told["result"]
                return result
            else:
                raise _error(told)


class _Child:
    """The supervisor's end of one child process."""

    def __init__(self, context: Any, work: Work, warm_up: Callable[[], None] | None) -> None:
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_main, args=(theirs, work, warm_up), daemon=False)
        self._process.start()
        theirs.close()

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return bool(self._process.is_alive())

    def send(self, job: Job) -> None:
        """Give the child its job; a child that died meanwhile is noticed by :meth:`hear`."""
        with contextlib.suppress(OSError):
            self._pipe.send_bytes(json.dumps(dict(job)).encode())

    def hear(self, wait: float) -> dict[str, Any] | None:
        """Return what the child says next, ``None`` when it says nothing for ``wait`` seconds."""
        try:
            if not self._pipe.poll(wait):
                return None
            told: dict[str, Any] = json.loads(self._pipe.recv_bytes())
        except (EOFError, OSError):
            self._process.join(5)
            return {"died": self._process.exitcode}
        return told

    def kill(self) -> None:
        """End the child and all it started."""
        with contextlib.suppress(OSError):
            self._pipe.close()
        if self._process.pid is not None:
            with contextlib.suppress(OSError):
                os.killpg(self._process.pid, signal.SIGKILL)
        if self._process.is_alive():
            self._process.kill()
        self._process.join()
        self._process.close()


def _main(pipe: Connection, work: Work, warm_up: Callable[[], None] | None) -> None:
    """Do one job: the body of a child process."""
    os.setsid()
    # Libraries print what files say: nothing a child prints reaches the service's log.
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # ctrl-C at a terminal is the supervisor's to answer
    if warm_up is not None:
        with contextlib.suppress(Exception):  # a machine that cannot warm up shows why in the scan itself
            warm_up()
    try:
        job = json.loads(pipe.recv_bytes())
    except (EOFError, OSError):
        return
    threading.Thread(target=_end_with_supervisor, args=(pipe,), daemon=True).start()
    lock = threading.Lock()

    def say(**what: Any) -> None:
        with lock:
            pipe.send_bytes(json.dumps(what).encode())

    def progress(stage: str, fraction: float, message: str = "", /) -> None:
        say(progress=[stage, float(fraction), message])

    try:
        result = work(job, progress)
        say(result=asdict(result) if is_dataclass(result) and not isinstance(result, type) else result)
    except Exception as error:
        told = ours(error)
        say(end=told.end.value, code=told.code.value, message=told.message)


def _end_with_supervisor(pipe: Connection) -> None:
    with contextlib.suppress(EOFError, OSError):
        pipe.recv_bytes()
    os.killpg(os.getpgrp(), signal.SIGKILL)


def _error(told: Mapping[str, Any]) -> MrireconError:
    if "died" in told:
        code = told["died"]
        if code == -signal.SIGKILL:
            return RetryableError(
                Code.OUT_OF_MEMORY, "The process of the scan was killed, most likely for memory."
            )
        how = f"by signal {-code}" if code is not None and code < 0 else f"with exit code {code}"
        return RetryableError(Code.WORKER_LOST, f"The process of the scan ended {how}; it is tried again.")
    if told["end"] == "incomplete":
        return IncompleteError(told["message"])
    return _KINDS[told["end"]](Code(told["code"]), told["message"])


def cuda_context() -> None:
    """Make this process's CUDA context, where there is a device: the warm-up of reconstruction's children."""
    torch = importlib.import_module("torch")
    if torch.cuda.is_available():
        torch.ones(1, device="cuda").add_(1).item()
