"""What a simulated day is made of: the scanners, the two stages' machines and the ways to scale them.

Times are in seconds. Prices are relative: machine-seconds of a stage times its ``price``; only ratios mean
anything until a user puts in what a machine costs. The defaults are assumptions, not measurements of any
hospital: put in your own (``docs/scaling.md``).
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Final, Self, TypeVar

from ..contract.scaling import DECOMPRESS, RECON, RECON_IDLE_SECONDS, Policy, PolicyError

HOSPITAL_DAY: Final = (
    0.15,
    0.10,
    0.10,
    0.10,
    0.10,
    0.20,
    0.60,
    1.60,
    2.40,
    2.60,
    2.60,
    2.40,
    1.90,
    2.20,
    2.40,
    2.30,
    2.00,
    1.60,
    1.20,
    0.90,
    0.60,
    0.40,
    0.30,
    0.20,
)
"""Relative number of examinations begun in each hour of a hospital's day, all sites in one time zone."""


T = TypeVar("T")


class ConfigError(ValueError):
    """The configuration of a simulation is not one. The sentence names the field."""


@dataclass(frozen=True, kw_only=True)
class Day:
    """The scanners and how they send.

    Attributes
    ----------
    scanners, scans_per_scanner
        Number of scanners, and mean number of scans each sends in the day.
    exam_scans, exam_seconds
        Mean scans of one examination, and how long one takes.
    burst_share
        Share of examinations whose scans all arrive together at the end; those of the others arrive one
        by one, as they are measured.
    stat_share
        Share of examinations sent to the stat lane.
    profile
        24 relative weights of the hours.
    """

    scanners: int = 100
    scans_per_scanner: float = 40.0
    exam_scans: float = 5.0
    exam_seconds: float = 1500.0
    burst_share: float = 0.3
    stat_share: float = 0.05
    profile: tuple[float, ...] = HOSPITAL_DAY
    seed: int = 1

    def __post_init__(self) -> None:
        _require(self.scanners >= 1, "day.scanners", "1 or more")
        _require(self.scans_per_scanner > 0, "day.scans_per_scanner", "above 0")
        _require(self.exam_scans >= 1, "day.exam_scans", "1 or more")
        _require(self.exam_seconds > 0, "day.exam_seconds", "above 0")
        _require(0 <= self.burst_share <= 1, "day.burst_share", "between 0 and 1")
        _require(0 <= self.stat_share <= 1, "day.stat_share", "between 0 and 1")
        _require(
            len(self.profile) == 24 and min(self.profile) >= 0 and sum(self.profile) > 0,
            "day.profile",
            "24 weights, none below 0 and not all 0",
        )


@dataclass(frozen=True, kw_only=True)
class Machines:
    """The machines of one stage, as they are in truth (a policy only estimates them).

    Attributes
    ----------
    scan_seconds, scan_spread
        Mean and coefficient of variation of the (log-normal) time a scan takes.
    boot_low, boot_high
        A boot takes between these, all equally likely; it is paid for.
    stop_seconds
        Paid after the worker has left, until the machine is gone.
    idle_seconds
        A worker leaves when it has had nothing to do for this long (Batch); 0: it never leaves by itself,
        the scaler takes it away (Fargate).
    reclaims_per_hour
        Chance per machine and hour that the provider takes it back (Spot), its scan begun anew elsewhere.
    price
        Relative price of one machine-second.
    policy
        How the scaler scales this stage.
    """

    scan_seconds: float
    scan_spread: float = 0.6
    boot_low: float
    boot_high: float
    stop_seconds: float = 0.0
    idle_seconds: float = 0.0
    reclaims_per_hour: float = 0.0
    price: float = 1.0
    policy: Policy

    def __post_init__(self) -> None:
        _require(isinstance(self.policy, Policy), "policy", "a table")
        _require(self.scan_seconds > 0, "scan_seconds", "above 0")
        _require(self.scan_spread >= 0, "scan_spread", "0 or more")
        _require(0 <= self.boot_low <= self.boot_high, "boot_low", "0 or more and not above boot_high")
        _require(self.stop_seconds >= 0, "stop_seconds", "0 or more")
        _require(self.idle_seconds >= 0, "idle_seconds", "0 or more")
        _require(self.reclaims_per_hour >= 0, "reclaims_per_hour", "0 or more")
        _require(self.price > 0, "price", "above 0")


