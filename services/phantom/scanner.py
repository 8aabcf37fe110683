"""A scanner: samples the k-space of a made head and leaves a raw archive, as a modality would."""

from __future__ import annotations

import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import zoom

from ..contract.progress import Progress, silent
from .anatomy import head_slice
from .coils import loop_array
from .mrd import Encoding, Flag, MrdWriter, ScannerHeader, header_xml

_FINE = 2
"""The object is drawn at this many times the acquired resolution, so that no voxel is homogeneous."""
_COARSE = 40
"""Side of the grid on which coil fields are computed; they are smooth, and splined from there."""
_BRAIN = 0.6
"""Signal of the brain; the coils' root sum of squares is 1 at the centre, so its SNR is this over sigma."""
_DWELL_US = 5.0
_NOISE_DWELL_US = 4.0


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """What the operator at the scanner would set.

    Attributes
    ----------
    matrix, fov_mm
        ``(ny, nx)`` and ``(y, x)`` [mm] of the images, without readout oversampling.
    n_slices, thickness_mm, spacing_mm
        Slices of a 2-D scan and the distance [mm] between their centres.
    n_coils, acceleration, n_acs
        Receive channels; every how many-th line is acquired; central lines all acquired.
    snr
        Of the brain in the fully sampled, coil-combined image; sets the receivers' noise.
    tilt_deg
        Turns of the slice stack about the x, y and z axes of the patient [degrees]: an oblique scan.
    interleaved
        Slices acquired odd ones first, as most sequences do.
    seed
        Of noise and noise correlation.
    subject
        Written into the header's patient name, for tests that look where it goes.
    """

    matrix: tuple[int, int] = (224, 192)
    fov_mm: tuple[float, float] = (224.0, 192.0)
    n_slices: int = 6
    thickness_mm: float = 4.0
    spacing_mm: float = 5.0
    n_coils: int = 12
    acceleration: int = 3
    n_acs: int = 28
    snr: float = 60.0
    tilt_deg: tuple[float, float, float] = (8.0, -5.0, 3.0)
    interleaved: bool = True
    seed: int = 1
    subject: str = ""


def sampled_lines(n_lines: int, acceleration: int, n_acs: int) -> NDArray[np.bool_]:
    """Return which lines are acquired: every ``acceleration``-th from line 0, and the central ``n_acs``."""
    mask = np.zeros(n_lines, bool)
    mask[::acceleration] = True
    start = n_lines // 2 - n_acs // 2
    mask[start : start + n_acs] = True
    return mask


def full_kspace(protocol: Protocol, slice_: int) -> NDArray[np.complex64]:
    """Return the noise-free k-space of one slice, complex64 ``(coil, ky, 2·kx)``, readout oversampled."""
    ny, nx = protocol.matrix
    side_mm = max(protocol.fov_mm)
    n = _FINE * max(ny, nx)
    height = 0.0 if protocol.n_slices == 1 else 0.95 * (slice_ / (protocol.n_slices - 1)) - 0.3
    magnitude = head_slice(height, n)
    axis = (np.arange(n) - n // 2) * 2 / n
    y, x = np.meshgrid(axis, axis, indexing="ij")
    phase = 0.9 * np.sin(1.3 * x + 0.4) * np.cos(1.1 * y) + 0.5 * (x**2 + y**2)
    thing = magnitude * np.exp(1j * phase)
    coarse = np.linspace(-1, 1, _COARSE)
    cy, cx = np.meshgrid(coarse, coarse, indexing="ij")
    fields = loop_array(protocol.n_coils, cy, cx, z=0.5 * height)
    # the drawing is square; the field of view may not be
    keep_y = round(n * protocol.fov_mm[0] / side_mm)
    keep_x = round(n * protocol.fov_mm[1] / side_mm)
    lines = np.empty((protocol.n_coils, ny, 2 * nx), np.complex64)
    for coil, field in enumerate(fields):
        smooth = zoom(field.real, n / _COARSE, order=3) + 1j * zoom(field.imag, n / _COARSE, order=3)
        seen = _crop_or_pad(thing * smooth, (keep_y, 2 * keep_x))
        spectrum = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(seen)))
        lines[coil] = _crop_or_pad(spectrum, (ny, 2 * nx)) / (_FINE**2 * np.sqrt(ny * 2 * nx))
    return lines


