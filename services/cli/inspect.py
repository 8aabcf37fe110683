"""``mrirecon inspect``: what is in an archive, without reconstructing it."""

from __future__ import annotations

import json
import tempfile
from argparse import Namespace
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..contract.codes import MrireconError
from . import screen, usage
from .exits import gravest

Facts = Mapping[str, Any]
_NOTES = "contradictions, gaps"


def inspect(arguments: Namespace) -> int:
    """Print what was found in the archive, as a table or as JSON."""
    from ..decompress.stage import inspect as look
    from ..local.bare import archive_of

    if (wrong := usage.missing([arguments.archive])) is not None:
        return usage.error(wrong)
    try:
        with tempfile.TemporaryDirectory(prefix="mrirecon-") as folder:
            facts = look(archive_of(arguments.archive, Path(folder)))
    except MrireconError as error:
        if arguments.json:
            print(json.dumps({"status": error.end, "code": error.code, "message": error.message}))
        else:
            screen.say(f"{error.end}: {error}")
        return gravest([error.end])
    if arguments.json:
        print(json.dumps(facts, ensure_ascii=False))
        return 0
    for name, say in _TABLE:
        print(f"{name:<21} {say(facts)}")
    for number, warning in enumerate(facts["warnings"]):
        print(f"{_NOTES if number == 0 else '':<21} {warning}")
    if not facts["warnings"]:
        print(f"{_NOTES:<21} none found")
    return 0


def _grid(matrix: list[int], fov_mm: list[float]) -> str:
    (nz, ny, nx), (fz, fy, fx) = matrix, fov_mm
    if nz == 1:
        return f"{ny} × {nx}, {fy:g} × {fx:g} mm, slice {fz:g} mm"
    return f"{ny} × {nx} × {nz}, {fy:g} × {fx:g} × {fz:g} mm"


def _calibration(facts: Facts) -> str:
    if facts["acceleration"] == [1, 1]:
        return "not needed"
    return f"{facts['acs_lines']}{', acquired apart' if facts['acs_apart'] else ''}"


def _noise(facts: Facts) -> str:
    if not facts["noise_scan"]:
        return "none in the archive: not whitened"
    return "found, whitened" if facts["whitened"] else "found, not used"


def _partial_fourier(facts: Facts) -> str:
    shares = zip(("ky", "kz"), facts["partial_fourier"], strict=True)
    return ", ".join(f"{share:.2f} along {axis}" for axis, share in shares if share is not None) or "none"


def _size(facts: Facts) -> str:
    megabytes = facts["archive_bytes"] / 1e6
    return f"{megabytes:.1f} MB, compression {facts['compression']}, {facts['files']} raw file(s)"


_TABLE: tuple[tuple[str, Callable[[Facts], str]], ...] = (
    ("scan id", lambda f: str(f["scan_id"])),
    ("label", lambda f: str(f["label"] or "none")),
    ("archive", _size),
    ("format", lambda f: str(f["format"])),
    ("acquisition", lambda f: str(f["acquisition_type"])),
    ("image, y × x (× z)", lambda f: _grid(f["recon_matrix"], f["recon_fov_mm"])),
    ("k-space, y × x (× z)", lambda f: _grid(f["matrix"], f["fov_mm"])),
    ("slices, images", lambda f: f"{f['slices']}, {f['images']}"),
    ("coils", lambda f: str(f["coils"])),
    ("sampling", lambda f: str(f["sampling"])),
    ("calibration lines", _calibration),
    ("partial Fourier", _partial_fourier),
    ("noise scan", _noise),
    ("position", lambda f: "known" if f["geometry_known"] else "not in the file"),
    ("asks for profile", lambda f: str(f["profile"] or "none")),
)
