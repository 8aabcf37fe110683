"""Pictures for people: windowed, in true proportions, in the standard radiological view."""

from __future__ import annotations

import io
import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from ...kspace.geometry import Geometry
from .display import View, views
from .volume import orientation_letters

Picture = NDArray[np.uint8]

_GAP = 4
_MAGNIFY = 3
_LOW, _HIGH, _HEADROOM = 1.0, 99.7, 1.03
_RAMP = np.array(
    [[13, 16, 60], [44, 62, 128], [32, 115, 140], [42, 165, 122], [150, 207, 82], [252, 231, 90]], float
)
"""Dark blue to yellow: rising lightness, so that it reads in grey and with colour-blind eyes."""


def window(volume: NDArray[np.float32]) -> tuple[float, float]:
    """Return the magnitudes shown black and white: all but the brightest fat stays below white."""
    values = volume[np.isfinite(volume)]
    positive = values[values > 0]
    if positive.size == 0:
        return 0.0, 1.0
    low, high = (float(np.percentile(positive, share)) for share in (_LOW, _HIGH))
    low = min(low, 0.05 * high)
    return (low, high * _HEADROOM) if high > low else (0.0, high or 1.0)


def grey(plane: NDArray[np.float32], low: float, high: float) -> Picture:
    """Return ``plane`` ``(y, x)`` as grey values ``(y, x)``."""
    scaled = np.clip((np.nan_to_num(plane) - low) / (high - low), 0, 1)
    shown: Picture = np.rint(scaled * 255).astype(np.uint8)
    return shown


def coloured(plane: NDArray[np.float32], low: float, high: float) -> Picture:
    """Return ``plane`` ``(y, x)`` as colours ``(y, x, 3)``, black where it is not a number."""
    at = np.clip((np.nan_to_num(plane) - low) / (high - low), 0, 1) * (len(_RAMP) - 1)
    below = np.minimum(at.astype(int), len(_RAMP) - 2)
    part = (at - below)[..., None]
    shown = _RAMP[below] * (1 - part) + _RAMP[below + 1] * part
    shown[~np.isfinite(plane)] = 0
    picture: Picture = np.rint(shown).astype(np.uint8)
    return picture


def ramp_css() -> str:
    """Return the colour ramp as a CSS gradient, left low and right high."""
    stops = ", ".join(f"rgb({r:.0f} {g:.0f} {b:.0f})" for r, g, b in _RAMP)
    return f"linear-gradient(to right, {stops})"


def tile_size(view: View, longest: int) -> tuple[int, int]:
    """Return ``(height, width)`` in pixels of a plane as it is shown, in true proportions.

    The longer side has ``longest`` pixels, or fewer where that would magnify the voxels more than is of use.
    """
    (height, width), shape = view.size_mm, view.shape
    scale = min(longest, _MAGNIFY * max(shape)) / max(height, width)
    return max(1, round(height * scale)), max(1, round(width * scale))


def chosen_planes(n_planes: int, most: int) -> list[int]:
    """Return at most ``most`` plane numbers, evenly spread, ends left out first."""
    if n_planes <= most:
        return list(range(n_planes))
    return sorted({int((i + 0.5) * n_planes / most) for i in range(most)})


