"""Refusals of what is no Cartesian scan: a ghosted or blurred picture is worse than a sentence."""

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
        raise _unsupported(_NAMES[encoding.trajectory])
    if part.header.sequence == "EPI":
        raise _unsupported(_NAMES["epi"])
    flags = part.table["flags"]
    reverse = (flags[rows] & Flag.REVERSE) != 0
    corrected = (flags & Flag.PHASE_CORRECTION).any()
    if corrected and reverse.any() and not reverse.all():
        contrasts = part.table["contrast"][rows]
        if np.intersect1d(contrasts[reverse], contrasts[~reverse]).size:
            raise _unsupported("an echo train of alternating polarity with phase correction lines (EPI)")


def _unsupported(what: str) -> PermanentError:
    return PermanentError(
        Code.UNSUPPORTED,
        f"This is {what}; Cartesian scans are read. It was not reconstructed, because without its own "
        "corrections the image would be wrong.",
    )
