"""A worker's settings: typed, from the environment, and checked against the world before any work.

Whatever is wrong ends the process at its start with one sentence a fault and exit code 2.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Self

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from ...contract import environment as env

EXIT_SETTINGS = 2


class SettingsError(Exception):
    """What is wrong with the settings: one sentence each."""

    def __init__(self, sentences: list[str]) -> None:
        super().__init__(*sentences)
        self.sentences = sentences


def _named(name: str, **limits: Any) -> Any:
    return Field(validation_alias=name, min_length=1, **limits)


def _or(name: str, default: Any, **limits: Any) -> Any:
    return Field(default, validation_alias=name, **limits)


class WorkerSettings(BaseSettings):
    """What both workers need. Attributes are named as the variables of the contract; times in seconds."""

    model_config = SettingsConfigDict(extra="ignore", frozen=True, env_ignore_empty=True)

    raw_bucket: str = _named(env.RAW_BUCKET)
    kspace_bucket: str = _named(env.KSPACE_BUCKET)
    quarantine_bucket: str = _named(env.QUARANTINE_BUCKET)
    ledger_table: str = _named(env.LEDGER_TABLE)
    scratch_dir: Path = _or(env.SCRATCH_DIR, Path("/tmp"))  # noqa: S108 (a container's own)
    heartbeat_file: Path | None = _or(env.HEARTBEAT_FILE, None)
    ecs_agent: str = _or("ECS_AGENT_URI", "")

    recon_stat_queue_url: str = _named(env.RECON_STAT_QUEUE_URL)
    recon_routine_queue_url: str = _named(env.RECON_ROUTINE_QUEUE_URL)

    visibility_seconds: int = _or(env.VISIBILITY_SECONDS, 120, ge=1, le=43200)
    drain_seconds: float = _or(env.DRAIN_SECONDS, 100, ge=0)
    idle_seconds: float = _or(env.IDLE_SECONDS, 0, ge=0)
    lifetime_seconds: float = _or(env.LIFETIME_SECONDS, 0, ge=0)
    scan_seconds: float = _or(env.SCAN_SECONDS, 4 * 3600, ge=0, le=11 * 3600)
    silence_seconds: float = _or(env.SILENCE_SECONDS, 900, ge=0)
    poll_seconds: float = _or(env.POLL_SECONDS, 10, ge=0, le=20)
    settle_seconds: float = _or(env.SETTLE_SECONDS, 900, ge=0, le=43200)
    retry_seconds: float = _or(env.RETRY_SECONDS, 15, ge=0)
    spot_notice: bool = _or(env.SPOT_NOTICE, False)
    price_per_hour: float | None = _or(env.PRICE_PER_HOUR, None, ge=0)

    @field_validator("scratch_dir")
    @classmethod
    def _writable(cls, folder: Path) -> Path:
        if not folder.is_dir() or not os.access(folder, os.W_OK):
            raise ValueError("must be a folder that this process may write to")
        return folder

    @classmethod
    def load(cls) -> Self:
        """Read the environment.

        Raises
        ------
        SettingsError
            With one sentence for each variable that is missing or wrong; values are not repeated.
        """
        try:
            return cls()
        except ValidationError as error:
            raise SettingsError([_sentence(fault) for fault in error.errors(include_input=False)]) from None


class DecompressSettings(WorkerSettings):
    """Of the decompress worker: it reads its own lanes and writes to those of the reconstruction."""

    stat_queue_url: str = _named(env.DECOMPRESS_STAT_QUEUE_URL)
    routine_queue_url: str = _named(env.DECOMPRESS_ROUTINE_QUEUE_URL)
    dead_letter_queue_url: str | None = _or(env.DECOMPRESS_DEAD_LETTER_QUEUE_URL, None)


class ReconSettings(WorkerSettings):
    """Of the reconstruction worker."""

    images_bucket: str = _named(env.IMAGES_BUCKET)
    lustre_mount: Path | None = _or(env.LUSTRE_MOUNT, None)
    require_gpu: bool = _or(env.REQUIRE_GPU, False)
    dead_letter_queue_url: str | None = _or(env.RECON_DEAD_LETTER_QUEUE_URL, None)


def _sentence(fault: Any) -> str:
    name = str(fault["loc"][0]) if fault["loc"] else "The settings"
    if fault["type"] == "missing":
        return f"{name} is not set; the worker cannot start without it."
    reason = str(fault["msg"]).removeprefix("Value error, ")
    return f"{name} is wrong: {reason[:1].lower()}{reason[1:]}."
