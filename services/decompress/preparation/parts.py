"""Which of the measurements in an archive is the scan, and which its noise or calibration."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ...contract.codes import Code, PermanentError
from ..acquisitions import Flag, Part, Table
from .notes import Notes
from .sorter import imaging_candidates, noise_rows


@dataclass
class Scan:
    """One scan: its images, the parts that may hold its noise, and separate calibrations."""

    image: Part
    noise: list[Part] = field(default_factory=list)
    calibration: list[Part] = field(default_factory=list)


def choose(parts: list[Part], notes: Notes) -> Scan:
    """Tell image, noise and calibration parts from each other by what they hold.

    Raises
    ------
    PermanentError
        ``mixed_scans`` where the images belong to different scans, ``no_acquisitions`` where there are none.
    """
    images, noise, calibration = _by_purpose(parts)
    if not images and calibration:
        images, calibration = [calibration[0]], calibration[1:]
    if not images:
        raise PermanentError(
            Code.NO_ACQUISITIONS,
            "The archive holds no image readouts, only noise or correction ones: send the scan itself.",
        )
    if len(images) > 1:
        prescans = [part for part in images if _is_prescan(part)]
        if 0 < len(prescans) < len(images):
            images = [part for part in images if not _is_prescan(part)]
            noise.extend(prescans)
            notes.warn(
                "An adjustment measurement of the coils was found beside the scan; only its noise is used."
            )
    for part in images:
        _one_measurement(part)
    image = images[0] if len(images) == 1 else _join(images, notes)
    for part in parts:
        for sentence in part.warnings:
            notes.warn(sentence)
    return Scan(image, [p for p in noise if noise_rows(p).size] + calibration, calibration)


def _by_purpose(parts: list[Part]) -> tuple[list[Part], list[Part], list[Part]]:
    """Return the parts with image readouts, those with none at all, and those of calibration alone."""
    images, noise, calibration = [], [], []
    for part in parts:
        rows = imaging_candidates(part)
        flags = part.table["flags"][rows]
        only = (flags & (Flag.CALIBRATION | Flag.CALIBRATION_AND_IMAGING)) == Flag.CALIBRATION
        if rows.size == 0:
            noise.append(part)
        elif only.all() and len(parts) > 1:
            calibration.append(part)
        else:
            images.append(part)
    return images, noise, calibration


def _is_prescan(part: Part) -> bool:
    """Return whether a part is the scanner's own coil adjustment: by its protocol, or by mixed channel
    counts.
    """
    channels = np.unique(part.table["channels"][imaging_candidates(part)])
    return part.header.protocol.startswith("Adj") or channels.size > 1


def _one_measurement(part: Part) -> None:
    uids = np.unique(part.table["uid"][imaging_candidates(part)])
    if uids.size > 1:
        raise _mixed(f"One raw file holds readouts of {uids.size} measurements")


def _mixed(found: str) -> PermanentError:
    return PermanentError(
        Code.MIXED_SCANS,
        f"{found}; an archive holds the files of one scan. Send each scan in its own archive, and export a "
        "raw file that holds several scans one by one.",
    )


def _join(images: list[Part], notes: Notes) -> Part:
    """Join parts that are pieces of one measurement; readouts that occur twice, bit for bit, are taken once.

    Raises
    ------
    PermanentError
        ``mixed_scans``.
    """
    first = images[0]
    for part in images[1:]:
        if part.header.without_identity() != first.header.without_identity():
            raise _mixed("The raw files have different protocols")
        for name in ("measurement", "frame"):
            ours, theirs = getattr(first.header, name), getattr(part.header, name)
            if ours != theirs:
                raise _mixed("The raw files belong to different measurements")
    uids = {int(part.table["uid"][imaging_candidates(part)[0]]) for part in images}
    if len(uids) > 1:
        raise _mixed(f"The raw files belong to {len(uids)} measurements")
    if uids == {0} and not first.header.measurement and not _disjoint(images):
        raise _mixed("The raw files hold the same lines and nothing that says they are one measurement")
    tables: list[Table] = []
    stores: list[NDArray[np.complex64]] = []
    for part in images:
        table = part.table.copy()
        table["store"] += len(stores)
        tables.append(table)
        stores.extend(part.stores)
    table, digests = np.concatenate(tables), np.concatenate([part.digests for part in images])
    _, once = np.unique(digests, axis=0, return_index=True)
    once = np.sort(once)
    if once.size < table.shape[0]:
        notes.warn(
            f"{table.shape[0] - once.size} readouts occur in several files bit for bit; they count once."
        )
    notes.did("join files", files=len(images), readouts=int(once.size))
    return Part(first.header, table[once], stores, digests[once])


def _disjoint(images: list[Part]) -> bool:
    """Return whether no line occurs in two parts (with other samples)."""
    seen: set[bytes] = set()
    digests: set[bytes] = set()
    names = ["ky", "kz", "average", "slice", "contrast", "phase", "repetition", "set"]
    for part in images:
        rows = imaging_candidates(part)
        fresh = [row for row in rows if part.digests[row].tobytes() not in digests]
        places = {np.array([part.table[name][row] for name in names]).tobytes() for row in fresh}
        if seen & places:
            return False
        seen |= places
        digests |= {part.digests[row].tobytes() for row in rows}
    return True
