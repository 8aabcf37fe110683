"""Coverage-guided fuzzing (atheris): ``python -m tests.fuzz.fuzz walk|gate|heap CORPUS [libFuzzer options]``.

The corpus is seeded from our own generator of hostile archives on the first run.  A finding is written beside
the corpus as libFuzzer does (``crash-…``); fixed, it becomes a file in ``tests/fuzz/findings``.
"""

from __future__ import annotations

import random
import sys
import tarfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["mrirecon.decompress"]):
    from tests.fuzz import targets

LARGEST_SEED = 64 * 1024
MAX_INPUT = 128 * 1024
TARGETS = {"walk": targets.walk_archive, "gate": targets.gate_hdf5, "heap": targets.heap_elements}
MENDERS = {"walk": targets.mended, "gate": targets.sized, "heap": targets.sized}


def seed(which: str, folder: Path) -> None:
    """Write the first corpus: every small archive of ours, or every HDF5 file in one."""
    from tests.support.hostile_cases import CASES

    folder.mkdir(parents=True, exist_ok=True)
    for one in CASES:
        if one.name.startswith(("bomb", "xml", "h5_many", "h5_chunk", "h5_gzip", "name_long", "name_gnu")):
            continue
        data = one.build()
        if which == "walk" and len(data) <= LARGEST_SEED:
            (folder / one.name).write_bytes(data)
        if which != "walk" and one.name.startswith(("ok_", "h5_")):
            for number, raw in enumerate(hdf5_in(data)):
                seed = raw if which == "gate" else targets.followed_by_elements(raw)
                (folder / f"{one.name}.{number}").write_bytes(seed)


def hdf5_in(data: bytes) -> list[bytes]:
    """Return the small HDF5 files in a plain tar of ours."""
    import io

    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as packed:
            files = [packed.extractfile(info) for info in packed if info.isreg()]
            found = [file.read() for file in files if file]
    except tarfile.TarError:
        return []
    return [raw for raw in found if b"\x89HDF" in raw[:4096] and len(raw) <= LARGEST_SEED]


def main() -> None:
    """Fuzz one target until the options end it."""
    which, corpus, *options = sys.argv[1:]
    target, mend = TARGETS[which], MENDERS[which]
    folder = Path(corpus)
    if not folder.is_dir() or not any(folder.iterdir()):
        seed(which, folder)

    def mutate(data: bytes, most: int, number: int) -> bytes:
        changed = atheris.Mutate(data, most)
        # Mostly with checksums set right: else nearly every input ends at the first of them.
        return mend(changed)[:most] if random.Random(number).random() < 0.8 else changed

    atheris.Setup(
        [
            sys.argv[0],
            *options,
            f"-max_len={MAX_INPUT}",
            "-timeout=20",
            "-rss_limit_mb=3072",
            f"-artifact_prefix={folder.parent}/",
            corpus,
        ],
        lambda data: target(data) and None,
        custom_mutator=mutate,
    )
    atheris.Fuzz()


if __name__ == "__main__":
    main()
