"""Object store, queue and ledger in memory, by the same rules as the real ones, on a clock that tests turn.

``pause`` is called before every operation: there an interleaving may switch to another worker.
"""

import hashlib
from dataclasses import replace
from itertools import count

from mrirecon.aws.clock import iso
from mrirecon.aws.ports import Claim, Message, ObjectInfo, Row
from mrirecon.contract import states
from mrirecon.contract.codes import Code, PermanentError
from mrirecon.contract.states import State


class Clock:
    def __init__(self):
        self.time = 1_800_000_000.0

    def now(self):
        return self.time


class MemoryStore:
    def __init__(self, clock, pause):
        self.objects, self.history, self.tagged = {}, [], set()
        self._clock, self._pause, self._numbers = clock, pause, count()

    def _put(self, bucket, key, body, metadata=None, version=None):
        info = ObjectInfo(
            len(body),
            hashlib.md5(body).hexdigest(),
            version,
            self._clock.now(),
            sha256=(metadata or {}).get("sha256"),
            metadata=metadata or {},
        )
        self.objects[bucket, key] = (body, info)
        self.objects[bucket, key, version] = (body, info)
        self.history.append((bucket, key, info.etag))

    def scanner_puts(self, key, body):
        version = f"v{next(self._numbers)}"
        self._put("raw", key, body, version=version)
        return version

    def head(self, bucket, key, version=None):
        self._pause("head")
        found = self.objects.get((bucket, key, version) if version else (bucket, key))
        return found[1] if found else None

    def download(self, bucket, key, path, info, check=lambda: None):
        self._pause("download")
        check()
        found = self.objects.get((bucket, key, info.version) if info.version else (bucket, key))
        if found is None:
            raise PermanentError(Code.GONE, "Gone.")
        path.write_bytes(found[0])
        return hashlib.sha256(found[0]).hexdigest()

    def upload(self, path, bucket, key, *, metadata=None, replace=None, check=lambda: None):
        self._pause("upload")
        check()
        there = self.objects.get((bucket, key))
        if (there is not None) if replace is None else (there is None or there[1].etag != replace):
            return False
        body = path.read_bytes()
        self._put(bucket, key, body, {**(metadata or {}), "sha256": hashlib.sha256(body).hexdigest()})
        return True

    def put_if_absent(self, bucket, key, body):
        self._pause("put_if_absent")
        if (bucket, key) in self.objects:
            return False
        self._put(bucket, key, body)
        return True

    def read(self, bucket, key):
        self._pause("read")
        found = self.objects.get((bucket, key))
        return found[0] if found else None

    def copy(self, source, bucket, key):
        self._pause("copy")
        found = self.objects.get(source if source[2] else source[:2])
        if found is None:
            raise PermanentError(Code.GONE, "Gone.")
        self._put(bucket, key, found[0])

    def tag_ended(self, bucket, key, version):
        self._pause("tag")
        self.tagged.add((bucket, key, version))


class MemoryQueue:
    def __init__(self, name, clock, pause, max_receives=4):
        self.name, self.max_receives = name, max_receives
        self.messages, self.dead = [], []
        self._clock, self._pause, self._numbers = clock, pause, count()

    def receive(self, wait):
        now = self._clock.now()
        for item in list(self.messages):
            if item["visible_at"] > now:
                continue
            if item["receives"] >= self.max_receives:
                self.messages.remove(item)
                self.dead.append(item)
                continue
            item.update(receives=item["receives"] + 1, visible_at=now + 10, receipt=next(self._numbers))
            return Message(item["id"], item["body"], str(item["receipt"]), item["receives"], item["group"])
        return None

    def _of(self, message):
        return next((item for item in self.messages if str(item["receipt"]) == message.receipt), None)

    def extend(self, message, seconds):
        self._pause("extend")
        item = self._of(message)
        if item is not None:
            item["visible_at"] = self._clock.now() + seconds
        return item is not None

    def delete(self, message):
        self._pause("delete")
        item = self._of(message)
        if item is not None:
            self.messages.remove(item)

    def send(self, body, *, group, delay=0):
        self._pause("send")
        self.messages.append(
            {
                "id": str(next(self._numbers)),
                "body": body,
                "receives": 0,
                "receipt": None,
                "visible_at": self._clock.now() + delay,
                "group": group,
            }
        )


