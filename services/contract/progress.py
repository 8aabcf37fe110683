"""How a stage tells how far it is."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Called by a stage as it goes on.

    ``stage`` is one word (``read``, ``sort``, ``train`` …), ``fraction`` how much of that stage is done
    (0 to 1), ``message`` a short phrase without patient data.
    """

    def __call__(self, stage: str, fraction: float, message: str = "", /) -> None:
        """Tell how far ``stage`` is."""
        ...


def silent(stage: str, fraction: float, message: str = "", /) -> None:
    """Tell nobody."""
