"""``report.html``: one self-contained page about one reconstruction, for a screen, a phone and paper.

Everything it says comes from the record and the images; nothing is fetched, no script runs.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from numpy.typing import NDArray

from ...contract.profiles import FOURIER
from ...kspace.sampling import SamplingPattern
from . import charts, noise_map, preview
from .display import stored_middle, views
from .facts import METHOD_NAMES, Facts
from .figures import number, quality_rows
from .volume import n_planes, orientation_letters, plane_name

_MOST_TILES = 30
_MOST_IMAGES = 12
_MOST_MAPS = 6
_MOST_WORDS = 8


@dataclass(frozen=True)
class Pictures:
    """What the page shows: volumes ``(z, y, x)`` of image 0, and a middle plane of each further image.

    Attributes
    ----------
    volume
        Magnitude of image 0.
    middles
        Index and middle plane ``(1, y, x)`` of further images.
    g_factor
        Map of image 0, where one was made.
    """

    volume: NDArray[np.float32]
    middles: list[tuple[int, NDArray[np.float32]]]
    g_factor: NDArray[np.float32] | None


def write(
    path: Path, facts: Facts, record: dict[str, Any], pattern: SamplingPattern, pictures: Pictures
) -> None:
    """Write the page for a finished ``record``."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(__package__, "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["number"] = number
    network = record["network"] or {}
    losses = network.get("loss") or []
    page = environment.get_template("report.html").render(
        record=record,
        facts=facts,
        headline=_headline(facts, record, pattern),
        montage=_montage(facts, pictures),
        others=_others(facts, pictures),
        gmap=_g_map(facts, pictures, record["quality"] or {}),
        quality=quality_rows(record["quality"] or {}),
        bars=_safe(charts.bars(_known(record["holdout_errors"]), METHOD_NAMES[record["method"]])),
        curve=_safe(charts.curve(losses, "step")),
        network={k: v for k, v in network.items() if isinstance(v, str | int | float)},
        sampling=_sampling(pattern),
        sampling_words=record["sampling"]["description"],
        geometry=_geometry(facts),
        steps=[_step(step) for step in record["preprocessing"]],
        seconds=_seconds(record["seconds"]),
        ramp=preview.ramp_css(),
    )
    path.write_text(page, encoding="utf-8")


def _headline(facts: Facts, record: dict[str, Any], pattern: SamplingPattern) -> list[tuple[str, str]]:
    dz, dy, dx = facts.geometry.voxel_mm
    nz, ny, nx = n_planes(facts.geometry), *facts.geometry.recon_matrix[1:]
    quality = record["quality"] or {}
    speed = "fully sampled" if pattern.fully_sampled else f"R = {number(float(pattern.acceleration))}"
    told = [
        ("Method", METHOD_NAMES[record["method"]] + " transform" * (record["method"] == FOURIER)),
        ("Sampling", speed),
        ("Calibration", "" if pattern.fully_sampled else _calibration(record, pattern)),
        ("Matrix, y × x", f"{ny} × {nx}"),
        ("Partitions" if facts.geometry.is_3d else "Slices", str(nz)),
        ("Voxel, y × x × z", f"{number(dy)} × {number(dx)} × {number(dz)} mm"),
        ("Images", str(len(facts.images)) if len(facts.images) > 1 else ""),
        ("Median SNR", number(quality["snr_median"]) if "snr_median" in quality else ""),
        ("Mean g-factor", number(quality["g_factor_mean"]) if "g_factor_mean" in quality else ""),
    ]
    return [(name, value) for name, value in told if value]


def _calibration(record: dict[str, Any], pattern: SamplingPattern) -> str:
    if record["sampling"]["acs_separate"]:
        return f"{record['acs_lines']} lines, apart"
    if pattern.two_dimensional and pattern.acs_y is not None and pattern.acs_z is not None:
        (y0, y1), (z0, z1) = pattern.acs_y, pattern.acs_z
        return f"{y1 - y0} × {z1 - z0} lines"
    return f"{record['acs_lines'] or 'no'} lines"


