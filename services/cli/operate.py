"""``mrirecon status``, ``queues``, ``submit``, ``redrive``: the operator's side of the cloud."""

from __future__ import annotations

import json
import sys
import time
from argparse import ArgumentParser, Namespace
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..contract.codes import End, MrireconError
from ..contract.keys import Priority
from ..contract.states import Stage, State
from .exits import Exit, gravest

if TYPE_CHECKING:
    from ..cloud.operators.operator import Operator, QueueStatus, ScanStatus

_COLOURS = {
    State.DONE.value: "green",
    State.REJECTED.value: "yellow",
    State.FAILED.value: "red",
    State.CLAIMED.value: "cyan",
}


def register_status(parser: ArgumentParser) -> None:
    """Add the arguments of ``mrirecon status``."""
    parser.add_argument("scan_id", nargs="?", metavar="SCAN_ID", help="one scan (default: the latest ones)")
    parser.add_argument("--limit", type=int, default=50, metavar="N", help="at most so many rows (50)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(command=guarded(_status))


def register_queues(parser: ArgumentParser) -> None:
    """Add the arguments of ``mrirecon queues``."""
    parser.add_argument("--watch", action="store_true", help="refresh until interrupted")
    parser.add_argument("--every", type=float, default=2.0, metavar="S", help="seconds between refreshes (2)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(command=guarded(_queues))


def register_submit(parser: ArgumentParser) -> None:
    """Add the arguments of ``mrirecon submit``."""
    parser.add_argument("archive", type=Path, metavar="ARCHIVE", help="a tar of raw k-space")
    parser.add_argument("--site", required=True, help="whose scan it is: the folder of the raw bucket")
    parser.add_argument(
        "--priority",
        choices=[p.value for p in Priority],
        default=Priority.ROUTINE.value,
        help="stat goes first (routine)",
    )
    parser.add_argument("--no-wait", action="store_true", help="do not follow the scan to its end")
    parser.add_argument(
        "--timeout", type=float, default=0.0, metavar="S", help="follow no longer than this (no limit)"
    )
    parser.set_defaults(command=guarded(_submit))


def register_redrive(parser: ArgumentParser) -> None:
    """Add the arguments of ``mrirecon redrive``."""
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--reason", metavar="CODE", help="dead letters that failed by this code")
    which.add_argument("--scan", metavar="SCAN_ID", help="those of one scan")
    which.add_argument("--all", action="store_true", help="all of them")
    parser.add_argument("--stage", choices=[stage.value for stage in Stage], help="of one stage only (both)")
    parser.set_defaults(command=guarded(_redrive))


def guarded(work: Any) -> Any:
    """Return the command that calls ``work(operator, arguments)`` and says our errors in a sentence."""

    def command(arguments: Namespace) -> int:
        from ..cloud.operators.operator import Operator

        try:
            return int(work(Operator(), arguments))
        except MrireconError as error:
            print(f"mrirecon: {error.message}", file=sys.stderr)
            return Exit.USAGE if error.end is End.REJECTED else Exit.FAILED

    return command


def _status(operator: Operator, arguments: Namespace) -> int:
    rows = operator.status(arguments.scan_id, limit=arguments.limit)
    if arguments.json:
        shown = [asdict(row) for row in rows]
        if arguments.scan_id:
            print(json.dumps({"rows": shown, "attempts": operator.attempts(arguments.scan_id)}, default=str))
        else:
            print(json.dumps(shown, default=str))
        return Exit.OK
    if not rows:
        print("no scan of that id" if arguments.scan_id else "no scans yet", file=sys.stderr)
        return Exit.FAILED if arguments.scan_id else Exit.OK
    _print(scan_table(rows))
    if arguments.scan_id:
        for row in rows:
            if row.message and row.state != State.DONE.value:
                print(f"{row.stage}: {row.message}")
        _print(_attempt_table(operator.attempts(arguments.scan_id)))
    return Exit.OK


def _queues(operator: Operator, arguments: Namespace) -> int:
    if not arguments.watch:
        told = operator.queues()
        if arguments.json:
            print(json.dumps([asdict(queue) for queue in told]))
        else:
            _print(queue_table(told))
        return Exit.OK
    from rich.console import Console, Group
    from rich.live import Live

    with Live(console=Console(), auto_refresh=False, screen=sys.stdout.isatty()) as live:
        while True:
            view = Group(queue_table(operator.queues()), scan_table(operator.status(limit=20)))
            live.update(view, refresh=True)
            time.sleep(arguments.every)


def _submit(operator: Operator, arguments: Namespace) -> int:
    priority = Priority(arguments.priority)
    timeout = None if arguments.no_wait else arguments.timeout
    return send(operator, arguments.archive, site=arguments.site, priority=priority, timeout=timeout)


def send(operator: Operator, archive: Path, *, site: str, priority: Priority, timeout: float | None) -> int:
    """Submit an archive, print its id, follow it to its end and return the exit code.

    ``timeout`` is in seconds; 0: none; nothing: it is not followed.
    """
    sent = operator.submit(archive, site=site, priority=priority)
    print(sent.scan_id, flush=True)
    if timeout is None:
        return Exit.OK
    last = State.WAITING.value

    def tell(sentence: str) -> None:
        print(sentence, file=sys.stderr, flush=True)

    for row in operator.follow(sent.scan_id, timeout=timeout, notice=tell):
        why = f": {row.message}" if row.message and row.state != State.DONE.value else ""
        print(f"{row.updated_at[11:19]}  {row.stage:<10} {row.state}{why}", file=sys.stderr, flush=True)
        last = row.state
    ends = {State.DONE: End.DONE, State.REJECTED: End.REJECTED, State.FAILED: End.FAILED}
    return gravest([ends.get(State(last), End.INCOMPLETE)])


def _redrive(operator: Operator, arguments: Namespace) -> int:
    stage = Stage(arguments.stage) if arguments.stage else None
    moved = operator.redrive(reason=arguments.reason, scan_id=arguments.scan, stage=stage)
    for name, count in moved.items():
        print(f"{name:<12} {count} sent again")
    return Exit.OK


def scan_table(rows: list[ScanStatus]) -> Any:
    """Return the scans as a table for a terminal."""
    labelled = ["label"] if any(row.label for row in rows) else []
    table = _table("scan", *labelled, "site", "lane", "stage", "state", "why", "tries", "changed, UTC")
    for row in rows:
        colour = _COLOURS.get(row.state, "")
        state = f"[{colour}]{row.state}[/]" if colour else row.state
        table.add_row(
            row.scan_id or "not read yet",
            *([row.label] if labelled else []),
            row.site,
            row.priority,
            row.stage,
            state,
            row.code,
            str(row.tries),
            row.updated_at[5:16].replace("T", " "),
        )
    return table


def queue_table(queues: list[QueueStatus]) -> Any:
    """Return the queues as a table for a terminal."""
    table = _table("stage", "lane", "waiting", "in flight", "delayed", "held", "oldest", "dead")
    for queue in queues:
        for number, (lane, counts) in enumerate(queue.lanes.items()):
            first = number == 0
            age = "" if queue.oldest_seconds is None else f"{queue.oldest_seconds:.0f} s"
            dead = f"[red]{queue.dead_letters}[/]" if queue.dead_letters else "0"
            table.add_row(
                queue.stage if first else "",
                lane,
                *(str(counts[name]) for name in ("visible", "in_flight", "delayed")),
                str(queue.claimed) if first else "",
                age if first else "",
                dead if first else "",
            )
    return table


def _attempt_table(attempts: list[dict[str, Any]]) -> Any:
    table = _table("attempt", "time-point", "at (UTC)")
    for number, attempt in enumerate(attempts, 1):
        points = sorted((str(v), k[3:]) for k, v in attempt.items() if k.startswith("at_"))
        for line, (at, name) in enumerate(points):
            table.add_row(str(number) if line == 0 else "", name, at[:23].replace("T", " "))
    return table


def _table(*columns: str) -> Any:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for column in columns:
        table.add_column(column, no_wrap=column != "why")  # only the reason gives way on a narrow terminal
    return table


def _print(thing: Any) -> None:
    from rich.console import Console

    Console(soft_wrap=False).print(thing)
