"""How strong the noise is where it was not measured."""

from __future__ import annotations

import math

from torch import Tensor


def white_variance(power: Tensor) -> float | None:
    """Return the variance of complex samples whose squared magnitudes are ``power``, ``None`` without any.

    The power of complex Gaussian noise is exponential: its median is ln 2 times its mean. The median keeps
    single spikes out; signal among the samples makes it larger. Zeros are samples that were not acquired.
    """
    acquired = power[power > 0]
    return float(acquired.median()) / math.log(2) if acquired.numel() else None
