"""The noise map as people see it: the g-factor over the object, in colour, between limits that fit it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ...imaging.quality import object_mask
from . import preview
from .display import views
from .facts import Facts


@dataclass(frozen=True)
class NoiseMap:
    """A montage of the map.

    Attributes
    ----------
    sheet
        Planes in the standard view, on black.
    low, high
        g-factors at the ends of the colour ramp; 1 is no amplification.
    planes
        How many planes the map was made for.
    smooths
        Whether more than half of the object lies below 1: the interpolation smooths there.
    """

    sheet: Image.Image
    low: float
    high: float
    planes: int
    smooths: bool


def draw(
    facts: Facts, volume: NDArray[np.float32], g_factor: NDArray[np.float32] | None, *, most: int
) -> NoiseMap | None:
    """Return at most ``most`` planes of the map of image 0, or None where none was made.

    Parameters
    ----------
    facts
        Of the scan; its geometry says how planes are shown.
    volume
        Magnitude ``(z, y, x)`` of image 0: the map is shown where it holds signal.
    g_factor
        ``(z, y, x)``, not a number where it was not made.
    most
        Planes shown.
    """
    if g_factor is None:
        return None
    values = np.where(object_mask(volume), g_factor, np.nan)
    made = [view for view in views(facts.geometry) if np.isfinite(values[view.plane]).any()]
    if not made:
        return None
    high = max(1.5, math.ceil(float(np.nanpercentile(values, 99)) * 4) / 4)
    low = min(1.0, math.floor(float(np.nanpercentile(values, 1)) * 4) / 4)
    longest = 420 if min(len(made), most) <= 2 else 300
    sheet = preview.map_montage(values, made, (low, high), longest=longest, most=most)
    return NoiseMap(sheet, low, high, len(made), float(np.nanmedian(values)) < 1)
