"""Scans with every acquisition feature, sampled from a closed form, and what k-space must hold of them.

The object is a set of ellipses (times a slab along z) seen by coils whose sensitivities are sums of plane
waves: its k-space is known exactly at any frequency, so nothing of the simulator's own gridding enters the
comparison.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from mrirecon.decompress.archive.members import Member, RawKind
from mrirecon.decompress.limits import Limits
from mrirecon.phantom.ellipses import SHEPP_LOGAN, kspace
from mrirecon.phantom.mrd import Encoding, Flag, MrdWriter, ScannerHeader, header_xml

OBJECT_MM = 200.0
SLAB = 0.6
DWELL_US = 5.0
RT_FEEDBACK, DUMMY, SURFACE = 1 << 27, 1 << 26, 1 << 28


@dataclass(kw_only=True)
class Scan:
    """An acquisition. Matrices and fields of view are ``(z, y, x)`` without readout oversampling."""

    matrix: tuple[int, int, int] = (1, 48, 40)
    fov_mm: tuple[float, float, float] = (5.0, 240.0, 200.0)
    recon_matrix: tuple[int, int, int] | None = None
    recon_fov_mm: tuple[float, float, float] | None = None
    os: float = 2.0
    coils: int = 3
    r: tuple[int, int] = (1, 1)
    caipi: int = 0
    acs: int = 0
    lines: tuple[int, int] | None = None
    """First and past-last phase line acquired (partial Fourier), as grid positions."""
    partitions: tuple[int, int] | None = None
    echo: int | None = None
    """Oversampled samples before the centre of the readout (asymmetric echo)."""
    reverse: str = ""
    """"", "all" or "odd"."""
    pre: int = 0
    post: int = 0
    slices: int = 1
    order: list[int] | None = None
    """Slice (by position) acquired as label 0, 1, …"""
    gap_mm: float = 8.0
    tilt: bool = False
    contrasts: int = 1
    repetitions: int = 1
    phases: int = 1
    sets: int = 1
    averages: list[int] | None = None
    """How often each line is acquired, cycled over the lines."""
    first_line: int = 0
    """Counter of the lowest line of the grid."""
    extra: list[int] = field(default_factory=list)
    """Flags of readouts put between the lines that must not enter the image."""
    flag_acs: bool = True
    noise: int = 0
    """Noise readouts."""
    uid: int = 7
    spoil: dict[str, object] = field(default_factory=dict)
    """Changes to the header: ``encoded_x``, ``centre``, ``user``, and ``limits`` by counter."""

    def directions(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return read, phase and slice direction: left-handed, and oblique when asked."""
        frame = np.diag([-1.0, 1.0, 1.0])
        if self.tilt:
            a, b = np.deg2rad([25.0, -17.0])
            rx = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
            ry = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
            frame = rx @ ry @ frame
        return frame[:, 0], frame[:, 1], frame[:, 2]

    @property
    def places(self) -> list[int]:
        """Slice position of each label."""
        return self.order or list(range(self.slices))

    def sampled(self) -> np.ndarray:
        """Return bool ``(kz, ky)``: what is acquired."""
        nz, ny, _ = self.matrix
        z, y = np.arange(nz)[:, None], np.arange(ny)[None, :]
        r_y, r_z = self.r
        row = (z - nz // 2) // r_z
        mask = ((z - nz // 2) % r_z == 0) & ((y - ny // 2 - self.caipi * row) % r_y == 0)
        if self.acs:
            mask |= self.acs_block()
        for axis, limits in ((1, self.lines), (0, self.partitions)):
            if limits is not None:
                keep = np.zeros(mask.shape[axis], bool)
                keep[slice(*limits)] = True
                mask &= keep[None, :] if axis else keep[:, None]
        return mask

    def acs_block(self) -> np.ndarray:
        """Return bool ``(kz, ky)``: the calibration block."""
        nz, ny, _ = self.matrix
        block = np.zeros((nz, ny), bool)
        half = min(self.acs, nz) // 2
        block[nz // 2 - half : nz // 2 + max(half, 1), ny // 2 - self.acs // 2 : ny // 2 + self.acs // 2] = (
            True
        )
        return block


def signal(scan: Scan, kz, ky, kx, fov=None) -> np.ndarray:
    """Return k-space ``(coil, ...)`` at grid frequencies (cycles per field of view) of the broadcast
    arguments."""
    _, fy, fx = fov or scan.fov_mm
    kz, ky, kx = (np.asarray(a, float) for a in (kz, ky, kx))
    total = []
    for coil in range(scan.coils):
        angle = 2 * np.pi * coil / scan.coils
        waves = ((1.0, 0.35, angle), (0.5, 0.8, angle + 2.0), (0.25j, 0.5, -angle))
        lines = 0
        for weight, size, turn in waves:
            lines = lines + weight * kspace(
                SHEPP_LOGAN,
                ky * OBJECT_MM / fy - size * np.sin(turn),
                kx * OBJECT_MM / fx - size * np.cos(turn),
            )
        total.append(lines * (SLAB * np.sinc(SLAB * kz) if scan.matrix[0] > 1 else 1.0))
    return np.stack(np.broadcast_arrays(*total))


def factor(contrast=0, repetition=0, phase=0, set_=0, place=0) -> complex:
    """Return what the signal is multiplied by in one image and slice."""
    return complex(
        (1 + 0.5 * place) * 0.7**contrast * (1 + 0.3 * repetition) * np.exp(1j * (0.4 * phase + 0.9 * set_))
    )


def truth(scan: Scan, image: int, place: int) -> np.ndarray:
    """Return what the k-space file must hold: ``(coil, kz, ky, kx)`` where acquired, else zero."""
    nz, ny, nx = scan.matrix
    z, y, x = (np.arange(n) - n // 2 for n in (nz, ny, nx))
    lines = signal(scan, z[:, None, None], y[None, :, None], x[None, None, :]) * np.sqrt(scan.os)
    contrast, repetition, phase, set_ = images(scan)[image]
    gain = factor(contrast, repetition, phase, set_, place)
    if scan.averages:
        position = np.cumsum(scan.sampled().ravel()).reshape(nz, ny) - 1
        counts = np.array(scan.averages)[position % len(scan.averages)]
        gain = gain * (1 + 0.1 * (counts - 1) / 2)[None, :, :, None]
    return lines * gain * scan.sampled()[None, :, :, None]


def images(scan: Scan) -> list[tuple[int, int, int, int]]:
    """Return contrast, repetition, phase and set of each image in the order of the k-space file."""
    return [
        (c, r, p, s)
        for c in range(scan.contrasts)
        for r in range(scan.repetitions)
        for p in range(scan.phases)
        for s in range(scan.sets)
    ]


def kx_steps(scan: Scan, reverse: bool) -> np.ndarray:
    """Return the steps along kx in the order in which they are sampled, oversampling included.

    A reversed readout runs through k from high to low; the sample at the centre stays where it is counted.
    """
    n = round(scan.matrix[2] * scan.os)
    steps = np.arange(0 if scan.echo is None else n // 2 - scan.echo, n) - n // 2
    return steps[::-1] if reverse else steps


def readouts(scan: Scan) -> dict[bool, np.ndarray]:
    """Return all lines ``(coil, kz, ky, sample)`` as forward and as reversed readouts."""
    nz, ny, _ = scan.matrix
    z, y = np.arange(nz) - nz // 2, np.arange(ny) - ny // 2
    fov = (*scan.fov_mm[:2], scan.fov_mm[2] * scan.os)
    lines = signal(scan, z[:, None, None], y[None, :, None], kx_steps(scan, False)[None, None, :], fov)
    return {False: lines, True: lines[..., ::-1]}


def with_rubbish(scan: Scan, samples: np.ndarray) -> np.ndarray:
    """Return samples with what the header says to discard around them."""
    rubbish = 1e3 * np.ones((scan.coils, 1))
    return np.concatenate(
        [np.repeat(rubbish, scan.pre, 1), samples, np.repeat(rubbish, scan.post, 1)], axis=1
    )


def noise(scan: Scan, count: int, samples: int, seed: int, mixing: np.ndarray) -> np.ndarray:
    """Return coloured noise ``(count, coil, sample)`` with covariance ``mixing mixingᴴ``."""
    rng = np.random.default_rng(seed)
    shape = (count, scan.coils, samples)
    white = (rng.normal(size=shape) + 1j * rng.normal(size=shape)) / np.sqrt(2)
    return mixing @ white


def encoding(scan: Scan) -> Encoding:
    """Return the header's encoding of a scan."""
    nz, ny, nx = scan.matrix
    fz, fy, fx = scan.fov_mm
    encoded_x = int(scan.spoil.get("encoded_x", round(nx * scan.os)))
    return Encoding(
        matrix=(nz, ny, encoded_x),
        fov_mm=(fz, fy, float(scan.spoil.get("encoded_fov_x", fx * scan.os))),
        recon_matrix=scan.recon_matrix or scan.matrix,
        recon_fov_mm=scan.recon_fov_mm or scan.fov_mm,
        centre=(nz // 2, ny // 2 + scan.first_line),
        acceleration=scan.r,
    )


def xml(scan: Scan, coils: list[str] | None = None, bandwidth: float = 1.0) -> str:
    """Return the XML header of a scan."""
    nz, ny, _ = scan.matrix
    limits = {
        "kspace_encoding_step_1": (
            scan.first_line,
            scan.first_line + ny - 1,
            int(scan.spoil.get("centre", ny // 2 + scan.first_line)),
        ),
        "kspace_encoding_step_2": (0, nz - 1, nz // 2),
    }
    limits |= scan.spoil.get("limits", {})
    scanner = ScannerHeader(
        coils=coils if coils is not None else [f"coil:{i}" for i in range(scan.coils)],
        noise_bandwidth=bandwidth,
        echo_times_ms=[4.0 + 3 * c for c in range(scan.contrasts)],
    )
    return header_xml(scanner, encoding(scan), limits)


def acquire(scan: Scan, writer: MrdWriter | None = None, mixing: np.ndarray | None = None) -> MrdWriter:
    """Return the readouts of a scan, in an order a scanner might have."""
    writer = writer or MrdWriter()
    read, phase, through = scan.directions()
    nz, ny, nx = scan.matrix
    common: dict[str, object] = {
        "read_dir": read,
        "phase_dir": phase,
        "slice_dir": through,
        "sample_time_us": DWELL_US,
        "measurement_uid": scan.uid,
    }
    if scan.noise:
        for block in noise(scan, scan.noise, 2 * nx, 3, np.eye(scan.coils) if mixing is None else mixing):
            writer.add(block, flags=Flag.NOISE_MEASUREMENT.mask, **common)
    mask, acs = scan.sampled(), scan.acs_block() if scan.acs else np.zeros((nz, ny), bool)
    lines = readouts(scan)
    lattice = Scan(matrix=scan.matrix, r=scan.r, caipi=scan.caipi).sampled()
    for contrast, repetition, cardiac, set_ in images(scan):
        for label, place in enumerate(scan.places):
            gain = factor(contrast, repetition, cardiac, set_, place)
            position = 3.0 * read - 5.0 * phase + (20.0 + scan.gap_mm * place) * through
            for number, (kz, ky) in enumerate(np.argwhere(mask)):
                reverse = scan.reverse == "all" or (scan.reverse == "odd" and number % 2 == 1)
                samples = with_rubbish(scan, lines[reverse][:, kz, ky])
                centre = int(np.flatnonzero(kx_steps(scan, reverse) == 0)[0])
                fields = {
                    "center_sample": centre + scan.pre,
                    "discard_pre": scan.pre,
                    "discard_post": scan.post,
                }
                flags = Flag.REVERSE.mask if reverse else 0
                if scan.flag_acs and acs[kz, ky] and max(scan.r) > 1:
                    both = (
                        Flag.PARALLEL_CALIBRATION_AND_IMAGING
                        if lattice[kz, ky]
                        else Flag.PARALLEL_CALIBRATION
                    )
                    flags |= both.mask
                where: dict[str, object] = {
                    "kspace_encode_step_1": ky + scan.first_line,
                    "kspace_encode_step_2": kz,
                    "slice": label,
                    "contrast": contrast,
                    "repetition": repetition,
                    "phase": cardiac,
                    "set": set_,
                    "position": position,
                    "segment": number % 2,
                }
                if "user" in scan.spoil:
                    where["user"] = [0, 0, 0, 0, 0, int(scan.spoil["user"]), 0, 0]
                for flag in scan.extra:
                    writer.add(1e4 * np.ones_like(samples), flags=flag, **fields, **where, **common)
                for average in range(scan.averages[number % len(scan.averages)] if scan.averages else 1):
                    writer.add(
                        samples * gain * (1 + 0.1 * average),
                        flags=flags,
                        average=average,
                        **fields,
                        **where,
                        **common,
                    )
    return writer


def write(scan: Scan, path: Path) -> Path:
    """Write a scan as an MRD file."""
    acquire(scan).write(path, xml(scan))
    return path


def member(path: Path, kind: RawKind = RawKind.MRD, index: int = 0, stem: int = 0) -> Member:
    """Return ``path`` as a member of an archive."""
    return Member(index, path.stat().st_size, kind, lambda: path.open("rb"), path, stem, path.parent)


LIMITS = Limits(memory_bytes=2 * 1024**3)


def error(found: np.ndarray, wanted: np.ndarray) -> float:
    """Return the normalised root mean square error."""
    return float(np.linalg.norm(found - wanted) / np.linalg.norm(wanted))
