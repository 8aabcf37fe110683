"""In which directions the axes of our images run in the patient, by the sign of the vendor's transform.

Images are made by the inverse Fourier transform, ``exp(+2 pi i k x)``. MRD's directions mean that x, y and z
grow along them. Siemens' raw data are of the other sign: their images run *against* the header's read and
phase direction, and the partitions of a 3-D scan against its slice direction. ``docs/dicom.md`` says whence.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ..kspace.geometry import Geometry
from .outputs.facts import vendor

_AGAINST = frozenset({"SIEMENS"})
"""Vendors, as DICOM spells them, whose raw data are of the forward transform's sign."""


def reversed_axes(geometry: Geometry, header: Mapping[str, Any]) -> tuple[str, ...]:
    """Return which image axes run against the direction that the raw header gives for them."""
    if not geometry.known or vendor(header.get("manufacturer")) not in _AGAINST:
        return ()
    return ("x", "y", "z") if geometry.is_3d else ("x", "y")


def image_geometry(geometry: Geometry, header: Mapping[str, Any]) -> Geometry:
    """Return the geometry of the images from that of the raw header.

    Voxel ``N // 2`` of each axis is the centre of the transform and stays at ``position``. The slices of a
    2-D scan are excited, not transformed: their order and ``slice_dir`` stay.

    Parameters
    ----------
    geometry
        As the raw header gives it.
    header
        The k-space file's ``header``; read is ``manufacturer``.
    """
    axes = reversed_axes(geometry, header)
    names = {"x": "read_dir", "y": "phase_dir", "z": "slice_dir"}
    return replace(geometry, **{names[axis]: -getattr(geometry, names[axis]) for axis in axes})
