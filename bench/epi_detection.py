"""How well echo-planar scans that carry no flags are told from other Cartesian scans.

    python -m bench.epi_detection [--seeds 2] [--data DIR] [--out bench/results]

Generated scans with and without alternating readouts go through the intake's own reader and sorter; so do the
real files of a folder, where one is given.  Written is how many were taken for the other kind, and how far
from the threshold the closest of them lie.
"""

import argparse
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from mrirecon.contract.codes import PermanentError
from mrirecon.decompress.acquisitions import NOT_IMAGING, Flag, Part
from mrirecon.decompress.archive.members import Member, RawKind
from mrirecon.decompress.limits import Limits
from mrirecon.decompress.preparation import alternation
from mrirecon.decompress.preparation.contradictions import refuse_lost_centre
from mrirecon.decompress.preparation.notes import Notes
from mrirecon.decompress.preparation.parts import choose
from mrirecon.decompress.preparation.sorter import sort
from mrirecon.decompress.readers import mrd
from mrirecon.phantom.trains import Train, write

OBJECTS = ("head", "ellipses", "symmetric")
FEATURES: dict[str, dict[str, object]] = {
    "plain": {},
    "one coil": {"coils": 1},
    "sixteen coils": {"coils": 16},
    "SNR 3": {"snr": 3.0},
    "one coil, SNR 5": {"coils": 1, "snr": 5.0},
    "partial Fourier 6/8": {"partial": 0.75},
    "three slices": {"slices": 3},
    "lines from the end": {"order": "reversed"},
    "lines interleaved": {"order": "interleaved"},
    "lines from the centre": {"order": "centre_out"},
    "four trains": {"trains": 4},
    "five trains, one coil": {"trains": 5, "coils": 1},
    "every second line": {"acceleration": 2, "coils": 8},
    "128 x 96": {"matrix": (128, 96)},
    "navigators": {"navigators": True},
    "no delay": {"delay": 0.0, "phase": 0.0},
    "delay of 1.5 samples": {"delay": 1.5, "coils": 1},
}
OTHER: dict[str, dict[str, object]] = {
    "bipolar multi-echo": {"echoes": 3},
    "delay of 1.5 samples": {"delay": 1.5},
}


@dataclass(frozen=True)
class Case:
    """A generated scan and whether it is echo-planar."""

    feature: str
    train: Train

    @property
    def is_epi(self) -> bool:
        return self.train.alternating

    @property
    def must_be_found(self) -> bool:
        """Return whether missing it would let a ghosted image through.

        An object that is its own mirror image, read without delay, gives the same image either way.
        """
        return self.is_epi and not (self.train.what == "symmetric" and self.train.delay == 0)


def cases(seeds: int) -> Iterator[Case]:
    """Yield every feature with every object, with and without alternating readouts, ``seeds`` times."""
    for seed in range(seeds):
        for what in OBJECTS:
            for feature, settings in FEATURES.items():
                train = replace(Train(what=what, seed=100 * seed + 7), **settings)
                yield Case(feature, train)
                yield Case(feature, replace(train, alternating=False))
            for feature, settings in OTHER.items():
                yield Case(
                    feature, replace(Train(what=what, alternating=False, seed=100 * seed + 7), **settings)
                )


def measure(path: Path, kind: RawKind = RawKind.MRD) -> alternation.Alternation | None:
    """Return what the intake finds in a raw file that is read as Cartesian; ``None`` if it cannot tell."""
    member = Member(0, path.stat().st_size, kind, lambda: path.open("rb"), path, 0, path.parent)
    notes = Notes()
    if kind is RawKind.TWIX:
        from mrirecon.decompress.readers import twix

        parts = twix.read(member, Limits(), lambda *_: None)
    else:
        parts = mrd.read(member, Limits(), lambda *_: None)
    image = unflagged(choose(parts, notes).image)
    block = sort(image, notes).block
    refuse_lost_centre(block)
    return alternation.find(block)


def unflagged(part: Part) -> Part:
    """Return the readouts without what header and flags say of echo trains; navigators stay out."""
    imaging = part.table["flags"] & NOT_IMAGING == 0
    table = part.table[imaging].copy()
    table["flags"] &= ~int(Flag.REVERSE)
    return Part(replace(part.header, sequence=""), table, part.stores)


