"""Landlock: take from this process, for good, every file and network right it does not need.

A parser that was taken over can then write only into its two folders, read only the program itself, start no
other program, reach no TCP port and (Linux 6.12) no abstract socket and no other process's signals.  Linux
5.13 and later (``man 7 landlock``); where the kernel has none, nothing is restricted and the other layers of
the sandbox stand alone.
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys
from collections.abc import Iterable

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION_FLAG = 1
_RULE_PATH_BENEATH = 1
_PR_SET_NO_NEW_PRIVS = 38

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_ALL_FS_V1 = (1 << 13) - 1
_REFER, _TRUNCATE, _IOCTL_DEV = 1 << 13, 1 << 14, 1 << 15
_FILE_RIGHTS = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEV
_ALL_NET = 0b11  # bind and connect of TCP, from version 4
_ALL_SCOPES = 0b11  # abstract UNIX sockets and signals, from version 6


def version() -> int:
    """Return the kernel's Landlock version, 0 where there is none."""
    if sys.platform != "linux":
        return 0
    return max(0, _syscall(_CREATE_RULESET, None, 0, _VERSION_FLAG))


def restrict(read: Iterable[str], write: Iterable[str]) -> bool:
    """Allow this process to read under ``read`` and to read and write under ``write``, nothing else.

    Files already open stay open.  Return False where the kernel cannot do it.
    """
    have = version()
    if not have:
        return False
    rights = _ALL_FS_V1
    if have >= 2:
        rights |= _REFER
    if have >= 3:
        rights |= _TRUNCATE
    handled = [rights]
    if have >= 4:
        handled.append(_ALL_NET)
    if have >= 6:
        handled.append(_ALL_SCOPES)
    attributes = struct.pack(f"<{len(handled)}Q", *handled)
    ruleset = _syscall(_CREATE_RULESET, attributes, len(attributes), 0)
    if ruleset < 0:
        return False
    try:
        for path in read:
            _allow(ruleset, path, _READ_FILE | _READ_DIR)
        for path in write:
            _allow(ruleset, path, rights & ~_EXECUTE)
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
            return False
        return _syscall(_RESTRICT_SELF, ruleset, 0) == 0
    finally:
        os.close(ruleset)


def _allow(ruleset: int, path: str, rights: int) -> None:
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return  # a folder that is not there needs no right
    try:
        if not os.path.isdir(path):  # noqa: PTH112 - a plain string from the job
            rights &= _FILE_RIGHTS
        rule = struct.pack("<Qi", rights, descriptor)  # packed: no padding behind the descriptor
        _syscall(_ADD_RULE, ruleset, _RULE_PATH_BENEATH, rule, 0)
    finally:
        os.close(descriptor)


def _syscall(number: int, *arguments: int | bytes | None) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    converted = [ctypes.c_long(value) if isinstance(value, int) else value for value in arguments]
    result: int = libc.syscall(ctypes.c_long(number), *converted)
    return result
