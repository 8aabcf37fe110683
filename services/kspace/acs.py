"""Calibration lines (ACS): how many a pattern needs, and when a gap is a fault and no acceleration."""

from __future__ import annotations

from ..contract.codes import Code, PermanentError
from .sampling import SamplingPattern


def acs_needed(pattern: SamplingPattern) -> tuple[int, int]:
    """Return how many calibration lines ``(kz, ky)`` interpolating ``pattern`` takes at least.

    Along one axis the smallest kernel spans ``R + 1`` lines; four positions of it keep the equations well
    above the unknowns. A two-dimensional lattice takes a kernel of three rows and three lines.
    """
    if pattern.fully_sampled:
        return 0, 0
    if pattern.two_dimensional:
        return 2 * pattern.r_z + 4, 2 * pattern.r_y + 4
    if pattern.r_z > 1:
        return pattern.r_z + 4, 1
    return 1, pattern.r_y + 4


def require_acs(pattern: SamplingPattern, separate: tuple[int, int] | None = None) -> None:
    """Refuse a pattern whose missing lines cannot be calibrated.

    Parameters
    ----------
    pattern
        From :func:`.detection.detect`.
    separate
        ``(n_kz, n_ky)`` of a calibration acquired apart, ``None`` where there is none.

    Raises
    ------
    PermanentError
        ``too_few_acs``, with what was found, what is needed and the acceleration.
    """
    need_z, need_y = acs_needed(pattern)
    if separate is not None:
        have_z, have_y = separate
    elif pattern.acs_z is None or pattern.acs_y is None:
        have_z = have_y = 0
    else:
        have_z, have_y = (high - low for low, high in (pattern.acs_z, pattern.acs_y))
    if have_y >= need_y and have_z >= need_z:
        return
    found, needed = f"{have_y}", f"{need_y}"
    if pattern.two_dimensional:
        found, needed = f"{have_y} x {have_z} (ky x kz)", f"{need_y} x {need_z}"
    elif pattern.r_z > 1:
        found, needed = f"{have_z}", f"{need_z}"
    raise PermanentError(
        Code.TOO_FEW_ACS,
        f"Found {found} calibration lines at the centre of k-space, at least {needed} are needed for an "
        f"acceleration of R={pattern.acceleration}: send the scan with its calibration lines, or with its "
        "separate calibration measurement in the same archive.",
    )


def require_declared(pattern: SamplingPattern, *, declared: bool, separate_acs: bool = False) -> None:
    """Refuse a regular gap that nothing but a fault explains.

    Every second line missing looks like R=2; without calibration lines, without a separate calibration and
    without parallel imaging in the header it is a scan with lines lost.

    Parameters
    ----------
    pattern
        From :func:`.detection.detect`.
    declared
        Whether the header names an acceleration above 1.
    separate_acs
        Whether a calibration was acquired apart.

    Raises
    ------
    PermanentError
        ``incomplete_kspace``.
    """
    if pattern.fully_sampled or declared or separate_acs or pattern.acs_lines >= max(acs_needed(pattern)):
        return
    raise PermanentError(
        Code.INCOMPLETE_KSPACE,
        f"{int(pattern.missing.sum())} of {int(pattern.extent.sum())} lines are missing, no calibration "
        "lines were acquired and the header names no parallel imaging: the scan is not whole. Send it again.",
    )
