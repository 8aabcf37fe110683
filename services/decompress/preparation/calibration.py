"""Calibration lines acquired apart from the image: on their own grid, never mixed into the image."""

from __future__ import annotations

import numpy as np

from ...contract.codes import Code, PermanentError
from ..acquisitions import Part, Table
from .notes import Notes
from .placement import Ints, line_positions, readout_grid
from .slices import find
from .sorter import Block, Sorted, place

_KEYS = ("contrast", "repetition", "phase", "set")


def separate(part: Part, rows: Ints, scan: Sorted, notes: Notes) -> Block | None:
    """Place calibration readouts ``rows`` of ``part`` (the scan's own, or another file's).

    Returns ``None``, with a warning, where the calibration does not fit the image: interpolation weights hold
    only for lines that are as far apart in k-space as those of the image.

    Raises
    ------
    PermanentError
        ``channel_mismatch``, ``index_range``, ``unsupported`` or ``length_mismatch`` for readouts that are
        faulty.
    """
    table = part.table[rows]
    space = int(table["space"][0])
    if (table["space"] != space).any() or space >= len(part.header.encodings):
        raise PermanentError(
            Code.INDEX_RANGE, "The calibration readouts do not refer to one encoding of the header."
        )
    encoding = part.header.encodings[space]
    if encoding.trajectory != "cartesian":
        notes.warn("The separate calibration is not Cartesian; it was left out.")
        return None
    wanted = scan.block.part.table["channels"][scan.block.rows[0]]
    if (table["channels"] != wanted).any():
        raise PermanentError(
            Code.CHANNEL_MISMATCH,
            f"The separate calibration has other channels than the image, which has {int(wanted)}: send the "
            "calibration that was acquired with the same coils.",
        )
    volume = scan.block.shape[2] > 1
    for axis, name in ((1, "phase"), *(((0, "partition"),) if volume else ())):
        have, want = encoding.encoded.fov_mm[axis], scan.encoding.encoded.fov_mm[axis]
        if abs(have - want) > 0.01 * want:
            notes.warn(
                f"The separate calibration has a field of view of {have:.1f} mm along the {name} direction, "
                f"the image one of {want:.1f} mm: its lines lie elsewhere in k-space, so it was left out."
            )
            return None
    index = _slice_of(table, scan, notes)
    if index is None:
        return None
    limits = encoding.limits
    nz, ny = encoding.encoded.matrix[:2]
    ky = line_positions(part, rows, "ky", ny, limits.get("kspace_encoding_step_1"), notes)
    ky, ny = _trim(ky, ny)
    if volume:
        kz = line_positions(part, rows, "kz", nz, limits.get("kspace_encoding_step_2"), notes)
        kz, nz = _trim(kz, nz)
    else:
        kz, nz = np.zeros_like(ky), 1
    image, n_images, chosen = _image_of(table, scan, notes)
    rows, index, kz, ky = rows[chosen], index[chosen], kz[chosen], ky[chosen]
    # only where the image's own readouts contradicted the header is the header's word on these doubted as
    # well
    trusted = scan.block.readout.n == scan.encoding.encoded.matrix[2]
    grid = readout_grid(part, rows, encoding, scan.block.readout.fov_mm, notes, short=trusted)
    if abs(grid.fov_mm - scan.block.readout.fov_mm) > 0.01 * scan.block.readout.fov_mm:
        notes.warn("The separate calibration has a smaller field of view along the readout; it was left out.")
        return None
    block = place(part, rows, image, index, kz, ky, (n_images, scan.block.shape[1], nz, ny), grid)
    notes.did(
        "calibration apart", readouts=int(rows.size), lines=len(block.lines), matrix=[nz, ny, grid.n_out]
    )
    return block


def _trim(position: Ints, n: int) -> tuple[Ints, int]:
    """Return positions on the shortest axis that holds them with its centre at ``n // 2``, and its length."""
    low, high = int(position.min()) - n // 2, int(position.max()) - n // 2
    short = min(n, max(2 * -low, 2 * high + 1, 1))
    return position - n // 2 + short // 2, short


def _slice_of(table: Table, scan: Sorted, notes: Notes) -> Ints | None:
    """Return the slice of the image that each calibration readout belongs to, by position where it is
    known.
    """
    n_slices = scan.block.shape[1]
    if n_slices == 1 and np.unique(table["slice"]).size == 1:
        return np.zeros(table.shape[0], np.int64)
    found = find(table, notes)
    if found.known and scan.geometry.known:
        places = table["position"][found.first] @ scan.geometry.slice_dir[0]
        slices = scan.geometry.position @ scan.geometry.slice_dir[0]
        nearest = np.abs(places[:, None] - slices[None, :]).argmin(axis=1)
        off = np.abs(places - slices[nearest])
        fits = bool((off <= 0.5 * scan.geometry.fov_mm[0]).all())
    else:
        nearest = np.array(
            [scan.slices.labels.index(v) if v in scan.slices.labels else -1 for v in found.labels]
        )
        fits = bool((nearest >= 0).all())
    if not fits or np.unique(nearest).size != n_slices:
        notes.warn(
            "The separate calibration does not cover the slices of the image one by one; it was left out."
        )
        return None
    index: Ints = nearest[found.index].astype(np.int64)
    return index


def _image_of(table: Table, scan: Sorted, notes: Notes) -> tuple[Ints, int, Ints]:
    """Return image index, number of images, and which readouts are used: one calibration an image, or one for
    all.
    """
    keys, which = np.unique(np.stack([table[name] for name in _KEYS], axis=1), axis=0, return_inverse=True)
    everything = np.arange(table.shape[0])
    if len(keys) > 1 and np.array_equal(keys, scan.keys):
        return which.astype(np.int64), len(keys), everything
    if len(keys) > 1:
        notes.warn(
            f"The separate calibration has {len(keys)} contrasts or repetitions; the first serves all images."
        )
    chosen = everything[which == 0]
    return np.zeros(chosen.size, np.int64), 1, chosen
