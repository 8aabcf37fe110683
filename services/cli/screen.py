"""What a person sees while a scan is worked on: a bar on a terminal, a line a stage otherwise. On stderr."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from ..contract.progress import Progress

STAGES = {
    "simulate": "Acquiring the demo scan",
    "unpack": "Reading the archive",
    "read": "Reading the raw data",
    "sort": "Whitening, sorting k-space",
    "reconstruct": "Reconstructing",
    "choose": "Choosing the method",
    "train": "Training the networks",
    "interpolate": "Filling k-space",
    "noise": "Mapping the noise",
    "write": "Writing the images",
}
"""Words for the stages the rooms report; a stage that is not here shows its own name."""


class _Lines:
    """A line when a stage first begins; nothing moves, so logs stay readable."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._begun: set[str] = set()

    def __call__(self, stage: str, fraction: float, message: str = "", /) -> None:
        words = STAGES.get(stage, stage)
        if words not in self._begun:
            self._begun.add(words)
            print(f"{self._title}: {words}", file=sys.stderr, flush=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass


def say(sentence: str, indent: str = "") -> None:
    """Print a sentence to stderr: between words on a terminal, in one line elsewhere, where tools read it."""
    if sys.stderr.isatty():
        width = max(40, shutil.get_terminal_size().columns - 1)
        sentence = textwrap.fill(
            sentence,
            width,
            initial_indent=indent,
            subsequent_indent=indent or "  ",
            break_long_words=False,
            break_on_hyphens=False,
        )
    else:
        sentence = indent + sentence
    print(sentence, file=sys.stderr, flush=True)


@contextmanager
def progress(title: str) -> Iterator[Progress]:
    """Show the progress of one scan, called ``title``, while the block runs."""
    if not sys.stderr.isatty():
        with _Lines(title) as lines:
            yield lines
        return
    from rich.console import Console
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars

    columns = (
        TextColumn("{task.description:<26}"),
        BarColumn(bar_width=32),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("[dim]{task.fields[message]}"),
    )
    console = Console(stderr=True)
    console.print(f"[bold]{title}[/bold]", highlight=False)
    with Bars(*columns, console=console) as bars:
        tasks: dict[str, object] = {}
        current = ""

        def show(stage: str, fraction: float, message: str = "", /) -> None:
            nonlocal current
            words = STAGES.get(stage, stage)
            if words not in tasks:
                tasks[words] = bars.add_task(words, total=1.0, message="")
            if current and current != words:
                bars.update(tasks[current], completed=1.0, message="")  # type: ignore[arg-type]
            current = words
            bars.update(tasks[words], completed=fraction, message=message)  # type: ignore[arg-type]

        yield show
        if current:
            bars.update(tasks[current], completed=1.0, message="")  # type: ignore[arg-type]
