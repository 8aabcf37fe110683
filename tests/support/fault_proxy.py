"""A small HTTP proxy on loopback, in front of an emulator, that answers as a service in trouble would."""

import http.client
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Fault:
    """What happens to matching requests, ``times`` of them after ``skip`` good ones.

    ``kind``: an HTTP status with an S3 error body (500, 503, 403); ``throttle`` (the JSON services' way);
    ``slow`` (late answer); ``cut`` (body ends early, connection closed); ``flip`` (one byte of the body is
    wrong); ``lost`` (the request is carried out, its answer never arrives).
    """

    kind: object
    service: str
    operation: str = ""  # the JSON services' operation, or an HTTP method for S3
    path: str = ""
    times: int = 1
    skip: int = 0
    seconds: float = 1.0
    hits: int = field(default=0)

    def takes(self, service, operation, method, path):
        if service != self.service or self.path not in path:
            return False
        if self.operation and self.operation not in {operation, method}:
            return False
        if self.skip > 0:
            self.skip -= 1
            return False
        if self.hits >= self.times:
            return False
        self.hits += 1
        return True


class FaultProxy:
    def __init__(self, port):
        self.faults = []
        self.requests = []
        self._lock = threading.Lock()
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def relay(self):
                body = self._body()
                scope = self.headers.get("Authorization", "").partition("Credential=")[2].split("/")
                service = scope[3] if len(scope) > 3 else ""
                operation = self.headers.get("X-Amz-Target", "").rpartition(".")[2]
                fault = proxy._pick(service, operation, self.command, self.path)
                if isinstance(fault and fault.kind, int):
                    self._error(fault.kind)
                    return
                if fault and fault.kind == "throttle":
                    kind = (
                        "RequestThrottled" if service == "sqs" else "ProvisionedThroughputExceededException"
                    )
                    self._send(
                        400,
                        [("Content-Type", "application/x-amz-json-1.0")],
                        f'{{"__type": "{kind}", "message": "slow down"}}'.encode(),
                    )
                    return
                if fault and fault.kind == "slow":
                    time.sleep(fault.seconds)
                upstream = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
                headers = {name: value for name, value in self.headers.items() if name.lower() != "expect"}
                upstream.request(self.command, self.path, body=body, headers=headers)
                answer = upstream.getresponse()
                data = answer.read()
                upstream.close()
                if fault and fault.kind == "lost":
                    self.close_connection = True
                    return
                if fault and fault.kind == "flip" and data:
                    data = data[:-1] + bytes([data[-1] ^ 1])
                self._send(answer.status, answer.getheaders(), data, cut=bool(fault and fault.kind == "cut"))

            do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = relay

            def _body(self):
                if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
                    data = b""
                    while size := int(self.rfile.readline().split(b";")[0], 16):
                        data += self.rfile.read(size)
                        self.rfile.readline()
                    self.rfile.readline()
                    del self.headers["Transfer-Encoding"]
                    return data
                return self.rfile.read(int(self.headers.get("Content-Length") or 0))

            def _error(self, status):
                code = {500: "InternalError", 503: "SlowDown", 403: "AccessDenied"}[status]
                self._send(
                    status,
                    [("Content-Type", "application/xml")],
                    f"<?xml version='1.0'?><Error><Code>{code}</Code></Error>".encode(),
                )

            def _send(self, status, headers, data, cut=False):
                self.send_response_only(status)
                length = next((value for name, value in headers if name.lower() == "content-length"), None)
                for name, value in headers:
                    if name.lower() not in {"content-length", "transfer-encoding", "connection"}:
                        self.send_header(name, value)
                head = self.command == "HEAD"
                self.send_header("Content-Length", length if head and length else str(len(data)))
                self.end_headers()
                if head:
                    return
                if cut:
                    self.close_connection = True
                    data = data[: len(data) // 2]
                self.wfile.write(data)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://localhost:{self._server.server_port}"

    def _pick(self, service, operation, method, path):
        with self._lock:
            self.requests.append((service, operation or method))
            for fault in self.faults:
                if fault.takes(service, operation, method, path):
                    return fault
        return None

    def inject(self, kind, service, **more):
        fault = Fault(kind, service, **more)
        with self._lock:
            self.faults.append(fault)
        return fault

    def __enter__(self):
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()
