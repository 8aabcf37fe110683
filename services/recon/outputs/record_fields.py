"""What the record tells about a scan: geometry, sampling, and what should make a reader careful."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...contract.profiles import Method
from ...imaging import pics
from ...imaging.partial_fourier import Coverage, PartialFourierMethod
from ...kspace.file import KSpaceInfo
from ...kspace.geometry import Geometry
from ...kspace.sampling import SamplingPattern
from ...raki.holdout import FUTILE
from .facts import patient_position
from .volume import n_planes, plane_name, shape, stack

_ALIASED = 0.45
"""Share of the held-back energy from which a linear method's images show folding (docs: measured)."""
_MISFIT = 0.3
"""Share of the acquired samples that image and coil maps of pics may leave unexplained before a warning."""


def geometry_of(geometry: Geometry, n_images: int, n_coils: int) -> dict[str, Any]:
    """Return the record's ``geometry``: sizes in ``(z, y, x)`` order, millimetres, LPS."""
    spacing = stack(geometry).spacing_mm
    return {
        "known": geometry.known,
        "orientation": plane_name(geometry),
        "dimensions": 3 if geometry.is_3d else 2,
        "images": n_images,
        "planes": n_planes(geometry),
        "coils": n_coils,
        "kspace_matrix": list(geometry.matrix),
        "image_matrix": list(shape(geometry)),
        "fov_mm": [round(v, 4) for v in geometry.recon_fov_mm],
        "voxel_mm": [round(v, 6) for v in geometry.voxel_mm],
        "plane_spacing_mm": None if spacing is None else round(spacing, 4),
        "centre_lps_mm": [round(float(v), 4) for v in geometry.position.mean(axis=0)],
        "patient_position": patient_position(geometry),
    }


def sampling_of(pattern: SamplingPattern, covered: Coverage, separate_acs: int) -> dict[str, Any]:
    """Return the record's ``sampling``: the pattern that was found in the data.

    ``separate_acs`` is the number of calibration lines acquired apart, 0 where none were.
    """
    return {
        "description": pattern.describe(separate_acs),
        "fully_sampled": pattern.fully_sampled,
        "lines": int(pattern.extent.size),
        "acquired_lines": int(pattern.acquired.sum()),
        "interpolated_lines": int(pattern.missing.sum()),
        "acs_ky": None if pattern.acs_y is None else list(pattern.acs_y),
        "acs_kz": None if pattern.acs_z is None else list(pattern.acs_z),
        "acs_separate": separate_acs > 0,
        "one_sided": {name: round(share, 4) for name, share in covered.shares.items()},
    }


def partial_fourier_step(covered: Coverage, method: PartialFourierMethod) -> dict[str, Any] | None:
    """Return what was done about partial Fourier, for the record; ``None`` where there was none."""
    if not covered.shares:
        return None
    return {
        "step": "partial fourier",
        "method": method.value,
        "covered": {name: round(share, 4) for name, share in covered.shares.items()},
    }


def folding_of(pattern: SamplingPattern, n_coils: int) -> list[str]:
    """Return a sentence where there are fewer coils than an acceleration needs: nobody can unfold that."""
    if pattern.fully_sampled or pattern.acceleration <= n_coils:
        return []
    return [
        f"An acceleration of R={pattern.acceleration} needs at least as many coils, the scan has {n_coils}: "
        "expect folded anatomy in the images, whatever the method."
    ]


def futility_of(missed: float | None) -> list[str]:
    """Return a sentence where the hold-out shows that the calibration predicts next to nothing.

    ``missed`` is the share of the held-back signal energy that the best candidate misses.
    """
    if missed is None:
        return []
    return [
        "Do not rely on the interpolated lines: of signal that was held back to test them even the best "
        f"method misses {100 * missed:.0f} % of the energy, and lines left empty miss 100 %. Hardly any "
        "signal stands above the noise, or the calibration is not of this scan: check that the archive holds "
        "the right files and all coils, else measure again with less acceleration."
    ]


def aliasing_of(method: str, errors: Mapping[str, float]) -> list[str]:
    """Return a sentence where a linear method misses so much of the held-back signal that folding shows.

    ``errors`` are the hold-out errors by candidate. RAKI's own is used where it was measured, else GRAPPA's.
    """
    if method not in {Method.GRAPPA.value, Method.RAKI.value}:
        return []
    missed = errors.get(method, errors.get(Method.GRAPPA.value, 0.0))
    if not _ALIASED <= missed < FUTILE:
        return []
    return [
        "Expect folded anatomy or strong noise in the images: of signal that was held back to test the "
        f"interpolation {100 * missed:.0f} % of the energy is missed. Compare with the method pics, or "
        "measure with less acceleration or more calibration lines."
    ]


def few_coils_of(wanted: Method, n_coils: int, pattern: SamplingPattern) -> list[str]:
    """Return a sentence where pics was asked for and the scan has too few coils for it."""
    if pattern.fully_sampled or wanted != Method.PICS or n_coils >= pics.MIN_COILS:
        return []
    return [
        f"PICS needs at least {pics.MIN_COILS} coils, the scan has {n_coils}: another method made the images."
    ]


def misfit_of(share: float | None) -> list[str]:
    """Return a sentence where the model of pics leaves much of the acquired samples unexplained."""
    if share is None or share <= _MISFIT:
        return []
    return [
        f"Image and coil maps leave {share:.0%} of the acquired samples unexplained: trust the images less "
        "than those of another method."
    ]


def warnings_of(
    info: KSpaceInfo, covered: Coverage, method: PartialFourierMethod, n_patterns: int, told_image: int
) -> list[str]:
    """Return sentences that should make a reader careful, the gravest first; decompress's own come last."""
    told = []
    if not info.geometry.known:
        told.append(
            "Left and right must not be read from the DICOM files: they give an axial placeholder, because "
            "the raw data tell no position or orientation."
        )
    elif not stack(info.geometry).regular:
        told.append(
            "The slices are no stack of parallel, equidistant planes: DICOM gives each its own place, the "
            "NIfTI file claims none."
        )
    if covered.shares and method is PartialFourierMethod.ZERO_FILL:
        told.append(
            "One side of k-space was not sampled and is left empty: the images are blurred along "
            f"{' and '.join(covered.shares)}."
        )
    if n_patterns > 1:
        told.append(
            f"The images were sampled in {n_patterns} different ways; told is that of image {told_image + 1}."
        )
    return list(dict.fromkeys([*told, *info.warnings]))