def _montage(facts: Facts, pictures: Pictures) -> dict[str, Any]:
    planes = pictures.volume.shape[0]
    shown = len(preview.chosen_planes(planes, _MOST_TILES))
    longest = 720 if shown == 1 else 420 if shown <= 4 else 300 if shown <= 12 else 224
    sheet = preview.volume_montage(pictures.volume, facts.geometry, longest=longest, most=_MOST_TILES)
    low, high = preview.window(pictures.volume)
    kind = "partition" if facts.geometry.is_3d else "slice"
    caption = f"{shown} of {planes} {kind}s" if shown < planes else f"{planes} {kind}" + "s" * (planes > 1)
    if facts.geometry.known:
        right, left = orientation_letters(views(facts.geometry)[0].right)
        caption += f": left edge {left}, right edge {right}. "
    else:
        caption += ", position and orientation not known. "
    return {
        "src": _png(sheet),
        "caption": f"{caption}Window {number(low)} to {number(high)}.",
        "single": shown == 1,
    }


def _sampling(pattern: SamplingPattern) -> dict[str, Any]:
    """Return the lines along ky as a chart, of a volume the (kz, ky) plane as a picture."""
    if pattern.shape[0] == 1:
        chart = _safe(charts.sampling(pattern.acquired, pattern.extent, pattern.acs_y))
        return {"chart": chart, "src": "", "axes": "Along ky, centre in the middle"}
    plane = np.select([pattern.acquired, pattern.missing], [2, 1], 0).astype(np.uint8)
    if pattern.acs_z is not None and pattern.acs_y is not None and not pattern.fully_sampled:
        plane[slice(*pattern.acs_z), slice(*pattern.acs_y)] = 3
    return {
        "chart": "",
        "src": _png(preview.levels(plane)),
        "axes": "ky across, kz down, centre in the middle",
    }


def _others(facts: Facts, pictures: Pictures) -> list[dict[str, str]]:
    view = stored_middle(facts.geometry)
    size = preview.tile_size(view, 300)
    made = []
    for index, plane in pictures.middles[:_MOST_IMAGES]:
        image = facts.images[index]
        words = [f"image {index + 1}"]
        words += [
            f"{name} {getattr(image, name) + 1}"
            for name in ("contrast", "repetition", "phase", "set")
            if len({getattr(other, name) for other in facts.images}) > 1
        ]
        if image.echo_time_s is not None:
            words.append(f"TE {number(image.echo_time_s * 1e3)} ms")
        sheet = preview.montage([view.turned(preview.grey(plane[0], *preview.window(plane)))], [size], 1)
        made.append({"src": _png(sheet), "caption": ", ".join(words)})
    return made


def _g_map(facts: Facts, pictures: Pictures, quality: dict[str, Any]) -> dict[str, Any] | None:
    made = noise_map.draw(facts, pictures.volume, pictures.g_factor, most=_MOST_MAPS)
    if made is None:
        return None
    told = "Below 1 it smooths. " if made.smooths else ""
    told += f"{quality.get('g_factor_replicas', '')} noise replicas, noise {quality.get('noise', '')}"
    if made.planes < n_planes(facts.geometry):
        told += f"; made for {made.planes} of {n_planes(facts.geometry)} planes"
    return {
        "src": _png(made.sheet),
        "low": number(made.low),
        "middle": number((made.low + made.high) / 2),
        "high": f"≥ {number(made.high)}",
        "told": told,
    }


