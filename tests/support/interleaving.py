"""Random interleavings of workers, deaths, errors, duplicates and time, on the adapters in memory.

Each worker runs in a thread of its own but only when the machine says so, up to its next operation: so two
workers may stand anywhere between any two operations, as on two machines.
"""

import contextlib
import json
import tempfile
import threading
from pathlib import Path

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from mrirecon.cloud.stages.decompress_handler import IntakeHandler
from mrirecon.cloud.stages.recon_handler import ImagingHandler
from mrirecon.cloud.worker.hold import Drain
from mrirecon.cloud.worker.loop import Times, Worker, logs
from mrirecon.contract.codes import Code, RetryableError
from mrirecon.contract.keys import Priority
from mrirecon.contract.states import ENDED, State
from tests.support import small_stages
from tests.support.cloud_world import make_tar, scan_of
from tests.support.memory_cloud import Clock, MemoryLedger, MemoryQueue, MemoryStore

LEASE = 10.0  # the memory queue hides a received message as long


class Died(BaseException):
    """The worker's process is gone."""


class Inline:
    """A supervisor that runs the stage in place."""

    def __init__(self, work):
        self._work = work

    def run(self, job, check=lambda: None):
        check()
        return self._work(job, lambda *_: None)


class Actor:
    """One worker doing one message, a step at a time."""

    def __init__(self, machine, stage):
        self.stage, self.machine = stage, machine
        self.fate, self.finished, self.stands_before = None, False, ""
        self.drain = Drain(0)
        self.worker = machine.make_worker(stage, f"{stage}-{len(machine.actors)}", self.drain)
        self._go, self._stands = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        self._go.wait()
        self._go.clear()
        with contextlib.suppress(Died, ValueError):  # a bug outside the stage ends the process
            self.worker.step()
        self.finished = True
        self._stands.set()

    def pause(self):
        self._stands.set()
        self._go.wait()
        self._go.clear()
        fate, self.fate = self.fate, None
        if fate == "die":
            raise Died
        if fate == "error":
            raise RetryableError(Code.STORAGE, "An injected fault.")
        if fate == "bug":
            raise ValueError("DOE^JANE")

    def advance(self, fate=None):
        self.fate = fate
        self._stands.clear()
        with self.machine.acting(self):
            self._go.set()
            assert self._stands.wait(20), "a worker stands still"

    def holds_thread(self):
        return threading.current_thread() is self._thread


