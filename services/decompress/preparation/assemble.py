"""Samples into the k-space file: averaged, turned, whitened, oversampling removed, line by line.

A few megabytes of lines at a time, so that beside the raw readouts no second copy of a scan is in memory.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from ...contract.progress import Progress, silent
from ...kspace.file import KSpaceWriter
from ..acquisitions import Flag
from .oversampling import crop
from .placement import Ints
from .sorter import Block

Complex = NDArray[np.complex64]

_BLOCK_BYTES = 16 * 1024 * 1024


def lines_of(
    block: Block, whiten: Complex | None, coils: Ints | None = None
) -> Iterator[tuple[Ints, Complex]]:
    """Yield finished lines in order, a few at a time.

    Parameters
    ----------
    block
        Where the readouts belong.
    whiten
        ``(coil, coil)``, or None.
    coils
        Channel of the readouts for each coil of the image, where the order differs.

    Yields
    ------
    Places ``(line, 4)`` (image, slice, kz, ky) and samples complex64 ``(line, coil, kx)``, centre at ``n //
    2``.
    """
    grid = block.readout
    n_coils = int(block.part.table["channels"][block.rows[0]]) if coils is None else coils.size
    step = max(1, _BLOCK_BYTES // (8 * n_coils * grid.n))
    for start in range(0, len(block.lines), step):
        stop = min(start + step, len(block.lines))
        # coils first: whitening is then one matrix product, not one a line
        lines = np.zeros((n_coils, stop - start, grid.n), np.complex64)
        for number in range(start, stop):
            _gather(block, number, lines[:, number - start], coils)
        # The two act on different axes, so their order changes nothing but the work; the noise was measured
        # with oversampling, and orthonormal cropping keeps its variance.
        lines = crop(lines, grid.n_out)
        if whiten is not None:
            lines = (whiten @ lines.reshape(n_coils, -1)).reshape(lines.shape)
        yield block.lines[start:stop], np.ascontiguousarray(lines.transpose(1, 0, 2))


def write_image(
    writer: KSpaceWriter, block: Block, whiten: Complex | None, progress: Progress = silent
) -> None:
    """Store all lines of the image."""
    done = 0
    for places, lines in lines_of(block, whiten):
        for image, slice_ in np.unique(places[:, :2], axis=0):
            mine = (places[:, 0] == image) & (places[:, 1] == slice_)
            writer.write_lines(int(image), int(slice_), places[mine, 2], places[mine, 3], lines[mine])
        done += len(places)
        progress("sort", done / len(block.lines), "")


def collect(
    block: Block, whiten: Complex | None, coils: Ints | None = None
) -> tuple[Complex, NDArray[np.bool_]]:
    """Return a block as one array ``(image, slice, coil, kz, ky, kx)`` with its mask: for calibration, which
    is small.
    """
    mask = block.mask()
    n_coils = int(block.part.table["channels"][block.rows[0]]) if coils is None else coils.size
    n_image, n_slice, nz, ny = block.shape
    array = np.zeros((n_image, n_slice, n_coils, nz, ny, block.readout.n_out), np.complex64)
    for places, lines in lines_of(block, whiten, coils):
        image, slice_, kz, ky = places.T
        array[image, slice_, :, kz, ky] = lines
    return array, mask


def _gather(block: Block, number: int, line: Complex, coils: Ints | None) -> None:
    """Add up the readouts of one line into ``line`` (coil, kx), centre first, and divide by their number."""
    grid = block.readout
    begin, end = int(block.start[number]), int(block.start[number + 1])
    for place in range(begin, end):
        row = block.part.table[block.rows[place]]
        samples = block.part.samples(int(block.rows[place]))
        samples = samples[:, row["pre"] : row["samples"] - row["post"]]
        if row["flags"] & Flag.REVERSE:
            samples = samples[:, ::-1]
        if coils is not None:
            samples = samples[coils]
        _add(line, samples, int(grid.first[place]))
    if end - begin > 1:
        line /= end - begin


def _add(line: Complex, samples: Complex, first: int) -> None:
    """Add ``samples`` to ``line`` from grid point ``first`` on, in FFT order, leaving out what lies
    outside.
    """
    n = line.shape[-1]
    skip = max(0, -first)
    stop = min(samples.shape[-1], n - first)
    # grid points first+skip .. first+stop; the half from the centre on comes first
    middle = min(max(n // 2 - first, skip), stop)
    if middle < stop:
        at = first + middle - n // 2
        line[:, at : at + stop - middle] += samples[:, middle:stop]
    if skip < middle:
        at = first + skip - n // 2 + n
        line[:, at : at + middle - skip] += samples[:, skip:middle]
