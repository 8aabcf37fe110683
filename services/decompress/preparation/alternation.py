"""Echo trains that no flag and no header names: readouts of alternating polarity, seen in the samples.

In an echo-planar scan every second readout of a train runs backwards through k-space.  Where the file says so
(:class:`~..acquisitions.Flag.REVERSE`), the samples are turned round; where it does not, every second line is
mirrored and the image is a sum of the object and its mirror image, half a field of view apart (Schmitt,
Stehling, Turner, *Echo-Planar Imaging*, 1998, chapter 7).

What is compared is the part of an object that changes sign when the readout axis is mirrored, in *magnitude*
images, which know neither the phase of the coils, nor that of the main field, nor where the echo lies in the
readout.  Between lines read in the same direction that part agrees (correlation above 0), between lines read
in opposite directions it is opposite (below 0).  Three views of it are taken, because each is blind to some
objects:

* the profiles of lines that are neighbours along the phase axis (a Fourier transform along the readout);
* the image of all lines read one way against the image of all lines read the other way;
* the same two images with every line scaled to the same energy, which shows edges.

An object that is its own mirror image shows nothing of this.  Its echoes still lie on opposite sides of the
middle of the readout in odd and even lines, by the delay between gradient and receiver; that is the second
test, which also finds lines that were turned round but never corrected.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from ..acquisitions import Flag, Part
from .placement import Ints
from .sorter import Block
from .unsupported import unsupported

Complex = NDArray[np.complex64]
Floats = NDArray[np.float64]

MIRRORED_BELOW = -0.06
"""Mean of the two lowest correlations below which lines that follow each other in a train count as read in
opposite directions.  Set on the real and the generated scans of ``bench/epi_detection.py``; its table shows
the margin on both sides.  Other scans lie at -0.02 and above, echo-planar ones at -0.34 and below, but for a
nearly symmetric head seen by one coil: -0.21 at an SNR of 5, -0.13 to -0.09 in five interleaved trains."""
CHANCE = 3.0
"""The correlation must also lie so many standard errors of uncorrelated noise below 0: of a few lines of few
samples, noise alone reaches any fixed limit now and then."""
SORTED_MIRRORED_BELOW = -0.5
"""The same where the order of acquisition is lost and interleaved trains are only supposed: several guesses
need a clearer answer."""
SHIFT_SAMPLES = 0.5
SHIFT_AGREEMENT = 0.75
TURNED_AGREEMENT = 0.5
"""Odd and even echoes lie apart when half of the pairs of lines say so by at least so many samples, and the
pairs agree on the direction but for one in eight (weights of one direction less those of the other).  Where
flags say that lines of both directions are there, one in four may disagree."""

_WINDOW = 128
"""Samples and lines about the middle that are looked at: enough to see an object, quick for any scan."""
_GROUPS = 6
_SORTED_GROUPS = 2
_COILS = 8
_PAIRS = 32
_FEWEST_LINES = 12
_FEWEST_SAMPLES = 16
_MOST_TRAINS = 4
_FEWEST_SHIFTS = 10
_SHIFT_PAIRS = 20


@dataclass(frozen=True)
class Lines:
    """The lines of one slice of one image, at one step of the other phase axis.

    Attributes
    ----------
    samples
        complex64 ``(line, coil, sample)`` in the order of acquisition, reversed ones turned round.
    place
        ``(line,)``: steps along the phase axis.
    turned
        Flags say that some, not all, of them were read backwards.
    """

    samples: Complex
    place: Ints
    turned: bool = False


@dataclass(frozen=True)
class Alternation:
    """What was found of two groups of lines that would have been read in opposite directions.

    Attributes
    ----------
    mirrored
        Mean of the two lowest of the three correlations described above, -1 to 1.
    shift, agreement
        Median distance [samples] between the echoes of the two groups, and how far the pairs of lines agree
        on its direction, 0 to 1.
    threshold
        Below which ``mirrored`` counts.
    turned
        Flags say that lines of both directions are there.
    """

    mirrored: float
    shift: float
    agreement: float
    threshold: float = MIRRORED_BELOW
    turned: bool = False

    @property
    def is_mirrored(self) -> bool:
        """Return whether the lines were read in opposite directions."""
        return self.mirrored < self.threshold

    @property
    def is_shifted(self) -> bool:
        """Return whether the echoes of odd and even lines lie apart."""
        enough = TURNED_AGREEMENT if self.turned else SHIFT_AGREEMENT
        return abs(self.shift) >= SHIFT_SAMPLES and self.agreement >= enough


def find(block: Block) -> Alternation | None:
    """Look for alternating polarity among the readouts of an image.

    Returns
    -------
    What was found under the assumption that fits alternating readouts best, or ``None`` where there are too
    few lines to tell.
    """
    axes = [(3, 2)] if block.shape[2] == 1 else [(3, 2), (2, 3)]
    found = [judge(list(_groups(block, along, other))) for along, other in axes]
    return min((one for one in found if one is not None), key=_evidence, default=None)


def refuse(block: Block) -> None:
    """Refuse echo trains that neither the header nor a flag names, but the samples show.

    Raises
    ------
    PermanentError
        ``unsupported``.
    """
    found = find(block)
    if found is None:
        return
    if found.is_mirrored:
        raise unsupported(
            "an echo-planar (EPI) scan: its samples show readouts of alternating polarity, though no flag "
            "says so"
        )
    if found.is_shifted:
        raise unsupported(
            f"an echo-planar (EPI) scan or like one: the echoes of odd and even readouts lie "
            f"{abs(found.shift):.1f} samples apart, as with readouts of alternating polarity that were not "
            "corrected"
        )


def judge(groups: list[Lines]) -> Alternation | None:
    """Return what several groups of lines (slices, images) of one scan say together."""
    groups = [
        group
        for group in groups
        if group.place.size >= _FEWEST_LINES and group.samples.shape[-1] >= _FEWEST_SAMPLES
    ]
    if not groups:
        return None
    prepared = [_Prepared(group) for group in groups]
    found = [_judge(prepared, [backs[number] for backs in _in_trains(groups)]) for number in range(3)]
    strongest = sorted(prepared, key=lambda group: -float(group.energy.sum()))[:_SORTED_GROUPS]
    if all(group.may_be_sorted for group in strongest):
        found += _sorted_trains(strongest)
    return min(found, key=_evidence)


def _evidence(found: Alternation) -> tuple[bool, float]:
    """Sort what speaks for alternating polarity first."""
    return not (found.is_mirrored or found.is_shifted), found.mirrored - found.threshold


# ---------------------------------------------------------------------------------------------- the lines


def _groups(block: Block, along: int, other: int) -> Iterator[Lines]:
    """Yield lines that differ in their step along one axis only, of a few slices and images."""
    first = block.rows[block.start[:-1]]  # of a line acquired several times, one: trains stay trains
    keys = np.delete(block.lines, along, axis=1)
    groups, group = np.unique(keys, axis=0, return_inverse=True)
    sizes = np.bincount(group.ravel())
    usable = np.flatnonzero(sizes >= _FEWEST_LINES)
    if block.shape[2] > 1:  # of a volume, the planes at the centre: elsewhere there is little signal
        column = [0, 1, other].index(other)
        distance = np.abs(groups[usable, column] - block.shape[other] // 2)
        usable = usable[np.argsort(distance, kind="stable")][:_GROUPS]
    picked = usable[np.linspace(0, usable.size - 1, min(usable.size, _GROUPS)).astype(int)]
    for number in picked:
        mine = np.flatnonzero(group.ravel() == number)
        mine = mine[np.argsort(first[mine], kind="stable")]
        rows, place = first[mine], block.lines[mine, along]
        kept = _kept(block.part, rows)
        usual = kept == np.bincount(kept).argmax()
        rows, place = rows[usual], place[usual]
        backward = (block.part.table["flags"][rows] & Flag.REVERSE) != 0
        starts = block.readout.first[block.start[:-1]][mine][usual]
        # Flags and centre samples of the file are believed: a line lies where the image will have it.
        samples = np.stack(
            [
                np.roll(_samples(block.part, int(row)), start - starts[0], axis=-1)
                for row, start in zip(rows, starts, strict=True)
            ]
        )
        yield Lines(samples, place, turned=bool(backward.any() and not backward.all()))


def _kept(part: Part, rows: Ints) -> Ints:
    table = part.table[rows]
    kept: Ints = table["samples"].astype(np.int64) - table["pre"] - table["post"]
    return kept


def _samples(part: Part, row: int) -> Complex:
    """Return the central samples of a readout in the order of rising kx, as far as its flags tell."""
    entry = part.table[row]
    samples = part.samples(row)[:, entry["pre"] : entry["samples"] - entry["post"]]
    if entry["flags"] & Flag.REVERSE:
        samples = samples[:, ::-1]
    return samples


class _Prepared:
    """Lines with what all assumptions about their polarity share."""

    def __init__(self, lines: Lines) -> None:
        samples = _strongest_coils(_middle(lines.samples))
        self.place = lines.place
        self.turned = lines.turned
        self.energy: Floats = np.sqrt(_power(samples))
        floor = float(np.median(self.energy)) * 1e-3 + 1e-30
        self.profiles = _transform(samples, (-1,))
        self.odd_profiles = _odd_part(np.abs(self.profiles))
        self.plain = samples
        self.levelled = (samples / (self.energy + floor)[:, None, None]).astype(np.complex64)
        order = np.lexsort((np.arange(self.place.size), self.place))
        gaps = np.diff(self.place[order])
        usual = max(1, int(np.median(gaps)))
        near = gaps <= 2 * usual
        self.one, self.next = order[:-1][near], order[1:][near]
        self.weight: Floats = np.sqrt(self.energy[self.one] * self.energy[self.next])
        # Of one coil's images, halves of k-space may look like each other's mirror image by chance.
        self.may_be_sorted = samples.shape[1] > 1 and usual == 1 and bool((np.diff(self.place) > 0).all())


def _middle(samples: Complex) -> Complex:
    n = samples.shape[-1]
    width = min(n - n % 2, _WINDOW)  # cut evenly at both ends, so that mirroring stays mirroring
    start = (n - width) // 2
    return samples[..., start : n - start]


def _strongest_coils(samples: Complex) -> Complex:
    power = (np.abs(samples) ** 2).sum(axis=(0, 2))
    return samples[:, np.sort(np.argsort(-power)[:_COILS])]


def _power(samples: Complex) -> Floats:
    """Return the energy of each line, ``(line,)``."""
    flat = np.ascontiguousarray(samples).reshape(samples.shape[0], -1).view(np.float32)
    return np.asarray(np.einsum("ij,ij->i", flat, flat, dtype=np.float64))


def _transform(samples: Complex, axes: tuple[int, ...]) -> Complex:
    shifted = scipy.fft.fftn(scipy.fft.ifftshift(samples, axes=axes), axes=axes, overwrite_x=True)
    return np.asarray(scipy.fft.fftshift(shifted, axes=axes), np.complex64)


def _odd_part(magnitude: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the part that changes sign when the last axis is mirrored about its centre ``n // 2``."""
    n = magnitude.shape[-1]
    mirrored = np.roll(magnitude[..., ::-1], 1 - n % 2, axis=-1)
    return np.asarray((magnitude - mirrored) / 2, np.float32)


