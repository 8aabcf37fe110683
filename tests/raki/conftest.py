"""Own synthetic data: ellipses with smooth phase, eight smooth coils, white noise."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.ndimage import binary_fill_holes, gaussian_filter

from mrirecon.imaging.coil_combination import rss
from mrirecon.raki.fft import image_to_kspace, kspace_to_image


def make_image(n_z, n_y, n_x, seed=0):
    """Complex object ``(z, y, x)``: ellipsoids of different size and contrast under a smooth phase."""
    rng = np.random.default_rng(seed)
    z, y, x = np.meshgrid(
        *(np.linspace(-1, 1, n) if n > 1 else np.zeros(1) for n in (n_z, n_y, n_x)), indexing="ij"
    )
    image = 1.0 * ((x / 0.75) ** 2 + (y / 0.9) ** 2 + (z / 0.95) ** 2 < 1)
    for _ in range(30):
        cx, cy = rng.uniform(-0.5, 0.5, 2)
        cz = rng.uniform(-0.6, 0.6) if n_z > 1 else 0
        a, b, c = rng.uniform(0.04, 0.25, 3)
        inside = ((x - cx) / a) ** 2 + ((y - cy) / b) ** 2 + ((z - cz) / (c + 0.2)) ** 2 < 1
        image = image + inside * rng.uniform(-0.4, 0.5)
    image *= (x / 0.75) ** 2 + (y / 0.9) ** 2 + (z / 0.95) ** 2 < 1
    return image * np.exp(1j * (1.2 * x - 0.8 * y + x * y + 0.5 * z))


def make_coils(n_coil, n_z, n_y, n_x):
    """Sensitivities ``(coil, z, y, x)``: Gaussians around the object, each with its own linear phase."""
    z, y, x = np.meshgrid(
        *(np.linspace(-1, 1, n) if n > 1 else np.zeros(1) for n in (n_z, n_y, n_x)), indexing="ij"
    )
    coils = []
    for index in range(n_coil):
        angle = 2 * np.pi * index / n_coil
        cy, cx, cz = 1.1 * np.sin(angle), 1.1 * np.cos(angle), 0.8 * (-1) ** index * (n_z > 1)
        shape = np.exp(-((y - cy) ** 2 + (x - cx) ** 2 + 0.7 * (z - cz) ** 2) / 1.1)
        coils.append(shape * np.exp(1j * (angle + 0.6 * (x * np.cos(2 * angle) + y * np.sin(angle)))))
    return np.stack(coils)


def make_scan(n_slice=1, n_coil=8, n_z=1, n_y=96, n_x=96, noise=0.01, seed=0):
    """Whitened full k-space complex64 ``(slice, coil, kz, ky, kx)`` (noise variance 1), and its parts."""
    rng = np.random.default_rng(seed)
    coils = make_coils(n_coil, n_z, n_y, n_x)
    objects = np.stack([make_image(n_z, n_y, n_x, seed + index) for index in range(n_slice)])
    images = torch.from_numpy(objects[:, None] * coils[None] / noise)
    kspace = image_to_kspace(images, (-3, -2, -1)).numpy()
    white = rng.standard_normal((2, *kspace.shape)) / np.sqrt(2)
    kspace = (kspace + white[0] + 1j * white[1]).astype(np.complex64)
    return SimpleNamespace(kspace=kspace, objects=objects, coils=coils, noise=noise)


def lines(n, r, acs, offset=0):
    mask = np.zeros((1, n), bool)
    mask[0, offset::r] = True
    mask[0, n // 2 - acs // 2 : n // 2 - acs // 2 + acs] = True
    return mask


def magnitude(kspace):
    """RSS image ``(slice, z, y, x)`` float64."""
    return rss(kspace_to_image(torch.as_tensor(kspace), (-3, -2, -1))).numpy().astype(np.float64)


def psnr(found, reference):
    """PSNR in dB inside the object, after one least-squares scalar, mean over the slices."""
    values = []
    for a, b in zip(found, reference, strict=True):
        smooth = gaussian_filter(b, 2.0)
        inside = binary_fill_holes(smooth > 0.05 * smooth.max())
        scale = (a[inside] * b[inside]).sum() / (a[inside] ** 2).sum()
        values.append(10 * np.log10(b.max() ** 2 / ((scale * a - b)[inside] ** 2).mean()))
    return float(np.mean(values))


@pytest.fixture(scope="session")
def scan():
    """Two slices of 2-D data, eight coils."""
    return make_scan(n_slice=2)


@pytest.fixture(scope="session")
def volume():
    """One small volume, eight coils."""
    return make_scan(n_z=24, n_y=48, n_x=40, noise=0.02, seed=3)


@pytest.fixture(scope="session")
def tools():
    """The functions above, for tests (test folders are no packages)."""
    return SimpleNamespace(make_scan=make_scan, lines=lines, magnitude=magnitude, psnr=psnr)
