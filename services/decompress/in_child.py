"""What the sandboxed child does with an archive: walk it, tell its files apart, gate them, read them."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from ..contract import profiles
from ..contract.codes import Code, IncompleteError, PermanentError
from ..contract.labels import FORM as LABEL_FORM
from ..contract.labels import is_label
from .archive.members import Member, RawKind
from .archive.walk import RawEntry, Walked, walk
from .gates import hdf5 as h5gate
from .gates.sniff import Foreign, Other, of_hdf5, sniff
from .limits import MIB, Limits
from .sandbox.child import Tools

Kind = RawKind | Foreign | Other

_FEWEST_ZEROS = 1024
_UNFINISHED_LOOKS_LIKE = frozenset(
    {
        Code.H5_CORRUPT,
        Code.XML_INVALID,
        Code.NO_ACQUISITIONS,
        Code.LENGTH_MISMATCH,
        Code.CHANNEL_MISMATCH,
        Code.INDEX_RANGE,
        Code.INCOMPLETE_KSPACE,
        Code.GEOMETRY,
    }
)
"""Not ``h5_schema``: zeros in an HDF5 file's structure are ``h5_corrupt``, so one whose names and types can
be read is another kind of file, and small ones end in zeros anyway."""
_HDF5_SUFFIXES = frozenset({".h5", ".hdf5", ".hdf", ".mrd"})
_MOST_ZEROS = {RawKind.CFL: 0.45, RawKind.FASTMRI: 0.2}
"""Share of a file of bare numbers that may be zeros at its end: BART's may be lines that partial Fourier left
out, fastMRI's are never more than the last columns."""


@dataclass(frozen=True)
class Opened:
    """An archive walked and gated."""

    members: list[Member]
    profile: str | None
    label: str | None
    warnings: list[str]
    seconds: dict[str, float]
    walked: Walked


def decompress(tools: Tools, *, archive: int, work_dir: str, out: str) -> dict[str, Any]:
    """Write the k-space file of the archive open at descriptor ``archive``; return what was found."""
    opened = open_archive(archive, Path(work_dir), tools)
    from .preparation import (
        prepare as readers,  # only for an archive that came so far: its libraries take a while
    )

    with _told_from_unfinished(opened):
        found = readers.read(opened.members, Path(out), tools.limits, tools.progress, tools.ask)
    _refuse_half_filled(opened)
    return _merged(opened, found)


def inspect(tools: Tools, *, archive: int, work_dir: str) -> dict[str, Any]:
    """Return what :func:`decompress` would, without writing."""
    opened = open_archive(archive, Path(work_dir), tools)
    from .preparation import prepare as readers

    with _told_from_unfinished(opened):
        found = readers.inspect(opened.members, tools.limits)
    _refuse_half_filled(opened)
    return _merged(opened, found)


def open_archive(descriptor: int, work_dir: Path, tools: Tools) -> Opened:
    """Walk an archive and return its raw files, gated.

    Raises
    ------
    PermanentError, IncompleteError
        See :func:`.archive.walk` and :func:`.h5gate.inspect`; ``nested_archive``, ``unsupported``,
        ``no_raw_data`` and ``h5_schema`` by what the files are; ``bad_settings`` by a wrong ``scan.json``.
    """
    limits = tools.limits
    began = time.perf_counter()
    walked = walk(descriptor, limits, work_dir, tools.progress)
    at_walked = time.perf_counter()
    settings = [entry for entry in walked.entries if entry.is_settings]
    if len(settings) > 1:
        raise _bad_settings("is there more than once")
    raw = [entry for entry in walked.entries if not entry.is_settings]
    with _told_from_unfinished(walked):
        kinds = _kinds(raw, limits)
    _refuse_what_is_no_scan(kinds, raw)
    members = [
        Member(number, entry.size, kind, entry.open, entry.path, entry.stem, work_dir)
        for number, (entry, kind) in enumerate(
            (entry, kind) for entry, kind in zip(raw, kinds, strict=True) if isinstance(kind, RawKind)
        )
    ]
    profile, label, unknown = _wishes(settings[0], limits) if settings else (None, None, [])
    now = time.perf_counter()
    return Opened(
        members=members,
        profile=profile,
        label=label,
        warnings=[*_left_unread(kinds), *unknown],
        seconds={"unpack": round(at_walked - began, 3), "gate": round(now - at_walked, 3)},
        walked=walked,
    )


