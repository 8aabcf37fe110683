"""What an ISMRMRD header tells, as numbers, and its scrubbed copy.

Nothing is copied: every element is named here, converted, checked, and written anew.  Subject, study,
measurement and device identifiers, institution and protocol names have no place in the scrubbed header;
the frame of reference goes on as a hash only.
"""

from __future__ import annotations

import hashlib
import math
import re
from dataclasses import dataclass, field, replace
from typing import Any
from xml.etree import ElementTree as ET

from ..contract.codes import Code, PermanentError
from ..kspace.geometry import PATIENT_POSITIONS
from .plausible import plausible

TRAJECTORIES = ("cartesian", "epi", "radial", "goldenangle", "spiral", "other")
NAMESPACE = "http://www.ismrm.org/ISMRMRD"
_STEPS = (
    "kspace_encoding_step_0",
    "kspace_encoding_step_1",
    "kspace_encoding_step_2",
    "average",
    "slice",
    "contrast",
    "phase",
    "repetition",
    "set",
    "segment",
)
_SEQUENCES = (
    "Flash",
    "GRE",
    "SE",
    "TSE",
    "EPI",
    "bSSFP",
    "TrueFISP",
    "MPRAGE",
    "SPACE",
    "HASTE",
    "GRASE",
    "FSE",
)
_CALIBRATION = ("embedded", "interleaved", "separate", "external", "other")
MAX_MATRIX = 65_536


@dataclass(frozen=True)
class Space:
    """A grid: ``matrix`` ``(z, y, x)`` and ``fov_mm`` ``(z, y, x)``."""

    matrix: tuple[int, int, int]
    fov_mm: tuple[float, float, float]


@dataclass(frozen=True)
class Limit:
    """Range of a counter, and the value of it that is the k-space centre."""

    minimum: int
    maximum: int
    center: int


@dataclass(frozen=True)
class Encoding:
    """One ``encoding`` element: the grid that was acquired and the grid that is wanted."""

    encoded: Space
    recon: Space
    trajectory: str = "cartesian"
    limits: dict[str, Limit] = field(default_factory=dict)
    acceleration: tuple[int, int] = (1, 1)
    calibration: str = ""
    echo_train: int = 0


@dataclass(frozen=True)
class ScanHeader:
    """What is known of a measurement beside its readouts.

    ``coil_labels``, ``measurement``, ``protocol`` and ``frame`` are what the scanner wrote; they serve to
    compare parts of one scan and are shown nowhere.
    """

    encodings: tuple[Encoding, ...]
    vendor: str = ""
    model: str = ""
    field_t: float | None = None
    h1_hz: float | None = None
    channels: int | None = None
    noise_bandwidth: float | None = None
    coil_labels: tuple[str, ...] = ()
    tr_ms: tuple[float, ...] = ()
    te_ms: tuple[float, ...] = ()
    ti_ms: tuple[float, ...] = ()
    flip_deg: tuple[float, ...] = ()
    sequence: str = ""
    patient_position: str = ""
    frame: str = ""
    measurement: str = ""
    protocol: str = ""

    def without_identity(self) -> ScanHeader:
        """Return the header with nothing in it that tells one measurement from another of the same
        protocol.
        """
        return replace(self, frame="", measurement="", protocol="", h1_hz=None)


def parse(root: ET.Element) -> ScanHeader:
    """Read the elements this project uses; unknown ones are passed over, missing ones tolerated where they
    can be.

    Parameters
    ----------
    root
        Root of an ISMRMRD header that has passed the XML gate.

    Raises
    ------
    PermanentError
        ``xml_invalid`` where it is no ISMRMRD header, has no encoding, or a number in it is impossible.
    """
    for element in root.iter():
        if isinstance(element.tag, str):
            element.tag = element.tag.rpartition("}")[2]
    if root.tag != "ismrmrdHeader":
        raise PermanentError(
            Code.XML_INVALID, "The header is no ISMRMRD header: its root element has another name."
        )
    encodings = tuple(_encoding(element) for element in root.findall("encoding"))
    if not encodings:
        raise PermanentError(
            Code.XML_INVALID, "The ISMRMRD header describes no encoding (matrix, field of view)."
        )
    system = root.find("acquisitionSystemInformation")
    system = ET.Element("none") if system is None else system
    measurement = root.find("measurementInformation")
    measurement = ET.Element("none") if measurement is None else measurement
    sequence = root.find("sequenceParameters")
    sequence = ET.Element("none") if sequence is None else sequence
    position = _text(measurement, "patientPosition")
    return ScanHeader(
        encodings=encodings,
        vendor=clean_word(_text(system, "systemVendor")),
        model=clean_word(_text(system, "systemModel")),
        field_t=plausible("field_t", _positive(_text(system, "systemFieldStrength_T"))),
        h1_hz=plausible("h1_hz", _positive(_text(root, "experimentalConditions/H1resonanceFrequency_Hz"))),
        channels=_count(_text(system, "receiverChannels")),
        noise_bandwidth=plausible(
            "noise_bandwidth", _positive(_text(system, "relativeReceiverNoiseBandwidth"))
        ),
        coil_labels=_labels(system),
        tr_ms=_times(sequence, "TR"),
        te_ms=_times(sequence, "TE"),
        ti_ms=_times(sequence, "TI"),
        flip_deg=_times(sequence, "flipAngle_deg", low=-360.0),
        sequence=next((s for s in _SEQUENCES if s.lower() == _text(sequence, "sequence_type").lower()), ""),
        patient_position=position if position in PATIENT_POSITIONS else "",
        frame=_text(measurement, "frameOfReferenceUID"),
        measurement=_text(measurement, "measurementID"),
        protocol=_text(measurement, "protocolName"),
    )


