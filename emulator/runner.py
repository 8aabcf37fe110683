"""Start workers as processes where ECS and Batch would start containers.

An emulator of AWS keeps an ECS service's desired count and a Batch queue's jobs, but runs nothing. The runner
follows both: as many decompress processes as the service wants, one reconstruction process a submitted job,
each with the environment that the deployed task definition gives its container. What the service no longer
wants is told to stop as ECS does it (SIGTERM, later SIGKILL).
"""

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from emulator.stand_ins import Job
from mrirecon.contract import environment as env

GRACE_SECONDS = 60
DECOMPRESS = (sys.executable, "-m", "mrirecon.cloud.stages.decompress_worker")
RECON = (sys.executable, "-m", "mrirecon.cloud.stages.recon_worker")


@dataclass
class Process:
    """A worker, with where its log and scratch lie."""

    name: str
    popen: subprocess.Popen[bytes]
    log: Path
    told_to_stop: float | None = None

    def stop(self) -> None:
        """Ask the process to end, once."""
        if self.told_to_stop is None and self.popen.poll() is None:
            self.popen.send_signal(signal.SIGTERM)
            self.told_to_stop = time.monotonic()

    def insist(self) -> None:
        """Kill the process when it was asked to end and its time for that is over."""
        late = self.told_to_stop is not None and time.monotonic() - self.told_to_stop > GRACE_SECONDS
        if late and self.popen.poll() is None:
            self.popen.kill()


@dataclass
class Runner:
    """Follow what is wanted until :meth:`stop`.

    ``wanted`` returns the number of decompress workers wanted now; ``jobs`` the Batch jobs, whose
    ``status`` the runner sets.
    """

    folder: Path
    wanted: Callable[[], int]
    jobs: Callable[[], list[Job]]
    decompress_environment: Mapping[str, str]
    recon_environment: Mapping[str, str]
    decompress_command: tuple[str, ...] = DECOMPRESS
    recon_command: tuple[str, ...] = RECON
    service: list[Process] = field(default_factory=list)
    batch: dict[str, Process] = field(default_factory=dict)
    ended: list[Process] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="runner", daemon=True)
        self._count = 0

    def start(self) -> Self:
        """Begin to follow."""
        self._thread.start()
        return self

    def stop(self) -> None:
        """Stop following, then every worker; return when none is left."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(30)
        everyone = [*self.service, *self.batch.values()]
        for process in everyone:
            process.stop()
        deadline = time.monotonic() + GRACE_SECONDS
        for process in everyone:
            try:
                process.popen.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.popen.kill()
                process.popen.wait(10)
        self.ended += everyone
        self.service, self.batch = [], {}

    def logs(self) -> dict[str, str]:
        """Return the name and log of every worker so far."""
        everyone = [*self.ended, *self.service, *self.batch.values()]
        return {process.name: process.log.read_text(errors="replace") for process in everyone}

    def _follow(self) -> None:
        while not self._stop.wait(0.5):
            try:
                self._serve(self.wanted())
                self._run(self.jobs())
            except Exception as error:
                self.faults.append(f"{type(error).__name__}: {error}")

    def _serve(self, wanted: int) -> None:
        for process in list(self.service):
            process.insist()
            if process.popen.poll() is not None:
                self.service.remove(process)
                if process.popen.returncode and process.told_to_stop is None:
                    self.faults.append(f"{process.name} ended with {process.popen.returncode}")
                self.ended.append(process)
        staying = [process for process in self.service if process.told_to_stop is None]
        for process in staying[wanted:]:
            process.stop()
        for _ in range(wanted - len(staying)):
            self.service.append(
                self._begin("decompress", self.decompress_command, self.decompress_environment)
            )

    def _run(self, jobs: list[Job]) -> None:
        for job in jobs:
            if job.status == "RUNNABLE":
                job.status = "STARTING"
                self.batch[job.jobId] = self._begin("recon", self.recon_command, self.recon_environment)
                job.status = "RUNNING"
            process = self.batch.get(job.jobId)
            if process is None:
                continue
            if job.stop:
                process.stop()
            process.insist()
            code = process.popen.poll()
            if code is not None:
                job.status = "SUCCEEDED" if code == 0 else "FAILED"
                self.ended.append(self.batch.pop(job.jobId))

    def _begin(self, kind: str, command: tuple[str, ...], values: Mapping[str, str]) -> Process:
        self._count += 1
        name = f"{kind}-{self._count}"
        scratch = self.folder / name
        scratch.mkdir(parents=True)
        local = {
            env.SCRATCH_DIR: str(scratch),
            env.HEARTBEAT_FILE: str(scratch / "heartbeat"),
            "TMPDIR": tempfile.gettempdir(),
            "OMP_NUM_THREADS": "1",
        }
        log = self.folder / f"{name}.log"
        with log.open("wb") as sink:
            popen = subprocess.Popen(
                command,
                env={**os.environ, **values, **local},
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return Process(name, popen, log)