@dataclass(frozen=True)
class Judged:
    """How a case was judged."""

    case: Case
    found: alternation.Alternation | None

    @property
    def refused(self) -> bool:
        return self.found is not None and (self.found.is_mirrored or self.found.is_shifted)


def judge(case: Case, folder: Path) -> Judged:
    """Acquire a scan and look at it as the intake does."""
    path = write(case.train, folder / "scan.h5")
    try:
        return Judged(case, measure(path))
    finally:
        path.unlink()


def report(judged: list[Judged], real: list[tuple[str, str]]) -> str:
    """Return the tables."""
    epi = [j for j in judged if j.case.must_be_found]
    other = [j for j in judged if not j.case.is_epi]
    missed, wrong = [j for j in epi if not j.refused], [j for j in other if j.refused]
    limits = alternation
    lines = [
        "# Echo-planar scans without flags",
        "",
        f"`python -m bench.epi_detection` on {len(judged)} generated scans: {len(epi)} with readouts of",
        f"alternating polarity, of which **{len(missed)} were missed**; {len(other)} without, of which",
        f"**{len(wrong)} were refused**. No reversed readout carries a flag.",
        "",
        "Thresholds (`services/decompress/preparation/alternation.py`): correlation below",
        f"{limits.MIRRORED_BELOW} ({limits.SORTED_MIRRORED_BELOW} where lines may have been sorted), or",
        f"echoes at least {limits.SHIFT_SAMPLES} samples apart with an agreement of",
        f"{limits.SHIFT_AGREEMENT}.",
        "Objects: a head, bodies of ellipses at random, and objects that are their own mirror image along",
        "the readout; of those one coil sees nothing but the distance of the echoes.",
        "",
        "| | EPI found | highest correlation of those | others refused | lowest correlation of those |",
        "|---|---|---|---|---|",
    ]
    for feature in dict.fromkeys(j.case.feature for j in judged):
        yes = [j for j in epi if j.case.feature == feature]
        no = [j for j in other if j.case.feature == feature]
        asymmetric = [j.found.mirrored for j in yes if j.found and j.case.train.what != "symmetric"]
        lines.append(
            f"| {feature} | "
            + (f"{sum(j.refused for j in yes)} of {len(yes)}" if yes else "–")
            + (f" | {max(asymmetric):.2f}" if asymmetric else " | –")
            + f" | {sum(j.refused for j in no)} of {len(no)}"
            + f" | {min(j.found.mirrored for j in no if j.found):.2f} |"
        )
    lines += ["", "The highest correlation is that of objects that are not their own mirror image.", ""]
    if real:
        lines += [
            "Real files, read as Cartesian with what their flags say of reversed readouts left aside:",
            "",
            "| file | found |",
            "|---|---|",
            *(f"| {name} | {said} |" for name, said in real),
            "",
        ]
    return "\n".join(lines)


def real_files(data: Path) -> list[tuple[str, str]]:
    """Return what is found in every Siemens and MRD file below a folder."""
    said = []
    for path in sorted([*data.rglob("*.dat"), *data.rglob("*.h5")]):
        try:
            found = measure(path, RawKind.TWIX if path.suffix == ".dat" else RawKind.MRD)
        except PermanentError as error:
            said.append((str(path.relative_to(data)), f"not read as Cartesian: `{error.code}`"))
            continue
        assert found is not None
        word = "EPI" if found.is_mirrored or found.is_shifted else "not EPI"
        mirrored = f"{found.mirrored:.2f} (limit {found.threshold})"
        shifted = f"{found.shift:.2f} apart, agreement {found.agreement:.2f}"
        said.append((str(path.relative_to(data)), f"**{word}**, correlation {mirrored}; echoes {shifted}"))
    return said


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--out", type=Path, default=Path("bench/results"))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        judged = [judge(case, Path(folder)) for case in cases(arguments.seeds)]
    for j in judged:
        if j.refused != j.case.must_be_found:
            print(j.case, j.found)
    real = real_files(arguments.data) if arguments.data else []
    (arguments.out / "epi_detection.md").write_text(report(judged, real), encoding="utf-8")


if __name__ == "__main__":
    main()
