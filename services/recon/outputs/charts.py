"""Small charts as inline SVG: they scale, print and follow the page's colours (``currentColor``, classes)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray


def bars(values: Mapping[str, float], chosen: str, unit: str = "") -> str:
    """Return horizontal bars, the one called ``chosen`` highlighted; the shortest is the best."""
    known = {name: value for name, value in values.items() if math.isfinite(value)}
    if not known:
        return ""
    peak = max(known.values()) or 1.0
    row, left, width = 30, 92, 230
    parts = []
    for n, (name, value) in enumerate(known.items()):
        y = n * row
        length = max(2.0, value / peak * width)
        kind = "bar chosen" if name == chosen else "bar"
        parts.append(
            f'<text x="{left - 10}" y="{y + 19}" text-anchor="end" class="label">{_escape(name)}</text>'
            f'<rect x="{left}" y="{y + 6}" width="{length:.1f}" height="18" rx="3" class="{kind}"/>'
            f'<text x="{left + length + 8:.1f}" y="{y + 19}" class="value">{value:.4g}{_escape(unit)}</text>'
        )
    return _svg(left + width + 78, len(known) * row, "".join(parts), "Hold-out error of each candidate")


def curve(losses: Sequence[float], label: str) -> str:
    """Return a training curve, the loss on a logarithmic axis against the step."""
    values = [float(v) for v in losses if math.isfinite(v) and v > 0]
    if len(values) < 2:
        return ""
    left, top, width, height = 46, 12, 344, 130
    low, high = math.log10(min(values)), math.log10(max(values))
    span = (high - low) or 1.0

    def at(n: int, value: float) -> str:
        x = left + n / (len(values) - 1) * width
        y = top + (high - math.log10(value)) / span * height
        return f"{x:.1f},{y:.1f}"

    path = " ".join(at(n, value) for n, value in enumerate(values))
    ticks = []
    for share in (0.0, 0.5, 1.0):
        y, value = top + share * height, 10 ** (high - share * span)
        ticks.append(
            f'<line x1="{left}" x2="{left + width}" y1="{y:.1f}" y2="{y:.1f}" class="grid"/>'
            f'<text x="{left - 8}" y="{y + 4:.1f}" text-anchor="end" class="tick">{value:.3g}</text>'
        )
    base = top + height + 18
    body = (
        f'{"".join(ticks)}<polyline points="{path}" class="curve"/>'
        f'<text x="{left}" y="{base}" class="tick">1</text>'
        f'<text x="{left + width}" y="{base}" text-anchor="end" class="tick">{len(values)}</text>'
        f'<text x="{left + width / 2}" y="{base}" text-anchor="middle" class="tick">{_escape(label)}</text>'
    )
    return _svg(left + width + 12, base + 6, body, "Training loss against step")


def sampling(acquired: NDArray[np.bool_], extent: NDArray[np.bool_], acs: tuple[int, int] | None) -> str:
    """Return the lines of k-space along ky: acquired, interpolated, calibration, never sampled.

    ``acquired`` and ``extent`` are bool ``(kz, ky)``; of a volume the row through the centre is drawn, with
    each line's share over kz as its height.
    """
    n = acquired.shape[1]
    width, height = 720.0, 56.0
    step = width / n
    solid = max(0.7, step * 0.72)
    row_acquired, row_extent = acquired.mean(axis=0), extent.mean(axis=0) > 0
    parts = []
    if acs is not None:
        parts.append(
            f'<rect x="{acs[0] * step:.2f}" y="0" width="{(acs[1] - acs[0]) * step:.2f}" height="{height}" '
            'class="acs"/>'
        )
    for line in range(n):
        x = line * step + (step - solid) / 2
        if row_acquired[line] > 0:
            tall = 8 + (height - 16) * float(row_acquired[line])
            parts.append(_line(x, (height - tall) / 2, solid, tall, "acquired"))
        elif row_extent[line]:
            parts.append(_line(x, height / 2 - 3, solid, 6, "filled"))
    return _svg(width, height, "".join(parts), "Lines of k-space along ky")


def _line(x: float, y: float, width: float, height: float, kind: str) -> str:
    return f'<rect x="{x:.2f}" y="{y:.2f}" width="{width:.2f}" height="{height:.2f}" class="{kind}"/>'


def _svg(width: float, height: float, body: str, title: str) -> str:
    return (
        f'<svg viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{_escape(title)}" '
        f'preserveAspectRatio="xMinYMin meet">{body}</svg>'
    )


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace('"', "&quot;")
