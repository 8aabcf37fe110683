"""``mrirecon simulate``: a hospital's day with a user's own numbers. Nothing heavy is imported before."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from .config import Config, ConfigError, changed

DESCRIPTION = """Simulate a day of scans through both stages, with the very decision that scales the
pipeline, beside fixed capacity, target tracking and a clairvoyant lower bound. All numbers are assumptions
until you put in yours: by these flags, or by --config with every field there is (docs/scaling.md). Costs are
relative unless you give prices."""

_FLAGS: tuple[tuple[str, str, str, type, str], ...] = (
    ("--scanners", "day", "scanners", int, "number of scanners (100)"),
    ("--scans", "day", "scans_per_scanner", float, "mean scans a scanner and day (40)"),
    ("--stat-share", "day", "stat_share", float, "share of examinations sent as stat (0.05)"),
    ("--burst-share", "day", "burst_share", float, "share of examinations sent all at once (0.3)"),
    ("--seed", "day", "seed", int, "of the day (1)"),
    ("--decompress-seconds", "decompress", "scan_seconds", float, "mean time of a scan, first stage (30)"),
    ("--recon-seconds", "recon", "scan_seconds", float, "mean time of a scan, second stage (90)"),
    ("--decompress-price", "decompress", "price", float, "of a machine-second of the first stage (1)"),
    ("--recon-price", "recon", "price", float, "of a machine-second of the second stage (5)"),
    ("--reclaims", "recon", "reclaims_per_hour", float, "spot machines taken back an hour and machine (0)"),
)


def register(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to ``parser``; ``parser``'s ``command`` default becomes :func:`run`."""
    parser.description = DESCRIPTION
    parser.add_argument(
        "--config", type=Path, metavar="TOML", help="read the day, the machines and the policies"
    )
    for flag, _, _, kind, words in _FLAGS:
        parser.add_argument(flag, type=kind, metavar="N", help=words)
    parser.add_argument("--max-workers", type=int, metavar="N", help="ceiling of workers of either stage")
    parser.add_argument(
        "--policy",
        action="append",
        metavar="NAME",
        help="compare only these, given once for each: " + ", ".join(Config().policies),
    )
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the day (SVG or PNG)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.set_defaults(command=run)


def configuration(arguments: argparse.Namespace) -> Config:
    """Return the configuration: the file's, overridden by flags.

    A given ``--…-seconds`` also becomes the policy's estimate, as an operator would set it.

    Raises
    ------
    ConfigError
        Naming the field that is unknown or wrong.
    """
    config = Config.from_toml(arguments.config) if arguments.config else Config()
    given: dict[str, dict[str, Any]] = {"day": {}, "decompress": {}, "recon": {}}
    for flag, table, name, _, _ in _FLAGS:
        value = getattr(arguments, flag[2:].replace("-", "_"))
        if value is not None:
            given[table][name] = value
    for table in ("decompress", "recon"):
        policy = {}
        if "scan_seconds" in given[table]:
            policy["scan_seconds"] = given[table]["scan_seconds"]
        if arguments.max_workers is not None:
            policy["max_workers"] = arguments.max_workers
        if policy:
            given[table]["policy"] = policy
    parts = {
        table: changed(getattr(config, table), table, **values) for table, values in given.items() if values
    }
    config = replace(config, **parts)
    return changed(config, policies=tuple(arguments.policy)) if arguments.policy else config


def run(arguments: argparse.Namespace) -> int:
    """Simulate and print; return the exit code (2: the numbers given are none)."""
    from . import report as reports
    from .simulate import simulate

    try:
        config = configuration(arguments)
        if arguments.plot is not None and arguments.plot.suffix not in (".svg", ".png"):
            raise ConfigError("--plot wants a name that ends in .svg or .png.")
        report = simulate(config)
    except ConfigError as error:
        print(f"mrirecon simulate: {error}", file=sys.stderr)
        return 2
    if arguments.plot is not None:
        from .plot import plot

        plot([report], arguments.plot)
    print(
        reports.as_json(report) if arguments.json else f"{reports.summary(report)}\n\n{reports.table(report)}"
    )
    return 0
