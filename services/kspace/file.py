"""The k-space file (``kspace.h5``): the contract between decompress and reconstruct.

====================  =================================================================================
``kspace``            complex64 ``(image, slice, coil, kz, ky, kx)``; whitened, readout oversampling
                      removed, k-space centre at ``n // 2`` on every axis, zero where not acquired;
                      chunked a line (all coils) a chunk, so lines never acquired take no space
``mask``              bool ``(image, slice, kz, ky)``: what was acquired
``acs``, ``acs_mask`` where calibration was acquired apart: the same axes with its own matrix, centre
                      at ``n // 2``; complex64 and bool
``geometry/*``        :class:`~mrirecon.kspace.geometry.Geometry`
``images``            JSON text: one :class:`~mrirecon.kspace.geometry.ImageIndex` an entry of ``image``
``history``           JSON text: what was done, in order, with which numbers
``ismrmrd_header``    the scrubbed ISMRMRD XML header, or empty
====================  =================================================================================

Attributes: ``schema_version``, ``scan_id``, ``format``, ``kx_range`` (first, past-last sample acquired),
``whitened``, ``header`` (JSON: what DICOM may name; no patient data), ``warnings`` (JSON list),
``acquisitions_digest`` (of the readouts themselves: the same for the same scan packed anew).

``whitened`` data have noise whose covariance over the coils is the identity: ``E[n nᴴ] = I``, so each
complex sample has unit variance (half in the real, half in the imaginary part).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from ..contract.codes import Code, PermanentError
from .geometry import Geometry, ImageIndex

SCHEMA_VERSION = 1
Shape6 = tuple[int, int, int, int, int, int]


@dataclass(kw_only=True)
class KSpaceInfo:
    """All of the k-space file but the bulk data. See the module's table for what the fields mean."""

    scan_id: str
    format: str
    geometry: Geometry
    images: list[ImageIndex]
    kx_range: tuple[int, int]
    whitened: bool
    history: list[dict[str, Any]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    header: dict[str, Any] = field(default_factory=dict)
    ismrmrd_header: str = ""
    acquisitions_digest: str = ""


class KSpaceWriter:
    """Writes a k-space file piece by piece, so that no second copy of a scan need be in memory.

    Use through :func:`create`.
    """

    def __init__(self, file: h5py.File, shape: Shape6) -> None:
        n_image, n_slice, n_coil, n_kz, n_ky, n_kx = shape
        self._file = file
        self.shape = shape
        self._kspace = file.create_dataset(
            "kspace", shape=shape, dtype=np.complex64, chunks=(1, 1, n_coil, 1, 1, n_kx)
        )
        self._mask = np.zeros((n_image, n_slice, n_kz, n_ky), dtype=bool)

    def write(self, image: int, slice_: int, block: NDArray[np.complex64], mask: NDArray[np.bool_]) -> None:
        """Store the acquired lines of one slice.

        Parameters
        ----------
        image, slice_
            Where it belongs on the first two axes.
        block
            complex64 ``(coil, kz, ky, kx)``.
        mask
            bool ``(kz, ky)``: the lines that were acquired; only these are stored.
        """
        if block.shape != self.shape[2:] or mask.shape != self.shape[3:5]:
            raise ValueError(
                f"expected {self.shape[2:]} and {self.shape[3:5]}, got {block.shape}, {mask.shape}"
            )
        for kz, ky in np.argwhere(mask):
            self._kspace.id.write_direct_chunk(
                (image, slice_, 0, kz, ky, 0), np.ascontiguousarray(block[:, kz, ky, :]).tobytes()
            )
        self._mask[image, slice_] |= mask

    def write_lines(
        self,
        image: int,
        slice_: int,
        kz: NDArray[np.int64],
        ky: NDArray[np.int64],
        lines: NDArray[np.complex64],
    ) -> None:
        """Store some lines of one slice, for who does not hold the whole slice at once.

        Parameters
        ----------
        image, slice_
            Where they belong on the first two axes.
        kz, ky
            ``(line,)``: where on the grid.
        lines
            complex64 ``(line, coil, kx)``.
        """
        n_coil, _, _, n_kx = self.shape[2:]
        if lines.shape != (len(ky), n_coil, n_kx) or len(kz) != len(ky):
            raise ValueError(f"expected {(len(ky), n_coil, n_kx)} and as many places, got {lines.shape}")
        lines = np.ascontiguousarray(lines, np.complex64)
        for z, y, line in zip(kz.tolist(), ky.tolist(), lines, strict=True):
            self._kspace.id.write_direct_chunk((image, slice_, 0, z, y, 0), line.data)
        self._mask[image, slice_, kz, ky] = True

    def write_acs(self, acs: NDArray[np.complex64], mask: NDArray[np.bool_]) -> None:
        """Store separately acquired calibration and its mask.

        Axes are ``(image, slice, coil, kz, ky, kx)`` and ``(image, slice, kz, ky)``; ``image`` may be
        1 where one calibration serves all images.
        """
        if acs.ndim != 6 or mask.shape != (*acs.shape[:2], *acs.shape[3:5]):
            raise ValueError(
                f"acs (image, slice, coil, kz, ky, kx) and its mask do not fit: {acs.shape}, {mask.shape}"
            )
        self._file.create_dataset("acs", data=acs.astype(np.complex64, copy=False))
        self._file.create_dataset("acs_mask", data=mask)

    def finish(self, info: KSpaceInfo) -> None:
        """Store everything but the bulk data; the file is valid only after this."""
        file = self._file
        file.create_dataset("mask", data=self._mask)
        group = file.create_group("geometry")
        for name, value in asdict(info.geometry).items():
            if isinstance(value, np.ndarray):
                group.create_dataset(name, data=value)
            else:
                group.attrs[name] = value
        for name, items in (("images", [asdict(index) for index in info.images]), ("history", info.history)):
            file.create_dataset(name, data=json.dumps(items), dtype=h5py.string_dtype())
        file.create_dataset("ismrmrd_header", data=info.ismrmrd_header, dtype=h5py.string_dtype())
        file.attrs.update(
            scan_id=info.scan_id,
            format=info.format,
            kx_range=info.kx_range,
            whitened=info.whitened,
            header=json.dumps(info.header),
            warnings=json.dumps(info.warnings),
            schema_version=SCHEMA_VERSION,
            acquisitions_digest=info.acquisitions_digest,
        )


@contextmanager
def create(path: Path, shape: Shape6) -> Iterator[KSpaceWriter]:
    """Open a new k-space file of ``(image, slice, coil, kz, ky, kx)`` for writing.

    No time-stamps are kept, so the same scan gives the same bytes.
    """
    with h5py.File(path, "w-", libver="v110", track_order=False) as file:
        yield KSpaceWriter(file, shape)


class KSpaceReader:
    """Reads a k-space file. Use through :func:`open_kspace`."""

    def __init__(self, file: h5py.File) -> None:
        if int(file.attrs.get("schema_version", 0)) != SCHEMA_VERSION:
            raise PermanentError(
                Code.H5_SCHEMA,
                f"The k-space file has schema {file.attrs.get('schema_version')!r}, this version reads "
                f"{SCHEMA_VERSION}: run decompress again.",
            )
        self._file = file
        self.shape: Shape6 = file["kspace"].shape
        self.mask: NDArray[np.bool_] = file["mask"][()]
        self.acs_mask: NDArray[np.bool_] | None = file["acs_mask"][()] if "acs_mask" in file else None
        self.info = _read_info(file)

    def read(self, image: int, slice_: int) -> NDArray[np.complex64]:
        """Return the k-space of one slice: complex64 ``(coil, kz, ky, kx)``, zero where not acquired."""
        block: NDArray[np.complex64] = self._file["kspace"][image, slice_]
        return block

    def read_acs(self, image: int, slice_: int) -> NDArray[np.complex64] | None:
        """Return the separate calibration that serves this slice, ``(coil, kz, ky, kx)``, or None."""
        if "acs" not in self._file:
            return None
        acs = self._file["acs"]
        block: NDArray[np.complex64] = acs[min(image, acs.shape[0] - 1), min(slice_, acs.shape[1] - 1)]
        return block


@contextmanager
def open_kspace(path: Path) -> Iterator[KSpaceReader]:
    """Open a k-space file, read-only.

    Raises
    ------
    PermanentError
        ``h5_schema`` when it was written by a version with another schema.
    """
    with h5py.File(path, "r") as file:
        yield KSpaceReader(file)


def _read_info(file: h5py.File) -> KSpaceInfo:
    group = file["geometry"]
    arrays = {name: group[name][()] for name in ("position", "read_dir", "phase_dir", "slice_dir")}
    attrs = group.attrs
    first, stop = (int(v) for v in file.attrs["kx_range"])
    return KSpaceInfo(
        scan_id=str(file.attrs["scan_id"]),
        format=str(file.attrs["format"]),
        geometry=Geometry(
            **arrays,
            matrix=_ints(attrs["matrix"]),
            fov_mm=_floats(attrs["fov_mm"]),
            recon_matrix=_ints(attrs["recon_matrix"]),
            recon_fov_mm=_floats(attrs["recon_fov_mm"]),
            known=bool(attrs["known"]),
            patient_position=str(attrs["patient_position"]),
        ),
        images=[ImageIndex(**index) for index in json.loads(file["images"].asstr()[()])],
        kx_range=(first, stop),
        whitened=bool(file.attrs["whitened"]),
        history=json.loads(file["history"].asstr()[()]),
        warnings=json.loads(str(file.attrs["warnings"])),
        header=json.loads(str(file.attrs["header"])),
        ismrmrd_header=file["ismrmrd_header"].asstr()[()],
        acquisitions_digest=str(file.attrs["acquisitions_digest"]),
    )


def _ints(values: NDArray[Any]) -> tuple[int, int, int]:
    z, y, x = (int(v) for v in values)
    return z, y, x


def _floats(values: NDArray[Any]) -> tuple[float, float, float]:
    z, y, x = (float(v) for v in values)
    return z, y, x