def _geometry(facts: Facts) -> list[tuple[str, str]]:
    geometry = facts.geometry
    how, image = facts.acquisition, facts.images[0]
    fz, fy, fx = geometry.recon_fov_mm
    nz, ny, nx = geometry.matrix
    told = [
        ("Orientation", plane_name(facts.geometry)),
        (
            f"Field of view, y × x{' × z' * geometry.is_3d}",
            f"{number(fy)} × {number(fx)}" + f" × {number(fz)}" * geometry.is_3d + " mm",
        ),
        (f"k-space, ky × kx{' × kz' * geometry.is_3d}", f"{ny} × {nx}" + f" × {nz}" * geometry.is_3d),
        ("Slice thickness", f"{number(geometry.voxel_mm[0])} mm"),
    ]
    if not geometry.is_3d and geometry.n_slices > 1:
        told.append(("Slice spacing", f"{number(float(np.linalg.norm(geometry.slice_step_mm())))} mm"))
    centre = geometry.position.mean(axis=0)
    if geometry.known:
        told.append(("Centre (L, P, H)", ", ".join(f"{v:.1f}" for v in centre) + " mm"))
    for name, value, unit, factor in (
        ("Field strength", how.field_strength_t, "T", 1.0),
        ("Repetition time", how.repetition_time_s, "ms", 1e3),
        ("Echo time", image.echo_time_s, "ms", 1e3),
        ("Flip angle", how.flip_angle_deg, "°", 1.0),
    ):
        if value is not None:
            told.append((name, f"{number(value * factor)} {unit}".replace(" °", "°")))
    if how.vendor:
        told.append(("Scanner", how.vendor))
    return told


_LABELS = {"matrix": "matrix (z, y, x)"}


def _step(step: dict[str, Any]) -> tuple[str, str]:
    details = ", ".join(
        f"{_LABELS.get(key, key.replace('_', ' '))} {_words(value)}"
        for key, value in step.items()
        if key != "step" and value not in (None, "")
    )
    return str(step["step"]).replace("_", " "), details


def _words(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_words(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        shown = ", ".join(_words(item) for item in value[:_MOST_WORDS])
        return shown if len(value) <= _MOST_WORDS else f"{shown}, … ({len(value)})"
    return "yes" if value is True else "no" if value is False else number(value)


_INTAKE = {
    "unpack": "walk the archive",
    "gate": "check its files",
    "read": "read the raw data",
    "sort": "whiten and sort",
}
_WHOLE_INTAKE = "decompress"
_RECONSTRUCTION = {
    "load": "load k-space",
    "choose": "choose the method",
    "interpolate": "fill k-space",
    "noise": "map the noise",
    "partial fourier": "partial Fourier",
    "combine": "combine coils",
    "write": "write images",
}


def _seconds(seconds: dict[str, float]) -> list[tuple[str, list[tuple[str, str, float]]]]:
    """Return the two stages, each with what its steps took: words, seconds, percent of the longest."""
    stages: dict[str, dict[str, float]] = {"Intake": {}, "Reconstruction": {}}
    for name, value in seconds.items():
        if name in _INTAKE:
            stages["Intake"][_INTAKE[name]] = value
        elif name != _WHOLE_INTAKE:
            stages["Reconstruction"][_RECONSTRUCTION.get(name, name.replace("_", " "))] = value
    peak = max([*(value for steps in stages.values() for value in steps.values()), 1e-9])
    whole = {name: sum(steps.values()) for name, steps in stages.items()}
    if _WHOLE_INTAKE in seconds and stages["Intake"]:
        stages["Intake"]["its sandbox"] = max(0.0, seconds[_WHOLE_INTAKE] - whole["Intake"])
        whole["Intake"] = seconds[_WHOLE_INTAKE]
    return [
        (
            f"{name}, {whole[name]:.1f} s",
            [(step, f"{value:.2f}", 100 * value / peak) for step, value in steps.items() if value >= 0.005],
        )
        for name, steps in stages.items()
        if steps
    ]


def _known(errors: dict[str, float | None] | None) -> dict[str, float]:
    return {METHOD_NAMES[name]: value for name, value in (errors or {}).items() if value is not None}


def _png(picture: Any) -> str:
    return "data:image/png;base64," + base64.b64encode(preview.png_bytes(picture)).decode("ascii")


def _safe(svg: str) -> Any:
    from markupsafe import Markup

    return Markup(svg)  # noqa: S704 - our own numbers, every text in it escaped
