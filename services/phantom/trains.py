"""Gradient-echo and echo-planar readouts of a made object, with what goes wrong between their polarities.

For tests and benchmarks of whatever tells the two apart: the readouts come out in the order in which a
scanner acquires them, backwards ones as they were sampled, delayed, with or without flags and navigators.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .anatomy import head_slice
from .coils import loop_array
from .mrd import Encoding, Flag, MrdWriter, ScannerHeader, header_xml

Complex = NDArray[np.complex128]
Ints = NDArray[np.int64]

_FINE = 2
"""The object is drawn at this many times the acquired resolution."""
_OVERSAMPLED = 2
_THICK_MM = 5.0


@dataclass(frozen=True, kw_only=True)
class Train:
    """A Cartesian scan whose readouts follow each other in trains.

    Attributes
    ----------
    alternating
        Every second readout of a train runs backwards: an echo-planar scan.
    flagged
        Backward readouts carry the flag that says so.
    navigators
        Readouts without phase encoding before each train (flagged as phase correction where ``flagged``).
    delay
        Between gradient and receiver [samples]: moves forward and backward echoes apart by twice as much.
    phase
        Of backward readouts against forward ones [rad].
    order
        ``linear``, ``reversed``, ``centre_out``, or ``interleaved`` (even lines, then odd ones).
    trains
        Interleaved trains (shots) that fill k-space together; each starts forward.
    echoes
        Echoes of a bipolar multi-echo scan: every line of an echo has one polarity.
    partial
        Share of the lines along ky that is acquired, from the end on.
    acceleration
        Every how many-th line is acquired, beside 16 central ones.
    matrix
        ``(ny, nx)``.
    what
        ``head``, ``ellipses`` (at random), or ``symmetric`` (its own mirror image along the readout).
    snr
        Of the object's mean signal in the coil-combined image.
    """

    alternating: bool = True
    flagged: bool = False
    navigators: bool = False
    delay: float = 0.4
    phase: float = 0.3
    order: str = "linear"
    trains: int = 1
    echoes: int = 1
    partial: float = 1.0
    acceleration: int = 1
    slices: int = 1
    coils: int = 4
    matrix: tuple[int, int] = (64, 64)
    what: str = "head"
    snr: float = 40.0
    seed: int = 1


def write(train: Train, path: Path) -> Path:
    """Acquire a scan and write it as an MRD file at ``path``."""
    ny = train.matrix[0]
    rng = np.random.default_rng(train.seed)
    writer = MrdWriter()
    common: dict[str, object] = {
        "read_dir": (1, 0, 0),
        "phase_dir": (0, 1, 0),
        "slice_dir": (0, 0, 1),
        "sample_time_us": 4.0,
        "measurement_uid": 1,
    }
    for slice_ in range(train.slices):
        seen = _seen(train, rng, slice_ / max(1, train.slices - 1))
        ways = {back: _kspace(train, seen, back) for back in (False, True)}
        # the orthonormal transform of an image of this mean power spreads it over all samples
        sigma = float(np.sqrt((np.abs(ways[False]) ** 2).sum(axis=0).mean())) / train.snr
        for echo in range(train.echoes):
            where: dict[str, object] = {
                "slice": slice_,
                "contrast": echo,
                "position": (0.0, 0.0, 6.0 * slice_),
                **common,
            }
            for line, within, first in _lines(train):
                back = (train.alternating and within % 2 == 1) or echo % 2 == 1
                if first and train.navigators:
                    for number in range(3):
                        _add(writer, train, ways, ny // 2, number % 2 == 1, sigma, rng, where, navigator=True)
                _add(writer, train, ways, line, back, sigma, rng, where)
    writer.write(path, _xml(train))
    return path


def _add(
    writer: MrdWriter,
    train: Train,
    ways: dict[bool, Complex],
    line: int,
    back: bool,
    sigma: float,
    rng: np.random.Generator,
    where: dict[str, object],
    *,
    navigator: bool = False,
) -> None:
    samples = ways[back][:, line]
    noise = rng.normal(size=(2, *samples.shape)) * sigma / np.sqrt(2)
    flags = Flag.REVERSE.mask if back and train.flagged else 0
    if navigator:
        flags |= Flag.PHASE_CORRECTION.mask if train.flagged else Flag.NAVIGATION.mask
    writer.add(
        (samples + noise[0] + 1j * noise[1]).astype(np.complex64),
        flags=flags,
        kspace_encode_step_1=line,
        # a backward readout passes the centre one sample earlier than a forward one
        center_sample=samples.shape[-1] // 2 - (1 if back and train.flagged else 0),
        **where,
    )


def _lines(train: Train) -> list[tuple[int, int, bool]]:
    """Return line, its number in its train, and whether it begins one, in the order of acquisition."""
    ny = train.matrix[0]
    lines = np.arange(ny - round(ny * train.partial), ny)
    if train.acceleration > 1:
        near = np.abs(lines - ny // 2 + 0.5) < 8
        lines = lines[((lines - ny // 2) % train.acceleration == 0) | near]
    found: list[tuple[int, int, bool]] = []
    for shot in range(train.trains):
        mine = lines[shot :: train.trains]
        if train.order == "reversed":
            mine = mine[::-1]
        elif train.order == "interleaved":
            mine = np.concatenate([mine[::2], mine[1::2]])
        elif train.order == "centre_out":
            mine = mine[np.argsort(np.abs(mine - ny // 2 + 0.25), kind="stable")]
        found += [(int(line), number, number == 0) for number, line in enumerate(mine)]
    return found


def _seen(train: Train, rng: np.random.Generator, height: float) -> Complex:
    """Return what each coil sees, complex ``(coil, y, x)``, drawn finely over one field of view."""
    ny, nx = train.matrix
    n = _FINE * max(ny, nx)
    axis = (np.arange(n) - n // 2) * 2 / n
    y, x = np.meshgrid(axis, axis, indexing="ij")
    if train.what == "head":
        picture = head_slice(0.5 * height - 0.1, n, seed=train.seed)
    else:
        picture = _ellipses(rng, y, x)
    if train.what == "symmetric":
        picture = (picture + np.roll(picture[:, ::-1], 1, axis=1)) / 2
        waves = 0.3 * y
    else:
        waves = rng.uniform(0.2, 1.0) * np.sin(rng.uniform(1, 2) * x + rng.uniform(0, 6)) + 0.6 * y * x
    thing = picture * np.exp(1j * waves)
    if train.coils == 1:
        return np.asarray(thing[None])
    return np.asarray(thing * loop_array(train.coils, y, x))


def _ellipses(
    rng: np.random.Generator, y: NDArray[np.float64], x: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return a body with inclusions, all at random."""
    cx, cy, a, b = rng.uniform(-0.15, 0.15), rng.uniform(-0.1, 0.1), *rng.uniform(0.45, 0.8, 2)
    inside = ((x - cx) / a) ** 2 + ((y - cy) / b) ** 2 <= 1
    picture = inside * 1.0
    for _ in range(int(rng.integers(2, 8))):
        turn, size = rng.uniform(0, np.pi), rng.uniform(0.04, 0.35, 2)
        dx, dy = x - cx - rng.uniform(-0.6, 0.6) * a, y - cy - rng.uniform(-0.6, 0.6) * b
        u, v = dx * np.cos(turn) + dy * np.sin(turn), dy * np.cos(turn) - dx * np.sin(turn)
        picture += ((u / size[0]) ** 2 + (v / size[1]) ** 2 <= 1) * inside * rng.uniform(-0.7, 0.7)
    return np.asarray(np.clip(picture, 0, None))