class MemoryLedger:
    def __init__(self, clock, pause):
        self.clock, self._pause = clock, pause
        self.items, self.attempts, self.ends = {}, {}, []

    def get(self, pk, sk):
        self._pause("get")
        return self.items.get((pk, sk))

    def _set(self, row, **changes):
        fixed = {
            name: changes.pop(name) for name in ("state", "token", "owner", "lease_until") if name in changes
        }
        if "state" in fixed:
            fixed["updated_at"] = iso(self.clock.now())
        changed = replace(row, **fixed, attributes={**row.attributes, **changes})
        self.items[row.pk, row.sk] = changed
        if changed.ended and not row.ended:
            self.ends.append((row.pk, row.sk, changed.state))
        return changed

    def claim(self, pk, sk, owner, lease, **first):
        self._pause("claim")
        now = self.clock.now()
        row = self.items.get((pk, sk)) or Row(pk, sk, State.QUEUED)
        free = row.state in {State.QUEUED, State.WAITING, State.FAILED, State.SUPERSEDED} or (
            row.state is State.CLAIMED and (row.lease_until < now or row.owner == owner)
        )
        if not free:
            return row
        first = {name: value for name, value in first.items() if name not in row.attributes}
        row = self._set(
            row, state=State.CLAIMED, token=row.token + 1, owner=owner, lease_until=now + lease, **first
        )
        return Claim(pk, sk, owner, row.token, row.attributes)

    def _held(self, claim):
        row = self.items.get((claim.pk, claim.sk))
        same = row is not None and (row.token, row.owner) == (claim.token, claim.owner)
        return row if same and row.state is State.CLAIMED else None

    def renew(self, claim, lease):
        self._pause("renew")
        row = self._held(claim)
        if row is not None:
            self._set(row, lease_until=self.clock.now() + lease)
        return row is not None

    def note(self, claim, **attributes):
        self._pause("note")
        row = self._held(claim)
        if row is not None:
            self._set(row, **attributes)
        return row is not None

    def release(self, claim, state, **attributes):
        self._pause("release")
        row = self._held(claim)
        if row is not None:
            self._set(row, state=state, lease_until=0, **attributes)
            return True
        row = self.items.get((claim.pk, claim.sk))
        return row is not None and (row.token, row.owner, row.state) == (claim.token, claim.owner, state)

    def queue(self, pk, sk, **attributes):
        self._pause("queue")
        if (pk, sk) not in self.items:
            self._set(Row(pk, sk, State.QUEUED), state=State.QUEUED, **attributes)
        return self.items[pk, sk]

    def fail(self, row, code, message):
        there = self.items.get((row.pk, row.sk))
        if there is None or (there.state, there.lease_until) != (row.state, row.lease_until):
            return False
        self._set(there, state=State.FAILED, code=code, message=message, lease_until=0)
        return True

    def requeue(self, pk, sk, **attributes):
        row = self.items.get((pk, sk))
        if row is None or row.state is not State.FAILED:
            return False
        self._set(row, state=State.QUEUED, **attributes)
        return True

    def reopen(self, row):
        self._pause("reopen")
        there = self.items.get((row.pk, row.sk))
        # An item that nobody claimed has no token yet: the condition does not hold.
        if there is None or not there.token or (there.state, there.token) != (row.state, row.token):
            return False
        self._set(there, state=State.QUEUED)
        return True

    def attempt(self, scan_id, stage, token, **attributes):
        self._pause("attempt")
        key = (states.scan_pk(scan_id), states.attempt_sk(stage, token))
        keys = {states.PK: key[0], states.SK: key[1]}
        self.attempts[key] = {**attributes, **self.attempts.get(key, keys)}

    def point(self, scan_id, stage, token, point, at):
        self.attempt(scan_id, stage, token, **{f"at_{point.value}": at})

    def rows(self, state, limit=100):
        found = [row for row in self.items.values() if row.state is state]
        return sorted(found, key=lambda row: row.updated_at, reverse=True)[:limit]

    def scan(self, scan_id):
        pk = states.scan_pk(scan_id)
        rows = [row for key, row in sorted(self.items.items()) if key[0] == pk]
        return rows, [item for key, item in sorted(self.attempts.items()) if key[0] == pk]
