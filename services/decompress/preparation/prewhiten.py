"""Noise prewhitening: the coils' noise made uncorrelated and of unit variance.

From a noise measurement ``n`` (coil, sample) the covariance ``C = n nᴴ / N`` (no mean is subtracted: noise
has none, and a few samples' mean would take a degree of freedom) is scaled to the bandwidth of the image and
factored, ``C = L Lᴴ``; the readouts are multiplied by ``L⁻¹`` (Pruessmann et al., MRM 2001; Kellman and
McVeigh, MRM 2005).  Whitened noise has ``E[n nᴴ] = I``: unit variance of the complex sample.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cholesky, solve_triangular

from ...contract.codes import Code, PermanentError
from ..acquisitions import Part, dwell_seconds
from .notes import Notes
from .placement import Ints
from .sorter import noise_rows

_SAMPLES_PER_COIL = 2
"""Fewest noise samples a coil: with fewer, the covariance of white noise itself is near singular."""
_DEAD = 1e-6
"""A coil whose noise variance is below this share of the median is dead."""
_SINGULAR = 1e-6
"""Smallest eigenvalue of the noise correlation that is still believed to be measured."""


def covariance(noise: NDArray[np.complex64]) -> NDArray[np.complex128]:
    """Return the covariance ``(coil, coil)`` of noise ``(coil, sample)``."""
    wide = noise.astype(np.complex128)
    found: NDArray[np.complex128] = wide @ wide.conj().T / wide.shape[1]
    return found


def whitener(cov: NDArray[np.complex128], n_samples: int) -> NDArray[np.complex64]:
    """Return the matrix ``(coil, coil)`` that whitens readouts ``(coil, sample)`` from the left.

    Raises
    ------
    PermanentError
        ``noise_singular`` where there are too few samples, a coil is dead, or coils are copies of each other.
    """
    n_coils = cov.shape[0]
    if n_samples < _SAMPLES_PER_COIL * n_coils:
        raise PermanentError(
            Code.NOISE_SINGULAR,
            f"The noise measurement has {n_samples} samples for {n_coils} coils, at least "
            f"{_SAMPLES_PER_COIL * n_coils} are needed to whiten the data. Send a longer noise measurement, "
            "or the scan without one.",
        )
    power = np.real(np.diag(cov))
    dead = int((power <= _DEAD * np.median(power)).sum()) if power.any() else n_coils
    if dead:
        raise PermanentError(
            Code.NOISE_SINGULAR,
            f"{dead} of {n_coils} coils measured no noise, as unplugged coils do: whitening would divide by "
            "zero. Repeat the noise measurement, or send the scan without it.",
        )
    scale = 1 / np.sqrt(power)
    smallest = float(np.linalg.eigvalsh(cov * np.outer(scale, scale)).min())
    if smallest < _SINGULAR:
        raise PermanentError(
            Code.NOISE_SINGULAR,
            f"The noise of {n_coils} coils is not independent (smallest eigenvalue of their correlation "
            f"{smallest:.1e}): some are copies of each other. Repeat the noise measurement, or send the "
            "scan without it.",
        )
    root = cholesky(cov, lower=True)
    identity = np.eye(n_coils, dtype=root.dtype)
    found: NDArray[np.complex64] = solve_triangular(root, identity, lower=True).astype(np.complex64)
    return found


def from_parts(image: Part, rows: Ints, others: list[Part], notes: Notes) -> NDArray[np.complex64] | None:
    """Return the whitening matrix for the readouts ``rows`` of ``image``, ``None`` where no noise was
    measured.

    The scan's own noise measurement comes first, then one in another part, its coils matched by label.

    Raises
    ------
    PermanentError
        ``noise_singular``.
    """
    n_coils = int(image.table["channels"][rows[0]])
    for part in [image, *others]:
        noise = noise_rows(part)
        if not noise.size:
            continue
        coils = np.arange(n_coils) if part is image else match_coils(image, part, n_coils)
        n_noise = int(part.table["channels"][noise[0]]) if coils is None else _width(part, noise, coils)
        noise = noise[part.table["channels"][noise] == n_noise]
        if coils is None or not noise.size or coils.max(initial=0) >= n_noise:
            notes.warn("A noise measurement was found, but of other coils than the image's: it was not used.")
            continue
        return _measured(image, rows, part, noise, coils, notes)
    notes.warn(
        "No noise measurement was found: coils are not whitened, so noisier coils weigh more than they "
        "should and noise figures are relative."
    )
    notes.did("prewhiten", applied=False, reason="no noise measurement")
    return None


def match_coils(image: Part, other: Part, n_coils: int) -> Ints | None:
    """Return for each coil of ``image`` the channel of ``other`` that is the same coil.

    By label where both files name their coils; by place where neither does and the counts agree; else
    ``None``.
    """
    ours, theirs = image.header.coil_labels, other.header.coil_labels
    if len(ours) == n_coils and theirs and len(set(ours)) == n_coils and len(set(theirs)) == len(theirs):
        if not set(ours) <= set(theirs):
            return None
        return np.array([theirs.index(label) for label in ours])
    counts = np.unique(other.table["channels"])
    return np.arange(n_coils) if n_coils in counts else None


def _width(part: Part, noise: Ints, coils: Ints) -> int:
    """Return the number of channels of the noise readouts that hold these coils: there may be several
    kinds.
    """
    counts = np.unique(part.table["channels"][noise])
    named = len(part.header.coil_labels)
    wanted = named if named in counts else coils.size
    return int(wanted if wanted in counts else counts.max())


def _measured(
    image: Part, rows: Ints, part: Part, noise: Ints, coils: Ints, notes: Notes
) -> NDArray[np.complex64]:
    samples = np.concatenate([part.samples(int(row))[coils] for row in noise], axis=1)
    dwell, noise_dwell = dwell_seconds(image.table[rows]), dwell_seconds(part.table[noise])
    if dwell is None or noise_dwell is None:
        notes.warn(
            "The file tells no possible sampling time; the noise was taken as measured with the image's "
            "bandwidth."
        )
        dwell = noise_dwell = 1.0
    ratio = noise_dwell / dwell
    bandwidth = part.header.noise_bandwidth or image.header.noise_bandwidth or 1.0
    # White noise: its variance goes with the bandwidth, 1/dwell. The receiver's filter let only ``bandwidth``
    # of the noise measurement's band through, so the same receiver shows 1/bandwidth of it in the middle of
    # the image.
    scale = ratio / bandwidth
    matrix = whitener(covariance(samples) * scale, samples.shape[1])
    notes.did(
        "prewhiten",
        applied=True,
        own=part is image,
        noise_samples=int(samples.shape[1]),
        coils=int(coils.size),
        reordered=bool((np.diff(coils) != 1).any()),
        dwell_ratio=round(ratio, 6),
        noise_bandwidth=bandwidth,
        variance_scale=round(scale, 6),
    )
    return matrix