PLENTY: Final = 5000
"""Workers the simulation allows a stage unless told otherwise: it is to show what a day wants."""


def fargate() -> Machines:
    """Return the decompress stage's default machines."""
    return Machines(
        scan_seconds=30.0,
        boot_low=60.0,
        boot_high=120.0,
        price=1.0,
        policy=replace(DECOMPRESS, max_workers=PLENTY),
    )


def gpu_spot() -> Machines:
    """Return the reconstruct stage's default machines."""
    return Machines(
        scan_seconds=90.0,
        boot_low=240.0,
        boot_high=360.0,
        stop_seconds=60.0,
        idle_seconds=RECON_IDLE_SECONDS,
        price=5.0,
        policy=replace(RECON, max_workers=PLENTY),
    )


@dataclass(frozen=True, kw_only=True)
class Config:
    """One simulated day.

    ``tick_seconds`` is the scaler's beat; ``policies`` names what is compared (see ``controllers.py``).
    """

    day: Day = field(default_factory=Day)
    decompress: Machines = field(default_factory=fargate)
    recon: Machines = field(default_factory=gpu_spot)
    tick_seconds: float = 60.0
    policies: tuple[str, ...] = ("clairvoyant", "scaler", "target-tracking", "tuned-tracking", "fixed")

    def __post_init__(self) -> None:
        _require(self.tick_seconds > 0, "tick_seconds", "above 0")

    @classmethod
    def from_toml(cls, path: Path) -> Self:
        """Read a configuration; what the file does not name has its default.

        Tables ``[day]``, ``[decompress]``, ``[recon]`` and ``[decompress.policy]``, ``[recon.policy]`` hold
        the fields of :class:`Day`, :class:`Machines` and :class:`~mrirecon.contract.scaling.Policy`.

        Raises
        ------
        ConfigError
            When the file is not TOML, or a field is unknown or out of its range.
        """
        try:
            values = tomllib.loads(path.read_text(encoding="utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"the configuration is not TOML: {error}.") from None
        except OSError as error:
            raise ConfigError(f"the configuration cannot be read: {error.strerror}.") from None
        config = cls()
        parts: dict[str, Any] = {}
        for name, value in values.items():
            table = name in {"day", "decompress", "recon"}
            if table != isinstance(value, dict):
                raise ConfigError(f"{name} is {'a table' if table else 'no table'} of the configuration.")
            parts[name] = changed(getattr(config, name), name, **value) if table else value
        return changed(config, **parts)


def changed(base: T, table: str = "", /, **values: Any) -> T:
    """Return dataclass ``base`` with fields replaced, nested policies too.

    Raises
    ------
    ConfigError
        Naming the table and field that is unknown or wrong.
    """
    known = {item.name for item in fields(base)}  # type: ignore[arg-type]
    where = f"[{table}] " if table else ""
    for name in values:
        if name not in known:
            raise ConfigError(f"{where}{name} is no field; known are {', '.join(sorted(known))}.")
    if isinstance(values.get("policy"), Mapping):
        now: Any = base
        values["policy"] = changed(now.policy, f"{table}.policy", **values["policy"])
    for name in ("profile", "policies"):
        if isinstance(values.get(name), list):
            values[name] = tuple(values[name])
    try:
        return replace(base, **values)  # type: ignore[type-var]
    except (ConfigError, PolicyError) as error:
        raise ConfigError(f"{where}{error}") from None
    except TypeError:
        raise ConfigError(f"{where}a field has a value of another type than expected.") from None


def _require(holds: bool, name: str, expected: str) -> None:
    if not holds:
        raise ConfigError(f"{name} must be {expected}.")
