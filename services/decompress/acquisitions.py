"""Readouts as a table of their counters and flags, and the samples beside it.

Every reader gives a :class:`Part`: what one measurement (one file, or one group of a file) holds.  All that
follows (sorting, whitening, removal of oversampling) works on the table; the samples are touched once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import IntFlag
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..contract.codes import Code, PermanentError

if TYPE_CHECKING:
    from .header import ScanHeader

Table = NDArray[np.void]


class Flag(IntFlag):
    """Acquisition flags of MRD version 1: flag number ``n`` is bit ``n - 1`` (ismrmrd.h)."""

    NOISE = 1 << 18
    CALIBRATION = 1 << 19
    CALIBRATION_AND_IMAGING = 1 << 20
    REVERSE = 1 << 21
    NAVIGATION = 1 << 22
    PHASE_CORRECTION = 1 << 23
    HP_FEEDBACK = 1 << 25
    DUMMY = 1 << 26
    RT_FEEDBACK = 1 << 27
    SURFACE_COIL = 1 << 28
    PHASE_STABILISATION_REFERENCE = 1 << 29
    PHASE_STABILISATION = 1 << 30


NOT_IMAGING = (
    Flag.NAVIGATION
    | Flag.PHASE_CORRECTION
    | Flag.HP_FEEDBACK
    | Flag.DUMMY
    | Flag.RT_FEEDBACK
    | Flag.PHASE_STABILISATION_REFERENCE
    | Flag.PHASE_STABILISATION
)
"""Readouts that never belong into an image (noise and surface coil are treated on their own)."""

COUNTERS = ("ky", "kz", "average", "slice", "contrast", "phase", "repetition", "set", "segment")
"""Names of the counters in the table: the phase and partition steps as counted by the scanner, and the
rest."""

TABLE = np.dtype(
    [
        ("flags", "i8"),
        ("uid", "i8"),
        ("samples", "i4"),
        ("channels", "i4"),
        ("centre", "i4"),
        ("pre", "i4"),
        ("post", "i4"),
        ("space", "i4"),
        ("dwell_s", "f8"),
        ("position", "f8", 3),
        ("read_dir", "f8", 3),
        ("phase_dir", "f8", 3),
        ("slice_dir", "f8", 3),
        ("patient_table", "f8", 3),
    ]
    + [(name, "i4") for name in COUNTERS]
    + [("user_ky", "i4"), ("user_kz", "i4"), ("store", "i4"), ("row", "i4")]
)
"""One row a readout. ``centre`` is the sample at the k-space centre; ``pre`` and ``post`` are samples to
discard;
``user_ky`` and ``user_kz`` the centre line and partition that the Siemens converter leaves in its user
counters (0: not told); ``store`` and ``row`` say where the samples lie."""


@dataclass
class Part:
    """The readouts of one measurement.

    Attributes
    ----------
    header
        What its header tells.
    table
        :data:`TABLE`, one row a readout in the order of the file.
    stores
        complex64 ``(row, channel, sample)``, one array for each shape of readout that occurs.
    warnings
        What the reader found odd.
    known_digests
        :attr:`digests`, where they were computed before.
    """

    header: ScanHeader
    table: Table
    stores: list[NDArray[np.complex64]]
    known_digests: NDArray[np.uint8] | None = field(default=None, repr=False)
    warnings: list[str] = field(default_factory=list)

    @property
    def digests(self) -> NDArray[np.uint8]:
        """``(readout, 32)`` bytes: SHA-256 of each readout's counters and samples, made when asked for."""
        if self.known_digests is None:
            found = b"".join(digest(row, self.samples(index)) for index, row in enumerate(self.table))
            self.known_digests = np.frombuffer(found, np.uint8).reshape(-1, 32)
        return self.known_digests

    def samples(self, index: int) -> NDArray[np.complex64]:
        """Return the samples of one readout, complex64 ``(channel, sample)``: a view."""
        row = self.table[index]
        readout: NDArray[np.complex64] = self.stores[int(row["store"])][int(row["row"])]
        return readout


def allocate(table: Table, budget: int) -> list[NDArray[np.complex64]]:
    """Allocate room for the samples of ``table`` and say in it where each readout goes.

    Parameters
    ----------
    table
        :data:`TABLE`; ``samples`` and ``channels`` must be checked against the file before: they decide what
        is allocated. ``store`` and ``row`` are set.
    budget
        Bytes that may be allocated.

    Raises
    ------
    PermanentError
        ``too_large``.
    """
    shapes, store = np.unique(table[["channels", "samples"]], return_inverse=True)
    table["store"] = store
    needed = int((table["samples"].astype(np.int64) * table["channels"]).sum()) * 8
    if needed > budget:
        raise PermanentError(
            Code.TOO_LARGE,
            f"The readouts take {needed / 2**20:.0f} MiB, {budget / 2**20:.0f} MiB are allowed here: "
            "send the scan in parts or raise the limit.",
        )
    stores = []
    for number, shape in enumerate(shapes):
        rows = np.flatnonzero(store == number)
        table["row"][rows] = np.arange(rows.size)
        stores.append(np.empty((rows.size, int(shape["channels"]), int(shape["samples"])), np.complex64))
    return stores


def dwell_seconds(table: Table) -> float | None:
    """Return the usual sampling time [s] of readouts, ``None`` where no possible one is told."""
    times = table["dwell_s"]
    told = times[np.isfinite(times) & (times > 1e-9) & (times < 0.1)]
    return float(np.median(told)) if told.size else None


def digest(row: np.void, samples: NDArray[np.complex64]) -> bytes:
    """Return the SHA-256 of one readout: its flags, shape, counters and samples, nothing else."""
    numbers = [row["flags"], row["samples"], row["channels"], row["space"], *(row[name] for name in COUNTERS)]
    found = hashlib.sha256(np.asarray(numbers, dtype="<i8").tobytes())
    found.update(np.ascontiguousarray(samples).data)
    return found.digest()


def scan_digest(parts: Iterable[Part]) -> str:
    """Return the digest of a scan's acquisitions: the same however they were packed or ordered in files."""
    every = np.concatenate([part.digests for part in parts])
    order = np.lexsort(every.T[::-1])
    return hashlib.sha256(every[order].tobytes()).hexdigest()


_HUGE = 1e15
"""Beyond this, sums of squares over coils and Fourier sums leave the range of single precision."""


def check_finite(samples: NDArray[Any]) -> None:
    """Refuse samples that are not finite, or so large that an image of them would not be.

    Raises
    ------
    PermanentError
        ``non_finite``.
    """
    flat = samples.reshape(-1).view(np.float32)
    # One multiply-add a number: NaN and infinities survive it, and the slow look is for what does not pass.
    with np.errstate(over="ignore", invalid="ignore"):
        energy = float(np.dot(flat, flat))
    if energy < _HUGE**2:
        return
    bad = int(np.count_nonzero(~np.isfinite(flat)))
    if bad:
        raise PermanentError(
            Code.NON_FINITE,
            f"{bad} numbers among the raw samples are not finite (NaN or infinite): the raw data are "
            "damaged. Export the scan again.",
        )
    worst = float(np.abs(flat).max())
    if worst > _HUGE:
        raise PermanentError(
            Code.NON_FINITE,
            f"A raw sample of magnitude {worst:.1e} was found; above {_HUGE:.0e} an image would overflow. "
            "The raw data are damaged; export the scan again.",
        )
