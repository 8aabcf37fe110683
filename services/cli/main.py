"""The command line: what the words mean. Each command's work is in the module of its name."""

from __future__ import annotations

import argparse
import atexit
import importlib
import importlib.util
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType

from .. import __version__
from ..contract.profiles import DEFAULT_PROFILE, FORMER_NAMES, PROFILES, Method
from . import streams
from .exits import Exit

Register = Callable[[argparse.ArgumentParser], None]

_EPILOG = """exit codes: 0 all done; 2 usage; 3 an archive was rejected; 4 incomplete; 1 failed;
of several the gravest (1, 3, 4). Progress goes to stderr, data to stdout.
Not a medical device."""

_NOT_INSTALLED = (
    "mrirecon: this command needs a package that is not installed here, {}. In a checkout `make .venv/.dev` "
    "installs everything; elsewhere take the extra: mrirecon[operator] for status, queues, submit, redrive; "
    "mrirecon[capacity] for simulate; mrirecon[local] for the others."
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return the exit code."""
    with streams.lasting() as output:
        code = _command(argv)
        sys.stdout.flush()
        if output.lost:
            print("mrirecon: standard output could not be written; is its disk full?", file=sys.stderr)
            code = code or Exit.FAILED
    return code


def _command(argv: Sequence[str] | None) -> int:
    arguments = _parser().parse_args(argv)
    _set_up_libraries()
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup ignores SIGHUP
            signal.signal(number, _interrupt)
    try:
        return int(arguments.command(arguments))
    except KeyboardInterrupt:
        print("\nmrirecon: interrupted. No partial results were published.", file=sys.stderr)
        return Exit.INTERRUPTED
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == __package__.partition(".")[0]:
            raise
        print(_NOT_INSTALLED.format(error.name), file=sys.stderr)
        return Exit.USAGE


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _set_up_libraries() -> None:
    """Keep libraries from writing into the home folder, and from spinning; before any is imported."""
    sys.dont_write_bytecode = True
    here = _private_cache()
    for name in ("NUMBA_CACHE_DIR", "MPLCONFIGDIR", "TORCHINDUCTOR_CACHE_DIR"):
        os.environ.setdefault(name, str(here))
    # Idle threads sleep: on a machine that is shared, spinning ones slow every scan.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def _private_cache() -> Path:
    """Return a folder that nobody else can write into: what libraries keep there is executed later."""
    here = Path(tempfile.gettempdir()) / f"mrirecon-cache-{os.getuid()}"
    with suppress(OSError):
        here.mkdir(mode=0o700, exist_ok=True)
        found = here.lstat()
        if stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077:
            return here
    here = Path(tempfile.mkdtemp(prefix="mrirecon-cache-"))
    atexit.register(shutil.rmtree, here, ignore_errors=True)
    return here


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mrirecon",
        description="From a tar of raw MRI k-space to images: scan-specific RAKI, on one machine or on AWS.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"mrirecon {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for name, words, register in _COMMANDS:
        register(commands.add_parser(name, help=words))
    return parser


def _run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "archives",
        nargs="+",
        type=Path,
        metavar="ARCHIVE",
        help="a tar of raw k-space, a raw file, or a folder of one scan's raw files",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where the images go")
    parser.add_argument(
        "--method",
        type=lambda name: str(FORMER_NAMES.get(name, name)),
        choices=[method.value for method in Method],
        help="how missing lines are filled (default: what the profile says)",
    )
    parser.add_argument(
        "--profile",
        choices=sorted(PROFILES),
        help=f"named settings (default: what the archive asks for, else {DEFAULT_PROFILE})",
    )
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"], help="where to compute")
    parser.add_argument("--json", action="store_true", help="print one JSON object an archive")

    def command(arguments: argparse.Namespace) -> int:
        from .run import run

        return run(arguments)

    parser.set_defaults(command=command)


def _inspect(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "archive",
        type=Path,
        metavar="ARCHIVE",
        help="a tar of raw k-space, a raw file, or a folder of one scan's raw files",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")

    def command(arguments: argparse.Namespace) -> int:
        from .inspect import inspect

        return inspect(arguments)

    parser.set_defaults(command=command)


def _demo(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("results"),
        metavar="DIR",
        help="where the scan and its images go (results)",
    )
    parser.add_argument(
        "--method",
        type=lambda name: str(FORMER_NAMES.get(name, name)),
        choices=[method.value for method in Method],
        help="how missing lines are filled (auto)",
    )

    def command(arguments: argparse.Namespace) -> int:
        from .demo import demo

        return demo(arguments)

    parser.set_defaults(command=command)


def _doctor(parser: argparse.ArgumentParser) -> None:
    def command(arguments: argparse.Namespace) -> int:
        from .doctor import doctor

        return doctor(arguments)

    parser.set_defaults(command=command)


def _cost(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--env", required=True, metavar="NAME", help="name of a file of config/")
    parser.add_argument("rest", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)

    def command(arguments: argparse.Namespace) -> int:
        # The templates are synthesised by the infrastructure's own code, which is not part of the package.
        if not (Path("infra") / "cost.py").is_file():
            print("mrirecon cost: run it in a checkout of the project, where infra/ is.", file=sys.stderr)
            return Exit.USAGE
        if importlib.util.find_spec("aws_cdk") is None:
            raise ModuleNotFoundError(name="aws_cdk")
        call = [sys.executable, "-m", "infra.cost", "--env", arguments.env, *arguments.rest]
        return subprocess.run(call, check=False).returncode

    parser.set_defaults(command=command)


def _lazily(module: str, function: str) -> Register:
    """Return a register function that imports its room only when the command is looked at."""

    def register(parser: argparse.ArgumentParser) -> None:
        getattr(importlib.import_module(module, __package__), function)(parser)

    return register


_COMMANDS: tuple[tuple[str, str, Register], ...] = (
    ("run", "archives to images", _run),
    ("inspect", "what is in an archive", _inspect),
    ("demo", "make a raw scan and reconstruct it", _demo),
    ("doctor", "is this machine fit?", _doctor),
    ("watch", "serve a folder on this machine", _lazily(".watch", "register")),
    ("submit", "send an archive to the cloud and follow it", _lazily(".operate", "register_submit")),
    ("status", "all scans in the cloud, or one", _lazily(".operate", "register_status")),
    ("queues", "queues, workers, dead letters", _lazily(".operate", "register_queues")),
    ("redrive", "send dead letters again", _lazily(".operate", "register_redrive")),
    ("canary", "send a small scan through the cloud, to see that it works", _lazily(".canary", "register")),
    ("gateway", "activate, join, look at or remove a file gateway", _lazily(".gateway", "register")),
    ("cost", "what a month costs (from a checkout)", _cost),
    ("simulate", "how many machines does a day need?", _lazily("..capacity.command", "register")),
)
