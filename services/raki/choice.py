"""Which method fills a scan's missing lines, and with which kernel: decided once, on a few of its slices.

The same choice then fills every slice of the pattern, so that an image does not depend on which slices memory
let go together.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field

from ..contract.profiles import Method
from ..contract.progress import Progress, silent
from . import grappa2d, holdout
from .grappa import Kernel
from .grappa2d import PlaneKernel
from .hybrid import Given, Slices


@dataclass(frozen=True)
class Choice:
    """A method with its kernel, and why.

    Attributes
    ----------
    method
        ``grappa`` or ``raki``, or ``zero-filled`` where nothing is interpolated.
    reason
        Why, in one sentence.
    kernel
        GRAPPA's, which is also that of the network's linear path; ``None`` where nothing is interpolated.
    grown_ridge
        Of the network's linear path on its grown calibration region; ``None`` where no network is trained.
    holdout_errors
        Error energy over signal energy on held-back data, by candidate method.
    kernel_errors
        Hold-out errors on the calibration equations for every kernel tried.
    holdout_parts
        Each candidate's error on calibration equations and on acquired lines outside them (one accelerated
        axis).
    futile
        Share of the held-back energy that even the best candidate misses, where that is hardly better than
        leaving the lines empty; else ``None``.
    """

    method: Method
    reason: str
    kernel: Kernel | PlaneKernel | None = None
    grown_ridge: float | None = None
    holdout_errors: dict[str, float] = field(default_factory=dict)
    kernel_errors: dict[str, float] = field(default_factory=dict)
    holdout_parts: dict[str, dict[str, float | None]] = field(default_factory=dict)
    futile: float | None = None


def choose_along_one_axis(
    given: Given, method: Method, seed: int, noise_variance: float | None, progress: Progress = silent
) -> Choice:
    """Choose for an acceleration along one axis; ``auto`` lets the hold-out decide about the network."""
    sample = Slices(given).sample()
    variance = holdout.noise_variance(sample) if noise_variance is None else noise_variance
    progress("choose", 0.0, "kernel by hold-out")
    kernel, kernel_errors = holdout.choose_kernel(sample, variance)
    auto = method is Method.AUTO
    if auto:
        progress("choose", 0.5, "network against GRAPPA by hold-out")
    ridge = None if method is Method.GRAPPA else holdout.choose_grown_ridge(sample, kernel, variance)
    compared = holdout.compare(sample, kernel, seed, variance, grown_ridge=ridge if auto else None)
    method, reason = _decide(compared) if auto else (method, f"{_NAMES[method]} was asked for.")
    progress("choose", 1.0, method.value)
    return Choice(
        method,
        reason,
        kernel,
        ridge if method is Method.RAKI else None,
        {name: one.error for name, one in compared.items()},
        kernel_errors,
        {name: asdict(one) for name, one in compared.items()},
        holdout.futile(compared),
    )


def choose_in_the_plane(given: Given, method: Method, progress: Progress = silent) -> Choice:
    """Choose for a lattice thinned along both axes, on the first volume: always GRAPPA."""
    progress("choose", 0.0, "kernel by hold-out")
    kernel, errors = grappa2d.choose(given.acs(slice(0, 1)).to(given.device), given.pattern)
    reason = f"{_NAMES[Method.GRAPPA]} was asked for."
    if method is not Method.GRAPPA:
        asked = "" if method is Method.AUTO else f"{_NAMES[method]} was asked for, but "
        reason = (
            f"{asked}{'t' if asked else 'T'}he lines are thinned along ky and kz together (a two-dimensional "
            "or CAIPI lattice), which only GRAPPA interpolates here."
        )
    progress("choose", 1.0, Method.GRAPPA.value)
    best = min(errors.values())
    return Choice(
        Method.GRAPPA,
        reason,
        kernel,
        None,
        {Method.GRAPPA.value: best},
        errors,
        futile=best if best >= holdout.FUTILE else None,
    )


_NAMES = {Method.GRAPPA: "GRAPPA", Method.RAKI: "RAKI"}


def _decide(errors: dict[str, holdout.Comparison]) -> tuple[Method, str]:
    told = f"error energy {errors['raki'].error:.3g} against {errors['grappa'].error:.3g} of the signal's"
    if holdout.network_wins(errors):
        return Method.RAKI, f"RAKI predicts held-back data better than GRAPPA: {told}."
    if errors["raki"].error < errors["grappa"].error:
        worse = errors["raki"].calibration / max(errors["grappa"].calibration, 1e-300)
        return Method.GRAPPA, (
            f"RAKI predicts held-back data not clearly better than GRAPPA: {told}, {worse:.2f} times "
            "GRAPPA's on the calibration lines."
        )
    return Method.GRAPPA, f"GRAPPA predicts held-back data as well as RAKI or better: {told}."
