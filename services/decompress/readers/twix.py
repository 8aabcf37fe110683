"""Siemens twix (``.dat``): VB, and the multi-measurement files of VD, VE and XA.

The layouts of the measurement data headers and the parser of the protocol are twixtools'.  The blocks are
walked here, every length checked against the file before it is used: twixtools trusts them and prints what it
finds.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from twixtools import hdr_def, mdh_def, twixprot

from ...contract.codes import Code, PermanentError
from ...contract.progress import Progress
from ..acquisitions import TABLE, Flag, Part, Table, allocate, check_finite
from ..archive.members import Member
from ..limits import Limits
from .mrd import no_acquisitions
from .twix_header import scan_header

Bytes = NDArray[np.uint8]

_SCAN: np.dtype[Any] = np.dtype(mdh_def.Scan_header)
_CHANNEL: np.dtype[Any] = np.dtype(mdh_def.Channel_header)
_VB: np.dtype[Any] = np.dtype(mdh_def.VB17_header)
_MAX_HEADER = 64 * 1024 * 1024
_DMA = (1 << 25) - 1
_NOISE_SECONDS = 7.68e-3
"""Length of a readout of Siemens' noise adjustment; the protocol tells the dwell time of the images only."""

_FLAGS = {
    "NOISEADJSCAN": Flag.NOISE,
    "PATREFSCAN": Flag.CALIBRATION,
    "PATREFANDIMASCAN": Flag.CALIBRATION_AND_IMAGING,
    "REFLECT": Flag.REVERSE,
    "PHASCOR": Flag.PHASE_CORRECTION,
    "SLICE_ACCEL_PHASCOR": Flag.PHASE_CORRECTION,
    "RTFEEDBACK": Flag.RT_FEEDBACK,
    "HPFEEDBACK": Flag.HP_FEEDBACK,
    "PACE": Flag.NAVIGATION,
    "REFPHASESTABSCAN": Flag.PHASE_STABILISATION_REFERENCE,
    "PHASESTABSCAN": Flag.PHASE_STABILISATION,
    "RETRO_DUMMYSCAN": Flag.DUMMY,
    "B1_CONTROLLOOP": Flag.DUMMY,
    "MDH_VOP": Flag.DUMMY,
    "TAGFLAG1": Flag.DUMMY,
    "CT_NORMALIZE": Flag.SURFACE_COIL,
}
_COUNTERS = {
    "ky": "Lin",
    "kz": "Par",
    "average": "Ave",
    "slice": "Sli",
    "contrast": "Eco",
    "phase": "Phs",
    "repetition": "Rep",
    "set": "Set",
    "segment": "Seg",
}


@dataclass(frozen=True)
class _Layout:
    """How one software generation lays a readout down."""

    multi: bool

    @property
    def header(self) -> np.dtype[Any]:
        """What stands before a readout (VD), or before each channel of it (VB)."""
        return _SCAN if self.multi else _VB

    @property
    def first(self) -> int:
        """Bytes before the first channel."""
        return _SCAN.itemsize if self.multi else 0

    @property
    def channel(self) -> int:
        """Bytes before the samples of each channel."""
        return (_CHANNEL if self.multi else _VB).itemsize


def read(member: Member, limits: Limits, progress: Progress) -> list[Part]:
    """Read every measurement of a twix file: often the coil adjustment with the noise first, then the scan.

    Raises
    ------
    PermanentError
        ``truncated`` where the file ends before its measurements do, ``length_mismatch`` for blocks of
        impossible length, ``unsupported`` for protocols that cannot be read, ``too_large``, ``non_finite``,
        ``no_acquisitions``.
    """
    raw = np.memmap(_path(member), np.uint8, "r")
    layout, spans = _measurements(raw)
    parts = []
    for start, stop in spans:
        part = _read_measurement(raw[:stop], start, layout, limits, progress)
        if part is not None:
            parts.append(part)
    if not parts:
        raise no_acquisitions()
    return parts


# ------------------------------------------------------------------------------------------------ the walk


def _path(member: Member) -> Path:
    return member.path if member.path is not None else member.as_file(".dat")


def _truncated(found: int, needed: int) -> PermanentError:
    return PermanentError(
        Code.TRUNCATED,
        f"The Siemens raw file ends after {found} bytes, its measurements need at least {needed}: it was "
        "cut off. Copy it again once the scanner has finished writing.",
    )


def _corrupt(what: str) -> PermanentError:
    return PermanentError(
        Code.LENGTH_MISMATCH, f"The Siemens raw file holds {what}: it is damaged. Export the scan again."
    )


