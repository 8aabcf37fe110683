"""Refusals of what is no Cartesian scan: a ghosted or blurred image is worse than a sentence."""

from __future__ import annotations

import numpy as np

from ...contract.codes import Code, PermanentError
from ..acquisitions import Flag, Part
from ..header import Encoding
from .placement import Ints

_NAMES = {
    "epi": "an echo-planar (EPI) scan",
    "radial": "a radial scan",
    "goldenangle": "a golden-angle radial scan",
    "spiral": "a spiral scan",
    "other": "a scan of another trajectory than those the MRD standard names",
}


def refuse_sequence(part: Part, rows: Ints, encoding: Encoding) -> None:
    """Refuse trajectories this project does not reconstruct.

    The header's word counts, and so do the data: readouts of both polarities within one image beside phase
    correction lines are an echo train, whatever the header calls it.

    Raises
    ------
    PermanentError
        ``unsupported``, naming what was found.
    """
    if encoding.trajectory in _NAMES:
        raise unsupported(_NAMES[encoding.trajectory])
    if part.header.sequence == "EPI":
        raise unsupported(_NAMES["epi"])
    flags = part.table["flags"]
    reverse = (flags[rows] & Flag.REVERSE) != 0
    corrected = (flags & Flag.PHASE_CORRECTION).any()
    if corrected and reverse.any() and not reverse.all():
        contrasts = part.table["contrast"][rows]
        if np.intersect1d(contrasts[reverse], contrasts[~reverse]).size:
            raise unsupported("an echo train of alternating polarity with phase correction lines (EPI)")


def unsupported(what: str) -> PermanentError:
    """Return the refusal of a scan that is ``what``."""
    return PermanentError(
        Code.UNSUPPORTED,
        f"This is {what}; Cartesian scans are read. It was not reconstructed, because without its own "
        "corrections the image would be wrong.",
    )
