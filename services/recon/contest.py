"""Which method fills a scan best, judged on samples that were held back from all of them.

The outer calibration lines are taken away from a slice or two, as if they had not been acquired. Each
candidate calibrates on the lines that are left and fills the gaps, as it will with the whole scan. What it
puts where the held-back lines were is compared with what was measured, on the same samples for all.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from ..contract.codes import PermanentError
from ..contract.profiles import Method
from ..contract.progress import Progress, silent
from ..imaging import pics
from ..imaging.fourier import to_image
from ..kspace.acs import acs_needed
from ..kspace.detection import detect
from ..kspace.sampling import Mask, Range, SamplingPattern
from ..raki import holdout
from ..raki.choice import Choice
from ..raki.interpolate import interpolate

SLICES = 2
"""Slices on which the candidates are compared."""
HELD = 6
"""One calibration line in so many is held back, at either end of the block."""
MARGIN = 0.05
"""pics is taken unless its error is higher by more than this share (docs/methods.md: measured)."""
SHARP = 0.0007
"""Where another method misses less of the held-back energy, shrinkage only takes detail away (docs)."""


def compare(
    kspace: Tensor,
    pattern: SamplingPattern,
    candidates: list[Choice],
    *,
    whitened: bool,
    seed: int,
    device: str,
    progress: Progress = silent,
) -> dict[str, float]:
    """Return each candidate's error energy over signal energy on the held-back lines.

    Parameters
    ----------
    kspace
        complex64 ``(slice, coil, kz, ky, kx)``: a few slices spread over the scan, or volumes.
    pattern
        Theirs, with its calibration lines embedded.
    candidates
        Made by ``raki.interpolate.choose`` for this pattern, or of method ``pics``.
    whitened
        Whether the noise of a sample has unit variance and no correlation.
    seed
        Of the networks' first weights.
    device
        Where to compute, as torch calls it.
    progress
        Told of every candidate.

    Returns
    -------
    Errors by method, all on the same samples; empty where no calibration line can be spared.
    """
    slices, flat = _slices(kspace, pattern)
    if flat is None:
        return {}
    held, left = hold_back(flat)
    if left is None:
        return {}
    at = torch.from_numpy(held).to(slices.device)
    known = torch.where(at[:, :, None], torch.zeros_like(slices), slices)
    truth = slices[:, :, at]
    signal = float(truth.abs().square().sum())
    if signal == 0:
        return {}
    errors = {}
    for candidate in candidates:
        progress("choose", 0.5, f"{candidate.method.value} on lines held back")
        if candidate.method is Method.PICS:
            filled = pics.reconstruct(known, left, whitened=whitened, device=torch.device(device)).kspace
        else:
            done = interpolate(known, left, choice=candidate, seed=seed, device=device).kspace
            assert isinstance(done, Tensor)
            filled = done
        errors[candidate.method.value] = float((filled[:, :, at] - truth).abs().square().sum()) / signal
    return errors


def pics_wins(errors: dict[str, float]) -> bool:
    """Whether pics predicts the held-back lines well, and the others leave something to gain."""
    least = min(error for name, error in errors.items() if name != Method.PICS.value)
    return least >= SHARP and errors[Method.PICS.value] <= (1 + MARGIN) * least


def hold_back(pattern: SamplingPattern) -> tuple[Mask, SamplingPattern | None]:
    """Return the lines to hold back and the pattern without them, ``None`` where none can be spared."""
    held = np.zeros_like(pattern.acquired)
    if pattern.acs_z is None or pattern.acs_y is None:
        return held, None
    need_z, need_y = acs_needed(pattern)
    (z0, z1), (y0, y1) = (
        _inner(pattern.acs_z, pattern.r_z if need_z > 1 else 1, need_z),
        _inner(pattern.acs_y, pattern.r_y if need_y > 1 else 1, need_y),
    )
    block = np.zeros_like(held)
    block[slice(*pattern.acs_z), slice(*pattern.acs_y)] = True
    block[z0:z1, y0:y1] = False
    held = block & pattern.acquired & ~pattern.lattice
    if not held.any():
        return held, None
    return held, replace(pattern, acquired=pattern.acquired & ~held, acs_z=(z0, z1), acs_y=(y0, y1))


# ------------------------------------------------------------------------------------------------ pieces


def _inner(block: Range, r: int, need: int) -> Range:
    """Return the block without its ends; as it is where it is not needed whole along a thinned axis."""
    low, high = block
    cut = min(max(1, (high - low) // HELD), (high - low - max(need, pics.MINIMUM)) // 2)
    return (low + cut, high - cut) if r > 1 and cut > 0 else block


def _slices(kspace: Tensor, pattern: SamplingPattern) -> tuple[Tensor, SamplingPattern | None]:
    """Return a few slices of one accelerated axis, or a volume thinned along both, and their pattern."""
    if pattern.shape[0] == 1:
        return kspace[list(holdout.spread(kspace.shape[0], SLICES))], pattern
    cut = pics.layout(pattern)
    if 2 not in cut.whole:
        return kspace[:1], pattern
    other = cut.order[0] - 1  # 0 or 1: kz or ky, on which every line was acquired
    volume = to_image(kspace[0], (other + 1,))
    chosen = list(holdout.spread(volume.shape[other + 1], SLICES))
    planes = volume.index_select(other + 1, torch.tensor(chosen, device=volume.device))
    slices = planes.permute(1, 0, 2, 3) if other == 0 else planes.permute(2, 0, 1, 3)
    try:
        flat = detect(pattern.acquired.any(axis=other))
    except PermanentError:
        return slices[:, :, None], None
    return slices[:, :, None].contiguous(), flat
