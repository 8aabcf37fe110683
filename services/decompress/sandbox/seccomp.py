"""Seccomp: refuse, for good, the system calls that a parser never needs, through libseccomp.

Landlock restricts files and TCP; it knows nothing of UDP, of sockets that have a path, or of processes.  This
filter closes those: no socket of any kind, no other program, no new process (threads stay), no signal to
another process, no way into another process's memory, no kernel interface that goes round a filter.

It is a list of what is refused, not of what is allowed, so that an update of a library that makes a new
harmless call does not reject scans.  A refused call fails with ``EPERM``.  Where libseccomp or the kernel's
part is missing (macOS, some builds) :func:`restrict` says so and the other layers stand alone.
"""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from typing import Final

_ALLOW: Final = 0x7FFF0000
_ERRNO: Final = 0x00050000
_NOT_EQUAL, _MASKED_EQUAL = 1, 7
_CLONE_THREAD: Final = 0x00010000
_UNKNOWN_CALL: Final = -1  # __NR_SCMP_ERROR

_REFUSED: Final = (
    # network
    "socket",
    "socketpair",
    # programs and processes
    "execve",
    "execveat",
    "fork",
    "vfork",
    # other processes
    "ptrace",
    "process_vm_readv",
    "process_vm_writev",
    "process_madvise",
    "pidfd_open",
    "pidfd_getfd",
    "pidfd_send_signal",
    "kcmp",
    "tkill",
    "shmget",
    "shmat",
    "msgget",
    "semget",
    "mq_open",
    # ways round a filter, and the kernel's own doors
    "io_uring_setup",
    "io_uring_enter",
    "io_uring_register",
    "bpf",
    "perf_event_open",
    "userfaultfd",
    "open_by_handle_at",
    "add_key",
    "request_key",
    "keyctl",
    "mount",
    "umount2",
    "move_mount",
    "fsopen",
    "open_tree",
    "pivot_root",
    "chroot",
    "unshare",
    "setns",
    "init_module",
    "finit_module",
    "delete_module",
    "kexec_load",
    "kexec_file_load",
)


class _Comparison(ctypes.Structure):
    """``struct scmp_arg_cmp``: one condition on an argument of a call."""

    _fields_ = (
        ("arg", ctypes.c_uint),
        ("op", ctypes.c_int),
        ("datum_a", ctypes.c_uint64),
        ("datum_b", ctypes.c_uint64),
    )


class _LibraryVersion(ctypes.Structure):
    """``struct scmp_version``."""

    _fields_ = (("major", ctypes.c_uint), ("minor", ctypes.c_uint), ("micro", ctypes.c_uint))


def version() -> str:
    """Return libseccomp's version, empty where there is none."""
    library = _library()
    if library is None:
        return ""
    found = library.seccomp_version().contents
    return f"{found.major}.{found.minor}.{found.micro}"


def restrict() -> bool:
    """Refuse the calls above to this process and every thread of it.

    Return False where the machine cannot do it; nothing is restricted then.
    """
    library = _library()
    if library is None:
        return False
    context = library.seccomp_init(_ALLOW)
    if not context:
        return False
    own = os.getpid()
    conditional = (
        # Threads are made by clone, too; glibc falls back to it where clone3 is unknown.
        ("clone", errno.EPERM, _Comparison(0, _MASKED_EQUAL, _CLONE_THREAD, 0)),
        ("clone3", errno.ENOSYS, None),
        # A process may signal itself (abort does), no other.
        ("kill", errno.EPERM, _Comparison(0, _NOT_EQUAL, own, 0)),
        ("tgkill", errno.EPERM, _Comparison(0, _NOT_EQUAL, own, 0)),
        ("rt_sigqueueinfo", errno.EPERM, _Comparison(0, _NOT_EQUAL, own, 0)),
        ("rt_tgsigqueueinfo", errno.EPERM, _Comparison(0, _NOT_EQUAL, own, 0)),
        # Limits of the process itself are asked for as those of process 0.
        ("prlimit64", errno.EPERM, _Comparison(0, _NOT_EQUAL, 0, 0)),
    )
    try:
        for name, number, condition in (*((name, errno.EPERM, None) for name in _REFUSED), *conditional):
            call = library.seccomp_syscall_resolve_name(name.encode())
            if call == _UNKNOWN_CALL:
                continue  # this libseccomp is older than the call
            conditions = ctypes.byref(condition) if condition else None
            if library.seccomp_rule_add_array(
                context, _ERRNO | number, call, 1 if condition else 0, conditions
            ) not in {0, -errno.EDOM}:  # EDOM: this architecture has no such call
                return False
        loaded: int = library.seccomp_load(context)
        return loaded == 0
    finally:
        library.seccomp_release(context)


def _library() -> ctypes.CDLL | None:
    if sys.platform != "linux":
        return None
    try:
        library = ctypes.CDLL("libseccomp.so.2")
    except OSError:
        return None
    library.seccomp_init.restype = ctypes.c_void_p
    library.seccomp_init.argtypes = [ctypes.c_uint32]
    library.seccomp_rule_add_array.argtypes = [
        ctypes.c_void_p,
        ctypes.c_uint32,
        ctypes.c_int,
        ctypes.c_uint,
        ctypes.c_void_p,
    ]
    library.seccomp_load.argtypes = [ctypes.c_void_p]
    library.seccomp_release.argtypes = [ctypes.c_void_p]
    library.seccomp_release.restype = None
    library.seccomp_syscall_resolve_name.argtypes = [ctypes.c_char_p]
    library.seccomp_version.restype = ctypes.POINTER(_LibraryVersion)
    return library
