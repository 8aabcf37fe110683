"""What the stacks tell the scaler, read once at start."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from mrirecon.contract import environment as names
from mrirecon.contract.scaling import Policy, PolicyError
from mrirecon.contract.states import Stage


@dataclass(frozen=True)
class StageSettings:
    """One stage: its lanes (stat, routine), its dead letters, how it is scaled."""

    stage: Stage
    lanes: tuple[str, str]
    dead_letters: str
    policy: Policy


@dataclass(frozen=True)
class Settings:
    """All of it."""

    decompress: StageSettings
    recon: StageSettings
    cluster: str
    service: str
    job_queue: str
    job_definition: str
    table: str
    spacing: float

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Self:
        """Read the environment.

        Raises
        ------
        SettingError
            Naming the variable that is missing or wrong.
        """

        def stage(which: Stage, stat: str, routine: str, dead: str, scaling: str) -> StageSettings:
            try:
                policy = Policy.from_json(names.required(environ, scaling))
            except PolicyError as error:
                raise names.SettingError(
                    f"The environment variable {scaling} is no policy: {error}"
                ) from None
            urls = names.required(environ, stat), names.required(environ, routine)
            return StageSettings(which, urls, names.required(environ, dead), policy)

        return cls(
            decompress=stage(
                Stage.DECOMPRESS,
                names.DECOMPRESS_STAT_QUEUE_URL,
                names.DECOMPRESS_ROUTINE_QUEUE_URL,
                names.DECOMPRESS_DEAD_LETTER_QUEUE_URL,
                names.DECOMPRESS_SCALING,
            ),
            recon=stage(
                Stage.RECON,
                names.RECON_STAT_QUEUE_URL,
                names.RECON_ROUTINE_QUEUE_URL,
                names.RECON_DEAD_LETTER_QUEUE_URL,
                names.RECON_SCALING,
            ),
            cluster=names.required(environ, names.ECS_CLUSTER),
            service=names.required(environ, names.ECS_SERVICE),
            job_queue=names.required(environ, names.BATCH_JOB_QUEUE),
            job_definition=names.required(environ, names.BATCH_JOB_DEFINITION),
            table=names.required(environ, names.LEDGER_TABLE),
            spacing=names.seconds(environ, names.SCALER_SPACING_SECONDS, 20.0),
        )
