"""What no emulator has: AWS Batch whose jobs really run, and a file gateway's cache refresh.

One small HTTP server on loopback speaks the two services' own protocols, so that boto3 in the Lambdas calls
it as it calls AWS (by ``AWS_ENDPOINT_URL_BATCH`` and ``AWS_ENDPOINT_URL_STORAGE_GATEWAY``). Jobs' states are
set by whoever runs the jobs (:mod:`emulator.runner`).
"""

import json
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = tuple[int, dict[str, Any]]


@dataclass
class Job:
    """A job as ``ListJobs`` and ``DescribeJobs`` show it."""

    jobId: str  # noqa: N815 - the names the service gives them
    jobName: str  # noqa: N815
    jobQueue: str  # noqa: N815
    jobDefinition: str  # noqa: N815
    status: str = "RUNNABLE"
    createdAt: int = field(default_factory=lambda: int(time.time() * 1000))  # noqa: N815
    stop: bool = False


class StandIns:
    """The server. ``jobs`` and ``refreshes`` are what was asked of it so far."""

    def __init__(self, *, after_refresh: Callable[[str, str], None] | None = None) -> None:
        self.jobs: list[Job] = []
        self.refreshes: list[dict[str, Any]] = []
        self.lock = threading.Lock()
        self._after_refresh = after_refresh
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or b"{}")
                target = self.headers.get("X-Amz-Target", "")
                status, answer = outer.answer(self.path, target, body)
                data = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                """Log nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def stop(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()

    def answer(self, path: str, target: str, body: dict[str, Any]) -> Answer:
        """Return the status and body of the answer to one request."""
        with self.lock:
            if target.endswith(".RefreshCache"):
                return self._refresh(body)
            action: Callable[[dict[str, Any]], Answer] | None = getattr(
                self, "_" + path.rstrip("/").rsplit("/", 1)[-1], None
            )
            if not path.startswith("/v1/") or action is None:
                return 404, {
                    "__type": "UnknownOperationException",
                    "message": f"no stand-in for {target or path}",
                }
            return action(body)

    def _submitjob(self, body: dict[str, Any]) -> Answer:
        job = Job(str(uuid.uuid4()), body["jobName"], body["jobQueue"], body["jobDefinition"])
        self.jobs.append(job)
        return 200, {"jobId": job.jobId, "jobName": job.jobName, "jobArn": f"arn:aws:batch:::job/{job.jobId}"}

    def _listjobs(self, body: dict[str, Any]) -> Answer:
        wanted = body.get("jobStatus", "RUNNING")
        found = [job for job in self.jobs if job.jobQueue == body["jobQueue"] and job.status == wanted]
        return 200, {"jobSummaryList": [_summary(job) for job in found]}

    def _describejobs(self, body: dict[str, Any]) -> Answer:
        return 200, {"jobs": [_summary(job) for job in self.jobs if job.jobId in body["jobs"]]}

    def _terminatejob(self, body: dict[str, Any]) -> Answer:
        for job in self.jobs:
            if job.jobId == body["jobId"]:
                job.stop = True
        return 200, {}

    def _refresh(self, body: dict[str, Any]) -> Answer:
        notification = str(uuid.uuid4())
        self.refreshes.append({**body, "NotificationId": notification})
        if self._after_refresh:
            threading.Timer(0.5, self._after_refresh, (body["FileShareARN"], notification)).start()
        return 200, {"FileShareARN": body["FileShareARN"], "NotificationId": notification}


def _summary(job: Job) -> dict[str, Any]:
    told = asdict(job)
    told.pop("stop")
    return told
