"""What a Siemens protocol tells, as the same facts an ISMRMRD header gives."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ...contract.codes import Code, PermanentError
from ...kspace.geometry import PATIENT_POSITIONS
from ..acquisitions import Table
from ..header import Encoding, Limit, ScanHeader, Space, clean_word

_TRAJECTORIES = {1: "cartesian", 2: "radial", 4: "spiral", 8: "radial"}
_SEQUENCES = {"GR": "GRE", "SE": "SE", "EP": "EPI"}
_THREE_D = 4
_NOISE_BANDWIDTH = 0.793
"""Of Siemens' receivers, where the protocol does not repeat it (as the reference converter has it)."""


def scan_header(protocol: dict[str, dict[str, Any]], heads: Table, channels: list[int]) -> ScanHeader:
    """Return the header of a measurement.

    Parameters
    ----------
    protocol
        ``MeasYaps`` (the protocol), ``Meas`` and ``Dicom`` (what was derived from it).
    heads
        The measurement data headers of all readouts.
    channels
        Receiver number of each channel.

    Raises
    ------
    PermanentError
        ``unsupported`` for simultaneous multi-slice scans, ``geometry`` where no possible matrix is given.
    """
    yaps, meas = protocol["MeasYaps"], protocol.get("Meas", {})
    dicom = protocol.get("Dicom", {})
    if (_get(yaps, "sSliceAcceleration", "lMultiBandFactor") or 1) > 1:
        raise PermanentError(
            Code.UNSUPPORTED,
            "This is a simultaneous multi-slice scan; scans of one slice at a time are read.",
        )
    contrasts = int(_get(yaps, "lContrasts") or 1)
    position = str(meas.get("tPatientPosition") or meas.get("PatientPosition") or "").strip()
    sequence = str(dicom.get("tScanningSequence") or meas.get("tScanningSequence") or "")
    return ScanHeader(
        encodings=(_encoding(yaps, meas, dicom, heads),),
        vendor="SIEMENS",
        model=clean_word(str(dicom.get("ManufacturersModelName") or "")),
        field_t=_get(dicom, "flMagneticFieldStrength"),
        h1_hz=_get(dicom, "lFrequency"),
        channels=len(channels),
        noise_bandwidth=_get(meas, "ReceiverNoiseEquivalentBandwidth") or _NOISE_BANDWIDTH,
        coil_labels=_labels(yaps, channels),
        tr_ms=_times(yaps, "alTR", 1),
        te_ms=_times(yaps, "alTE", contrasts),
        ti_ms=_times(yaps, "alTI", contrasts),
        flip_deg=tuple(v for v in _numbers(yaps.get("adFlipAngleDegree"))[:1]),
        sequence=_SEQUENCES.get(sequence[:2], ""),
        patient_position=position if position in PATIENT_POSITIONS else "",
        frame=str(meas.get("tFrameOfReference") or meas.get("FrameOfReference") or ""),
        measurement=str(meas.get("MeasUID") or ""),
        protocol=str(yaps.get("tProtocolName") or meas.get("ProtocolName") or "").strip('"'),
    )


def _encoding(yaps: dict[str, Any], meas: dict[str, Any], dicom: dict[str, Any], heads: Table) -> Encoding:
    base, (thick, phase_mm, read_mm) = _protocol_grid(yaps)
    oversampled = _get(dicom, "flReadoutOSFactor") or _get(meas, "flReadoutOSFactor") or 2.0
    phase_os = 1 + max(
        0.0, _get(yaps, "sKSpace", "dPhaseOversamplingForDialog") or _get(meas, "flPhaseOS") or 0.0
    )
    nz, wanted, slice_os = _partitions(yaps, meas)
    lines = int(heads["Counter"]["Lin"].max()) + 1
    ny = int(_get(meas, "iPEFTLength") or 0) or max(
        lines, math.ceil((_get(yaps, "sKSpace", "lPhaseEncodingLines") or base) * phase_os)
    )
    limits = {
        "kspace_encoding_step_1": _limit(heads, "Lin", "CenterLin", ny),
        "kspace_encoding_step_2": _limit(heads, "Par", "CenterPar", nz),
        "slice": _announced(_get(yaps, "sSliceArray", "lSize") or 1),
        "repetition": _announced((_get(yaps, "lRepetitions") or 0) + 1),
        "contrast": _announced(_get(yaps, "lContrasts") or 1),
    }
    trajectory = int(_get(yaps, "sKSpace", "ucTrajectory") or 1)
    acceleration, calibration = _parallel_imaging(yaps)
    return Encoding(
        encoded=Space(
            (nz, ny, round(base * oversampled)),
            (thick * slice_os, phase_mm * phase_os, read_mm * oversampled),
        ),
        recon=Space((wanted, max(1, round(base * phase_mm / read_mm)), base), (thick, phase_mm, read_mm)),
        trajectory=_TRAJECTORIES.get(trajectory, "other"),
        limits=limits,
        acceleration=acceleration,
        calibration=calibration,
        echo_train=int(_get(yaps, "sFastImaging", "lTurboFactor") or 0),
    )


