"""Task protection and the spot notice, against a small HTTP stub of the ECS agent and of the metadata."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from mrirecon.cloud.worker.loop import Worker
from mrirecon.cloud.worker.protection import SpotNotice, TaskProtection
from tests.support.cloud_world import make_tar
from tests.support.waiting import wait_until


class Stub:
    def __init__(self):
        self.puts, self.looks, self.notice, self.status = [], 0, False, 200
        stub = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_):
                pass

            def do_PUT(self):
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                if self.path == "/latest/api/token":
                    self.answer(200, b"token")
                    return
                stub.puts.append((self.path, json.loads(body)))
                self.answer(stub.status, b"{}")

            def do_GET(self):
                stub.looks += 1
                known = self.headers.get("X-aws-ec2-metadata-token") == "token"
                there = known and stub.notice and self.path == "/latest/meta-data/spot/instance-action"
                self.answer(200 if there else 404, b'{"action": "terminate"}' if there else b"")

            def answer(self, status, body):
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def stub():
    made = Stub()
    yield made
    made.server.shutdown()
    made.server.server_close()


def test_a_scan_is_protected_while_it_is_worked_on_and_not_after(world, stub):
    world.put(make_tar(b"protected", "do-nap"))
    plain = world.worker("decompress")
    worker = Worker(
        plain.handler,
        plain._lanes,
        plain._ledger,
        drain=plain.drain,
        times=plain._times,
        protection=TaskProtection(stub.url),
    )
    assert worker.step()
    path = "/task-protection/v1/state"
    assert stub.puts[0] == (path, {"ProtectionEnabled": True, "ExpiresInMinutes": 1})
    assert stub.puts[-1] == (path, {"ProtectionEnabled": False})
    assert len(stub.puts) >= 3  # renewed by the heartbeat
    assert not worker.step()
    assert len([put for put in stub.puts if not put[1]["ProtectionEnabled"]]) == 1


def test_an_agent_that_refuses_or_is_not_there_stops_nothing(world, stub):
    stub.status = 500
    TaskProtection(stub.url).protect(60)
    TaskProtection("http://127.0.0.1:1").protect(60)
    TaskProtection("").protect(60)
    assert len(stub.puts) == 1


@pytest.mark.parametrize(("seconds", "minutes"), [(1, 1), (61, 2), (10**7, 2880)])
def test_the_agent_is_asked_for_whole_minutes_it_knows(stub, seconds, minutes):
    TaskProtection(stub.url).protect(seconds)
    assert stub.puts[0][1]["ExpiresInMinutes"] == minutes


def test_the_spot_notice_begins_the_drain(stub):
    told = threading.Event()
    watch = SpotNotice(told.set, endpoint=stub.url, every=0.05)
    assert not watch.noticed()
    watch.start()
    before = stub.looks
    wait_until(lambda: stub.looks >= before + 2)
    assert not told.is_set()
    stub.notice = True
    assert told.wait(10)
    watch.stop()
    assert not SpotNotice(told.set, endpoint="http://127.0.0.1:1").noticed()
