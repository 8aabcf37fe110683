"""Folders on the scratch disk, one a scan, that a later worker can tell from what a killed one left."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_PREFIXES = ("intake-", "recon-")


@contextmanager
def scratch_folder(scratch: Path, prefix: str) -> Iterator[Path]:
    """Make a folder for one scan, locked while it is in use, and remove it.

    The lock is the kernel's: it ends with the process however that ends, and holds between containers that
    share a host's disk, where process numbers say nothing.
    """
    with tempfile.TemporaryDirectory(dir=scratch, prefix=prefix) as folder:
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(lock, fcntl.LOCK_SH)
            yield Path(folder)
        finally:
            os.close(lock)


def clean_scratch(scratch: Path) -> None:
    """Remove what killed workers left on this scratch disk; what a living one uses stays."""
    for folder in (path for prefix in _PREFIXES for path in scratch.glob(f"{prefix}*")):
        with contextlib.suppress(OSError):  # removed by its owner meanwhile, or locked by it
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(lock)