def _protocol_grid(yaps: dict[str, Any]) -> tuple[int, tuple[float, float, float]]:
    """Return points along the readout and the field of view ``(z, y, x)`` [mm], without oversampling.

    Raises
    ------
    PermanentError
        ``geometry`` where the protocol gives none that is possible.
    """
    first = _get_list(yaps, "sSliceArray", "asSlice")
    slice_ = first[0] if first and isinstance(first[0], dict) else {}
    base = int(_get(yaps, "sKSpace", "lBaseResolution") or 0)
    thick, phase_mm, read_mm = (
        _get(slice_, name) or 0.0 for name in ("dThickness", "dPhaseFOV", "dReadoutFOV")
    )
    if base < 1 or base > 8192 or min(read_mm, phase_mm, thick) <= 0:
        raise PermanentError(
            Code.GEOMETRY,
            "The protocol of the Siemens raw file gives no possible matrix and field of view: export the "
            "scan again.",
        )
    return base, (thick, phase_mm, read_mm)


def _partitions(yaps: dict[str, Any], meas: dict[str, Any]) -> tuple[int, int, float]:
    """Return partitions acquired, partitions wanted, and slice oversampling; 1, 1 and 1 for a 2-D scan."""
    partitions = int(_get(yaps, "sKSpace", "lPartitions") or 1)
    if _get(yaps, "sKSpace", "ucDimension") != _THREE_D or partitions <= 1:
        return 1, 1, 1.0
    slice_os = 1 + max(0.0, _get(yaps, "sKSpace", "dSliceOversamplingForDialog") or 0.0)
    nz = max(int(_get(meas, "i3DFTLength") or 0), math.ceil(partitions * slice_os))
    return nz, int(_get(yaps, "sKSpace", "lImagesPerSlab") or nz), slice_os


def _parallel_imaging(yaps: dict[str, Any]) -> tuple[tuple[int, int], str]:
    """Return the acceleration ``(ky, kz)`` and how the calibration was acquired."""
    acceleration = (
        int(_get(yaps, "sPat", "lAccelFactPE") or 1),
        int(_get(yaps, "sPat", "lAccelFact3D") or 1),
    )
    mode = int(_get(yaps, "sPat", "ucRefScanMode") or 0)
    return acceleration, {2: "embedded", 4: "separate", 16: "separate"}.get(mode, "")


def _limit(heads: Table, counter: str, centre: str, n: int) -> Limit:
    """Return the range of a counter and its centre; a centre of 0 with lines beyond it is one not told."""
    steps = heads["Counter"][counter]
    told = int(np.median(heads[centre]))
    return Limit(int(steps.min()), int(steps.max()), told if told or steps.max() == 0 else n // 2)


def _announced(count: float) -> Limit:
    """Return the range of a counter of which the protocol gives the number of values."""
    return Limit(0, max(0, int(count) - 1), 0)


def _labels(yaps: dict[str, Any], channels: list[int]) -> tuple[str, ...]:
    """Return the coil element of each channel, by the receiver it is plugged into."""
    names: dict[int, str] = {}
    for selected in _get_list(yaps, "sCoilSelectMeas", "aRxCoilSelectData"):
        for element in selected.get("asList", []) if isinstance(selected, dict) else []:
            if not isinstance(element, dict):
                continue
            coil = element.get("sCoilElementID", {})
            adc = _get(element, "lADCChannelConnected")
            if adc is not None and isinstance(coil, dict):
                name = ":".join(str(coil.get(k, "")).strip('"') for k in ("tCoilID", "lCoilCopy", "tElement"))
                names[int(adc) - 1] = name
    return tuple(names.get(channel, f"receiver {channel}") for channel in channels)


def _times(yaps: dict[str, Any], name: str, count: int) -> tuple[float, ...]:
    """Return times [ms] given in microseconds."""
    return tuple(v / 1000 for v in _numbers(yaps.get(name))[:count])


def _numbers(value: Any) -> list[float]:
    found = value if isinstance(value, list) else [value]
    return [float(v) for v in found if isinstance(v, int | float) and math.isfinite(v)]


def _get(tree: Any, *names: str) -> float | None:
    """Return a number of the nest, ``None`` where it is not there or none."""
    for name in names:
        if not isinstance(tree, dict):
            return None
        tree = tree.get(name)
    if isinstance(tree, bool) or not isinstance(tree, int | float) or not math.isfinite(tree):
        return None
    return float(tree)


def _get_list(tree: Any, *names: str) -> list[Any]:
    for name in names:
        tree = tree.get(name) if isinstance(tree, dict) else None
    return tree if isinstance(tree, list) else []
