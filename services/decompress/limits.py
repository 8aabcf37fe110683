"""The budgets of one intake: how many bytes, members, seconds one archive may cost.

Every number here is counted as bytes are actually read or written, never taken from what a header
promises.  The defaults fit the largest clinical scans; a deployment overrides single ones through the
environment (``MRIRECON_LIMIT_MAX_RAW_BYTES=…``, see :meth:`Limits.from_env`).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from ..contract.codes import Code, PermanentError

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB

ENV_PREFIX = "MRIRECON_LIMIT_"

_CGROUP_MEMORY = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


def machine_memory() -> int:
    """Return the bytes of memory this process may use: the smaller of the machine's and its cgroup's."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for file in _CGROUP_MEMORY:
        try:
            text = file.read_text(encoding="ascii").strip()
        except OSError:
            continue
        if text.isdigit():
            total = min(total, int(text))
    return total


def _memory_budget() -> int:
    # A fifth stays for the page cache, the parent process and the system.
    return machine_memory() * 4 // 5


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Budgets of one intake (bytes and seconds).

    Attributes
    ----------
    max_archive_bytes
        Size of the archive as stored.
    max_raw_bytes
        Sum of what the archive unpacks to, headers and padding included; also the most that the data sets of
        one HDF5 file may declare, and the largest single file the child may write.
    max_ratio, ratio_floor_bytes
        Unpacked over stored bytes (of a compressed archive, of a filtered HDF5 data set) may be at most
        ``max_ratio`` once more than ``ratio_floor_bytes`` came out: a small file may be very compressible.
    max_members
        Entries of the tar of any type, litter and folders included.
    max_name_bytes, max_name_depth
        Length of a member's name in UTF-8 and its folders.
    max_header_bytes
        One extended (pax, GNU long name) header.
    max_window_bytes
        Memory a decoder may ask for (zstd window, xz dictionary).
    max_settings_bytes
        The optional ``scan.json`` of the archive.
    max_xml_bytes, max_xml_depth, max_xml_elements
        An XML header.
    max_h5_objects, max_h5_depth, max_h5_attributes
        Objects in an HDF5 file, nesting of its groups, attributes of one object.
    memory_bytes
        Memory of the child that parses; readers refuse (``too_large``) what would not fit in it.
    gate_seconds
        Processor time to check the structure of one HDF5 file, and as much again for every 256 MiB of it: the
        library can be led round in circles.
    cpu_seconds, wall_seconds
        Time of the child that parses; of the processor time a small archive gets less (see ``stage``).
    """

    max_archive_bytes: int = 64 * GIB
    max_raw_bytes: int = 64 * GIB
    max_ratio: int = 200
    ratio_floor_bytes: int = 64 * MIB
    max_members: int = 1000
    max_name_bytes: int = 255
    max_name_depth: int = 32
    max_header_bytes: int = 4 * MIB
    max_window_bytes: int = 128 * MIB
    max_settings_bytes: int = 64 * KIB
    max_xml_bytes: int = 4 * MIB
    max_xml_depth: int = 64
    max_xml_elements: int = 200_000
    max_h5_objects: int = 10_000
    max_h5_depth: int = 32
    max_h5_attributes: int = 1_000
    memory_bytes: int = field(default_factory=_memory_budget)
    gate_seconds: int = 20
    cpu_seconds: int = 24 * 3600
    wall_seconds: int = 4 * 3600

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise PermanentError(
                    Code.BAD_SETTINGS,
                    f"The limit {item.name} must be a whole number of at least 1; set it so or leave it out.",
                )

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> Limits:
        """Return the defaults, each replaced by ``MRIRECON_LIMIT_<NAME>`` where that is set.

        Raises
        ------
        PermanentError
            ``bad_settings`` when such a variable is no whole number of at least 1 or names no limit.
        """
        found = {
            name.removeprefix(ENV_PREFIX).lower(): text
            for name, text in (os.environ if environ is None else environ).items()
            if name.startswith(ENV_PREFIX)
        }
        known = {item.name for item in fields(cls)}
        values: dict[str, int] = {}
        for name, text in found.items():
            if name not in known:
                raise PermanentError(
                    Code.BAD_SETTINGS,
                    f"There is no limit of that name; known are {', '.join(sorted(known))}.",
                )
            if not text.strip().isdecimal():
                raise PermanentError(
                    Code.BAD_SETTINGS, f"The limit {name} must be a whole number, for example 1000."
                )
            values[name] = int(text)
        return cls(**values)

    def as_dict(self) -> dict[str, Any]:
        """Return the limits as plain numbers, for the child process and the record."""
        return asdict(self)