def _kinds(entries: list[RawEntry], limits: Limits) -> list[Kind]:
    """Return what each file is; HDF5 files pass the gate here."""
    kinds: list[Kind] = []
    for entry in entries:
        with entry.open() as file:
            kind: Kind = sniff(file, entry.size, entry.suffix)
            if kind is Other.HDF5:
                with _bounded_time(limits.gate_seconds * (1 + entry.size // (256 * MIB))):
                    kind = of_hdf5(h5gate.inspect(file, entry.size, limits))
        kinds.append(kind)
    headed = {entry.stem for entry, kind in zip(entries, kinds, strict=True) if kind is RawKind.HDR}
    # BART data are bare numbers: beside its header a .cfl is data whatever its first bytes look like.
    return [
        RawKind.CFL if entry.suffix == ".cfl" and entry.stem in headed else kind
        for entry, kind in zip(entries, kinds, strict=True)
    ]


@contextmanager
def _bounded_time(seconds: int) -> Iterator[None]:
    """End this process by SIGPROF when the block takes more processor time.

    libhdf5 can be led round in circles by a damaged file, where no Python handler is ever called; the sandbox
    turns this end into ``h5_corrupt``.
    """
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def _refuse_what_is_no_scan(kinds: list[Kind], entries: list[RawEntry]) -> None:
    if Other.ARCHIVE in kinds:
        raise PermanentError(
            Code.NESTED_ARCHIVE,
            "A member of the archive is an archive or a compressed file itself. Pack the raw files once.",
        )
    if any(isinstance(kind, RawKind) for kind in kinds):
        return
    foreign = sorted({kind.value for kind in kinds if isinstance(kind, Foreign)})
    if foreign:
        raise PermanentError(
            Code.UNSUPPORTED,
            f"The archive holds {' and '.join(foreign)}; read are ISMRMRD (MRD 1), fastMRI, Siemens twix and "
            "BART files. Convert the scan to ISMRMRD and send that.",
        )
    if Other.HDF5 in kinds:
        raise PermanentError(
            Code.H5_SCHEMA,
            "An HDF5 file holds neither an ISMRMRD measurement (a group with xml and data) nor fastMRI's "
            "kspace. Export the scan as one of these.",
        )
    if any(entry.size and entry.suffix in _HDF5_SUFFIXES for entry in entries):
        raise PermanentError(
            Code.H5_CORRUPT,
            "A file of the archive is called HDF5 and is none: its first bytes are damaged. "
            "Export and send the scan again.",
        )
    raise PermanentError(
        Code.NO_RAW_DATA,
        "The archive holds no raw data file; expected are ISMRMRD, fastMRI, Siemens twix or BART files. "
        "Pack the raw files of the scan.",
    )


def _left_unread(kinds: list[Kind]) -> list[str]:
    warnings = [
        f"The archive also holds {kind.value}, which was left unread."
        for kind in sorted({kind for kind in kinds if isinstance(kind, Foreign)})
    ]
    if count := sum(kind in {Other.UNKNOWN, Other.HDF5} for kind in kinds):
        warnings.append(f"{count} file(s) of the archive are no known raw data and were left unread.")
    return warnings


def _refuse_half_filled(opened: Opened) -> None:
    """Refuse bare numbers that end in zeros for much of the file: a copy that reserved its space.

    The structured formats notice missing data themselves; these would make half an image.  Asked last: a file
    that is faulty whatever its zeros mean has been told its fault.
    """
    last, entries = opened.members[-1], opened.walked.entries
    if last.open is not entries[-1].open or last.kind not in _MOST_ZEROS:
        return
    zeros = opened.walked.zeros_in_last()
    if zeros >= _FEWEST_ZEROS and zeros > _MOST_ZEROS[last.kind] * last.size:
        raise _unfinished()


@contextmanager
def _told_from_unfinished(walked: Walked | Opened) -> Iterator[None]:
    """Call damaged raw data unfinished where the archive ends in the zeros of an unfinished copy."""
    try:
        yield
    except PermanentError as error:
        members = walked.members if isinstance(walked, Opened) else []
        walked = walked.walked if isinstance(walked, Opened) else walked
        if error.code not in _UNFINISHED_LOOKS_LIKE or not walked.entries:
            raise
        if error.code is Code.LENGTH_MISMATCH and any(member.kind is RawKind.HDR for member in members):
            raise  # two lengths of BART's, whatever the data are
        if walked.zeros_in_last() >= max(_FEWEST_ZEROS, walked.entries[-1].size // 4):
            raise _unfinished() from None
        raise


def _unfinished() -> IncompleteError:
    return IncompleteError(
        "The archive ends in zeros where raw data should be: it may still be arriving. "
        "If it is complete at its source, send it again."
    )


def _wishes(entry: RawEntry, limits: Limits) -> tuple[str | None, str | None, list[str]]:
    """Return profile and label of the archive's ``scan.json``, and a warning for keys nobody knows.

    A wrong value of a known key would give other images than were asked for and is refused; a key that is not
    known is no reason to lose a scan.
    """
    if entry.size > limits.max_settings_bytes:
        raise _bad_settings(f"has more than {limits.max_settings_bytes} bytes")
    with entry.open() as file:
        settings = _json(file)
    if not isinstance(settings, dict):
        raise _bad_settings('is not of the form {"profile": "<name>"}')
    unknown = len(settings.keys() - {"profile", "label"})
    name = None
    if "profile" in settings:
        if not isinstance(settings["profile"], str):
            raise _bad_settings("names a profile that is no text")
        name = profiles.profile(settings["profile"]).name
    label = settings.get("label")
    if "label" in settings and not is_label(label):
        raise _bad_settings(f"gives a label that is not {LABEL_FORM}")
    warnings = [
        f"The archive's scan.json has {unknown} key{'s' * (unknown > 1)} that mrirecon does not know, left "
        "unheeded; those it knows are profile and label."
    ]
    return name, label, warnings * bool(unknown)


def _json(file: BinaryIO) -> object:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(dict(pairs)) < len(pairs):
            raise ValueError("a key twice")
        return dict(pairs)

    try:
        loaded: object = json.loads(file.read().decode("utf-8"), object_pairs_hook=once)
    except (ValueError, RecursionError):
        raise _bad_settings("is no JSON text") from None
    return loaded


def _bad_settings(finding: str) -> PermanentError:
    return PermanentError(
        Code.BAD_SETTINGS, f"The archive's scan.json {finding}. Correct it or leave it out: it is optional."
    )


def _merged(opened: Opened, found: dict[str, Any]) -> dict[str, Any]:
    """Return the reader's findings with those of the walk before them."""
    return found | {
        "profile": opened.profile,
        "label": opened.label,
        "warnings": [*opened.warnings, *found.get("warnings", [])],
        "seconds": opened.seconds | found.get("seconds", {}),
        "compression": opened.walked.compression or "none",
        "files": len(opened.members),
    }