class Cloud(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        logs.configure("test", "CRITICAL")
        self.folder = tempfile.TemporaryDirectory()
        self.clock, self.actors, self.current = Clock(), [], None
        self.store = MemoryStore(self.clock, self.pause)
        self.ledger = MemoryLedger(self.clock, self.pause)
        self.lanes = {
            name: MemoryQueue(name, self.clock, self.pause)
            for name in ("d-stat", "d-routine", "r-stat", "r-routine")
        }
        self.archives, self.published = set(), {}

    def pause(self, operation):
        for actor in self.actors:
            if actor.holds_thread():
                actor.stands_before = operation
                actor.pause()

    @contextlib.contextmanager
    def acting(self, actor):
        self.current = actor
        yield
        self.current = None

    def make_worker(self, stage, owner, drain):
        common = {
            "store": self.store,
            "ledger": self.ledger,
            "owner": owner,
            "kspace_bucket": "kspace",
            "quarantine_bucket": "quarantine",
            "scratch": Path(self.folder.name),
        }
        if stage == "decompress":
            recon = {Priority.STAT: self.lanes["r-stat"], Priority.ROUTINE: self.lanes["r-routine"]}
            handler = IntakeHandler(
                **common, recon_lanes=recon, settle_seconds=30, supervisor=Inline(small_stages.decompress)
            )
        else:
            handler = ImagingHandler(
                **common, images_bucket="images", supervisor=Inline(small_stages.reconstruct)
            )
        lanes = [self.lanes[f"{stage[0]}-stat"], self.lanes[f"{stage[0]}-routine"]]
        return Worker(
            handler, lanes, self.ledger, drain=drain, times=Times(visibility=LEASE, total=0, poll=0)
        )

    def living(self):
        return [actor for actor in self.actors if not actor.finished]

    # what the world does

    @initialize(number=st.integers(1, 3))
    def begin(self, number):
        for content in range(number):
            Cloud.upload(self, f"scan {content}", "stat" if content == 2 else "routine", "")

    @rule(
        content=st.sampled_from(["scan 0", "scan 1", "few-acs"]),
        lane=st.sampled_from(["stat", "routine"]),
        flaw=st.sampled_from(["", "", "retryable", "cut", "no tar"]),
    )
    def upload(self, content, lane, flaw):
        body = make_tar(content.encode(), *([f"do-{flaw}"] if flaw == "retryable" else []))
        body = body[:700] if flaw == "cut" else (b"no tar " * 200 if flaw == "no tar" else body)
        key = f"incoming/a/{lane}/file{len(self.store.history) % 3}.tar"
        version = self.store.scanner_puts(key, body)
        self.archives.add(body)
        detail = {"bucket": {"name": "raw"}, "object": {"key": key, "version-id": version}}
        event = {"source": "aws.s3", "detail-type": "Object Created", "time": "2027-01-01T00:00:00Z"}
        self.announced = (lane, json.dumps({**event, "detail": detail}))
        Cloud.again(self)

    @precondition(lambda self: hasattr(self, "announced"))
    @rule()
    def again(self):
        self.lanes[f"d-{self.announced[0]}"].send(self.announced[1], group="a")

    @rule(lane=st.sampled_from(["d-stat", "d-routine", "r-stat", "r-routine"]))
    def queue_delivers_twice(self, lane):
        if messages := self.lanes[lane].messages:
            messages[0]["visible_at"] = 0  # shown again although another has it

    @rule(stage=st.sampled_from(["decompress", "recon"]))
    def a_worker_takes_a_message(self, stage):
        if len(self.living()) < 3:
            self.actors.append(Actor(self, stage))
            self.actors[-1].advance()

    @precondition(lambda self: self.living())
    @rule(data=st.data(), steps=st.integers(1, 12))
    def a_worker_goes_on(self, data, steps):
        actor = data.draw(st.sampled_from(range(len(self.living()))))
        actor = self.living()[actor]
        for _ in range(steps):
            if not actor.finished:
                actor.advance()

    @precondition(lambda self: self.living())
    @rule(data=st.data(), fate=st.sampled_from(["die", "error", "bug", "stop"]))
    def misfortune(self, data, fate):
        actor = self.living()[data.draw(st.sampled_from(range(len(self.living()))))]
        if fate == "stop":
            actor.drain.begin()
            actor.advance()
        else:
            actor.advance(fate)

    @rule(seconds=st.sampled_from([1, 4, 11, 40]))
    def time_passes(self, seconds):
        self.clock.time += seconds

    # what must hold

    @invariant()
    def what_is_published_never_changes(self):
        for _, key in [item for item in self.store.objects if len(item) == 2 and item[0] == "images"]:
            if key.endswith("scan.json"):
                self.published.setdefault(key, self._folder(key))
        for key, files in self.published.items():
            assert self._folder(key) == files

    def _folder(self, key):
        prefix = key.rpartition("/")[0]
        return {
            name[1]: found[1].etag
            for name, found in self.store.objects.items()
            if len(name) == 2 and name[0] == "images" and name[1].startswith(prefix)
        }

    def teardown(self):
        try:
            self._finish()
        finally:
            for actor in self.living():
                while not actor.finished:
                    actor.advance("die")
            self.folder.cleanup()

    def _finish(self):
        for actor in self.living():
            while not actor.finished:
                actor.advance()
        for number in range(400):
            if not any(lane.messages for lane in self.lanes.values()):
                break
            for stage in ("decompress", "recon"):
                while self.make_worker(stage, f"last-{number}", Drain(100)).step():
                    pass
            self.clock.time += 300
        assert not any(lane.messages for lane in self.lanes.values())
        self.what_is_published_never_changes()
        self._record_dead()
        for row in self.ledger.items.values():
            assert row.state in ENDED, row
        once = [end for end in self.ledger.ends if end[2] in {State.DONE, State.REJECTED}]
        assert len(once) == len({end[:2] for end in once})
        puts = [
            key for bucket, key, _ in self.store.history if bucket == "images" and key.endswith("scan.json")
        ]
        assert len(puts) == len(set(puts))
        for body in self.archives:
            self._ended_once(scan_of(body), puts)

    def _record_dead(self):
        """What DeadLetters does: a scan whose message is dead and that no one holds has failed."""
        if any(lane.dead for lane in self.lanes.values()):
            self.clock.time += 100
            for row in list(self.ledger.items.values()):
                if not row.ended:
                    self.ledger.fail(row, "worker_lost", "Lost in every try.")

    def _ended_once(self, scan, puts):
        rows, _ = self.ledger.scan(scan)
        ends = {row.sk.partition("#")[0]: row.state for row in rows}
        published = [key for key in puts if key.split("/")[1] == scan]
        dead = any(lane.dead for lane in self.lanes.values())
        if ends.get("recon") is State.DONE:
            assert len(published) == 1
            assert ends["intake"] in {State.DONE, State.FAILED}
        elif "recon" in ends or not ends or State.FAILED in ends.values():
            assert dead or ends.get("recon") is State.REJECTED
        else:
            assert ends["intake"] in {State.REJECTED, State.SUPERSEDED}
            assert published == []


class Publication(Cloud):
    """The same, from where one scan waits for its images: all interleavings go into who may publish."""

    upload = again = a_worker_takes_a_message = queue_delivers_twice = None

    @initialize()
    def begin(self):
        Cloud.upload(self, "scan 0", "routine", "")
        self.make_worker("decompress", "first", Drain(100)).step()

    @rule(wait=st.sampled_from([0, 0, 11]))
    def a_worker_takes_it(self, wait):
        """The message shows again, with the former worker's lease over or not."""
        self.clock.time += wait
        for item in self.lanes["r-routine"].messages:
            item.update(visible_at=0, receives=0)
        if len(self.living()) < 4:
            self.actors.append(Actor(self, "recon"))
            self.actors[-1].advance()

    @precondition(lambda self: self.living())
    @rule(which=st.integers(0, 3), operation=st.sampled_from(["upload", "put_if_absent", "renew", "release"]))
    def a_worker_goes_on_to(self, which, operation):
        """Up to just before its next operation of this kind."""
        actor = self.living()[which % len(self.living())]
        for _ in range(60):
            if actor.finished:
                return
            actor.advance()
            if actor.stands_before == operation:
                return


def take_over(scene):
    """Let the lease of whoever has the scan run out, and give its message to another worker."""
    Publication.a_worker_takes_it(scene, wait=LEASE + 1)
    return scene.actors[-1]


def go_to(actor, operation):
    while actor.stands_before != operation:
        assert not actor.finished, f"never came to {operation}"
        actor.advance()


def go_on(actor):
    while not actor.finished:
        actor.advance()


def records_in(scene):
    return [key for bucket, key, _ in scene.store.history if bucket == "images" and key.endswith("scan.json")]