# ------------------------------------------------------------------------------------------ the assumptions


def _in_trains(groups: list[Lines]) -> list[list[Ints]]:
    """Return for each group which lines could have been read backwards: arrays ``(line,)`` of 0 and 1.

    Polarity alternates with the order of acquisition: through the whole scan, anew in every train, or anew
    and the other way round in every second train.  A train begins where the step along the phase axis breaks
    its rhythm.
    """
    found = []
    for group in groups:
        number = np.arange(group.place.size)
        steps = np.diff(group.place)
        usual = int(np.median(steps)) or 1
        breaks = np.append(True, (np.sign(steps) != np.sign(usual)) | (np.abs(steps) > 3 * abs(usual)))
        train = np.cumsum(breaks) - 1
        within = number - np.flatnonzero(breaks)[train]
        found.append([number % 2, within % 2, (within + train) % 2])
    return found


def _sorted_trains(groups: list[_Prepared]) -> list[Alternation]:
    """Judge interleaved trains whose lines were sorted by place, so that their order is lost.

    With ``n`` trains, ``n`` neighbours each were read the same way.
    """
    found = []
    for trains in range(2, _MOST_TRAINS + 1):
        for offset in range(trains):
            backs = [((np.argsort(np.argsort(group.place)) + offset) // trains) % 2 for group in groups]
            profiles = sum(_of_profiles(group, back) for group, back in zip(groups, backs, strict=True))
            if np.asarray(profiles)[0] < 0:  # else the images are not worth their transforms
                judged = _judge(groups, backs)
                found.append(Alternation(judged.mirrored, 0.0, 0.0, SORTED_MIRRORED_BELOW))
    return found


def _judge(groups: list[_Prepared], backs: list[Ints]) -> Alternation:
    sums = np.zeros((3, 2))
    shifts: list[Floats] = []
    weights: list[Floats] = []
    for group, back in zip(groups, backs, strict=True):
        sums[0] += _of_profiles(group, back)
        sums[1] += _of_images(group.plain, group, back)
        sums[2] += _of_images(group.levelled, group, back) * float((group.energy**2).sum())
        shift, weight = _shifts(group, back)
        shifts.append(shift)
        weights.append(weight)
    correlations = np.sort(sums[:, 0] / np.maximum(sums[:, 1], 1e-30))
    median, agreement = _agreed(np.concatenate(shifts), np.concatenate(weights))
    turned = any(group.turned for group in groups)
    independent = sum(group.plain.size // 2 for group in groups)  # an odd part repeats itself
    threshold = min(MIRRORED_BELOW, -CHANCE / np.sqrt(independent))
    return Alternation(float(correlations[:2].mean()), median, agreement, threshold, turned)


def _opposite(group: _Prepared, back: Ints, most: int) -> tuple[Ints, Ints]:
    """Return the strongest pairs of neighbours that were read in opposite directions."""
    pairs = np.flatnonzero(back[group.one] != back[group.next])
    pairs = pairs[np.argsort(-group.weight[pairs], kind="stable")][:most]
    return group.one[pairs], group.next[pairs]


def _of_profiles(group: _Prepared, back: Ints) -> Floats:
    """Return sum and norm of the products of the odd parts of neighbours read in opposite directions."""
    first, second = _opposite(group, back, _PAIRS)
    one, other = group.odd_profiles[first], group.odd_profiles[second]
    product = np.einsum("ijk,ijk->i", one, other, dtype=np.float64)
    powers = [np.einsum("ijk,ijk->i", lines, lines, dtype=np.float64) for lines in (one, other)]
    return np.array([product.sum(), np.sqrt(powers[0] * powers[1]).sum()])


def _of_images(lines: Complex, group: _Prepared, back: Ints) -> Floats:
    """Return the same of the two images made of the lines read one way and of those read the other way."""
    first = int(group.place[np.argmax(group.energy)]) - _WINDOW // 2
    row = group.place - first
    inside = (row >= 0) & (row < _WINDOW)
    grid = np.zeros((2, _WINDOW, *lines.shape[1:]), np.complex64)
    grid[back[inside], row[inside]] = lines[inside]
    forward, backward = _odd_part(np.abs(_transform(grid, (1, 3))))
    powers = float(np.vdot(forward, forward)), float(np.vdot(backward, backward))
    return np.array([float(np.vdot(forward, backward)), np.sqrt(powers[0] * powers[1])])


def _shifts(group: _Prepared, back: Ints) -> tuple[Floats, Floats]:
    """Return how far echoes of neighbours read in opposite directions lie apart [samples], and weights.

    A distance of echoes is a phase ramp along the image; its slope comes from the phase from voxel to voxel
    (Ahn and Cho, IEEE TMI 1987, 6:32).
    """
    first, second = _opposite(group, back, _SHIFT_PAIRS)
    product = (group.profiles[first] * group.profiles[second].conj()).sum(axis=1)
    turned = (product[:, 1:] * product[:, :-1].conj()).sum(axis=1)
    sharpness = np.abs(turned) / np.maximum((np.abs(product) ** 2).sum(axis=1), 1e-30)
    weight = sharpness * np.sqrt(np.sqrt(group.energy[first] * group.energy[second]))
    sign = np.where(back[first] == 0, 1.0, -1.0)
    shift = sign * np.angle(turned) * group.profiles.shape[-1] / (2 * np.pi)
    return np.asarray(shift, np.float64), np.asarray(weight, np.float64)


def _agreed(shifts: Floats, weights: Floats) -> tuple[float, float]:
    """Return the weighted median, and the weights of its sign less those of the other one."""
    if shifts.size < _FEWEST_SHIFTS or weights.sum() <= 0:
        return 0.0, 0.0
    order = np.argsort(shifts)
    reached = np.cumsum(weights[order]) / weights.sum()
    median = float(shifts[order][np.searchsorted(reached, 0.5)])
    return median, float(abs((np.sign(shifts) * weights).sum()) / weights.sum())
