"""Numbers that single precision can square, and the last look at an image before it is published."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from ..contract.codes import Code, PermanentError

_COMFORTABLE = (1e-8, 1e8)
"""Largest magnitudes of k-space between which sums of fourth powers stay within single precision."""
_REPRESENTABLE = (1e-34, 1e36)
"""Brightest voxels that single precision, and DICOM's 16 decimal digits, hold with room for the dark ones."""


def factor(peak: float) -> float:
    """Return the power of two that brings k-space whose largest magnitude is ``peak`` to about one.

    1 where that is not needed: scaling by a power of two changes no digit, but no scaling is plainer still.
    """
    if not math.isfinite(peak) or peak == 0 or _COMFORTABLE[0] <= peak <= _COMFORTABLE[1]:
        return 1.0
    return 2.0 ** min(120, max(-120, -math.frexp(peak)[1]))  # itself within single precision


class LastLook:
    """Sees every image before it is published, and refuses what is no image."""

    def __init__(self) -> None:
        self._brightest = 0.0

    def see(self, magnitude: NDArray[np.float32]) -> None:
        """Look at a part of the images.

        Raises
        ------
        PermanentError
            ``non_finite`` where a voxel is infinite or not a number.
        """
        if not np.isfinite(magnitude).all():
            raise PermanentError(
                Code.NON_FINITE,
                "The images hold voxels that are infinite or not a number: the raw data or their noise "
                "measurement are of an extreme size. Export the scan again.",
            )
        self._brightest = max(self._brightest, float(magnitude.max(initial=0.0)))

    def end(self) -> None:
        """Look at the whole.

        Raises
        ------
        PermanentError
            ``non_finite`` where all images are black, or too dark or too bright to be written.
        """
        if self._brightest == 0:
            raise PermanentError(
                Code.NON_FINITE, "All images are black: the raw data hold zeros only. Export the scan again."
            )
        if not _REPRESENTABLE[0] <= self._brightest <= _REPRESENTABLE[1]:
            raise PermanentError(
                Code.NON_FINITE,
                f"The brightest voxel is {self._brightest:.1e}; expected is a value between "
                f"{_REPRESENTABLE[0]:.0e} and {_REPRESENTABLE[1]:.0e}. The raw data or their noise "
                "measurement are of an extreme size. Export the scan again.",
            )
