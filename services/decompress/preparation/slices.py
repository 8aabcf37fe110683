"""Slices in order of their position, and the geometry of the scan."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ...contract.codes import Code, PermanentError
from ...kspace.geometry import Geometry, check_directions, unknown
from ..acquisitions import Table
from ..header import Encoding
from .notes import Notes

_SAME_PLACE_MM = 0.1
_FAR_MM = 10_000.0
_WIDER = 1.02


@dataclass(frozen=True)
class Slices:
    """The slices of a scan in order of position.

    ``index`` says for each readout asked about to which slice it belongs; ``labels`` gives the scanner's
    slice counter of each slice; ``first`` the readout (index into those asked about) that tells a slice's
    place.
    """

    index: NDArray[np.int64]
    labels: list[int]
    first: NDArray[np.int64]
    known: bool


def find(table: Table, notes: Notes) -> Slices:
    """Tell the slices of readouts apart and order them by position along their normal.

    The scanner's counter is a label in the order of acquisition, not a position.  Where one label occurs at
    several positions, the positions tell the slices apart.

    Raises
    ------
    PermanentError
        ``geometry`` for directions or positions that are none.
    """
    frames, where = np.unique(
        np.concatenate([table[name] for name in ("read_dir", "phase_dir", "slice_dir")], axis=1),
        axis=0,
        return_inverse=True,
    )
    known = check_directions(frames[:, :3], frames[:, 3:6], frames[:, 6:])
    if not np.isfinite(table["position"]).all() or np.abs(table["position"]).max() > _FAR_MM:
        raise PermanentError(
            Code.GEOMETRY,
            "A slice position is not finite or more than 10 m away: the raw file is damaged; export it "
            "again.",
        )
    labels = table["slice"].astype(np.int64)
    if not known:
        names, first, index = np.unique(labels, return_index=True, return_inverse=True)
        return Slices(index, [int(name) for name in names], first, known=False)
    normals = frames[:, 6:]
    # Frames that differ by rounding only are one orientation; each has a number in order of appearance.
    orientation = np.array([int((np.abs(normals @ normal) > 0.9999).argmax()) for normal in normals])[where]
    normal = normals[orientation]
    along = np.einsum("ij,ij->i", table["position"], normal)
    place = np.round(along / _SAME_PLACE_MM).astype(np.int64)
    keys = np.stack([orientation, labels], axis=1)
    groups, index = np.unique(keys, axis=0, return_inverse=True)
    spread = max(float(np.ptp(along[index == group])) for group in range(len(groups)))
    if spread > 5 * _SAME_PLACE_MM and len(np.unique(place)) <= 4 * len(groups) + 512:
        notes.warn(
            "Readouts of one slice number lie at several positions: the slices were told apart by position."
        )
        groups, index = np.unique(np.stack([orientation, place], axis=1), axis=0, return_inverse=True)
    if orientation.max() > 0:
        notes.warn(f"The slices have {len(np.unique(orientation))} orientations.")
    first = np.array([int((index == group).argmax()) for group in range(len(groups))])
    order = np.lexsort((labels[first], along[first], orientation[first]))
    rank = np.empty(order.size, np.int64)
    rank[order] = np.arange(order.size)
    first = first[order]
    steps = np.diff(along[first])
    if (
        steps.size > 1
        and orientation.max() == 0
        and float(np.ptp(steps)) > max(0.01, 0.02 * abs(steps.mean()))
    ):
        notes.warn(
            f"The slices are not evenly spaced: {steps.min():.2f} to {steps.max():.2f} mm from one to the "
            "next."
        )
    return Slices(rank[index], [int(v) for v in labels[first]], first, known=True)


def geometry(
    slices: Slices,
    table: Table,
    encoding: Encoding,
    matrix: tuple[int, int, int],
    fov_x_mm: float,
    patient_position: str,
    notes: Notes,
) -> Geometry:
    """Return the geometry of the k-space file.

    Parameters
    ----------
    slices, table
        What :func:`find` found, and the readouts that it was asked about.
    encoding, patient_position
        What the header says of them.
    matrix
        ``(nz, ny, nx)`` of the grid, readout oversampling removed.
    fov_x_mm
        Its field of view along the readout [mm].
    notes
        Where what is odd is reported.
    """
    volume = matrix[0] > 1
    thickness = encoding.recon.fov_mm[0]
    fov = (encoding.encoded.fov_mm[0] if volume else thickness, encoding.encoded.fov_mm[1], fov_x_mm)
    wanted, wanted_fov = [], []
    for axis in range(3):
        n, mm = _wanted_axis(
            (encoding.recon.matrix[axis], encoding.recon.fov_mm[axis]), (matrix[axis], fov[axis])
        )
        if n > 4 * matrix[axis]:
            notes.warn(
                f"The header wants images of {n} points from a matrix of {matrix[axis]}: interpolated four "
                "times at most."
            )
            n = 4 * matrix[axis]
        if encoding.recon.fov_mm[axis] > _WIDER * fov[axis]:
            notes.warn(
                f"The header wants a field of view of {encoding.recon.fov_mm[axis]:.1f} mm along "
                f"{'zyx'[axis]}, {fov[axis]:.1f} mm were acquired: the images show those."
            )
        wanted.append(n if volume or axis else 1)
        wanted_fov.append(mm)
    recon_matrix = (wanted[0], wanted[1], wanted[2])
    recon_fov = (wanted_fov[0], wanted_fov[1], wanted_fov[2])
    if not slices.known:
        notes.warn(
            "The file tells no slice positions or directions: the images' place in the patient is not known."
        )
        nothing = unknown(len(slices.labels), matrix, fov)
        return replace(
            nothing, recon_matrix=recon_matrix, recon_fov_mm=recon_fov, patient_position=patient_position
        )
    rows = table[slices.first]
    read, phase, normal = (_unit(rows[name]) for name in ("read_dir", "phase_dir", "slice_dir"))
    return Geometry(
        rows["position"].astype(np.float64),
        read,
        phase,
        normal,
        matrix,
        fov,
        recon_matrix,
        recon_fov,
        known=True,
        patient_position=patient_position,
    )


def _wanted_axis(wanted: tuple[int, float], encoded: tuple[int, float]) -> tuple[int, float]:
    """Return points and field of view [mm] of the image: never more field of view than was encoded."""
    (n, mm), (_, full) = wanted, encoded
    if mm >= full * 0.999:
        return max(1, round(n * full / mm)), full
    return n, mm


def _unit(directions: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the directions scaled to unit length: single precision leaves them a little off."""
    found: NDArray[np.float64] = directions / np.linalg.norm(directions, axis=1, keepdims=True)
    return found
