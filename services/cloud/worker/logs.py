"""JSON log lines on stderr, each with ``scan_id``, ``stage`` and ``attempt`` where they are known.

What a scanner or an archive wrote never reaches a log line: neither object keys nor message bodies nor the
text of an error that is not ours (libraries put names into theirs), only its type and where it was raised.
"""

from __future__ import annotations

import logging
import sys
import traceback
from pathlib import Path
from typing import Any

import structlog

from ...contract.codes import MrireconError


def configure(stage: str, level: str = "INFO") -> None:
    """Set logging of this process up. Other libraries' loggers are held to warnings without their text."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level]),
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
        cache_logger_on_first_use=False,
    )
    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(stage=stage)
    logging.basicConfig(handlers=[_Foreign()], level=logging.WARNING, force=True)


def get() -> Any:
    """Return the logger."""
    return structlog.get_logger()


def bind(**values: Any) -> None:
    """Add values to every following line of this thread (``scan_id=…, attempt=…``)."""
    structlog.contextvars.bind_contextvars(**values)


def unbind(*names: str) -> None:
    """Take values out of the following lines again."""
    structlog.contextvars.unbind_contextvars(*names)


def describe(error: BaseException) -> dict[str, Any]:
    """Return what may be logged of an error: our own code and sentence, or a type and a place."""
    if isinstance(error, MrireconError):
        return {"code": error.code.value, "reason": error.message}
    frames = traceback.extract_tb(error.__traceback__)
    return {
        "error": type(error).__name__,
        "where": [f"{Path(frame.filename).name}:{frame.lineno}" for frame in frames[-6:]],
    }


class _Foreign(logging.Handler):
    """Logs of libraries: who and how bad, never what they say."""

    def emit(self, record: logging.LogRecord) -> None:
        get().warning("library", library=record.name, severity=record.levelname.lower())