def facts(header: ScanHeader) -> dict[str, Any]:
    """Return what DICOM may name: plain numbers and whitelisted words, in SI units but for angles."""
    echo = header.encodings[0]
    return {
        "manufacturer": header.vendor,
        "model": header.model,
        "field_strength_t": header.field_t,
        "h1_frequency_hz": header.h1_hz,
        "repetition_times_s": [v / 1000 for v in header.tr_ms],
        "echo_times_s": [v / 1000 for v in header.te_ms],
        "inversion_times_s": [v / 1000 for v in header.ti_ms],
        "flip_angles_deg": list(header.flip_deg),
        "echo_train_length": echo.echo_train or None,
        "sequence_type": header.sequence,
        "patient_position": header.patient_position,
        "frame_of_reference": hashlib.sha256(header.frame.encode()).hexdigest() if header.frame else "",
        "acceleration_factors": list(echo.acceleration),
        "calibration_mode": echo.calibration,
    }


def scrubbed(header: ScanHeader) -> str:
    """Return an ISMRMRD XML header built from the numbers alone: valid by the ISMRMRD schema, without
    identity.
    """
    root = ET.Element("ismrmrdHeader", xmlns=NAMESPACE)
    if header.patient_position or header.frame:
        element = ET.SubElement(root, "measurementInformation")
        _add(element, "patientPosition", header.patient_position or "HFS")
        if header.frame:
            _add(element, "frameOfReferenceUID", facts(header)["frame_of_reference"])
    system = ET.SubElement(root, "acquisitionSystemInformation")
    _add(system, "systemVendor", header.vendor)
    _add(system, "systemModel", header.model)
    _add(system, "systemFieldStrength_T", header.field_t)
    _add(system, "relativeReceiverNoiseBandwidth", header.noise_bandwidth)
    _add(system, "receiverChannels", header.channels)
    conditions = ET.SubElement(root, "experimentalConditions")
    _add(conditions, "H1resonanceFrequency_Hz", round(header.h1_hz or 0))
    for encoding in header.encodings:
        _add_encoding(root, encoding)
    sequence = ET.SubElement(root, "sequenceParameters")
    for name, values in (
        ("TR", header.tr_ms),
        ("TE", header.te_ms),
        ("TI", header.ti_ms),
        ("flipAngle_deg", header.flip_deg),
    ):
        for value in values:
            _add(sequence, name, value)
    _add(sequence, "sequence_type", header.sequence)
    ET.indent(root)
    return '<?xml version="1.0"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


# ------------------------------------------------------------------------------------------------ reading


def _encoding(element: ET.Element) -> Encoding:
    limits = {}
    for step in _STEPS:
        found = element.find(f"encodingLimits/{step}")
        if found is not None:
            numbers = [_count(_text(found, name)) for name in ("minimum", "maximum", "center")]
            limits[step] = Limit(*(0 if n is None else n for n in numbers))
    encoded = _space(element, "encodedSpace")
    trajectory = _text(element, "trajectory").lower() or "cartesian"
    parallel = "parallelImaging/accelerationFactor/kspace_encoding_step_"
    calibration = _text(element, "parallelImaging/calibrationMode").lower()
    return Encoding(
        encoded=encoded,
        recon=_space(element, "reconSpace", encoded),
        trajectory=trajectory if trajectory in TRAJECTORIES else "other",
        limits=limits,
        acceleration=(
            _count(_text(element, parallel + "1")) or 1,
            _count(_text(element, parallel + "2")) or 1,
        ),
        calibration=calibration if calibration in _CALIBRATION else "",
        echo_train=_count(_text(element, "echoTrainLength")) or 0,
    )


