"""The reconstruction stage: a k-space file becomes images, a page and a record."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..contract.causes import translated
from ..contract.codes import MrireconError
from ..contract.profiles import Profile
from ..contract.progress import Progress, silent
from ..kspace.file import open_kspace
from ..raki.device import choose_device
from .outputs import hdf5, results
from .pipeline import Run


def reconstruct(
    kspace_path: Path,
    out_dir: Path,
    *,
    scan_id: str,
    profile: Profile,
    device: str = "auto",
    progress: Progress | None = None,
    intake_seconds: Mapping[str, float] | None = None,
    intake_warnings: Sequence[str] = (),
    label: str | None = None,
) -> dict[str, Any]:
    """Reconstruct a k-space file into ``out_dir`` and return the record.

    Written are ``image.h5``, ``image.nii.gz``, ``dicom/*.dcm``, ``preview.png`` and ``report.html``; not the
    record itself (``scan.json``), whose existence is the publication and the caller's to make. A scan that
    fails may leave some of the files behind: the caller owns ``out_dir``.

    Parameters
    ----------
    kspace_path
        What decompress wrote.
    out_dir
        Folder for the results, made if it is not there; none of the files may exist yet.
    scan_id
        Of the archive.
    profile
        Settings; they and the scan id make the reconstruction id.
    device
        ``auto`` (CUDA where there is a device), ``cpu``, ``cuda`` or ``cuda:<n>``.
    progress
        Told as it goes on.
    intake_seconds, intake_warnings
        Of the stage before, where they are at hand: record and page tell them with those of this stage.
    label
        What the site calls the scan.

    Raises
    ------
    PermanentError
        Where the data cannot be reconstructed as asked (pattern, calibration, settings); its ``known`` is
        what the record may tell of the scan all the same.
        ``non_finite`` where its equations have no solution.
    RetryableError
        ``out_of_memory``, ``disk_full``, ``storage``, ``internal``: what :mod:`..contract.causes` knows.
    """
    out_dir.mkdir(parents=True, exist_ok=True)
    with translated(), open_kspace(kspace_path) as scan, _telling(results.found(scan)) as known:
        run = Run(scan, profile, choose_device(device), progress or silent)
        run.watch.seconds.update(intake_seconds or {})
        known.update(results.sampled(run))
        with hdf5.create(out_dir / "image.h5", run.geometry, scan.shape[0]) as images:
            run.fill(images)
            identity = profile.recon_id(scan_id)
            record = results.describe(run, images, scan_id, identity, intake_warnings, label)
            results.write(run, out_dir, images, results.facts_of(run, record), record)
        return record


@contextmanager
def _telling(known: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Give what is known by then to an error of ours, for the record of a scan that makes no images."""
    try:
        yield known
    except MrireconError as error:
        error.known = known
        raise
