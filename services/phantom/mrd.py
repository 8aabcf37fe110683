"""Writes ISMRMRD version 1 files (Inati et al., MRM 2017): the compound dataset and the XML header."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from xml.sax.saxutils import escape

import h5py
import numpy as np
from numpy.typing import NDArray

_INDEX = np.dtype(
    [
        (name, "<u2")
        for name in (
            "kspace_encode_step_1",
            "kspace_encode_step_2",
            "average",
            "slice",
            "contrast",
            "phase",
            "repetition",
            "set",
            "segment",
        )
    ]
    + [("user", "<u2", 8)]
)
HEAD = np.dtype(
    [
        ("version", "<u2"),
        ("flags", "<u8"),
        ("measurement_uid", "<u4"),
        ("scan_counter", "<u4"),
        ("acquisition_time_stamp", "<u4"),
        ("physiology_time_stamp", "<u4", 3),
        ("number_of_samples", "<u2"),
        ("available_channels", "<u2"),
        ("active_channels", "<u2"),
        ("channel_mask", "<u8", 16),
        ("discard_pre", "<u2"),
        ("discard_post", "<u2"),
        ("center_sample", "<u2"),
        ("encoding_space_ref", "<u2"),
        ("trajectory_dimensions", "<u2"),
        ("sample_time_us", "<f4"),
        ("position", "<f4", 3),
        ("read_dir", "<f4", 3),
        ("phase_dir", "<f4", 3),
        ("slice_dir", "<f4", 3),
        ("patient_table_position", "<f4", 3),
        ("idx", _INDEX),
        ("user_int", "<i4", 8),
        ("user_float", "<f4", 8),
    ]
)
"""``ISMRMRD::AcquisitionHeader`` as it lies in the file (340 bytes, packed)."""


class Flag(IntEnum):
    """Bits of ``AcquisitionHeader.flags``; the value ``n`` stands for ``1 << (n - 1)``."""

    FIRST_IN_SLICE = 7
    LAST_IN_SLICE = 8
    NOISE_MEASUREMENT = 19
    PARALLEL_CALIBRATION = 20
    PARALLEL_CALIBRATION_AND_IMAGING = 21
    REVERSE = 22
    NAVIGATION = 23
    PHASE_CORRECTION = 24
    LAST_IN_MEASUREMENT = 25

    @property
    def mask(self) -> int:
        """Return the bit itself."""
        return 1 << (self.value - 1)


@dataclass(kw_only=True)
class Encoding:
    """Matrix ``(z, y, x)`` and field of view ``(z, y, x)`` [mm] of the encoded and the wanted space."""

    matrix: tuple[int, int, int]
    fov_mm: tuple[float, float, float]
    recon_matrix: tuple[int, int, int]
    recon_fov_mm: tuple[float, float, float]
    centre: tuple[int, int]
    """Counter of the central partition and line."""
    acceleration: tuple[int, int] = (1, 1)
    calibration: str = "embedded"
    trajectory: str = "cartesian"


@dataclass(kw_only=True)
class ScannerHeader:
    """What the XML header of a made scan says beside its encoding."""

    coils: list[str]
    field_strength_t: float = 2.89
    noise_bandwidth: float = 0.793
    echo_times_ms: list[float] = field(default_factory=lambda: [4.0])
    repetition_time_ms: float = 250.0
    flip_angle_deg: float = 60.0
    patient_position: str = "HFS"
    subject: str = ""
    """Put into the patient's name, for tests that look where it goes."""


