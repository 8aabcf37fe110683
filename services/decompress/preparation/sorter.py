"""Sorting: which readout goes where in k-space.  Decided from the table alone; no sample is moved here.

Every imaging and calibration readout is placed exactly once, or the scan is refused.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...contract.codes import Code, PermanentError
from ...kspace.geometry import Geometry, ImageIndex
from ..acquisitions import NOT_IMAGING, Flag, Part, Table
from ..header import Encoding, ScanHeader
from . import contradictions
from . import slices as slice_order
from .notes import Notes
from .placement import Ints, ReadoutGrid, line_positions, readout_grid
from .unsupported import refuse_sequence

Mask = NDArray[np.bool_]

_IMAGE_COUNTERS = ("contrast", "repetition", "phase", "set")


@dataclass(frozen=True)
class Block:
    """Readouts and their places on one k-space grid.

    Attributes
    ----------
    part
        Whose readouts they are.
    shape
        ``(image, slice, kz, ky)``.
    readout
        The readout axis; its ``first`` and ``kept`` belong to ``rows``.
    rows
        Readouts (indices into ``part.table``), grouped by line.
    lines
        ``(line, 4)``: image, slice, kz, ky of each line, ascending and none twice.
    start
        ``(line + 1,)``: ``rows[start[i]:start[i + 1]]`` are the readouts of line ``i``, to be averaged.
    """

    part: Part
    shape: tuple[int, int, int, int]
    readout: ReadoutGrid
    rows: Ints
    lines: Ints
    start: Ints

    def mask(self) -> Mask:
        """Return bool ``(image, slice, kz, ky)``: the lines that were acquired."""
        mask = np.zeros(self.shape, bool)
        mask[tuple(self.lines.T)] = True
        return mask


@dataclass(frozen=True)
class Sorted:
    """A scan in order: what the k-space file says beside the samples.

    ``acs_rows`` are readouts of calibration acquired apart, to be placed by :mod:`.calibration`; ``keys``
    holds contrast, repetition, phase and set of each image.
    """

    block: Block
    encoding: Encoding
    images: list[ImageIndex]
    keys: Ints
    slices: slice_order.Slices
    geometry: Geometry
    acs_rows: Ints
    embedded_rows: Ints


def noise_rows(part: Part) -> Ints:
    """Return the readouts of the noise measurement."""
    return np.flatnonzero((part.table["flags"] & Flag.NOISE) != 0)


def imaging_candidates(part: Part) -> Ints:
    """Return the readouts that are neither noise, navigator, correction, feedback nor dummy."""
    return np.flatnonzero((part.table["flags"] & (NOT_IMAGING | Flag.NOISE)) == 0)


def sort(part: Part, notes: Notes) -> Sorted:
    """Tell imaging from calibration readouts and place every imaging one.

    Raises
    ------
    PermanentError
        ``no_acquisitions``, ``channel_mismatch``, ``index_range``, ``length_mismatch``, ``geometry``,
        ``unsupported``.
    """
    table = part.table
    rows = _kept_rows(part, notes)
    flags = table["flags"][rows]
    calibration = (flags & Flag.CALIBRATION) != 0
    only = calibration & ((flags & Flag.CALIBRATION_AND_IMAGING) == 0)
    if only.all():
        notes.warn("All readouts are flagged as calibration only; they were taken as the image.")
        only[:] = False
    encoding = _encoding(part.header, table[rows[~only]])
    refuse_sequence(part, rows, encoding)
    apart = only & _acquired_apart(table[rows], only, encoding, notes)
    marked = (flags & (Flag.CALIBRATION | Flag.CALIBRATION_AND_IMAGING)) != 0
    image_rows = rows[~apart]
    _one_channel_count(table[image_rows])
    return _place(part, image_rows, marked[~apart], encoding, rows[apart], notes)


def place(
    part: Part,
    rows: Ints,
    image: Ints,
    slice_: Ints,
    kz: Ints,
    ky: Ints,
    shape: tuple[int, int, int, int],
    readout: ReadoutGrid,
) -> Block:
    """Group readouts by line.

    Raises
    ------
    PermanentError
        ``index_range`` where a place lies outside ``shape``.
    """
    where = np.stack([image, slice_, kz, ky], axis=1).astype(np.int64)
    if (where < 0).any() or (where >= np.array(shape)).any():
        raise PermanentError(
            Code.INDEX_RANGE,
            "A readout's counters lie outside the matrix: the raw file is damaged; export it again.",
        )
    flat = np.ravel_multi_index(tuple(where.T), shape)
    order = np.argsort(flat, kind="stable")
    found, start = np.unique(flat[order], return_index=True)
    lines = np.stack(np.unravel_index(found, shape), axis=1)
    grid = ReadoutGrid(
        readout.n, readout.n_out, readout.fov_mm, readout.first[order], readout.kept[order], readout.kx_range
    )
    return Block(part, shape, grid, rows[order], lines, np.append(start, rows.size))


# ------------------------------------------------------------------------------------------------ pieces


def _kept_rows(part: Part, notes: Notes) -> Ints:
    rows = imaging_candidates(part)
    dropped = int(part.table.shape[0] - rows.size - noise_rows(part).size)
    surface = (part.table["flags"][rows] & Flag.SURFACE_COIL) != 0
    if surface.any() and not surface.all():
        rows, dropped = rows[~surface], dropped + int(surface.sum())
    elif surface.any():
        # The Siemens converter sets this flag on every line of some sequences.
        notes.warn("All readouts are flagged as surface coil correction; they were taken as the image.")
    if rows.size == 0:
        raise PermanentError(
            Code.NO_ACQUISITIONS,
            "The raw file holds no image readouts, only noise, navigator or correction ones: send the scan "
            "itself.",
        )
    if dropped:
        notes.did("drop readouts", navigator_correction_feedback_dummy=dropped)
    return rows


def _encoding(header: ScanHeader, table: Table) -> Encoding:
    spaces = np.unique(table["space"])
    if spaces.max() >= len(header.encodings):
        raise PermanentError(
            Code.INDEX_RANGE,
            f"A readout refers to encoding {spaces.max() + 1}, the header has {len(header.encodings)}: the "
            "raw file is damaged; export it again.",
        )
    encodings = [header.encodings[int(space)] for space in spaces]
    if any((e.encoded, e.recon) != (encodings[0].encoded, encodings[0].recon) for e in encodings):
        raise PermanentError(
            Code.UNSUPPORTED,
            f"The scan has {len(encodings)} imaging encodings of different matrix or field of view; one is "
            "read. Send them as separate scans.",
        )
    return encodings[0]


def _acquired_apart(table: Table, only: Mask, encoding: Encoding, notes: Notes) -> Mask:
    """Return which calibration-only readouts (``only``) do not belong to the k-space of the image.

    Embedded calibration fills gaps of the image's lattice; one acquired apart has another encoding, timing or
    contrast, or visits lines that the image has as well.
    """
    image, calibration = table[~only], table[only]
    apart = np.zeros(only.shape, bool)
    if not calibration.size:
        return apart
    if encoding.calibration in {"separate", "external"}:
        return only
    other = np.zeros(calibration.shape, bool)
    for name in ("space", "channels", "samples", "dwell_s", "contrast", "set"):
        other |= ~np.isin(calibration[name], image[name])
    keys = [*_IMAGE_COUNTERS, "slice", "kz", "ky"]
    if not other.all() and np.isin(_packed(calibration, keys), _packed(image, keys)).any():
        if encoding.calibration == "embedded":
            notes.warn(
                "The header calls the calibration embedded, but it visits lines of the image again: it was "
                "kept apart."
            )
        other[:] = True
    apart[only] = other
    return apart


def _packed(table: Table, names: list[str]) -> NDArray[np.void]:
    """Return one comparable value a row, made of the counters ``names``."""
    columns = np.ascontiguousarray(np.stack([table[name] for name in names], axis=1).astype(np.int32))
    return columns.view(np.dtype((np.void, columns.dtype.itemsize * len(names)))).ravel()


def _one_channel_count(table: Table) -> None:
    counts = np.unique(table["channels"])
    if counts.size > 1:
        raise PermanentError(
            Code.CHANNEL_MISMATCH,
            f"The readouts of one scan have {', '.join(str(c) for c in counts[:4])} channels; one number is "
            "expected. The raw file is damaged; export the scan again.",
        )


def _check_sparse(table: Table) -> None:
    """Refuse counters that jump: a scan counts without large gaps."""
    for name in (*_IMAGE_COUNTERS, "slice", "average", "segment"):
        values = np.unique(table[name])
        if int(values.max()) >= 64 + 16 * values.size:
            raise PermanentError(
                Code.INDEX_RANGE,
                f"The {name} counter reaches {int(values.max())} with {values.size} different values: the "
                "raw file is damaged; export the scan again.",
            )


def _place(part: Part, rows: Ints, marked: Mask, encoding: Encoding, apart: Ints, notes: Notes) -> Sorted:
    table = part.table[rows]
    _check_sparse(table)
    keys, image = np.unique(
        np.stack([table[name] for name in _IMAGE_COUNTERS], axis=1), axis=0, return_inverse=True
    )
    found = slice_order.find(table, notes)
    contradictions.warn_of_counts(part.header, encoding, table, notes)
    encoding = contradictions.believe_lines(part, rows, encoding, notes)
    nz, ny = encoding.encoded.matrix[:2]
    if np.unique(table["kz"]).size == 1 and encoding.recon.matrix[0] == 1:
        if nz > 1:
            notes.warn(f"The header gives {nz} partitions, the readouts have one: a 2-D scan was read.")
        nz = 1
    if nz > 1 and len(found.labels) > 1:
        raise PermanentError(
            Code.UNSUPPORTED,
            f"The scan has {len(found.labels)} slabs of {nz} partitions; one slab, or slices, are read. "
            "Send the slabs as separate scans.",
        )
    limits = encoding.limits
    for axis, step in (("ky", "kspace_encoding_step_1"), ("kz", "kspace_encoding_step_2")):
        low, high = int(table[axis].min()), int(table[axis].max())
        contradictions.warn_of_lines(axis, limits.get(step), low, high, notes)
    ky = line_positions(part, rows, "ky", ny, limits.get("kspace_encoding_step_1"), notes)
    if np.unique(table["kz"]).size == 1 and nz == 1:
        kz = np.zeros_like(ky)
    else:
        kz = line_positions(part, rows, "kz", nz, limits.get("kspace_encoding_step_2"), notes)
    readout = readout_grid(part, rows, encoding, encoding.recon.fov_mm[2], notes)
    shape = (len(keys), len(found.labels), nz, ny)
    block = place(part, rows, image, found.index, kz, ky, shape, readout)
    _count_repeats(block, notes)
    geometry = slice_order.geometry(
        found, table, encoding, (nz, ny, readout.n_out), readout.fov_mm, part.header.patient_position, notes
    )
    notes.did(
        "sort",
        readouts=int(rows.size),
        lines=len(block.lines),
        images=len(keys),
        slices=len(found.labels),
        slice_order=found.labels,
        matrix=[nz, ny, readout.n_out],
    )
    embedded = _embedded_of_few(marked, image, len(keys), rows)
    return Sorted(block, encoding, _images(keys, part.header), keys, found, geometry, apart, embedded)


def _embedded_of_few(marked: Mask, image: Ints, n_images: int, rows: Ints) -> Ints:
    """Return the marked calibration readouts of the first image that has any, where other images have
    none.
    """
    having = np.unique(image[marked])
    if having.size in (0, n_images):
        return np.zeros(0, np.int64)
    found: Ints = rows[marked & (image == having[0])]
    return found


def _images(keys: Ints, header: ScanHeader) -> list[ImageIndex]:
    n_sets = len(np.unique(keys[:, 3]))
    images = []
    for contrast, repetition, phase, set_ in keys.tolist():
        te = header.te_ms[contrast] if contrast < len(header.te_ms) else None
        ti = None
        if header.ti_ms:
            by_set = len(header.ti_ms) > 1 and len(header.ti_ms) == n_sets
            ti = header.ti_ms[min(set_ if by_set else contrast, len(header.ti_ms) - 1)]
        images.append(
            ImageIndex(
                contrast=contrast,
                repetition=repetition,
                phase=phase,
                set=set_,
                echo_time_s=None if te is None else te / 1000,
                inversion_time_s=None if ti is None else ti / 1000,
            )
        )
    return images


def _count_repeats(block: Block, notes: Notes) -> None:
    """Say how lines acquired more than once are averaged, and warn of those that no average counter
    explains.
    """
    counts = np.diff(block.start)
    if counts.max() == 1:
        return
    table = block.part.table[block.rows]
    line = np.repeat(np.arange(counts.size), counts)
    told = np.stack([line, table["average"], table["segment"]], axis=1)
    unexplained = int(told.shape[0] - np.unique(told, axis=0).shape[0])
    notes.did(
        "average",
        lines=int((counts > 1).sum()),
        fewest=int(counts.min()),
        most=int(counts.max()),
        repeated_without_counter=unexplained,
    )
    if unexplained:
        notes.warn(
            f"{unexplained} readouts repeat a line with the same counters; repeated lines were averaged."
        )
    if counts.min() != counts.max():
        notes.warn(
            f"Lines were acquired {int(counts.min())} to {int(counts.max())} times each; each was averaged "
            "by its own count, so the noise differs from line to line."
        )