def simulate(path: Path, protocol: Protocol, progress: Progress = silent) -> None:
    """Acquire a scan and write it as an MRD file at ``path``: noise measurement first, then the slices."""
    ny, nx = protocol.matrix
    rng = np.random.default_rng(protocol.seed)
    mixing = _noise_mixing(protocol.n_coils, rng)
    sigma = _BRAIN / protocol.snr
    read, phase, through = _directions(protocol.tilt_deg)
    common: dict[str, object] = {
        "available_channels": protocol.n_coils,
        "read_dir": read,
        "phase_dir": phase,
        "slice_dir": through,
        "measurement_uid": 1,
    }

    def noise(*shape: int) -> NDArray[np.complex128]:
        white = rng.normal(size=(protocol.n_coils, *shape)) + 1j * rng.normal(size=(protocol.n_coils, *shape))
        return np.asarray(sigma * np.tensordot(mixing, white / np.sqrt(2), axes=1))

    writer = MrdWriter()
    bandwidth = ScannerHeader(coils=[]).noise_bandwidth
    noise_scale = np.sqrt(_DWELL_US / _NOISE_DWELL_US * bandwidth)
    for _ in range(32):
        samples = (noise(2 * nx) * noise_scale).astype(np.complex64)
        writer.add(samples, flags=Flag.NOISE_MEASUREMENT.mask, sample_time_us=_NOISE_DWELL_US, **common)
    mask = sampled_lines(ny, protocol.acceleration, protocol.n_acs)
    regular = np.arange(ny) % protocol.acceleration == 0
    order = _slice_order(protocol)
    for done, slice_ in enumerate(order):
        progress("simulate", done / len(order), f"slice {done + 1} of {len(order)}")
        lines = full_kspace(protocol, slice_)
        offset = (slice_ - (protocol.n_slices - 1) / 2) * protocol.spacing_mm
        for ky in np.flatnonzero(mask):
            flags = 0
            if protocol.acceleration > 1 and abs(ky - ny // 2 + 0.5) <= protocol.n_acs / 2:
                both = Flag.PARALLEL_CALIBRATION_AND_IMAGING if regular[ky] else Flag.PARALLEL_CALIBRATION
                flags = both.mask
            writer.add(
                (lines[:, ky] + noise(2 * nx)).astype(np.complex64),
                flags=flags,
                kspace_encode_step_1=ky,
                slice=slice_,
                sample_time_us=_DWELL_US,
                center_sample=nx,
                position=offset * through,
                **common,
            )
    progress("simulate", 1.0, "")
    writer.write(path, _xml(protocol))


def pack(archive: Path, files: Iterable[Path]) -> None:
    """Put ``files`` into a plain tar at ``archive``, without owner, time or folder."""
    with tarfile.open(archive, "x", format=tarfile.USTAR_FORMAT) as tar:
        for file in files:
            member = tarfile.TarInfo(file.name)
            member.size = file.stat().st_size
            with file.open("rb") as data:
                tar.addfile(member, data)


def _xml(protocol: Protocol) -> str:
    ny, nx = protocol.matrix
    fy, fx = protocol.fov_mm
    thick = protocol.thickness_mm
    encoding = Encoding(
        matrix=(1, ny, 2 * nx),
        fov_mm=(thick, fy, 2 * fx),
        recon_matrix=(1, ny, nx),
        recon_fov_mm=(thick, fy, fx),
        centre=(0, ny // 2),
        acceleration=(protocol.acceleration, 1),
    )
    limits = {
        "kspace_encoding_step_1": (0, ny - 1, ny // 2),
        "kspace_encoding_step_2": (0, 0, 0),
        "slice": (0, protocol.n_slices - 1, 0),
    }
    scanner = ScannerHeader(
        coils=[f"Head:{i + 1}" for i in range(protocol.n_coils)], subject=protocol.subject
    )
    return header_xml(scanner, encoding, limits)


def _slice_order(protocol: Protocol) -> list[int]:
    slices = list(range(protocol.n_slices))
    return slices[1::2] + slices[::2] if protocol.interleaved else slices


def _noise_mixing(n_coils: int, rng: np.random.Generator) -> NDArray[np.complex128]:
    """Return the Cholesky factor of a noise covariance with neighbours correlated by about 0.2."""
    distance = np.abs(np.subtract.outer(np.arange(n_coils), np.arange(n_coils)))
    correlation = 0.2 ** np.minimum(distance, n_coils - distance) * np.exp(
        0.5j * np.sign(np.subtract.outer(np.arange(n_coils), np.arange(n_coils)))
    )
    gains = rng.uniform(0.7, 1.4, n_coils)
    covariance = correlation * np.outer(gains, gains)
    smallest = np.linalg.eigvalsh(covariance).min()
    covariance += max(0.0, 0.05 - smallest) * np.eye(n_coils)
    return np.asarray(np.linalg.cholesky(covariance))


def _directions(tilt_deg: tuple[float, float, float]) -> tuple[NDArray[np.float64], ...]:
    a, b, c = np.deg2rad(tilt_deg)
    rx = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    ry = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    rz = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    turned = rx @ ry @ rz
    return turned[:, 0], turned[:, 1], turned[:, 2]


def _crop_or_pad(array: NDArray[np.complex128], shape: tuple[int, int]) -> NDArray[np.complex128]:
    """Return the centre of ``array`` in ``shape``: index ``n // 2`` stays at index ``n // 2``."""
    result = np.zeros(shape, array.dtype)
    source, target = [], []
    for have, want in zip(array.shape, shape, strict=True):
        count = min(have, want)
        first, to = have // 2 - count // 2, want // 2 - count // 2
        source.append(slice(first, first + count))
        target.append(slice(to, to + count))
    result[tuple(target)] = array[tuple(source)]
    return result
