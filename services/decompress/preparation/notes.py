"""What an intake did and found odd, collected on the way for the k-space file."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class Notes:
    """History (steps in order, with their numbers) and warnings (sentences, none twice)."""

    history: list[dict[str, Any]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def did(self, step: str, **numbers: Any) -> None:
        """Add a step to the history. ``numbers`` are plain JSON values."""
        self.history.append({"step": step, **numbers})

    def warn(self, sentence: str) -> None:
        """Add a warning, unless it was given before."""
        if sentence not in self.warnings:
            self.warnings.append(sentence)
