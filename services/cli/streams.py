"""Standard streams that may be closed, full or of any encoding; neither work nor exit codes depend on them.

A descriptor from 0 to 2 that is closed at the start would be taken by the next file that is opened, an
archive perhaps, and then be replaced by a child's pipe.  A write that fails halfway through a scan must not
end that scan.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO


class _Lasting:
    """A text stream whose failed writes are remembered and not raised; later ones go nowhere."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.failure: OSError | None = None

    def write(self, text: str) -> int:
        """Write ``text``, or drop it once a write has failed."""
        if self.failure is None:
            try:
                return self._stream.write(text)
            except OSError as error:
                self._fail(error)
        return len(text)

    def flush(self) -> None:
        """Flush, unless a write has failed."""
        if self.failure is None:
            try:
                self._stream.flush()
            except OSError as error:
                self._fail(error)

    def _fail(self, error: OSError) -> None:
        self.failure = error
        # What is still buffered would fail again when the interpreter ends.
        with suppress(OSError, ValueError):
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self._stream.fileno())
            os.close(null)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class Output:
    """What became of standard output."""

    def __init__(self, stdout: _Lasting) -> None:
        self._stdout = stdout

    @property
    def lost(self) -> bool:
        """Whether data could not be written; a reader that went away (``| head``) has lost nothing."""
        failure = self._stdout.failure
        return failure is not None and failure.errno != errno.EPIPE


def fill_standard_descriptors() -> None:
    """Open /dev/null on each of the descriptors 0, 1 and 2 that is closed."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)  # the lowest free number
            if opened != descriptor:
                os.dup2(opened, descriptor)
                os.close(opened)


@contextmanager
def lasting() -> Iterator[Output]:
    """Make ``sys.stdout`` and ``sys.stderr`` survive whatever they are connected to, until the block ends."""
    fill_standard_descriptors()
    before = sys.stdout, sys.stderr
    if sys.stdout is None or sys.stderr is None:  # how Python starts with a closed descriptor
        nowhere = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - as long as the process
        sys.stdout, sys.stderr = sys.stdout or nowhere, sys.stderr or nowhere
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    stdout, stderr = _Lasting(sys.stdout), _Lasting(sys.stderr)
    sys.stdout, sys.stderr = stdout, stderr
    try:
        yield Output(stdout)
    finally:
        stdout.flush()
        stderr.flush()
        sys.stdout, sys.stderr = before