def montage(tiles: list[Picture], sizes: list[tuple[int, int]], columns: int) -> Image.Image:
    """Return ``tiles``, all grey or all colour, each resampled to its size, laid out in rows on black."""
    height, width = box(sizes)
    rows = math.ceil(len(tiles) / columns)
    mode = "L" if tiles[0].ndim == 2 else "RGB"
    sheet = Image.new(mode, (columns * (width + _GAP) - _GAP, rows * (height + _GAP) - _GAP))
    for n, (tile, size) in enumerate(zip(tiles, sizes, strict=True)):
        shrinks = size[0] < tile.shape[0] or size[1] < tile.shape[1]
        how = Image.Resampling.LANCZOS if shrinks else Image.Resampling.BICUBIC
        picture = Image.fromarray(np.ascontiguousarray(tile)).resize((size[1], size[0]), how)
        left, top = _corner(n, columns, (height, width))
        sheet.paste(picture, (left + (width - size[1]) // 2, top + (height - size[0]) // 2))
    return sheet


def box(sizes: list[tuple[int, int]]) -> tuple[int, int]:
    """Return ``(height, width)`` that holds each of ``sizes``."""
    return max(height for height, _ in sizes), max(width for _, width in sizes)


def _corner(n: int, columns: int, size: tuple[int, int]) -> tuple[int, int]:
    """Return ``(left, top)`` of the tile ``n`` of a montage."""
    return (n % columns) * (size[1] + _GAP), (n // columns) * (size[0] + _GAP)


def columns_for(n_tiles: int, size: tuple[int, int], aspect: float = 1.4) -> int:
    """Return the number of columns that brings a montage nearest to ``aspect``, last row well filled."""
    height, width = size

    def badness(columns: int) -> float:
        rows = math.ceil(n_tiles / columns)
        empty = (rows * columns - n_tiles) / n_tiles
        return abs(math.log(columns * width / (rows * height) / aspect)) + empty

    return min(range(1, n_tiles + 1), key=badness)


def _letter(sheet: Image.Image, corner: tuple[int, int], size: tuple[int, int], view: View) -> None:
    """Write the patient directions onto the four edges of the tile at ``corner``."""
    right, left = orientation_letters(view.right)
    bottom, top = orientation_letters(view.down)
    (x, y), (height, width) = corner, size
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(size=min(22, max(10, min(height, width) // 14)))
    for text, at, anchor in (
        (left, (x + 4, y + height / 2), "lm"),
        (right, (x + width - 4, y + height / 2), "rm"),
        (top, (x + width / 2, y + 3), "mt"),
        (bottom, (x + width / 2, y + height - 4), "mb"),
    ):
        draw.text(at, text, font=font, fill=255, anchor=anchor, stroke_width=2, stroke_fill=0)


def volume_montage(
    volume: NDArray[np.float32], geometry: Geometry, *, longest: int, most: int
) -> Image.Image:
    """Return a montage of at most ``most`` planes of ``(z, y, x)``, one window for all.

    Where the position is known, the first tile carries the patient's directions, and so does every later one
    that is laid out in others.
    """
    low, high = window(volume)
    shown = views(geometry)
    shown = [shown[n] for n in chosen_planes(len(shown), most)]
    sizes = [tile_size(view, longest) for view in shown]
    size = box(sizes)
    columns = columns_for(len(shown), size)
    sheet = montage([grey(view.of(volume), low, high) for view in shown], sizes, columns)
    for n, view in enumerate(shown):
        if geometry.known and (n == 0 or not view.alike(shown[n - 1])):
            _letter(sheet, _corner(n, columns, size), size, view)
    return sheet


def map_montage(
    values: NDArray[np.float32], shown: list[View], limits: tuple[float, float], *, longest: int, most: int
) -> Image.Image:
    """Return a montage in colour between ``limits`` of the planes ``shown`` of a map ``(z, y, x)``."""
    shown = [shown[n] for n in chosen_planes(len(shown), most)]
    sizes = [tile_size(view, longest) for view in shown]
    tiles = [coloured(view.of(values), *limits) for view in shown]
    return montage(tiles, sizes, columns_for(len(shown), box(sizes)))


_LEVELS = np.array([[0, 0, 0, 0], [185, 198, 204, 255], [15, 102, 116, 255], [5, 52, 60, 255]], np.uint8)


def levels(plane: NDArray[np.uint8]) -> Image.Image:
    """Return what was sampled of the ``(kz, ky)`` plane, a pixel a line, in the page's colours.

    0 never sampled, 1 interpolated, 2 acquired, 3 calibration.
    """
    return Image.fromarray(_LEVELS[plane], "RGBA")


def write(path: Path, volume: NDArray[np.float32], geometry: Geometry) -> None:
    """Write ``preview.png``: the planes of the first image."""
    planes = min(volume.shape[0], 24)
    longest = 640 if planes == 1 else 384 if planes <= 6 else 256
    volume_montage(volume, geometry, longest=longest, most=24).save(path, "PNG")


def png_bytes(picture: Image.Image) -> bytes:
    """Return a picture as PNG."""
    with io.BytesIO() as buffer:
        picture.save(buffer, "PNG")
        return buffer.getvalue()
