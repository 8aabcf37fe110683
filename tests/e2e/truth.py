"""A small undersampled scan, and how far an image is from the object that was scanned."""

from dataclasses import dataclass

import numpy as np

from mrirecon.phantom.scanner import Protocol, full_kspace, pack, sampled_lines, simulate

PROTOCOL = Protocol(
    matrix=(96, 80), fov_mm=(224.0, 186.7), n_slices=2, n_coils=8, acceleration=3, n_acs=24, snr=60.0
)


@dataclass(frozen=True)
class Errors:
    """Normalised root-mean-square errors against the fully sampled, noise-free image."""

    image: float
    zero_filled: float


def make_archive(folder):
    """Scan the phantom and pack it as a scanner's share would."""
    raw, archive = folder / "scan.h5", folder / "scan.tar"
    simulate(raw, PROTOCOL)
    pack(archive, [raw])
    return archive


def compare(image):
    """Compare ``image`` float ``(image, z, y, x)`` with the truth, scale and shading by the coils fitted."""
    ny, nx = PROTOCOL.matrix
    mask = sampled_lines(ny, PROTOCOL.acceleration, PROTOCOL.n_acs)
    found, truth, aliased = [], [], []
    for number in range(PROTOCOL.n_slices):
        lines = full_kspace(PROTOCOL, number)
        truth.append(_rss(lines, nx))
        aliased.append(_rss(lines * mask[:, None], nx))
        found.append(np.asarray(image[0, number], float))
    return Errors(_nrmse(np.stack(found), np.stack(truth)), _nrmse(np.stack(aliased), np.stack(truth)))


def _rss(lines, nx):
    coils = np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(lines, axes=(-2, -1))), axes=(-2, -1))
    start = (coils.shape[-1] - nx) // 2
    return np.sqrt((np.abs(coils[..., start : start + nx]) ** 2).sum(0))


def _nrmse(image, truth):
    """Fit one factor, then compare: an image's unit is arbitrary."""
    factor = (image * truth).sum() / (image * image).sum()
    return float(np.linalg.norm(factor * image - truth) / np.linalg.norm(truth))
