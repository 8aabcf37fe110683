"""Small honest stage functions: they really read a tar and really write files, in milliseconds.

The archive holds ``raw.bin``; members called ``do-…`` ask for a misfortune, so that a fault lies in the scan
as it would in life.
"""

import hashlib
import os
import signal
import tarfile
import time
from pathlib import Path

from mrirecon.contract.codes import Code, IncompleteError, PermanentError, RetryableError
from mrirecon.contract.record import new_record


def decompress(job, progress):
    archive = Path(job["archive"])
    body = archive.read_bytes()
    progress("read", 0.1, "walk")
    if len(body) < 512 or body[257:262] != b"ustar":
        raise PermanentError(Code.NOT_AN_ARCHIVE, "Expected a tar, found something else.")
    if not body.endswith(bytes(1024)):
        raise IncompleteError("The tar does not end in its two empty blocks.")
    profile = None
    with tarfile.open(archive) as tar:
        for member in tar:
            if member.name.startswith("do-"):
                _misfortune(member.name.removeprefix("do-"), Path(job["work_dir"]))
            if member.name == "profile":
                profile = tar.extractfile(member).read().decode()
        raw = tar.extractfile("raw.bin").read()
    Path(job["kspace"]).write_bytes(b"KSPACE" + raw)
    progress("sort", 1.0)
    warnings = ["Part of the slice is empty."] if raw.startswith(b"warned") else []
    seconds = {"decompress": 0.125}
    return {"profile": profile, "warnings": warnings, "seconds": seconds, "summary": {"bytes": len(raw)}}


def reconstruct(job, progress):
    kspace = Path(job["kspace"]).read_bytes()
    assert kspace.startswith(b"KSPACE")
    raw = kspace.removeprefix(b"KSPACE")
    progress("train", 0.5)
    if b"few-acs" in raw:
        raise PermanentError(Code.TOO_FEW_ACS, "Expected 16 calibration lines, found 4.")
    if b"recon-slow" in raw:
        time.sleep(3)
    out = Path(job["out"])
    (out / "dicom").mkdir()
    (out / "image.h5").write_bytes(hashlib.sha256(raw).digest() * 64)
    (out / "dicom" / "0001.dcm").write_bytes(b"DICM" + hashlib.sha256(raw).digest())
    (out / "report.html").write_text(f"<p>made in {time.time()} s</p>")  # other bytes in every attempt
    record = new_record(job["scan_id"])
    record.update(
        status="done",
        code="",
        message="Images were made.",
        method="grappa",
        profile={"name": job["profile"], "version": 1, "method": "auto"},
        seconds={**job["intake_seconds"], "train": 0.25},
        warnings=job["intake_warnings"],
    )
    return record


def _misfortune(what, folder):
    if what == "abort":
        os.abort()
    if what == "segfault":
        os.kill(os.getpid(), signal.SIGSEGV)
    if what == "oom-kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "hang":
        time.sleep(600)
    if what == "nap":
        time.sleep(1.5)
    if what == "exit":
        os._exit(3)
    if what == "unknown":
        raise ValueError("DOE^JANE said something")
    if what == "retryable":
        raise RetryableError(Code.STORAGE, "A passing fault.")
    if what == "memory":
        raise MemoryError
    if what == "full":
        raise OSError(28, "No space left on device")
    if what == "noise":
        print("DOE^JANE on stdout")
