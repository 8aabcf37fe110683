"""What any ledger does: the same tests on DynamoDB (moto) and on the ledger in memory of the other tests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mrirecon.aws import client as aws
from mrirecon.aws.clock import ServerClock
from mrirecon.aws.ledger import DynamoLedger
from mrirecon.aws.ports import Claim, Ledger, Row
from mrirecon.contract import states
from mrirecon.contract.states import Stage, State, TimePoint
from tests.support.memory_cloud import Clock, MemoryLedger

SCAN = "0123456789abcdef"
PK, SK = states.scan_pk(SCAN), states.INTAKE_SK
LEASE = 30.0
_TABLES = count()


@dataclass
class Stand:
    """A ledger, and the clock it goes by."""

    ledger: Ledger
    clock: Clock

    def claim(self, owner: str = "a", **first: Any) -> Claim:
        taken = self.ledger.claim(PK, SK, owner, LEASE, **first)
        assert isinstance(taken, Claim)
        return taken

    def row(self, sk: str = SK) -> Row:
        row = self.ledger.get(PK, sk)
        assert row is not None
        return row

    def lose(self, claim: Claim, to: str = "b") -> Claim:
        """Let the lease run out and another owner take the item."""
        self.clock.time += LEASE + 1
        return self.claim(to)


def make(kind: str) -> Stand:
    clock = Clock()
    if kind == "memory":
        return Stand(MemoryLedger(clock, lambda _: None), clock)
    client = aws.client("dynamodb")
    table = f"ledger{next(_TABLES)}"
    keys = (states.PK, states.SK, states.STATE, states.UPDATED_AT)
    client.create_table(
        TableName=table,
        BillingMode="PAY_PER_REQUEST",
        AttributeDefinitions=[{"AttributeName": name, "AttributeType": "S"} for name in keys],
        KeySchema=[
            {"AttributeName": states.PK, "KeyType": "HASH"},
            {"AttributeName": states.SK, "KeyType": "RANGE"},
        ],
        GlobalSecondaryIndexes=[
            {
                "IndexName": states.BY_STATE,
                "Projection": {"ProjectionType": "ALL"},
                "KeySchema": [
                    {"AttributeName": states.STATE, "KeyType": "HASH"},
                    {"AttributeName": states.UPDATED_AT, "KeyType": "RANGE"},
                ],
            }
        ],
    )
    return Stand(DynamoLedger(client, table, ServerClock(clock.now)), clock)


@pytest.fixture(params=["dynamodb", "memory"])
def stand(emulated: None, request: pytest.FixtureRequest) -> Stand:
    return make(request.param)


def test_what_is_not_there_is_none(stand: Stand) -> None:
    assert stand.ledger.get(PK, SK) is None
    assert stand.ledger.scan(SCAN) == ([], [])


# claim


def test_the_first_claim_makes_the_item(stand: Stand) -> None:
    claim = stand.claim(site="north", tries=3)
    assert (claim.owner, claim.token, claim.known) == ("a", 1, {"site": "north", "tries": 3})
    assert stand.row() == Row(
        PK,
        SK,
        State.CLAIMED,
        token=1,
        owner="a",
        lease_until=stand.clock.time + LEASE,
        updated_at="2027-01-15T08:00:00.000+00:00",
        attributes={"site": "north", "tries": 3},
    )


def test_a_running_lease_keeps_others_away(stand: Stand) -> None:
    stand.claim("a")
    before = stand.row()
    stand.clock.time += LEASE  # it ends after this moment
    assert stand.ledger.claim(PK, SK, "b", LEASE, site="north") == before
    assert stand.row() == before


def test_a_lease_that_ran_out_is_anybodys(stand: Stand) -> None:
    first = stand.claim("a", site="north")
    second = stand.lose(first)
    assert (second.token, second.owner) == (2, "b")
    assert second.known == {"site": "north"}


def test_an_owner_may_claim_again(stand: Stand) -> None:
    """Its first answer was lost: it gets the item, under a newer token."""
    stand.claim("a")
    assert stand.claim("a").token == 2


def test_first_attributes_do_not_replace_what_is_there(stand: Stand) -> None:
    stand.ledger.release(stand.claim(site="north"), State.QUEUED)
    assert stand.claim(site="south", priority="stat").known == {"site": "north", "priority": "stat"}


@pytest.mark.parametrize("state", [State.QUEUED, State.WAITING, State.FAILED, State.SUPERSEDED])
def test_these_states_may_be_claimed(stand: Stand, state: State) -> None:
    stand.ledger.release(stand.claim(), state)
    assert stand.claim("b").token == 2


@pytest.mark.parametrize("state", [State.DONE, State.REJECTED])
def test_these_states_are_final(stand: Stand, state: State) -> None:
    stand.ledger.release(stand.claim(), state, code="x")
    ended = stand.row()
    assert ended.ended
    assert stand.ledger.claim(PK, SK, "b", LEASE) == ended
    assert stand.row() == ended


# what only the holder may do

CHANGES = {
    "renew": lambda ledger, claim: ledger.renew(claim, 99.0),
    "note": lambda ledger, claim: ledger.note(claim, site="south"),
    "release": lambda ledger, claim: ledger.release(claim, State.DONE, code="x"),
}


@pytest.fixture(params=sorted(CHANGES))
def change(request: pytest.FixtureRequest) -> Any:
    return CHANGES[request.param]


def test_another_owners_claim_is_not_changed(stand: Stand, change: Any) -> None:
    """Of all, ``release`` must not free what another owner took when the lease had run out."""
    stale = stand.claim("a")
    stand.lose(stale, to="b")
    before = stand.row()
    assert change(stand.ledger, stale) is False
    assert stand.row() == before
    assert (before.state, before.owner) == (State.CLAIMED, "b")


def test_the_token_decides_even_for_the_same_owner(stand: Stand, change: Any) -> None:
    stale = stand.claim("a")
    stand.claim("a")
    before = stand.row()
    assert change(stand.ledger, stale) is False
    assert stand.row() == before


def test_the_owner_decides_even_for_the_same_token(stand: Stand, change: Any) -> None:
    claim = stand.claim("a")
    before = stand.row()
    assert change(stand.ledger, replace(claim, owner="b")) is False
    assert stand.row() == before


def test_what_was_let_go_is_no_longer_held(stand: Stand, change: Any) -> None:
    claim = stand.claim("a")
    stand.ledger.release(claim, State.QUEUED)
    before = stand.row()
    assert change(stand.ledger, claim) is False
    assert stand.row() == before


def test_an_item_that_is_not_there_is_not_made(stand: Stand, change: Any) -> None:
    assert change(stand.ledger, Claim(PK, SK, "a", 1)) is False
    assert stand.ledger.get(PK, SK) is None


def test_a_lease_is_prolonged(stand: Stand) -> None:
    claim, before = stand.claim(), stand.row()
    stand.clock.time += LEASE + 5  # nobody took it meanwhile
    assert stand.ledger.renew(claim, LEASE) is True
    assert stand.row() == replace(before, lease_until=stand.clock.time + LEASE)


def test_attributes_are_noted(stand: Stand) -> None:
    claim, before = stand.claim(site="north"), stand.row()
    stand.clock.time += 1
    assert stand.ledger.note(claim, scan_id=SCAN, seconds=0.25, site="south") is True
    noted = {"site": "south", "scan_id": SCAN, "seconds": 0.25}
    assert stand.row() == replace(before, attributes=noted)


def test_a_claim_is_let_go_in_a_state(stand: Stand) -> None:
    claim, before = stand.claim(site="north"), stand.row()
    stand.clock.time += 1
    assert stand.ledger.release(claim, State.WAITING, code="incomplete") is True
    assert stand.row() == replace(
        before,
        state=State.WAITING,
        lease_until=0,
        updated_at="2027-01-15T08:00:01.000+00:00",
        attributes={"site": "north", "code": "incomplete"},
    )


def test_letting_go_twice_is_as_once(stand: Stand) -> None:
    """The answer to the first call was lost: the item is as the caller wants it."""
    claim = stand.claim()
    assert stand.ledger.release(claim, State.DONE) is True
    ended = stand.row()
    assert stand.ledger.release(claim, State.DONE) is True
    assert stand.ledger.release(claim, State.REJECTED) is False
    assert stand.row() == ended


# queue, fail, requeue, reopen


def test_queue_makes_an_item_once(stand: Stand) -> None:
    made = stand.ledger.queue(PK, SK, site="north")
    assert made == stand.row()
    assert (made.state, made.token, made.lease_until, made.attributes) == (
        State.QUEUED,
        0,
        0,
        {"site": "north"},
    )
    stand.clock.time += 1
    assert stand.ledger.queue(PK, SK, site="south") == made
    stand.claim()
    assert stand.ledger.queue(PK, SK).state is State.CLAIMED


def test_fail_records_the_end(stand: Stand) -> None:
    row = stand.ledger.queue(PK, SK, site="north")
    stand.clock.time += 1
    assert stand.ledger.fail(row, "worker_lost", "Lost.") is True
    assert stand.row() == replace(
        row,
        state=State.FAILED,
        updated_at="2027-01-15T08:00:01.000+00:00",
        attributes={"site": "north", "code": "worker_lost", "message": "Lost."},
    )


def test_fail_leaves_what_was_taken_since(stand: Stand) -> None:
    row = stand.ledger.queue(PK, SK)
    claim = stand.claim()
    assert stand.ledger.fail(row, "worker_lost", "Lost.") is False
    row = stand.row()
    stand.clock.time += 5.125
    stand.ledger.renew(claim, LEASE)
    assert stand.ledger.fail(row, "worker_lost", "Lost.") is False
    assert stand.row().state is State.CLAIMED


def test_fail_looks_at_state_and_lease_alone(stand: Stand) -> None:
    """An attribute that was noted since is no sign of life: its lease would have been prolonged."""
    claim = stand.claim()
    row = stand.row()
    stand.ledger.note(claim, scan_id=SCAN)
    assert stand.ledger.fail(row, "worker_lost", "Lost.") is True
    assert stand.row().get("scan_id") == SCAN


def test_fail_makes_no_item(stand: Stand) -> None:
    assert stand.ledger.fail(Row(PK, SK, State.QUEUED), "worker_lost", "Lost.") is False
    assert stand.ledger.get(PK, SK) is None


def test_only_what_failed_is_requeued(stand: Stand) -> None:
    assert stand.ledger.requeue(PK, SK) is False
    assert stand.ledger.get(PK, SK) is None
    row = stand.ledger.queue(PK, SK)
    assert stand.ledger.requeue(PK, SK) is False
    stand.ledger.fail(row, "worker_lost", "Lost.")
    stand.clock.time += 1
    failed = stand.row()
    assert stand.ledger.requeue(PK, SK, redriven_letter="1") is True
    assert stand.row() == replace(
        failed,
        state=State.QUEUED,
        updated_at="2027-01-15T08:00:01.000+00:00",
        attributes={**failed.attributes, "redriven_letter": "1"},
    )


def test_an_end_is_reopened_only_as_it_was_read(stand: Stand) -> None:
    stand.ledger.release(stand.claim(), State.DONE)
    ended = stand.row()
    assert stand.ledger.reopen(replace(ended, token=7)) is False
    assert stand.ledger.reopen(replace(ended, state=State.REJECTED)) is False
    stand.clock.time += 1
    assert stand.ledger.reopen(ended) is True
    assert stand.row() == replace(ended, state=State.QUEUED, updated_at="2027-01-15T08:00:01.000+00:00")
    assert stand.ledger.reopen(ended) is False


def test_what_nobody_claimed_is_not_reopened(stand: Stand) -> None:
    row = stand.ledger.queue(PK, SK)
    stand.ledger.fail(row, "worker_lost", "Lost.")
    assert stand.ledger.reopen(stand.row()) is False
    assert stand.row().state is State.FAILED


# attempts and listings


def test_attempts_are_appended_to_and_nothing_is_replaced(stand: Stand) -> None:
    ledger = stand.ledger
    ledger.attempt(SCAN, Stage.RECON, 2, owner="a", outcome="done")
    ledger.attempt(SCAN, Stage.RECON, 2, owner="b", seconds=1.5)
    ledger.point(SCAN, Stage.RECON, 2, TimePoint.PUBLISHED, "early")
    ledger.point(SCAN, Stage.RECON, 2, TimePoint.PUBLISHED, "late")
    _, attempts = ledger.scan(SCAN)
    assert attempts == [
        {
            "pk": PK,
            "sk": states.attempt_sk(Stage.RECON, 2),
            "owner": "a",
            "outcome": "done",
            "seconds": 1.5,
            "at_published": "early",
        }
    ]


def test_a_scan_is_its_items_and_attempts_in_the_order_of_their_keys(stand: Stand) -> None:
    ledger = stand.ledger
    ledger.queue(PK, states.recon_sk("bbbbbbbb"))
    ledger.queue(PK, states.recon_sk("aaaaaaaa"))
    ledger.queue(PK, SK)
    ledger.queue(states.scan_pk("f" * 16), SK)
    for stage, token in ((Stage.RECON, 1), (Stage.DECOMPRESS, 10), (Stage.DECOMPRESS, 2)):
        ledger.attempt(SCAN, stage, token, outcome="done")
    rows, attempts = ledger.scan(SCAN)
    assert [row.sk for row in rows] == [SK, states.recon_sk("aaaaaaaa"), states.recon_sk("bbbbbbbb")]
    assert [item["sk"] for item in attempts] == [
        states.attempt_sk(Stage.DECOMPRESS, 2),
        states.attempt_sk(Stage.DECOMPRESS, 10),
        states.attempt_sk(Stage.RECON, 1),
    ]


def test_rows_are_those_in_a_state_the_last_changed_first(stand: Stand) -> None:
    ledger = stand.ledger
    for number in range(5):
        stand.clock.time += 1
        ledger.queue(states.scan_pk(f"{number}"), SK)
    ledger.attempt(SCAN, Stage.RECON, 1, outcome="done")  # has no state
    stand.clock.time += 1
    taken = ledger.claim(states.scan_pk("1"), SK, "a", LEASE)
    assert isinstance(taken, Claim)
    stand.clock.time += 1
    ledger.claim(states.scan_pk("3"), SK, "a", LEASE)
    ledger.release(taken, State.QUEUED)
    assert [row.pk for row in ledger.rows(State.QUEUED)] == [states.scan_pk(n) for n in "1420"]
    assert [row.pk for row in ledger.rows(State.QUEUED, 2)] == [states.scan_pk(n) for n in "14"]
    assert [row.pk for row in ledger.rows(State.CLAIMED)] == [states.scan_pk("3")]
    assert ledger.rows(State.DONE) == []


# whatever is done to both, both tell the same

SKS = (SK, states.recon_sk("01234567"))
OWNERS = st.sampled_from("ab")
STEPS = st.one_of(
    st.tuples(st.just("pass"), st.sampled_from([1.0, LEASE, LEASE + 1, 0.123457])),
    st.tuples(st.just("claim"), st.sampled_from(SKS), OWNERS, st.sampled_from(["", "north", "south"])),
    st.tuples(st.just("renew"), st.integers(0, 9)),
    st.tuples(st.just("note"), st.integers(0, 9), st.sampled_from([1, 0.5, "text", None])),
    st.tuples(st.just("release"), st.integers(0, 9), st.sampled_from(State)),
    st.tuples(st.just("queue"), st.sampled_from(SKS)),
    st.tuples(st.just("read"), st.sampled_from(SKS)),
    st.tuples(st.just("fail"), st.integers(0, 9)),
    st.tuples(st.just("requeue"), st.sampled_from(SKS)),
    st.tuples(st.just("reopen"), st.integers(0, 9)),
    st.tuples(st.just("attempt"), st.sampled_from(Stage), st.integers(1, 2), st.integers(0, 3)),
)


def play(stand: Stand, steps: list[Any]) -> Iterator[Any]:
    """Do the steps; yield what each returns and all that can be read afterwards."""
    ledger = stand.ledger
    claims: list[Claim] = []
    rows: list[Row] = []
    for name, *what in steps:
        answer: Any = None
        with suppress(IndexError):  # no such claim or row yet
            if name == "pass":
                stand.clock.time += what[0]
            elif name == "claim":
                first = {"site": what[2]} if what[2] else {}
                answer = ledger.claim(PK, what[0], what[1], LEASE, **first)
                (claims if isinstance(answer, Claim) else rows).append(answer)
            elif name == "renew":
                answer = ledger.renew(claims[what[0]], LEASE)
            elif name == "note":
                answer = ledger.note(claims[what[0]], noted=what[1])
            elif name == "release":
                answer = ledger.release(claims[what[0]], what[1], code="x")
            elif name == "queue":
                answer = ledger.queue(PK, what[0], site="queued")
                rows.append(answer)
            elif name == "read":
                answer = ledger.get(PK, what[0])
                rows += [answer] if answer else []
            elif name == "fail":
                answer = ledger.fail(rows[what[0]], "worker_lost", "Lost.")
            elif name == "requeue":
                answer = ledger.requeue(PK, what[0])
            elif name == "reopen":
                answer = ledger.reopen(rows[what[0]])
            else:
                answer = ledger.attempt(SCAN, what[0], what[1], **{f"n{what[2]}": what[2]})
        yield name, answer, getattr(answer, "known", None), ledger.scan(SCAN)
    # of items changed at the same moment the index tells no order
    yield {state: sorted(ledger.rows(state), key=lambda row: row.sk) for state in State}


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(STEPS, max_size=25))
def test_both_ledgers_tell_the_same(emulated: None, steps: list[Any]) -> None:
    for of_dynamodb, of_memory in zip(
        play(make("dynamodb"), steps), play(make("memory"), steps), strict=True
    ):
        assert of_memory == of_dynamodb
