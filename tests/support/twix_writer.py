"""Siemens raw files of our own making: one 2-D gradient-echo measurement, as VB and as VD/VE lay it down.

The layouts are those of the scanner's measurement data headers; the bytes are packed here and not by the
library that the reader uses, so that reader and writer cannot agree on a mistake. No scanner wrote any of it.
"""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

MEASUREMENT = 10_240
"""Where the first measurement of a VD file begins: after the table of its measurements."""
LEAST_HEADER = 10_240
"""A shorter one would be taken for the table of a VD file; scanners write a hundred thousand bytes."""
ACQEND, ONLINE, LAST_IN_MEASUREMENT = 1 << 0, 1 << 3, 1 << 11
DWELL_NS = 11_600
POSITION = (4.0, -7.0, 21.0)
"""Centre of the slice in mm: sagittal, coronal, transverse."""
FOV_MM, THICK_MM = 256.0, 5.0
NAME = b"DOE^JANE"


def twix(kspace: NDArray[np.complex64], *, vb: bool = False, acceleration: int = 1) -> bytes:
    """Return a file of one slice.

    Parameters
    ----------
    kspace
        ``(coil, ky, kx)``, the readout twofold oversampled, its centre at ``kx // 2``; lines that are all
        zero are left out.
    vb
        Whether to lay it down as VB: no table of measurements, a header before each channel.
    acceleration
        What the protocol says of parallel imaging along the phase axis.
    """
    kspace = np.asarray(kspace, np.complex64)
    lines = [int(ky) for ky in np.flatnonzero(kspace.any(axis=(0, 2)))]
    readout = _vb if vb else _vd
    blocks = [
        readout(kspace, ky, number, ONLINE | (LAST_IN_MEASUREMENT if ky == lines[-1] else 0))
        for number, ky in enumerate(lines)
    ]
    body = (
        _header(kspace.shape, acceleration)
        + b"".join(blocks)
        + readout(kspace[:, :, :0], None, len(lines), ACQEND)
    )
    if vb:
        return body + bytes(-len(body) % 512)
    entry = struct.pack("<IIQQ64s64s", 1, 1, MEASUREMENT, len(body), NAME, b"gre")
    table = struct.pack("<II", 0, 1) + entry
    return table + bytes(MEASUREMENT - len(table)) + body + bytes(-len(body) % 512)


def write_twix(path: Path, kspace: NDArray[np.complex64], *, vb: bool = False, acceleration: int = 1) -> Path:
    """Write :func:`twix` to ``path`` and return it."""
    path.write_bytes(twix(kspace, vb=vb, acceleration=acceleration))
    return path


def _common(kspace: NDArray[np.complex64], ky: int | None, flags: int) -> tuple[tuple[int, ...], ...]:
    """Return what both layouts hold: samples and channels, counters, cut-offs and centre column."""
    coils, ny, nx = kspace.shape
    counters = (ky or 0, *[0] * 13)
    shape = (16, coils) if flags & ACQEND else (nx, coils)
    return shape, counters, (0, 0, nx // 2, 0), (ny // 2, 0)


def _vd(kspace: NDArray[np.complex64], ky: int | None, number: int, flags: int) -> bytes:
    shape, counters, columns, centres = _common(kspace, ky, flags)
    step = 192 if ky is None else 192 + shape[1] * (32 + 8 * shape[0])
    head = struct.pack(
        "<IiIIIHHiiiiQ2H14H4HfI2H7f24H4HHHI",
        *(step, 1, number + 1, 4 * number, 0, 0, 0, 0, 0, 0, 0, flags, *shape, *counters, *columns, 0.0, 0),
        *(*centres, *POSITION, 1.0, 0.0, 0.0, 0.0, *[0] * 24, *[0] * 4, 0, 0, 0),
    )
    if ky is None:
        return head
    length = 32 + 8 * shape[0]
    channels = [
        struct.pack("<IiIiIIHHI", length << 8, 1, number + 1, 0, 0, 0, channel, 0, 0)
        + kspace[channel, ky].tobytes()
        for channel in range(shape[1])
    ]
    return head + b"".join(channels)


def _vb(kspace: NDArray[np.complex64], ky: int | None, number: int, flags: int) -> bytes:
    shape, counters, columns, centres = _common(kspace, ky, flags)
    length = 128 if ky is None else 128 + 8 * shape[0]
    blocks = []
    for channel in range(1 if ky is None else shape[1]):
        head = struct.pack(
            "<IiIIIQ2H14H4HfI2H4H4H7fHH",
            *(length, 1, number + 1, 4 * number, 0, flags, *shape, *counters, *columns, 0.0, 0, *centres),
            *(*[0] * 8, *POSITION, 1.0, 0.0, 0.0, 0.0, channel, 0),
        )
        blocks.append(head + (b"" if ky is None else kspace[channel, ky].tobytes()))
    return b"".join(blocks)


def _header(shape: tuple[int, ...], acceleration: int) -> bytes:
    """Return the protocol: named pieces of text, the first number their length in all."""
    coils, ny, nx = shape
    elements = "".join(
        f'sCoilSelectMeas.aRxCoilSelectData[0].asList[{coil}].sCoilElementID.tCoilID = "Head"\n'
        f'sCoilSelectMeas.aRxCoilSelectData[0].asList[{coil}].sCoilElementID.tElement = "H{coil + 1}"\n'
        f"sCoilSelectMeas.aRxCoilSelectData[0].asList[{coil}].lADCChannelConnected = {coil + 1}\n"
        for coil in range(coils)
    )
    protocol = f"""### ASCCONV BEGIN ###
tProtocolName = "gre"
sSliceArray.asSlice[0].dThickness = {THICK_MM}
sSliceArray.asSlice[0].dPhaseFOV = {FOV_MM}
sSliceArray.asSlice[0].dReadoutFOV = {FOV_MM}
sSliceArray.lSize = 1
sKSpace.lBaseResolution = {nx // 2}
sKSpace.lPhaseEncodingLines = {ny}
sKSpace.ucDimension = 0x2
sKSpace.ucTrajectory = 0x1
sPat.lAccelFactPE = {acceleration}
lContrasts = 1
alTR[0] = 8000
alTE[0] = 3200
adFlipAngleDegree[0] = 15
sRXSPEC.alDwellTime[0] = {DWELL_NS}
{elements}### ASCCONV END ###
"""
    derived = f"""<XProtocol>
{{
  <ParamMap."">
  {{
    <ParamString."tPatientPosition"> {{ "HFS" }}
    <ParamString."tFrameOfReference"> {{ "1.3.12.2.1107.5.2.1" }}
    <ParamString."PatientName"> {{ "{NAME.decode()}" }}
    <ParamLong."iPEFTLength"> {{ {ny} }}
  }}
}}
"""
    dicom = """<XProtocol>
{
  <ParamMap."">
  {
    <ParamString."tScanningSequence"> { "GR" }
    <ParamDouble."flMagneticFieldStrength"> { <Precision> 6 2.893620 }
    <ParamLong."lFrequency"> { 123200000 }
    <ParamDouble."flReadoutOSFactor"> { <Precision> 6 2.000000 }
  }
}
"""
    pieces = {"Dicom": dicom, "Meas": derived, "MeasYaps": protocol}
    text = b"".join(
        name.encode() + b"\0" + struct.pack("<I", len(piece) + 1) + piece.encode() + b"\0"
        for name, piece in pieces.items()
    )
    length = max(LEAST_HEADER, 8 + len(text) + (-(8 + len(text)) % 32))
    return struct.pack("<II", length, len(pieces)) + text + bytes(length - 8 - len(text))
