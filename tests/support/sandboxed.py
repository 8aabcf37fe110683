"""Functions that the sandbox tests run in the child: each misbehaves in one way."""

from __future__ import annotations

import errno
import os
import resource
import signal
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from mrirecon.contract.codes import Code, IncompleteError, PermanentError
from mrirecon.decompress.sandbox.child import Tools

SECRET = "PHI-SENTINEL"


def echo(tools: Tools, **arguments: Any) -> dict[str, Any]:
    tools.progress("read", 0.5, "half")
    tools.progress("read", 1.0, "whole")
    return {"got": arguments, "answer": tools.ask(), "number": np.int64(3)}


def environment(tools: Tools) -> dict[str, Any]:
    limits = {
        name: resource.getrlimit(getattr(resource, f"RLIMIT_{name}"))
        for name in ("CORE", "FSIZE", "DATA", "CPU")
    }
    return {
        "variables": dict(os.environ),
        "limits": limits,
        "cwd": str(Path.cwd()),
        "modules": sorted(sys.modules),
    }


def reject(tools: Tools) -> dict[str, Any]:
    raise PermanentError(Code.NON_FINITE, "A sentence\x1b[31m with an escape.")


def wait(tools: Tools) -> dict[str, Any]:
    raise IncompleteError("Not yet.")


def unknown(tools: Tools) -> dict[str, Any]:
    raise ValueError(f"could not read {SECRET}")


def disk_full(tools: Tools) -> dict[str, Any]:
    raise OSError(errno.ENOSPC, "no space", SECRET)


def disk_full_wrapped(tools: Tools) -> dict[str, Any]:
    try:
        disk_full(tools)
    except OSError:
        raise RuntimeError(f"could not close {SECRET}")  # noqa: B904 - as h5py does


def called_damaged_by_a_broken_disk(tools: Tools) -> dict[str, Any]:
    try:
        broken_disk(tools)
    except OSError:
        raise PermanentError(Code.H5_CORRUPT, "An HDF5 file is damaged.") from None


def absurd_offset(tools: Tools) -> dict[str, Any]:
    raise OSError(errno.EINVAL, "invalid argument", SECRET)


def broken_disk(tools: Tools) -> dict[str, Any]:
    raise OSError(errno.EIO, "input/output error", SECRET)


def not_installed(tools: Tools) -> dict[str, Any]:
    import a_module_that_is_not_there  # noqa: F401

    return {}


def segfault(tools: Tools) -> dict[str, Any]:
    os.kill(os.getpid(), signal.SIGSEGV)
    return {}


def killed(tools: Tools) -> dict[str, Any]:
    os.kill(os.getpid(), signal.SIGKILL)
    return {}


def silent_exit(tools: Tools) -> dict[str, Any]:
    os._exit(0)


def memory(tools: Tools) -> dict[str, Any]:
    return {"sum": int(np.ones(1 << 32, np.uint8).sum())}


def large_file(tools: Tools, *, folder: str) -> dict[str, Any]:
    with (Path(folder) / "big").open("wb") as file:
        file.truncate(1 << 60)
    return {}


def spin(tools: Tools) -> dict[str, Any]:
    while True:
        pass


def sleep(tools: Tools, *, started: str = "") -> dict[str, Any]:
    if started:
        Path(started).write_text(str(os.getpid()))
    time.sleep(600)
    return {}


def chatter(tools: Tools) -> dict[str, Any]:
    print(SECRET)
    print(SECRET, file=sys.stderr)
    os.write(1, SECRET.encode())
    return {}


def reach(
    tools: Tools, *, outside: str, inside: str, port: int, udp: int, abstract: str, pid: int
) -> dict[str, Any]:
    """Try what a parser that was taken over would try; return what worked."""
    worked = []

    def send_datagram() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"x", ("127.0.0.1", udp))

    def connect_unix(address: str) -> None:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(address)

    def fork() -> None:
        if os.fork() == 0:
            os._exit(0)

    def attempt(name: str, action: Any) -> None:
        try:
            action()
        except OSError:
            return
        worked.append(name)

    attempt("read outside", lambda: Path("/etc/passwd").read_bytes())
    attempt("write outside", lambda: (Path(outside) / "x").write_bytes(b"x"))
    attempt("write inside", lambda: (Path(inside) / "x").write_bytes(b"x"))
    attempt("connect", lambda: socket.create_connection(("127.0.0.1", port), 2).close())
    attempt("send a datagram", send_datagram)
    attempt("connect to a socket with a path", lambda: connect_unix(f"{inside}/socket"))
    attempt("connect to an abstract socket", lambda: connect_unix(f"\0{abstract}"))
    attempt("signal another process", lambda: os.kill(pid, signal.SIGUSR1))
    attempt("limit another process", lambda: resource.prlimit(pid, resource.RLIMIT_CPU, (1, 1)))
    attempt("fork", fork)
    attempt("start a program", lambda: os.posix_spawn("/bin/true", ["true"], {}))
    attempt("become a program", lambda: os.execv("/bin/true", ["true"]))
    attempt("start a thread", lambda: threading.Thread(target=int).start())
    return {"worked": worked}


def forge(tools: Tools, *, line: str) -> dict[str, Any]:
    """Write a line of our own choosing to every open pipe, as a child that was taken over could."""
    for descriptor in range(3, 64):
        try:
            os.write(descriptor, line.encode() + b"\n")
        except OSError:
            continue
    os._exit(0)


def flood(tools: Tools) -> dict[str, Any]:
    return {"x": "y" * (20 << 20)}
