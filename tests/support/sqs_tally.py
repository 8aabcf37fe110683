"""What really went over the queues, counted in front of the emulated SQS: nobody's own account is believed.

Every answer of the emulator is read: which message was sent where, how often each was handed out, which was
deleted. A worker that dies before it hears the answer cannot falsify that.
"""

import io
import json
import threading

PATH = "/tally"


class Tally:
    """WSGI middleware around moto; ``GET /tally`` tells what was counted."""

    def __init__(self, app):
        self._app = app
        self._lock = threading.Lock()
        self._messages = {}  # MessageId -> what became of it
        self._ids = {}  # receipt -> MessageId

    def __call__(self, environ, start_response):
        if environ["PATH_INFO"] == PATH:
            start_response("200 OK", [("Content-Type", "application/json")])
            with self._lock:
                return [json.dumps({"messages": self._messages}).encode()]
        service, _, operation = environ.get("HTTP_X_AMZ_TARGET", "").partition(".")
        if service != "AmazonSQS":
            return self._app(environ, start_response)
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        environ["wsgi.input"] = io.BytesIO(body)
        status = []

        def hear(line, headers, exc_info=None):
            status.append(line)
            return start_response(line, headers, exc_info)

        answer = b"".join(self._app(environ, hear))
        if status[0].startswith("200"):
            with self._lock:
                self._count(operation, json.loads(body), json.loads(answer) if answer else {})
        return [answer]

    def _count(self, operation, asked, told):
        queue = asked.get("QueueUrl", "").rpartition("/")[2]
        if operation == "SendMessage":
            # Handed out between our two locks: its entry is there already.
            entry = self._entry(told["MessageId"])
            entry.update(queue=queue, body=asked["MessageBody"], delayed=bool(asked.get("DelaySeconds")))
        elif operation == "ReceiveMessage":
            for message in told.get("Messages", []):
                self._ids[message["ReceiptHandle"]] = message["MessageId"]
                received = self._entry(message["MessageId"])["received"]
                received[queue] = received.get(queue, 0) + 1
        elif operation == "DeleteMessage":
            if asked["ReceiptHandle"] in self._ids:
                self._entry(self._ids[asked["ReceiptHandle"]])["deleted"] = True
        elif operation in {"SendMessageBatch", "DeleteMessageBatch"}:
            raise NotImplementedError(f"{operation} is not counted yet")

    def _entry(self, ident):
        return self._messages.setdefault(ident, {"received": {}, "deleted": False})
