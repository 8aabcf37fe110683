"""A day of arrivals: which scan comes when, in which lane, and how long it will take in each stage."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .config import Config

HOUR = 3600.0
DAY = 24 * HOUR


@dataclass(frozen=True)
class Arrivals:
    """Scans in order of arrival; every field has one entry a scan.

    ``at`` is the time of arrival [s], ``stat`` whether it goes to the stat lane, ``seconds`` (stage, scan)
    the time it takes a worker of each stage [s].
    """

    at: NDArray[np.float64]
    stat: NDArray[np.bool_]
    seconds: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.at)


def arrivals(config: Config) -> Arrivals:
    """Draw a day of arrivals; the same seed draws the same day.

    Examinations begin as a Poisson process whose rate follows the day's profile (linear between the
    middles of the hours). Their number of scans is 1 plus a Poisson number.
    """
    day = config.day
    rng = np.random.default_rng(day.seed)
    n_exams = max(1, int(rng.poisson(day.scanners * day.scans_per_scanner / day.exam_scans)))
    begin = _exam_times(rng, np.asarray(day.profile, dtype=np.float64), n_exams)
    n_scans = 1 + rng.poisson(day.exam_scans - 1, n_exams)
    burst = rng.random(n_exams) < day.burst_share
    stat = rng.random(n_exams) < day.stat_share

    exam = np.repeat(np.arange(n_exams), n_scans)
    index = np.arange(len(exam)) - np.repeat(np.cumsum(n_scans) - n_scans, n_scans)
    done = np.where(burst[exam], 1.0, (index + rng.random(len(exam))) / n_scans[exam])
    # A scanner sends a burst one archive after another, not all within one instant.
    at = begin[exam] + done * day.exam_seconds + np.where(burst[exam], 2.0 * index, 0.0)
    order = np.argsort(at, kind="stable")
    seconds = np.stack(
        [
            _log_normal(rng, stage.scan_seconds, stage.scan_spread, len(at))
            for stage in (config.decompress, config.recon)
        ]
    )
    return Arrivals(at[order], stat[exam][order], seconds)


def _exam_times(rng: np.random.Generator, weights: NDArray[np.float64], n: int) -> NDArray[np.float64]:
    """Return ``n`` times [s] by inverting the profile's running integral on a grid of minutes."""
    minutes = (np.arange(24 * 60) + 0.5) / 60.0
    middles = np.arange(-1, 25) + 0.5
    rate = np.interp(minutes, middles, np.concatenate([weights[-1:], weights, weights[:1]]))
    running = np.concatenate([[0.0], np.cumsum(rate)])
    times: NDArray[np.float64] = np.interp(
        rng.random(n) * running[-1], running, np.arange(24 * 60 + 1) * 60.0
    )
    return times


def _log_normal(rng: np.random.Generator, mean: float, spread: float, n: int) -> NDArray[np.float64]:
    sigma = np.sqrt(np.log1p(spread**2))
    drawn: NDArray[np.float64] = rng.lognormal(np.log(mean) - sigma**2 / 2, sigma, n)
    return drawn