def _space(element: ET.Element, name: str, fallback: Space | None = None) -> Space:
    """Read a space; a zero of the recon matrix is taken from the encoded one (seen in real files)."""
    matrix, fov = [], []
    for number, axis in enumerate("zyx"):
        n = _count(_text(element, f"{name}/matrixSize/{axis}"))
        mm = _length(_text(element, f"{name}/fieldOfView_mm/{axis}"))
        if fallback is not None:
            n, mm = n or fallback.matrix[number], fallback.fov_mm[number] if mm is None else mm
        if n is None or not 1 <= n <= MAX_MATRIX or mm is None:
            raise PermanentError(
                Code.XML_INVALID,
                f"The ISMRMRD header gives no possible matrix and field of view along {axis} (1 to "
                f"{MAX_MATRIX} points and more than 0 mm are expected): export the scan again.",
            )
        matrix.append(n)
        fov.append(mm)
    return Space((matrix[0], matrix[1], matrix[2]), (fov[0], fov[1], fov[2]))


def _text(element: ET.Element, path: str) -> str:
    return (element.findtext(path) or "").strip()


def _number(text: str) -> float | None:
    """Return the number, ``None`` for an absent one.

    Raises
    ------
    PermanentError
        ``xml_invalid`` for what is there but is no finite number.
    """
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise PermanentError(
            Code.XML_INVALID,
            "The ISMRMRD header holds something that is no finite number where a number is expected: export "
            "the scan again.",
        )
    return value


def _positive(text: str) -> float | None:
    """Return the number, ``None`` where it is absent or not positive (zero is how many writers say
    unknown).
    """
    value = _number(text)
    return value if value is not None and value > 0 else None


def _length(text: str) -> float | None:
    """Return a field of view in millimetres, ``None`` for an absent one; zero and negative ones are
    refused.
    """
    value = _number(text)
    if value is not None and not 0 < value <= 1e5:
        raise PermanentError(
            Code.XML_INVALID,
            "The ISMRMRD header holds a field of view that is not between 0 and 100 m: export the scan "
            "again.",
        )
    return value


def _count(text: str) -> int | None:
    value = _number(text)
    if value is None:
        return None
    if value < 0 or value != int(value) or value > 2**32:
        raise PermanentError(
            Code.XML_INVALID,
            "The ISMRMRD header holds a size or counter that is no whole number from 0 on: export the scan "
            "again.",
        )
    return int(value)


def _times(element: ET.Element, name: str, low: float = 0.0) -> tuple[float, ...]:
    found = tuple(
        v for child in element.findall(name) if (v := _number((child.text or "").strip())) is not None
    )
    if any(not low <= v <= 1e7 for v in found):
        raise PermanentError(
            Code.XML_INVALID,
            f"The ISMRMRD header holds a {name} outside any possible range: export the scan again.",
        )
    return found


def _labels(system: ET.Element) -> tuple[str, ...]:
    """Return the coil names in the order of the channels (the order of the file; ``coilNumber`` is the
    plug).
    """
    return tuple(_text(element, "coilName") for element in system.findall("coilLabel"))


def clean_word(text: str) -> str:
    """Return the printable ASCII letters, digits and signs a manufacturer's or model's name is made of."""
    return re.sub(r"[^A-Za-z0-9 ._+/()-]", "", text)[:64].strip()


# ------------------------------------------------------------------------------------------------ writing


def _add(parent: ET.Element, name: str, value: float | str | None) -> None:
    if value is None or value == "":
        return
    ET.SubElement(parent, name).text = value if isinstance(value, str) else f"{value:.10g}"


def _add_encoding(root: ET.Element, encoding: Encoding) -> None:
    element = ET.SubElement(root, "encoding")
    for name, space in (("encodedSpace", encoding.encoded), ("reconSpace", encoding.recon)):
        child = ET.SubElement(element, name)
        matrix, fov = ET.SubElement(child, "matrixSize"), ET.SubElement(child, "fieldOfView_mm")
        for axis, n, mm in zip("xyz", space.matrix[::-1], space.fov_mm[::-1], strict=True):
            _add(matrix, axis, n)
            _add(fov, axis, mm)
    limits = ET.SubElement(element, "encodingLimits")
    for step, limit in encoding.limits.items():
        child = ET.SubElement(limits, step)
        for name in ("minimum", "maximum", "center"):
            _add(child, name, getattr(limit, name))
    _add(element, "trajectory", encoding.trajectory)
    if encoding.acceleration != (1, 1) or encoding.calibration:
        parallel = ET.SubElement(element, "parallelImaging")
        factor = ET.SubElement(parallel, "accelerationFactor")
        for number, r in enumerate(encoding.acceleration, start=1):
            _add(factor, f"kspace_encoding_step_{number}", r)
        _add(parallel, "calibrationMode", encoding.calibration)
    _add(element, "echoTrainLength", encoding.echo_train or None)
