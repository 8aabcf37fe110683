"""Print what an operator's shell needs to reach a deployed environment, from the outputs of its stacks.

``python -m infra.cdk deploy --all -c env=NAME --outputs-file outputs.json`` writes them; then
``eval "$(python -m infra.outputs outputs.json)"`` and ``mrirecon status``, ``queues`` and the rest.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from pathlib import Path

from mrirecon.contract import environment as env

VARIABLES = {
    env.RAW_BUCKET: "RawBucket",
    env.KSPACE_BUCKET: "KspaceBucket",
    env.IMAGES_BUCKET: "ImagesBucket",
    env.QUARANTINE_BUCKET: "QuarantineBucket",
    env.LEDGER_TABLE: "LedgerTable",
    env.DECOMPRESS_STAT_QUEUE_URL: "DecompressStatQueue",
    env.DECOMPRESS_ROUTINE_QUEUE_URL: "DecompressRoutineQueue",
    env.DECOMPRESS_DEAD_LETTER_QUEUE_URL: "DecompressDeadLetters",
    env.RECON_STAT_QUEUE_URL: "ReconStatQueue",
    env.RECON_ROUTINE_QUEUE_URL: "ReconRoutineQueue",
    env.RECON_DEAD_LETTER_QUEUE_URL: "ReconDeadLetters",
    env.ECS_CLUSTER: "Cluster",
    env.ECS_SERVICE: "Service",
    env.BATCH_JOB_QUEUE: "JobQueue",
    env.BATCH_JOB_DEFINITION: "JobDefinition",
}


def values_of(text: str) -> dict[str, str]:
    """Return the contract's variables from the text of an outputs file.

    Raises
    ------
    ValueError
        When the text is none, or lacks what the stack ``Data`` puts out.
    """
    told = json.loads(text)
    values = {name: value for stack in told.values() for name, value in stack.items()}
    missing = [name for name in ("RawBucket", "LedgerTable") if name not in values]
    if missing:
        raise ValueError(
            f"expected outputs of the stack Data, found no {' or '.join(missing)}: deploy --all writes them"
        )
    return {variable: values[output] for variable, output in VARIABLES.items() if output in values}


def exports(text: str) -> str:
    """Return shell commands that set the variables of :func:`values_of`, which says what it raises."""
    return "".join(f"export {name}={shlex.quote(value)}\n" for name, value in values_of(text).items())


def main(arguments: list[str] | None = None) -> int:
    """Print the commands; 2 when the file is not one of outputs."""
    parser = argparse.ArgumentParser(
        description="Print shell commands that point mrirecon at an environment."
    )
    parser.add_argument("file", type=Path, help="what `deploy --outputs-file` wrote")
    given = parser.parse_args(arguments)
    try:
        sys.stdout.write(exports(given.file.read_text(encoding="utf-8")))
    except (OSError, ValueError, AttributeError) as error:
        sys.stderr.write(f"{given.file}: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
