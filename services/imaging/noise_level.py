"""How much noise a scan holds, and how it is shared between coils, read from the scan itself.

No noise scan is needed: the lines at the ends of ky, transformed along the readout, hold hardly any signal in
the columns beside the object.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

OUTER = 8
"""One line in so many, at either end of the phase-encoding axis, counts as outer."""
QUIET = 0.2
"""Share of the readout columns, those with the least energy, from which the coil covariance comes."""
ENOUGH = 4
"""Samples for each coil that the covariance needs at least."""
QUANTILE = 0.1
"""Quantile over the columns that is taken for the noise."""
MOST_UNEVEN = 30.0
"""Largest ratio of the covariance's eigenvalues that is whitened: beyond it signal is taken for noise."""


@dataclass(frozen=True)
class Noise:
    """Noise of one scan.

    Attributes
    ----------
    sigma
        Standard deviation of a complex sample of the whitened data.
    whiten, unwhiten
        complex64 ``(coil, coil)``, inverse to each other; the trace of the covariance is kept.
    """

    sigma: float
    whiten: Tensor
    unwhiten: Tensor


def known(n_coils: int, sigma: float, device: torch.device) -> Noise:
    """Return the noise of data that are white already, with standard deviation ``sigma``."""
    one = torch.eye(n_coils, dtype=torch.complex64, device=device)
    return Noise(sigma, one, one)


def estimate(lines: Tensor) -> Noise:
    """Estimate the noise from the outer lines of a scan.

    Parameters
    ----------
    lines
        complex64 ``(coil, line, x)``: acquired lines at the ends of the phase-encoding axes, transformed
        (orthonormal) along the readout.
    """
    n_coils = lines.shape[0]
    energy = lines.abs().square().sum(dim=(0, 1))
    live = torch.nonzero(energy > 0).flatten()
    if live.numel() == 0:
        return known(n_coils, 0.0, lines.device)
    order = live[energy[live].argsort(stable=True)]
    columns = max(round(QUIET * live.numel()), -(-ENOUGH * n_coils // lines.shape[1]))
    quiet = lines[:, :, order[:columns]].reshape(n_coils, -1).to(torch.complex128)
    covariance = quiet @ quiet.mH / quiet.shape[1]
    values, vectors = torch.linalg.eigh(covariance)
    if quiet.shape[1] < ENOUGH * n_coils or not bool(0 < values[-1] <= MOST_UNEVEN * values[0]):
        noise = known(n_coils, 0.0, lines.device)
    else:
        root = (values / values.mean()).sqrt().to(torch.complex128)
        noise = Noise(
            0.0,
            (vectors / root @ vectors.mH).to(torch.complex64),
            (vectors * root @ vectors.mH).to(torch.complex64),
        )
    white = torch.tensordot(noise.whiten, lines, dims=([1], [0]))
    columns_rms = white.abs().square().mean(dim=(0, 1))[live].sqrt()
    sigma = float(torch.quantile(columns_rms.double(), QUANTILE))
    return Noise(sigma, noise.whiten, noise.unwhiten)
