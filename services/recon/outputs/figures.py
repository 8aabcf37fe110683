"""Numbers as people write them, and the record's quality figures in words."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


def number(value: object, digits: int = 3) -> str:
    """Return a number as people write it: ``digits`` significant ones, no exponent where none is needed."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if isinstance(value, int):
        return f"{value:,}".replace(",", " ")
    if not math.isfinite(value):
        return "–"
    if value == 0 or 1e-3 <= abs(value) < 1e5:
        decimals = max(0, digits - 1 - math.floor(math.log10(abs(value)))) if value else 0
        text = f"{value:.{decimals}f}"
        return text.rstrip("0").rstrip(".") if "." in text else text
    return f"{value:.{digits - 1}e}"


_QUALITY_WORDS = {
    "object_fraction": ("Object", "share of voxels that hold signal"),
    "background_ratio": ("Background / object", "median magnitude outside over inside"),
    "sampled_fraction": ("Sampled", "acquired share of the lines wanted"),
    "interpolated_energy": ("Interpolated energy", "share of k-space energy not measured"),
    "g_factor_mean": ("g-factor, mean", "noise amplification over the object"),
    "g_factor_p95": ("g-factor, 95th percentile", "one voxel in twenty is noisier"),
    "snr_median": ("SNR, median", "magnitude over its standard deviation"),
    "espirit_residual": ("Model misfit", "acquired samples not explained by image and coil maps"),
}


_SHARES = {
    "object_fraction",
    "sampled_fraction",
    "interpolated_energy",
    "background_ratio",
    "espirit_residual",
}


def quality_rows(figures: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Return name, value and meaning of each quality figure there is, in a fixed order."""
    rows = []
    for key, (name, meaning) in _QUALITY_WORDS.items():
        if key in figures:
            value = figures[key]
            shown = f"{number(100 * value)} %" if key in _SHARES else number(value)
            rows.append((name, shown, meaning))
    return rows
