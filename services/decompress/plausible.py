"""Plausible ranges of header numbers. A number outside its range is taken as not given.

A header may be damaged, or written by a program that fills in zeros or its own units.  A bandwidth of 1e60
would scale the noise, and with it every image, out of what a number can hold.
"""

from __future__ import annotations

from typing import Final

RANGES: Final = {
    # ISMRMRD's relativeReceiverNoiseBandwidth: share of the sampled band that the receiver's filter lets
    # through. Kellman and McVeigh, MRM 2005;54:1439 measure 0.79; an ideal filter has 1.
    "noise_bandwidth": (0.1, 1.5),
    # Human systems reach from 0.02 T to 11.7 T; small-bore magnets to 21 T.
    "field_t": (0.005, 30.0),
    # The same range by the proton's 42.58 MHz/T.
    "h1_hz": (2e5, 1.3e9),
}
"""Name → lowest and highest value, in the unit of :class:`.header.ScanHeader`'s field of that name."""


def plausible(name: str, value: float | None) -> float | None:
    """Return ``value``, or None where it lies outside the range of ``name``."""
    low, high = RANGES[name]
    return value if value is not None and low <= value <= high else None
