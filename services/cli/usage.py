"""What is wrong with a call before any scan is looked at: exit code 2, no scan is rejected."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

from .exits import Exit


def missing(paths: Iterable[Path]) -> str | None:
    """Return a sentence where nothing lies at one of the paths."""
    for number, path in enumerate(paths, 1):
        try:
            there = path.exists()
        except OSError:
            continue  # it may be there: reading it says more
        if not there:
            return (
                f"there is nothing at path {number} of the call. Check the path, and that its disk or share "
                "is connected."
            )
    return None


def no_device(name: str) -> str | None:
    """Return a sentence where the device asked for is not here."""
    if name != "cuda":
        return None
    import torch

    if torch.cuda.is_available():
        return None
    return "there is no CUDA device here; take --device auto or cpu."


def error(message: str) -> int:
    """Say what is wrong with the call, and return the exit code."""
    print(f"mrirecon: {message}", file=sys.stderr)
    return Exit.USAGE
