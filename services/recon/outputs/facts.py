"""What the writers of results may say about a scan: numbers and words of a closed list, nothing else.

The raw header is not trusted to be free of patient data, so no text of it is ever passed on: a vendor is
recognised from a list or left out, a patient position likewise, and numbers must be finite and plausible.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ...contract.profiles import DEFAULT_PROFILE
from ...kspace.geometry import PATIENT_POSITIONS, Geometry, ImageIndex

METHOD_NAMES = {
    "fourier": "Fourier",
    "zero-filled": "zero-filled",
    "grappa": "GRAPPA",
    "raki": "RAKI",
    "pics": "PICS",
}
"""How people write what the record's ``method`` says."""

_VENDORS = {
    "siemens": "SIEMENS",
    "ge": "GE MEDICAL SYSTEMS",
    "philips": "Philips",
    "canon": "CANON",
    "toshiba": "TOSHIBA",
    "bruker": "Bruker",
    "united imaging": "UIH",
    "uih": "UIH",
    "hitachi": "Hitachi",
    "fujifilm": "FUJIFILM",
    "mr solutions": "MR Solutions",
    "hyperfine": "Hyperfine",
}
_SEQUENCES = {
    "Flash": "GR",
    "GRE": "GR",
    "bSSFP": "GR",
    "TrueFISP": "GR",
    "SE": "SE",
    "TSE": "SE",
    "FSE": "SE",
}
"""MRD's sequence types to DICOM's Scanning Sequence, where the word alone says enough."""
_HZ_PER_TESLA = 42.577478518e6


@dataclass(frozen=True)
class Acquisition:
    """How a scan was acquired, as far as its header tells, in SI units (angles in degrees).

    ``sequence`` is DICOM's ``GR`` (gradient echo) or ``SE`` (spin echo), or empty.
    """

    vendor: str = ""
    field_strength_t: float | None = None
    repetition_time_s: float | None = None
    flip_angle_deg: float | None = None
    echo_train_length: int | None = None
    sequence: str = ""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """All that DICOM, NIfTI, HDF5 and the report may name beside the pixels.

    Attributes
    ----------
    scan_id, recon_id, version
        Ids of the scan and of this reconstruction, version of the software.
    method
        As the record calls it.
    summary
        One short phrase of ours: method and sampling found.
    profile, label
        Name of the settings, and what the site calls the scan.
    """

    scan_id: str
    recon_id: str
    version: str
    method: str
    summary: str
    geometry: Geometry
    images: list[ImageIndex]
    acquisition: Acquisition
    profile: str = DEFAULT_PROFILE
    label: str | None = None


def acquisition(header: Mapping[str, Any]) -> Acquisition:
    """Read the whitelisted entries of the k-space file's ``header``; everything else is left behind.

    Read are ``manufacturer``, ``field_strength_t``, ``h1_frequency_hz`` (the field where the strength is not
    given), ``repetition_times_s``, ``flip_angles_deg``, ``echo_train_length`` and ``sequence_type``; of lists
    the first entry.
    """
    field = _number(header.get("field_strength_t"), 0.001, 30)
    frequency = _number(header.get("h1_frequency_hz"), 1e4, 1.5e9)
    if field is None and frequency is not None:
        field = frequency / _HZ_PER_TESLA
    train = _number(header.get("echo_train_length"), 1, 4096)
    return Acquisition(
        vendor=vendor(header.get("manufacturer")),
        field_strength_t=field,
        repetition_time_s=_number(header.get("repetition_times_s"), 1e-5, 1000),
        flip_angle_deg=_number(header.get("flip_angles_deg"), 0.01, 360),
        echo_train_length=None if train is None else int(train),
        sequence=_SEQUENCES.get(str(header.get("sequence_type")), ""),
    )


def vendor(text: object) -> str:
    """Return the usual DICOM spelling of a known vendor whose name ``text`` begins with, else nothing."""
    words = str(text or "").strip().lower()
    for start, name in _VENDORS.items():
        if words == start or words.startswith(start + " "):
            return name
    return ""


def patient_position(geometry: Geometry) -> str:
    """Return the patient position if it is one of DICOM's defined terms and the geometry is known."""
    term = geometry.patient_position.strip().upper()
    return term if geometry.known and term in PATIENT_POSITIONS else ""


def _number(value: object, low: float, high: float) -> float | None:
    if isinstance(value, list | tuple):
        value = value[0] if value else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) and low <= value <= high else None
