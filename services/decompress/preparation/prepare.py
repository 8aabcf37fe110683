"""From raw members to a k-space file: the format readers and what all formats go through after them."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...contract.codes import Code, PermanentError
from ...contract.progress import Progress, silent
from ...kspace.acs import require_declared
from ...kspace.detection import detect
from ...kspace.file import KSpaceInfo, create
from ...kspace.sampling import SamplingPattern
from ..acquisitions import Part, dwell_seconds, scan_digest
from ..archive.members import Member, RawKind
from ..header import facts, scrubbed
from ..limits import Limits
from ..readers import bart, fastmri, mrd
from . import alternation, contradictions
from .assemble import collect, write_image
from .calibration import separate
from .notes import Notes
from .parts import Scan, choose
from .placement import Ints
from .prewhiten import from_parts, match_coils
from .sorter import Block, Sorted, imaging_candidates, sort

Reader = Callable[[Member, Limits, Progress], list[Part]]

_FEWEST = 4
"""The lines of an image reach over more than one in so many of the matrix."""


def _read_twix(member: Member, limits: Limits, progress: Progress) -> list[Part]:
    # Imported when needed: twixtools brings matplotlib along, a second for every scan of another format.
    from ..readers import twix

    return twix.read(member, limits, progress)


_READERS: dict[RawKind, Reader] = {
    RawKind.MRD: mrd.read,
    RawKind.FASTMRI: fastmri.read,
    RawKind.TWIX: _read_twix,
}


def read(
    members: list[Member],
    out: Path,
    limits: Limits,
    progress: Progress = silent,
    scan_id: Callable[[], str] = str,
) -> dict[str, Any]:
    """Read the raw files of one scan and write its k-space file to ``out``; return its summary.

    ``scan_id`` is called once, when all samples are written: the archive's digest takes as long to compute.

    Raises
    ------
    PermanentError
        What the raw files end with; see ``docs/formats.md``.
    """
    began = time.perf_counter()
    planned = _plan(members, limits, progress)
    at_plan = time.perf_counter()
    sorted_, notes = planned.sorted, planned.notes
    n_image, n_slice, nz, ny = sorted_.block.shape
    shape = (n_image, n_slice, planned.coils, nz, ny, sorted_.block.readout.n_out)
    header = facts(planned.scan.image.header) | _measured(planned)
    with create(out, shape) as writer:
        write_image(writer, sorted_.block, planned.whiten, progress)
        if planned.acs is not None:
            writer.write_acs(*collect(planned.acs, planned.whiten, planned.acs_coils))
        notes.did(
            "remove readout oversampling", points=sorted_.block.readout.n, kept=sorted_.block.readout.n_out
        )
        writer.finish(
            KSpaceInfo(
                scan_id=scan_id(),
                format=planned.format,
                geometry=sorted_.geometry,
                images=sorted_.images,
                kx_range=sorted_.block.readout.kx_range,
                whitened=planned.whiten is not None,
                history=notes.history,
                warnings=notes.warnings,
                header=header,
                ismrmrd_header=scrubbed(planned.scan.image.header),
                acquisitions_digest=planned.digest.result(),
            )
        )
    seconds = {"read": at_plan - began, "sort": time.perf_counter() - at_plan}
    return _summary(planned) | {"seconds": {k: round(v, 3) for k, v in seconds.items()}}


def inspect(members: list[Member], limits: Limits) -> dict[str, Any]:
    """Return what :func:`read` would, without writing."""
    began = time.perf_counter()
    planned = _plan(members, limits, silent)
    return _summary(planned) | {"seconds": {"read": round(time.perf_counter() - began, 3)}}


# ------------------------------------------------------------------------------------------------ pieces


@dataclass
class _Planned:
    """A scan read and sorted, nothing written yet."""

    format: str
    scan: Scan
    sorted: Sorted
    patterns: list[SamplingPattern]
    whiten: NDArray[np.complex64] | None
    acs: Block | None
    acs_coils: Ints | None
    digest: Future[str]
    notes: Notes = field(default_factory=Notes)

    @property
    def coils(self) -> int:
        return int(self.scan.image.table["channels"][self.sorted.block.rows[0]])


def _plan(members: list[Member], limits: Limits, progress: Progress) -> _Planned:
    notes = Notes()
    kind, parts = _read_parts(members, limits, progress)
    # Beside all that follows: hashing leaves the interpreter free.
    worker = ThreadPoolExecutor(max_workers=1)
    digest = worker.submit(scan_digest, parts)
    worker.shutdown(wait=False)
    notes.did("read", format=kind, measurements=len(parts), readouts=sum(p.table.shape[0] for p in parts))
    scan = choose(parts, notes)
    sorted_ = sort(scan.image, notes)
    _check_budget(sorted_, limits)
    contradictions.refuse_lost_centre(sorted_.block)
    alternation.refuse(sorted_.block)
    acs, acs_coils = _calibration(scan, sorted_, notes)
    patterns = _patterns(sorted_, acs is not None)
    whiten = from_parts(scan.image, sorted_.block.rows, scan.noise, notes)
    return _Planned(kind, scan, sorted_, patterns, whiten, acs, acs_coils, digest, notes)


def _read_parts(members: list[Member], limits: Limits, progress: Progress) -> tuple[str, list[Part]]:
    kinds = {"bart" if m.kind in {RawKind.CFL, RawKind.HDR} else m.kind.value for m in members}
    if not members:
        raise PermanentError(Code.NO_RAW_DATA, "The archive holds no raw data file.")
    if len(kinds) > 1:
        raise PermanentError(
            Code.MIXED_SCANS,
            f"The archive holds raw files of {len(kinds)} formats; send the files of one scan in one format.",
        )
    (kind,) = kinds
    if kind == "bart":
        return kind, bart.read(members, limits, progress)
    parts: list[Part] = []
    held = 0
    for member in members:
        found = _READERS[member.kind](member, limits, progress)
        held += sum(store.nbytes for part in found for store in part.stores)
        if held > limits.memory_bytes // 2:
            raise PermanentError(
                Code.TOO_LARGE, f"The raw files take more than {limits.memory_bytes // 2**21} MiB of memory."
            )
        parts.extend(found)
    return kind, parts


def _check_budget(sorted_: Sorted, limits: Limits) -> None:
    """Refuse a matrix that could not be held, whatever little was acquired of it."""
    n_image, n_slice, nz, ny = sorted_.block.shape
    coils = int(sorted_.block.part.table["channels"][sorted_.block.rows[0]])
    volume = coils * nz * ny * sorted_.block.readout.n_out * 8
    # images made of it may be larger; both must fit, and the mask of all of them
    rz, ry, rx = sorted_.geometry.recon_matrix
    image = coils * rz * ry * rx * 8
    if (
        max(volume, image) > limits.memory_bytes // 4
        or n_image * n_slice * nz * ny > limits.memory_bytes // 16
    ):
        raise PermanentError(
            Code.TOO_LARGE,
            f"A matrix of {nz} x {ny} x {sorted_.block.readout.n_out} with {coils} coils, {n_slice} slices "
            f"and {n_image} images takes more memory than is allowed here.",
        )


def _patterns(sorted_: Sorted, separate_acs: bool) -> list[SamplingPattern]:
    """Detect the sampling pattern of every slice of every image; refuse what is incomplete."""
    r_y, r_z = sorted_.encoding.acceleration
    found: dict[bytes, SamplingPattern] = {}
    mask = sorted_.block.mask()
    for image in range(mask.shape[0]):
        for slice_ in range(mask.shape[1]):
            one = mask[image, slice_]
            key = np.packbits(one).tobytes()
            if key not in found:
                found[key] = detect(one)
                require_declared(found[key], declared=r_y * r_z > 1, separate_acs=separate_acs)
                _refuse_rest(found[key])
    return list(found.values())


def _refuse_rest(pattern: SamplingPattern) -> None:
    """Refuse a few lines about the centre: a scan stopped early, which would pass for partial Fourier."""
    for axis, (low, stop), n in zip(
        ("kz", "ky"), (pattern.sampled_z, pattern.sampled_y), pattern.shape, strict=True
    ):
        if stop - low < n and (stop - low) * _FEWEST <= n:
            raise PermanentError(
                Code.INCOMPLETE_KSPACE,
                f"Lines {low} to {stop - 1} of {n} along {axis} were found, one in {_FEWEST} or fewer: too "
                "few for partial Fourier. Send the whole scan.",
            )


def _calibration(scan: Scan, sorted_: Sorted, notes: Notes) -> tuple[Block | None, Ints | None]:
    """Return the calibration acquired apart, and its coil order where it comes from another file."""
    if sorted_.acs_rows.size:
        found = separate(scan.image, sorted_.acs_rows, sorted_, notes)
        if found is not None:
            return found, None
    for part in scan.calibration:
        n_coils = int(scan.image.table["channels"][sorted_.block.rows[0]])
        coils = match_coils(scan.image, part, n_coils)
        rows = imaging_candidates(part)
        if coils is None:
            raise PermanentError(
                Code.CHANNEL_MISMATCH,
                "The separate calibration was acquired with other coils than the image: send the one of "
                "this scan.",
            )
        found = separate(part, rows, sorted_, notes)
        if found is not None:
            return found, coils
    if sorted_.embedded_rows.size:
        # Only some images carry calibration lines: they serve the others too.
        return separate(scan.image, sorted_.embedded_rows, sorted_, notes), None
    return None, None


def _measured(planned: _Planned) -> dict[str, Any]:
    dwell = dwell_seconds(planned.scan.image.table[planned.sorted.block.rows])
    nz = planned.sorted.block.shape[2]
    return {"dwell_s": dwell, "acquisition_type": "3D" if nz > 1 else "2D"}


def _summary(planned: _Planned) -> dict[str, Any]:
    block, geometry = planned.sorted.block, planned.sorted.geometry
    n_image, n_slice, nz, ny = block.shape
    pattern = planned.patterns[0]
    acs_lines = pattern.acs_lines
    if planned.acs is not None:
        acs_lines = int(planned.acs.mask().any(axis=(0, 1, 2)).sum())
    return {
        "format": planned.format,
        "acquisitions_digest": planned.digest.result(),
        "warnings": planned.notes.warnings,
        "matrix": [nz, ny, block.readout.n_out],
        "fov_mm": [round(v, 3) for v in geometry.fov_mm],
        "recon_matrix": list(geometry.recon_matrix),
        "recon_fov_mm": [round(v, 3) for v in geometry.recon_fov_mm],
        "geometry_known": geometry.known,
        "coils": planned.coils,
        "slices": n_slice,
        "images": n_image,
        "acquisition_type": "3D" if nz > 1 else "2D",
        "acceleration": [pattern.r_y, pattern.r_z],
        "sampling": pattern.describe(acs_lines if planned.acs is not None else 0),
        "sampling_patterns": len(planned.patterns),
        "acs_lines": acs_lines,
        "acs_apart": planned.acs is not None,
        "partial_fourier": [pattern.partial_fourier_y, pattern.partial_fourier_z],
        "kx_range": list(block.readout.kx_range),
        "readouts": int(sum(1 for _ in block.rows)),
        "noise_scan": planned.whiten is not None,
        "whitened": planned.whiten is not None,
        "history": planned.notes.history,
    }
