"""Filling the missing lines of one scan: batch after batch by the method that its first batch decided."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..contract.profiles import Method, Profile
from ..contract.progress import Progress
from ..kspace.sampling import SamplingPattern
from ..raki.interpolate import Interpolation, interpolate

_MISFIT = 0.3
"""Share of the acquired samples that ESPIRiT's maps may leave unexplained before it is said."""


@dataclass
class Filler:
    """Fills batches and remembers what the record tells about it.

    The first batch of a scan decides which method ``auto`` is; the others follow, so that all slices of a
    scan are made alike.

    Attributes
    ----------
    whitened
        Whether the noise of a sample has unit variance.
    method, reason
        What was used and why; ``None`` and empty until the first batch.
    kernel, holdout_errors
        Of the batch that decided.
    warnings, figures
        What ESPIRiT found out.
    """

    profile: Profile
    device: torch.device
    progress: Progress
    whitened: bool
    method: Method | None = None
    reason: str = ""
    kernel: str | None = None
    holdout_errors: dict[str, float] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    figures: dict[str, float] = field(default_factory=dict)
    _networks: list[dict[str, Any]] = field(default_factory=list)

    def fill(
        self, kspace: Tensor, pattern: SamplingPattern, acs: Tensor | None, number: int
    ) -> Interpolation:
        """Return the interpolation of complex64 ``(slice, coil, kz, ky, kx)``.

        ``number`` counts the first of these slices among all of the scan: a network's first weights are the
        slice's own however slices are batched.
        """
        wanted = self.method or Method(self.profile.method)
        if wanted is Method.ESPIRIT and not pattern.fully_sampled:
            done = self._espirit(kspace, pattern, acs)
        else:
            done = interpolate(
                kspace, pattern, acs=acs, method=Method.AUTO if wanted is Method.ESPIRIT else wanted,
                seed=self.profile.seed + number, device=str(self.device), progress=self.progress,
                noise_variance=1.0 if self.whitened else None,
            )  # fmt: skip
        if self.method is None:
            self.method, self.reason, self.kernel = done.method, done.reason, done.kernel
            self.holdout_errors = dict(done.holdout_errors)
        if done.network is not None:
            self._networks.append(done.network)
        return done

    @property
    def network(self) -> dict[str, Any] | None:
        """The proof of training of all batches: losses averaged, seconds and networks added up."""
        if not self._networks:
            return None
        merged = dict(self._networks[0])
        if len(self._networks) == 1:
            return merged
        weight = [int(one["networks"]) for one in self._networks]
        curves = zip(*[one["loss"] for one in self._networks], strict=False)
        merged["loss"] = [
            round(sum(v * w for v, w in zip(losses, weight, strict=True)) / sum(weight), 6)
            for losses in curves
        ]
        merged["networks"] = sum(weight)
        merged["seconds"] = round(sum(float(one["seconds"]) for one in self._networks), 3)
        for name in ("nonlinear_share", "kept_step"):
            merged[name] = [value for one in self._networks for value in one[name]]
        digests = "".join(str(one["weights_sha256"]) for one in self._networks)
        merged["weights_sha256"] = hashlib.sha256(digests.encode()).hexdigest()
        return merged

    def _espirit(self, kspace: Tensor, pattern: SamplingPattern, acs: Tensor | None) -> Interpolation:
        from .espirit import reconstruct

        result = reconstruct(kspace, pattern, acs=acs, progress=self.progress)
        worst = max(round(result.residual, 4), self.figures.get("espirit_residual", 0.0))
        self.figures["espirit_residual"] = worst
        if worst > _MISFIT:
            self.warnings = [
                f"The coil maps leave {worst:.0%} of the acquired samples unexplained: trust the ESPIRiT "
                "images less than those of another method."
            ]
        reason = "ESPIRiT with an L1-wavelet penalty was asked for, a second opinion that auto never takes."
        return Interpolation(result.kspace, Method.ESPIRIT, reason, {})
