"""Named, versioned reconstruction settings. The record names the one that was used.

Change a profile's settings only together with its ``version``: both enter the reconstruction id.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any

from .codes import Code, PermanentError
from .ids import recon_id

RECON_VERSION = "4"
"""Version of the reconstruction. Raise it when the same settings give other bytes: images or their order."""


FOURIER = "fourier"
"""What record, DICOM and pages call the method of a fully sampled scan, of which nothing was interpolated."""


class Method(StrEnum):
    """How missing k-space lines are filled."""

    AUTO = "auto"
    ZERO_FILLED = "zero-filled"
    GRAPPA = "grappa"
    RAKI = "raki"
    PICS = "pics"


FORMER_NAMES = {"espirit": Method.PICS}
"""Methods by names they had before, still accepted where a method is asked for."""


@dataclass(frozen=True, kw_only=True)
class Profile:
    """Settings of one reconstruction.

    Attributes
    ----------
    name, version
        What the record shows.
    method
        ``auto`` lets the errors on held-back lines decide between GRAPPA, RAKI and pics.
    combine
        ``rss`` (root sum of squares, McGibney) or ``adaptive`` (Walsh et al., MRM 2000), for the
        magnitude image; the complex adaptive combination is written beside it in both cases.
    partial_fourier
        ``pocs``, ``homodyne`` or ``zero-fill``. With ``pocs`` pics fills the side within its image model.
    g_factor_replicas
        Pseudo-replicas for the g-factor map (Robson et al., MRM 2008), 0 for none.
    notes_series
        Whether the study gets a series with warnings, noise map and figures of trust (Secondary Capture).
    seed
        Of the networks' initial weights and of the replicas' noise.
    """

    name: str
    version: int
    method: Method = Method.AUTO
    combine: str = "rss"
    partial_fourier: str = "pocs"
    g_factor_replicas: int = 50
    notes_series: bool = True
    seed: int = 20190101

    def settings(self) -> dict[str, Any]:
        """Return what enters the reconstruction id."""
        return asdict(self)

    def recon_id(self, scan_id: str) -> str:
        """Return the id of the reconstruction of a scan with these settings by this version."""
        return recon_id(scan_id, self.settings(), RECON_VERSION)


PROFILES: dict[str, Profile] = {
    profile.name: profile
    for profile in (
        Profile(name="routine", version=3),
        Profile(name="fast", version=2, method=Method.GRAPPA, g_factor_replicas=0),
        Profile(name="phase", version=3, combine="adaptive"),
        Profile(name="images-only", version=3, notes_series=False),
        Profile(name="raki", version=1, method=Method.RAKI),
        Profile(name="linear", version=1, method=Method.GRAPPA),
    )
}
DEFAULT_PROFILE = "routine"


def profile(name: str = DEFAULT_PROFILE, method: str | None = None) -> Profile:
    """Return the profile called ``name``, its method replaced by ``method`` where one is given.

    Raises
    ------
    PermanentError
        ``bad_settings`` when there is no such profile or method.
    """
    if name not in PROFILES:
        known = ", ".join(sorted(PROFILES))
        raise PermanentError(Code.BAD_SETTINGS, f"There is no profile of that name; known are {known}.")
    chosen = PROFILES[name]
    if method is None:
        return chosen
    method = FORMER_NAMES.get(method, method)
    if method not in set(Method):
        known = ", ".join(Method)
        raise PermanentError(Code.BAD_SETTINGS, f"There is no method of that name; known are {known}.")
    return replace(chosen, method=Method(method))
