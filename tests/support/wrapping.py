"""Real multi-coil scans, undersampled and wrapped as the archives a scanner would leave."""

import h5py
import numpy as np

from mrirecon.phantom.mrd import Encoding, MrdWriter, ScannerHeader, header_xml
from mrirecon.phantom.scanner import pack


def wrap(kspace, lines, archive, acceleration=1):
    """Write k-space (coil, ky, kx) as an MRD file that holds only ``lines``, in a tar."""
    n_coils, ny, nx = kspace.shape
    writer = MrdWriter()
    for ky in np.flatnonzero(lines):
        writer.add(
            kspace[:, ky],
            kspace_encode_step_1=ky,
            sample_time_us=5.0,
            center_sample=nx // 2,
            read_dir=(1, 0, 0),
            phase_dir=(0, 1, 0),
            slice_dir=(0, 0, 1),
        )
    encoding = Encoding(
        matrix=(1, ny, nx),
        fov_mm=(5.0, float(ny), float(nx)),
        recon_matrix=(1, ny, nx),
        recon_fov_mm=(5.0, float(ny), float(nx)),
        centre=(0, ny // 2),
        acceleration=(acceleration, 1),
    )
    limits = {"kspace_encoding_step_1": (0, ny - 1, ny // 2), "kspace_encoding_step_2": (0, 0, 0)}
    raw = archive.with_suffix(".h5")
    writer.write(raw, header_xml(ScannerHeader(coils=[f"C{i}" for i in range(n_coils)]), encoding, limits))
    pack(archive, [raw])
    raw.unlink()
    return archive


def read_image(folder):
    """Return the one image of a result folder, (y, x)."""
    with h5py.File(folder / "image.h5") as file:
        return file["image"][0, 0]
