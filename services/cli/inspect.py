"""``mrirecon inspect``: what is in an archive, without reconstructing it."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from collections.abc import Callable, Mapping
from typing import Any

from ..contract.codes import MrireconError
from .exits import gravest

Facts = Mapping[str, Any]


def inspect(arguments: Namespace) -> int:
    """Print what was found in the archive, as a table or as JSON."""
    from ..decompress.stage import inspect as look

    try:
        facts = look(arguments.archive)
    except MrireconError as error:
        if arguments.json:
            print(json.dumps({"status": error.end, "code": error.code, "message": error.message}))
        else:
            print(f"{error.end}: {error}", file=sys.stderr)
        return gravest([error.end])
    if arguments.json:
        print(json.dumps(facts, ensure_ascii=False))
        return 0
    for name, say in _TABLE:
        print(f"{name:<20} {say(facts)}")
    for number, warning in enumerate(facts["warnings"]):
        print(f"{'contradictions' if number == 0 else '':<20} {warning}")
    if not facts["warnings"]:
        print(f"{'contradictions':<20} none found")
    return 0


def _matrix(facts: Facts) -> str:
    nz, ny, nx = facts["matrix"]
    fz, fy, fx = facts["fov_mm"]
    grid = f"{ny} × {nx}" if nz == 1 else f"{nz} × {ny} × {nx}"
    return f"{grid}, {fy:g} × {fx:g} mm, {'slice' if nz == 1 else 'slab'} {fz:g} mm"


def _noise(facts: Facts) -> str:
    if not facts["noise_scan"]:
        return "none in the archive: not whitened"
    return "found, whitened" if facts["whitened"] else "found, not used"


def _partial_fourier(facts: Facts) -> str:
    shares = zip(("kz", "ky"), facts["partial_fourier"], strict=True)
    return ", ".join(f"{share:.2f} along {axis}" for axis, share in shares if share is not None) or "none"


def _size(facts: Facts) -> str:
    megabytes = facts["archive_bytes"] / 1e6
    return f"{megabytes:.1f} MB, compression {facts['compression']}, {facts['files']} raw file(s)"


_TABLE: tuple[tuple[str, Callable[[Facts], str]], ...] = (
    ("scan id", lambda f: str(f["scan_id"])),
    ("archive", _size),
    ("format", lambda f: str(f["format"])),
    ("acquisition", lambda f: str(f["acquisition_type"])),
    ("matrix (z,) y, x", _matrix),
    ("slices, images", lambda f: f"{f['slices']}, {f['images']}"),
    ("coils", lambda f: str(f["coils"])),
    ("sampling", lambda f: str(f["sampling"])),
    ("calibration lines", lambda f: f"{f['acs_lines']}{', acquired apart' if f['acs_apart'] else ''}"),
    ("partial Fourier", _partial_fourier),
    ("noise scan", _noise),
    ("position", lambda f: "known" if f["geometry_known"] else "not in the file"),
    ("asks for profile", lambda f: str(f["profile"] or "none")),
)