def _measurements(raw: Bytes) -> tuple[_Layout, list[tuple[int, int]]]:
    """Return the layout, and first byte and end of every measurement."""
    size = raw.shape[0]
    if size < 8:
        raise _truncated(size, 8)
    first, count = (int(v) for v in raw[:8].view("<u4"))
    if not (first < 10_000 and count <= hdr_def.max_raidfile_entries):
        return _Layout(multi=False), [(0, size)]
    needed = hdr_def.MultiRaidFileHeader.itemsize
    if size < needed:
        raise _truncated(size, needed)
    entries = raw[:needed].view(hdr_def.MultiRaidFileHeader)[0]["entry"][:count]
    if count == 0:
        raise no_acquisitions()
    spans = []
    starts = sorted(int(entry["off_"]) for entry in entries)
    for entry in entries:
        start, length = int(entry["off_"]), int(entry["len_"])
        if length == 0:  # written by a scanner that did not come back to fill it in
            length = next((other for other in starts if other > start), size) - start
        if start + max(length, 8) > size:
            raise _truncated(size, start + max(length, 8))
        spans.append((start, start + length))
    return _Layout(multi=True), spans


def _read_measurement(
    raw: Bytes, start: int, layout: _Layout, limits: Limits, progress: Progress
) -> Part | None:
    size = raw.shape[0]
    length = int(raw[start : start + 4].view("<u4")[0])
    if length < 8 or length > _MAX_HEADER:
        raise _corrupt(f"a protocol of {length} bytes")
    if start + length > size:
        raise _truncated(size, start + length)
    places = np.fromiter(_walk(raw, start + length, layout), np.int64)
    if not places.size:
        return None
    heads = np.stack([raw[p : p + layout.header.itemsize].view(layout.header)[0] for p in places])
    protocol = _protocol(raw[start : start + length])
    table = _table(heads)
    header = scan_header(protocol, heads, _channels(raw, places, heads, layout))
    _set_dwell(table, protocol)
    stores = allocate(table, limits.memory_bytes // 2)
    for index, place in enumerate(places):
        row = table[index]
        kind = np.dtype([("skip", f"V{layout.channel}"), ("data", "<c8", (int(row["samples"]),))])
        begin = int(place) + layout.first
        block = raw[begin : begin + kind.itemsize * int(row["channels"])].view(kind)["data"]
        stores[row["store"]][row["row"]] = block
        if index % 1024 == 0:
            progress("read", index / places.size, "")
    for store in stores:
        check_finite(store)
    progress("read", 1.0, "")
    return Part(header, table, stores)


def _walk(raw: Bytes, at: int, layout: _Layout) -> Iterator[int]:
    """Yield where each readout begins, up to the mark that ends the measurement."""
    size = raw.shape[0]
    end, sync = (1 << mdh_def.mask_dict[name] for name in ("ACQEND", "SYNCDATA"))
    last = 1 << mdh_def.mask_dict["LASTSCANINMEAS"]
    complete = False
    while at + layout.header.itemsize <= size:
        head = raw[at : at + layout.header.itemsize].view(layout.header)[0]
        mask = int(head["EvalInfoMask"])
        if mask & end:
            return
        if mask & sync:
            step = int(head["FlagsAndDMALength"]) & _DMA
        else:
            step = layout.first + int(head["UsedChannels"]) * (
                layout.channel + 8 * int(head["SamplesInScan"])
            )
        if step < layout.header.itemsize:
            if complete:
                return
            raise _corrupt("a block without length")
        if at + step > size:
            raise _truncated(size, at + step)
        if not mask & sync:
            if head["UsedChannels"] == 0 or head["SamplesInScan"] == 0:
                raise _corrupt("a readout without samples")
            complete = complete or bool(mask & last)
            yield at
        at += step
    if not complete:
        raise _truncated(size, at + layout.header.itemsize)


def _channels(raw: Bytes, places: NDArray[np.int64], heads: Table, layout: _Layout) -> list[int]:
    """Return the number of the receiver of each channel, of the last readout: the widest kind of the scan."""
    place, count = int(places[-1]), int(heads[-1]["UsedChannels"])
    kind = _CHANNEL if layout.multi else _VB
    step = layout.channel + 8 * int(heads[-1]["SamplesInScan"])
    begins = [place + layout.first + number * step for number in range(count)]
    return [int(raw[b : b + kind.itemsize].view(kind)[0]["ChannelId"]) for b in begins]


def _table(heads: Table) -> Table:
    table = np.zeros(heads.shape[0], TABLE)
    for name, flag in _FLAGS.items():
        on = (heads["EvalInfoMask"] >> np.uint64(mdh_def.mask_dict[name])) & np.uint64(1)
        table["flags"] |= on.astype(np.int64) * int(flag)
    table["uid"] = heads["MeasUID"]
    table["samples"], table["channels"] = heads["SamplesInScan"], heads["UsedChannels"]
    table["centre"] = heads["CenterCol"]
    table["pre"], table["post"] = heads["CutOff"]["Pre"], heads["CutOff"]["Post"]
    for ours, theirs in _COUNTERS.items():
        table[ours] = heads["Counter"][theirs]
    table["user_ky"], table["user_kz"] = heads["CenterLin"], heads["CenterPar"]
    place = heads["SliceData"]["SlicePos"]
    table["position"] = np.stack([place["Sag"], place["Cor"], place["Tra"]], axis=1)
    table["phase_dir"], table["read_dir"], table["slice_dir"] = _directions(
        heads["SliceData"]["Quaternion"].astype(np.float64)
    )
    return table


def _directions(quaternion: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
    """Return phase, read and slice directions ``(n, 3)`` of quaternions ``(n, 4)``, scalar first.

    The quaternion turns (phase, read, slice) into the patient axes, LPS; the signs are those of the
    reference converter.  All zero stays all zero: not told.
    """
    r, i, j, k = quaternion.T
    phase = np.stack([1 - 2 * (j**2 + k**2), 2 * (i * j + k * r), 2 * (i * k - j * r)], axis=1)
    read = np.stack([2 * (i * j - k * r), 1 - 2 * (i**2 + k**2), 2 * (j * k + i * r)], axis=1)
    through = np.stack([2 * (i * k + j * r), 2 * (j * k - i * r), 1 - 2 * (i**2 + j**2)], axis=1)
    told = (quaternion != 0).any(axis=1).reshape(-1, 1)
    return phase * told, read * told, through * told


def _set_dwell(table: Table, protocol: dict[str, dict[str, Any]]) -> None:
    """Fill in the sampling time [s]: by echo from the protocol (in ns), the noise adjustment's from its
    length.
    """
    told = protocol.get("MeasYaps", {}).get("sRXSPEC", {}).get("alDwellTime", [])
    times = [float(v) * 1e-9 for v in told if isinstance(v, int | float)] if isinstance(told, list) else []
    if times:
        echo = np.minimum(table["contrast"], len(times) - 1)
        table["dwell_s"] = np.array(times)[echo]
    noise = (table["flags"] & Flag.NOISE) != 0
    table["dwell_s"][noise] = _NOISE_SECONDS / table["samples"][noise]


# -------------------------------------------------------------------------------------------- the protocol


def _protocol(raw: Bytes) -> dict[str, dict[str, Any]]:
    """Return the named pieces of the protocol that are used, each a nest of names and values.

    Raises
    ------
    PermanentError
        ``unsupported`` where twixtools cannot make sense of it.
    """
    data = raw.tobytes()
    count = int.from_bytes(data[4:8], "little")
    found: dict[str, dict[str, Any]] = {}
    at = 8
    for _ in range(min(count, 64)):
        name_end = data.find(b"\0", at, at + 64)
        if name_end < 0 or name_end + 5 > len(data):
            break
        name = data[at:name_end].decode("latin1")
        size = int.from_bytes(data[name_end + 1 : name_end + 5], "little")
        at = name_end + 5
        if name in {"Meas", "MeasYaps", "Dicom"}:
            text = data[at : at + size].decode("latin1")
            if _has_huge_index(text):
                raise _corrupt("a protocol with an impossible array")
            try:
                with contextlib.redirect_stdout(io.StringIO()):
                    found[name] = twixprot.parse_buffer(text)
            except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
                raise PermanentError(
                    Code.UNSUPPORTED,
                    f"The protocol of the Siemens raw file could not be read ({type(error).__name__}); VB, "
                    "VD, VE and XA files are. Convert it with siemens_to_ismrmrd and send the result.",
                ) from None
        at += size
    if "MeasYaps" not in found:
        raise PermanentError(
            Code.UNSUPPORTED,
            "The Siemens raw file has no protocol this project can read; VB, VD, VE and XA files have one.",
        )
    return found


def _has_huge_index(text: str) -> bool:
    """Return whether a protocol names an array element so far out that making the array would fill memory."""
    at = text.find("[")
    while at >= 0:
        end = text.find("]", at, at + 24)
        if end - at > 6 and text[at + 1 : end].isdigit():
            return True
        at = text.find("[", at + 1)
    return False
