"""What becomes of real raw files: the end, the code and the sentence of each, and its preview to look at.

    python -m bench.real_files --data DIR [--out bench/results] [--previews DIR]

Every Siemens, MRD and BART file below DIR is run as a user would run it, bare. What a file is comes from
DIR's PROVENANCE.json where it has one.
"""

import argparse
import json
import shutil
import tempfile
from pathlib import Path

from mrirecon.local.runner import run_archive

KINDS = ("*.dat", "*.h5", "*.hdr")


def raw_files(data: Path) -> list[Path]:
    """Return the raw files below a folder; a BART pair counts once."""
    return sorted(path for kind in KINDS for path in data.rglob(kind))


def described(data: Path) -> dict[str, str]:
    """Return what PROVENANCE.json says of each file."""
    try:
        entries = json.loads((data / "PROVENANCE.json").read_text(encoding="utf-8"))
    except OSError:
        return {}
    return {entry["file"]: entry["kind"] for entry in entries}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("bench/results"))
    parser.add_argument("--previews", type=Path)
    arguments = parser.parse_args()
    kinds = described(arguments.data)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for number, path in enumerate(raw_files(arguments.data)):
            name = path.relative_to(arguments.data).as_posix()
            outcome = run_archive(path, Path(folder) / str(number), device="cpu")
            said = outcome.message if outcome.code else "; ".join(outcome.warnings)
            rows.append(
                f"| {name} | {kinds.get(name, '')} | {outcome.status} | "
                f"{f'`{outcome.code}`' if outcome.code else ''} | {said} |"
            )
            print(rows[-1], flush=True)
            if arguments.previews and outcome.status == "done":
                arguments.previews.mkdir(parents=True, exist_ok=True)
                preview = Path(str(outcome.out)) / "preview.png"
                shutil.copyfile(preview, arguments.previews / f"{name.replace('/', '_')}.png")
    text = [
        "# Real raw files",
        "",
        "`python -m bench.real_files --data DIR`: each file given bare to `mrirecon run`. Look at",
        "the previews (`--previews`) of those that end `done`: none may be ghosted. Phantom scans are from",
        "github.com/pehses/twixtools and github.com/pulseq/MR-Physics-with-Pulseq (MIT).",
        "",
        "| file | what it is | end | code | what is said |",
        "|---|---|---|---|---|",
        *rows,
        "",
    ]
    (arguments.out / "real_files.md").write_text("\n".join(text), encoding="utf-8")


if __name__ == "__main__":
    main()