def header_xml(scanner: ScannerHeader, encoding: Encoding, limits: dict[str, tuple[int, int, int]]) -> str:
    """Return the XML header; ``limits`` maps a counter to (minimum, maximum, centre)."""

    def space(name: str, matrix: tuple[int, int, int], fov: tuple[float, float, float]) -> str:
        (nz, ny, nx), (fz, fy, fx) = matrix, fov
        return (
            f"<{name}><matrixSize><x>{nx}</x><y>{ny}</y><z>{nz}</z></matrixSize>"
            f"<fieldOfView_mm><x>{fx}</x><y>{fy}</y><z>{fz}</z></fieldOfView_mm></{name}>"
        )

    limit_text = "".join(
        f"<{name}><minimum>{low}</minimum><maximum>{high}</maximum><center>{centre}</center></{name}>"
        for name, (low, high, centre) in limits.items()
    )
    labels = "".join(
        f"<coilLabel><coilNumber>{i}</coilNumber><coilName>{escape(name)}</coilName></coilLabel>"
        for i, name in enumerate(scanner.coils)
    )
    subject = (
        "<subjectInformation>"
        f"<patientName>{escape(scanner.subject)}</patientName><patientID>{escape(scanner.subject)}</patientID>"
        "</subjectInformation>"
        if scanner.subject
        else ""
    )
    echo_times = "".join(f"<TE>{te}</TE>" for te in scanner.echo_times_ms)
    return (
        '<?xml version="1.0" encoding="UTF-8"?>'
        '<ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD">'
        f"{subject}"
        "<measurementInformation>"
        f"<patientPosition>{scanner.patient_position}</patientPosition></measurementInformation>"
        "<acquisitionSystemInformation><systemVendor>mrirecon</systemVendor><systemModel>phantom</systemModel>"
        f"<systemFieldStrength_T>{scanner.field_strength_t}</systemFieldStrength_T>"
        f"<relativeReceiverNoiseBandwidth>{scanner.noise_bandwidth}</relativeReceiverNoiseBandwidth>"
        f"<receiverChannels>{len(scanner.coils)}</receiverChannels>{labels}</acquisitionSystemInformation>"
        "<experimentalConditions><H1resonanceFrequency_Hz>"
        f"{round(scanner.field_strength_t * 42_577_478)}"
        "</H1resonanceFrequency_Hz></experimentalConditions>"
        "<encoding>"
        + space("encodedSpace", encoding.matrix, encoding.fov_mm)
        + space("reconSpace", encoding.recon_matrix, encoding.recon_fov_mm)
        + f"<encodingLimits>{limit_text}</encodingLimits><trajectory>{encoding.trajectory}</trajectory>"
        "<parallelImaging><accelerationFactor>"
        f"<kspace_encoding_step_1>{encoding.acceleration[0]}</kspace_encoding_step_1>"
        f"<kspace_encoding_step_2>{encoding.acceleration[1]}</kspace_encoding_step_2></accelerationFactor>"
        f"<calibrationMode>{encoding.calibration}</calibrationMode></parallelImaging></encoding>"
        f"<sequenceParameters><TR>{scanner.repetition_time_ms}</TR>{echo_times}"
        f"<flipAngle_deg>{scanner.flip_angle_deg}</flipAngle_deg></sequenceParameters></ismrmrdHeader>"
    )


class MrdWriter:
    """Gathers readouts and writes them as one MRD file."""

    def __init__(self) -> None:
        self._heads: list[NDArray[np.void]] = []
        self._data: list[NDArray[np.float32]] = []

    def add(self, samples: NDArray[np.complex64], *, flags: int = 0, **fields: object) -> None:
        """Add one readout.

        Parameters
        ----------
        samples
            complex ``(coil, sample)``.
        flags
            Bits, see :class:`Flag`.
        fields
            Any field of :data:`HEAD` or of its ``idx``.
        """
        head = np.zeros((), HEAD)
        coils, count = samples.shape
        head["version"], head["flags"], head["scan_counter"] = 1, flags, len(self._heads)
        head["available_channels"] = head["active_channels"] = coils
        head["number_of_samples"], head["center_sample"] = count, count // 2
        head["channel_mask"][:] = [((1 << max(0, min(64, coils - 64 * i))) - 1) for i in range(16)]
        for name, value in fields.items():
            (head["idx"] if name in _INDEX.names else head)[name] = value  # type: ignore[operator]
        self._heads.append(head)
        self._data.append(np.ascontiguousarray(samples, np.complex64).view(np.float32).ravel())

    def write(self, path: Path, xml: str, group: str = "dataset") -> None:
        """Write the file at ``path``, which must not exist."""
        ragged = h5py.vlen_dtype(np.float32)
        table = np.empty(len(self._heads), np.dtype([("head", HEAD), ("traj", ragged), ("data", ragged)]))
        if self._heads:
            table["head"] = np.stack(self._heads)
        for row, samples in enumerate(self._data):
            table["traj"][row] = np.zeros(0, np.float32)
            table["data"][row] = samples
        with h5py.File(path, "w-") as file:
            file.create_dataset(
                f"{group}/data", data=table, maxshape=(None,), chunks=(max(1, min(64, len(table))),)
            )
            file.create_dataset(f"{group}/xml", data=[xml.encode()], dtype=h5py.string_dtype())
