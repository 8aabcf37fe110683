"""How the images of a scan become DICOM series, and what the series are called and numbered.

Each contrast (echo) and each set is a series of its own. The repetitions and cardiac phases of one are its
temporal positions, in the order of the scanner's counters.
"""

from __future__ import annotations

from dataclasses import dataclass

from ...contract.profiles import DEFAULT_PROFILE
from .facts import METHOD_NAMES, Facts
from .volume import AXIAL, CORONAL, SAGITTAL, nearest_plane, plane_name

NOT_KNOWN = "ORIENTATION NOT KNOWN"
NOTES = 99
"""Number, within a reconstruction, of the series that carries the notes."""
_METHODS = ("fourier", "grappa", "raki", "pics", "zero-filled")
_PLANES = {AXIAL: (1, "AX"), CORONAL: (2, "COR"), SAGITTAL: (3, "SAG")}
_SEQUENCES = {"GR": "GRE", "SE": "SE"}


@dataclass(frozen=True)
class Series:
    """One series of a reconstruction.

    Attributes
    ----------
    index
        Its number among the series of the reconstruction, from 1.
    images
        Indices into ``facts.images``, by temporal position.
    number
        DICOM's Series Number.
    description
        DICOM's Series Description, 64 characters at most.
    """

    index: int
    images: tuple[int, ...]
    number: int
    description: str


def plan(facts: Facts) -> list[Series]:
    """Return the series of a reconstruction."""
    groups: dict[tuple[int, int], list[int]] = {}
    for n, image in enumerate(facts.images):
        groups.setdefault((image.contrast, image.set), []).append(n)
    return [
        Series(
            index,
            tuple(sorted(members, key=lambda n: (facts.images[n].repetition, facts.images[n].phase))),
            series_number(facts, index if index < NOTES else index + 1),
            description(facts, members[0]),
        )
        for index, members in enumerate(groups.values(), 1)
    ]


def series_number(facts: Facts, index: int) -> int:
    """Return DICOM's Series Number: ten thousands the method, thousands the plane, the rest ``index``.

    Methods count 1 Fourier, 2 GRAPPA, 3 RAKI, 4 PICS, 5 zero-filled, 9 another; planes 1 axial, 2 coronal,
    3 sagittal, 0 where the position is not known.
    """
    method = _METHODS.index(facts.method) + 1 if facts.method in _METHODS else 9
    return 10000 * method + 1000 * _plane(facts)[0] + index


def description(facts: Facts, image: int | None = None) -> str:
    """Return DICOM's Series Description: protocol class, method, and what tells the series apart."""
    parts = [protocol_class(facts), "mrirecon", METHOD_NAMES.get(facts.method, facts.method)]
    if facts.profile != DEFAULT_PROFILE:
        parts.append(facts.profile)
    if image is not None:
        index = facts.images[image]
        if len({other.contrast for other in facts.images}) > 1:
            parts.append(f"{'echo' if echoes(facts) else 'contrast'} {index.contrast + 1}")
        if len({other.set for other in facts.images}) > 1:
            parts.append(f"set {index.set + 1}")
    return " ".join(parts)[:64]


def protocol_class(facts: Facts) -> str:
    """Return plane, dimensions and sequence where they are known, as ``AX 2D GRE``; nothing is copied."""
    words = [_plane(facts)[1], "3D" if facts.geometry.is_3d else "2D"]
    words += [_SEQUENCES[facts.acquisition.sequence]] if facts.acquisition.sequence in _SEQUENCES else []
    return " ".join(words)


def echoes(facts: Facts) -> bool:
    """Whether the contrasts are echoes: each has an echo time of its own."""
    times = {image.contrast: image.echo_time_s for image in facts.images}
    return None not in times.values() and len(set(times.values())) == len(times)


def _plane(facts: Facts) -> tuple[int, str]:
    geometry = facts.geometry
    if not geometry.known:
        return 0, NOT_KNOWN
    number, word = _PLANES[nearest_plane(geometry.read_dir[0], geometry.phase_dir[0])]
    return number, word + " OBL" * plane_name(geometry).startswith("oblique")
