"""A raw file, a BART pair or a folder taken as an archive of one scan.

The intake reads tars only, and so do its gates and its sandbox.  What is no tar is packed into one that
depends on content and suffixes alone: the same files give the same bytes, and so the same scan id.
"""

from __future__ import annotations

import os
import tarfile
from pathlib import Path

from ..contract.codes import Code, IncompleteError, PermanentError, RetryableError
from ..decompress.archive.compression import compression_of
from ..decompress.archive.names import judge
from ..decompress.archive.signatures import container_of
from ..decompress.archive.tar_header import BLOCK, looks_like_tar
from ..decompress.gates.sniff import Other, sniff
from ..decompress.limits import Limits
from .pairs import SUFFIXES, partner

_SUFFIXES = frozenset({".cfl", ".hdr", ".h5", ".hdf5", ".hdf", ".mrd", ".lab", ".sin", ".list", ".json"})
"""Those that say something about a file; all others are left off."""
_SETTINGS = "scan.json"


def archive_of(path: Path, folder: Path) -> Path:
    """Return an archive of what lies at ``path``: itself, or a tar of it, written to ``folder``.

    A file that is neither a tar nor raw data is returned as it is, for the intake to say so.

    Raises
    ------
    PermanentError
        ``too_many_members``, ``too_large``, ``no_raw_data`` (an empty folder), ``bad_name``.
    IncompleteError
        A file changed while it was read.
    RetryableError
        A file may not be read.
    OSError
        The tar cannot be written.
    """
    limits = Limits.from_env()
    try:
        files = _files(path, limits)
    except OSError:
        return path  # the intake says what is wrong with it
    if not files:
        return path
    if sum(file.stat().st_size for file in files) > limits.max_raw_bytes:
        raise PermanentError(
            Code.TOO_LARGE,
            f"The raw files have more than {limits.max_raw_bytes} bytes; one scan is expected.",
        )
    packed = folder / "packed.tar"
    _pack(packed, files)
    return packed


def needs_packing(path: Path) -> bool:
    """Return whether :func:`archive_of` would pack what lies at ``path``."""
    try:
        return bool(_files(path, Limits.from_env()))
    except (OSError, PermanentError):
        return False


def _files(path: Path, limits: Limits) -> list[Path]:
    """Return the files to pack, none where the path is to be read as it is."""
    if path.is_dir():
        files = _files_below(path, limits)
        if not files:
            raise PermanentError(
                Code.NO_RAW_DATA, "The folder holds no files. Give the folder with the raw files of one scan."
            )
        return files
    if path.is_file() and (other := partner(path)) is not None:
        return sorted([path, other])
    return [path] if path.is_file() and _is_bare(path) else []


def _is_bare(path: Path) -> bool:
    """Return whether a file is raw data that was not packed; nothing is parsed but its first bytes."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(BLOCK)
        packed = compression_of(head) is not None or looks_like_tar(head) or container_of(head) is not None
        return not packed and sniff(file, size, path.suffix.lower()) not in {Other.UNKNOWN, Other.ARCHIVE}


def _files_below(path: Path, limits: Limits) -> list[Path]:
    """Return the regular files of a folder and of those in it, by name; links are left out."""
    found: list[Path] = []
    for place, folders, names in os.walk(path):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            file = Path(place, name)
            within = os.fsencode(file.relative_to(path))
            if name.startswith(".") or file.is_symlink() or not file.is_file():
                continue
            if judge(within, limits, is_folder=False).is_litter:
                continue
            found.append(file)
            if len(found) > limits.max_members:
                raise PermanentError(
                    Code.TOO_MANY_MEMBERS,
                    f"The folder holds more than {limits.max_members} files; one scan has a few. Give the "
                    "folder of one scan.",
                )
    return sorted(found)


def _pack(target: Path, files: list[Path]) -> None:
    """Write a tar without a name, owner or time of the files; those of one stem keep a common one."""
    stems: dict[Path, int] = {}
    with tarfile.open(target, "x", format=tarfile.PAX_FORMAT) as tar:
        for number, path in enumerate(files):
            suffix = path.suffix.lower() if path.suffix.lower() in _SUFFIXES else ""
            stem = stems.setdefault(path.with_suffix(""), len(stems)) if suffix in SUFFIXES else number
            name = f"{'pair' if suffix in SUFFIXES else 'file'}{stem}{suffix}"
            member = tarfile.TarInfo(_SETTINGS if path.name.lower() == _SETTINGS else name)
            try:
                descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            except OSError:
                raise RetryableError(
                    Code.STORAGE, "A raw file could not be opened. Check its access rights, then try again."
                ) from None
            with os.fdopen(descriptor, "rb") as file:
                before = os.fstat(descriptor)
                member.size = before.st_size
                try:
                    tar.addfile(member, file)
                except OSError:  # fewer bytes than a moment ago
                    raise _changed() from None
                after = os.fstat(descriptor)
            if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
                raise _changed()


def _changed() -> IncompleteError:
    return IncompleteError("A raw file changed while it was being read: it may still be arriving.")
