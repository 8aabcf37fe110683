"""The notes: one picture for the PACS with what the report's first page says, as a Secondary Capture.

No PACS shows ``report.html``. A radiologist who opens the study finds warnings, noise map and the figures of
trust as a series of their own, of modality OT, so that hanging protocols for MR pass it by.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from pydicom.uid import SecondaryCaptureImageStorage

from ...contract.ids import uid
from . import dicom_common, noise_map, preview
from .facts import METHOD_NAMES, Facts
from .figures import number, quality_rows
from .series import NOTES, description, series_number

WIDTH, HEIGHT = 960, 1280
_MARGIN = 36
_INNER = WIDTH - 2 * _MARGIN
_PAPER, _INK, _SOFT, _RULE = (16, 20, 24), (232, 236, 239), (150, 162, 171), (52, 62, 70)
_ALARM, _ON_ALARM, _WARN = (196, 62, 30), (255, 255, 255), (246, 190, 80)
_MOST_WARNINGS_HEIGHT = 330
_PICTURE_HEIGHT = 400
_PLAIN = str.maketrans({"×": "x", "–": "-", "—": "-", "≥": ">=", "’": "'", "…": "...", "²": "2", "µ": "u"})


def write(
    path: Path,
    facts: Facts,
    record: Mapping[str, Any],
    volume: NDArray[np.float32],
    g_factor: NDArray[np.float32] | None,
) -> None:
    """Write the notes of a finished ``record`` as a Secondary Capture, RGB, one file.

    Parameters
    ----------
    path
        The file, which must not exist.
    facts, record
        Of the reconstruction; no text of the scanner is in either.
    volume
        Magnitude ``(z, y, x)`` of image 0.
    g_factor
        Noise map ``(z, y, x)`` of image 0, or None.
    """
    pixels = np.asarray(draw(facts, record, volume, g_factor), np.uint8)
    data = dicom_common.study(facts)
    data.Modality = "OT"
    data.SeriesInstanceUID = uid("series", [facts.scan_id, facts.recon_id, "notes"])
    data.SeriesNumber = series_number(facts, NOTES)
    data.SeriesDescription = f"Notes, not for diagnosis: {description(facts)}"[:64]
    data.Laterality = data.PatientOrientation = ""
    data.SOPClassUID = SecondaryCaptureImageStorage
    data.SOPInstanceUID = uid("instance", [facts.scan_id, facts.recon_id, "notes"])
    data.ConversionType = "WSD"
    data.ImageType = ["DERIVED", "SECONDARY", "OTHER"]
    data.ImageComments = "Not for diagnosis. Notes on the reconstruction; no image of the patient to be read."
    data.InstanceNumber = 1
    data.SamplesPerPixel, data.PhotometricInterpretation, data.PlanarConfiguration = 3, "RGB", 0
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 8, 8, 7, 0
    data.Rows, data.Columns = pixels.shape[:2]
    data.PixelData = pixels.tobytes()
    dicom_common.write(path, data)


def draw(
    facts: Facts,
    record: Mapping[str, Any],
    volume: NDArray[np.float32],
    g_factor: NDArray[np.float32] | None,
) -> Image.Image:
    """Return the page as an RGB picture, :data:`WIDTH` wide and at most :data:`HEIGHT` high."""
    page = _Page()
    page.banner("NOT FOR DIAGNOSIS", "Notes on the reconstruction")
    method = METHOD_NAMES.get(facts.method, facts.method)
    known = [f"label {facts.label}"] if facts.label else []
    known += [f"scan {facts.scan_id}", f"reconstruction {facts.recon_id}", f"mrirecon {facts.version}"]
    page.text(", ".join(known), 17, _SOFT)
    page.text(f"{method}. {record['sampling']['description']}.", 20, _INK)
    page.text(str(record["method_reason"]), 17, _SOFT)
    page.gap(8)
    page.warnings(list(record["warnings"]))
    page.pictures(facts, volume, g_factor)
    rows = [(name, value) for name, value, _ in quality_rows(record["quality"] or {})]
    rows += [
        (f"Hold-out error, {METHOD_NAMES[name]}", number(value))
        for name, value in (record["holdout_errors"] or {}).items()
        if value is not None
    ]
    page.table(rows)
    return page.finished()


class _Page:
    """Lays text and pictures out from top to bottom."""

    def __init__(self) -> None:
        self.image = Image.new("RGB", (WIDTH, HEIGHT), _PAPER)
        self._draw = ImageDraw.Draw(self.image)
        self._y = 0

    def banner(self, alarm: str, title: str) -> None:
        self._draw.rectangle((0, 0, WIDTH, 76), fill=_ALARM)
        self._draw.text((_MARGIN, 38), alarm, font=_font(34), fill=_ON_ALARM, anchor="lm")
        self._draw.text((WIDTH - _MARGIN, 38), title, font=_font(20), fill=_ON_ALARM, anchor="rm")
        self._y = 96

    def finished(self) -> Image.Image:
        """Return the page, cut off below what is on it."""
        return self.image.crop((0, 0, WIDTH, min(HEIGHT, self._y + _MARGIN)))

    def gap(self, pixels: int) -> None:
        self._y += pixels

    def text(self, words: str, size: int, colour: tuple[int, int, int], indent: int = 0) -> None:
        for line in wrapped(words, size, _INNER - indent):
            self._line(line, size, colour, indent)
        self._y += size // 3

    def warnings(self, sentences: list[str]) -> None:
        """Write the warnings, the gravest first; those for which there is no room are counted."""
        if not sentences:
            self.text("No warnings.", 20, _INK)
            return
        self.text(f"{len(sentences)} warning{'s' * (len(sentences) > 1)}", 22, _WARN)
        limit = self._y + _MOST_WARNINGS_HEIGHT
        for n, sentence in enumerate(sentences):
            size = 19
            lines = wrapped(sentence, size, _INNER - 24)
            if n and self._y + len(lines) * _height(size) > limit:
                self.text(f"and {len(sentences) - n} more: see the report.", size, _WARN, 24)
                break
            self._draw.ellipse((_MARGIN + 4, self._y + 7, _MARGIN + 12, self._y + 15), fill=_WARN)
            self.text(sentence, size, _INK, 24)

    def pictures(
        self, facts: Facts, volume: NDArray[np.float32], g_factor: NDArray[np.float32] | None
    ) -> None:
        """Show planes of the first image, and the noise map beside them with its ramp."""
        self._y += 8
        width = (_INNER - 24) // 2
        top = self._y
        image = preview.volume_montage(volume, facts.geometry, longest=width, most=1).convert("RGB")
        self._picture(image, _MARGIN, top, width, "Image 1, one plane")
        made = noise_map.draw(facts, volume, g_factor, most=1)
        left = _MARGIN + width + 24
        if made is None:
            words = "No noise map: nothing was interpolated by GRAPPA or RAKI, or the profile asks for none."
            for n, line in enumerate(wrapped(words, 17, width)):
                self._draw.text((left, top + n * _height(17)), line, font=_font(17), fill=_SOFT)
        else:
            self._picture(made.sheet, left, top, width, "Noise map: g-factor, 1 is no amplification")
            self._ramp(left, top + _PICTURE_HEIGHT + 30, width, made)
        self._y = top + _PICTURE_HEIGHT + 76

    def table(self, rows: list[tuple[str, str]]) -> None:
        """Write names and values in two columns."""
        width = (_INNER - 24) // 2
        top = self._y
        for n, (name, value) in enumerate(rows):
            left = _MARGIN + (n % 2) * (width + 24)
            y = top + (n // 2) * 34
            if y + 34 > HEIGHT - 8:
                break
            self._y = y + 34
            self._draw.line((left, y, left + width, y), fill=_RULE)
            self._draw.text((left, y + 18), plain(name), font=_font(18), fill=_SOFT, anchor="lm")
            self._draw.text((left + width, y + 18), plain(value), font=_font(19), fill=_INK, anchor="rm")

    def _line(self, line: str, size: int, colour: tuple[int, int, int], indent: int) -> None:
        self._draw.text((_MARGIN + indent, self._y), line, font=_font(size), fill=colour)
        self._y += _height(size)

    def _picture(self, picture: Image.Image, left: int, top: int, width: int, caption: str) -> None:
        scale = min(width / picture.width, _PICTURE_HEIGHT / picture.height)
        size = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
        shown = picture.resize(size, Image.Resampling.BICUBIC)
        self.image.paste(shown, (left, top))
        self._draw.text((left, top + _PICTURE_HEIGHT + 6), caption, font=_font(16), fill=_SOFT)

    def _ramp(self, left: int, top: int, width: int, made: noise_map.NoiseMap) -> None:
        values = np.linspace(0, 1, width, dtype=np.float32)[None].repeat(12, axis=0)
        self.image.paste(Image.fromarray(preview.coloured(values, 0, 1)), (left, top))
        words = (
            plain(number(made.low)),
            plain(number((made.low + made.high) / 2)),
            plain(f"≥ {number(made.high)}"),
        )
        for at, anchor, word in zip(
            (left, left + width // 2, left + width), ("la", "ma", "ra"), words, strict=True
        ):
            self._draw.text((at, top + 15), word, font=_font(15), fill=_SOFT, anchor=anchor)


def wrapped(words: str, size: int, width: int) -> list[str]:
    """Return ``words`` in lines of at most ``width`` pixels at a font of ``size``."""
    font, lines = _font(size), [""]
    for word in plain(words).split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font.getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def plain(text: str) -> str:
    """Return ``text`` in the characters that Pillow's own font has."""
    return text.translate(_PLAIN).encode("ascii", "replace").decode()


def _height(size: int) -> int:
    return round(size * 1.3)


def _font(size: int) -> Any:
    return ImageFont.load_default(size=size)
