"""moto's server as a process that ends with the one that started it (its stdin closes).

DynamoDB and S3 carry out one request at a time: in moto's threads a condition is checked and its write made
in two steps, which the real services never show.
"""

import logging
import os
import sys
import threading

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

from tests.support.sqs_tally import Tally


class Dispatch(DomainDispatcherApplication):
    """Finds the service of a request once and not, as moto does, by listing its folders every time."""

    def __init__(self):
        super().__init__(create_backend_app)
        self._known = {}

    def get_application(self, environ):
        service = service_of(environ)
        if service not in {"s3", "sqs", "dynamodb"}:
            return super().get_application(environ)
        if service not in self._known:
            self._known[service] = super().get_application(environ)
        return self._known[service]


def service_of(environ):
    scope = environ.get("HTTP_AUTHORIZATION", "").partition("Credential=")[2].split("/")
    return scope[3] if len(scope) > 3 else None


class OneAtATime:
    def __init__(self, app):
        self._app = app
        self._locks = {"s3": threading.Lock(), "dynamodb": threading.Lock()}

    def __call__(self, environ, start_response):
        lock = self._locks.get(service_of(environ))
        if lock is None:
            return self._app(environ, start_response)
        with lock:
            return list(self._app(environ, start_response))


def main(port: int) -> None:
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    app = Tally(OneAtATime(Dispatch()))
    server = make_server("127.0.0.1", port, app, threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(server.server_port, flush=True)
    sys.stdin.read()
    os._exit(0)  # without tidying up: long polls may be waiting, and a long run leaves much to free


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 0)