def _kspace(train: Train, seen: Complex, back: bool) -> Complex:
    """Return all lines ``(coil, ky, sample)`` read one way, in the order in which they are sampled.

    Forward, sample ``i`` of ``n`` lies at ``i - n // 2 + delay``; backward it lies at the negative of that,
    but for one point: a train that turns in the middle between two samples.
    """
    ny, nx = train.matrix
    n = seen.shape[-1]
    wide = np.zeros((*seen.shape[:2], _OVERSAMPLED * n), np.complex128)
    wide[..., n // 2 : n // 2 + n] = seen
    x = (np.arange(_OVERSAMPLED * n) - n) / (_OVERSAMPLED * n)
    moved = train.delay if not back else -train.delay
    wide = wide * np.exp(-2j * np.pi * moved * x)
    full = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(wide, axes=(1, 2)), norm="ortho"), axes=(1, 2))
    y0, x0 = n // 2 - ny // 2, n - nx
    lines = full[:, y0 : y0 + ny, x0 : x0 + _OVERSAMPLED * nx]
    return np.asarray(lines[..., ::-1] * np.exp(1j * train.phase) if back else lines)


def _xml(train: Train) -> str:
    ny, nx = train.matrix
    encoding = Encoding(
        matrix=(1, ny, _OVERSAMPLED * nx),
        fov_mm=(_THICK_MM, 220.0, _OVERSAMPLED * 220.0),
        recon_matrix=(1, ny, nx),
        recon_fov_mm=(_THICK_MM, 220.0, 220.0),
        centre=(0, ny // 2),
        acceleration=(train.acceleration, 1),
    )
    limits = {"kspace_encoding_step_1": (0, ny - 1, ny // 2), "kspace_encoding_step_2": (0, 0, 0)}
    scanner = ScannerHeader(
        coils=[f"coil:{number}" for number in range(train.coils)],
        echo_times_ms=[4.0 + 2.5 * echo for echo in range(train.echoes)],
    )
    return header_xml(scanner, encoding, limits)
