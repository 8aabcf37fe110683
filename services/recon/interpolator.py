"""Filling the missing lines of one scan: what is chosen once, then batch after batch."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..contract.profiles import Method, Profile
from ..contract.progress import Progress
from ..kspace.sampling import SamplingPattern
from ..raki.choice import Choice
from ..raki.interpolate import Interpolation, choose, interpolate


@dataclass
class Filler:
    """Fills batches and remembers what the record tells about it.

    The scan's first pattern decides which method ``auto`` is; further patterns follow, each with a kernel of
    its own, so that all slices of a scan are made alike.

    Attributes
    ----------
    whitened
        Whether the noise of a sample has unit variance.
    choice
        Of the first pattern: what was used and why; ``None`` until it is known.
    futile
        Share of held-back energy that even the best candidate misses, where the hold-out shows that next to
        nothing is predicted.
    misfit
        Largest share of the acquired samples that ESPIRiT's maps left unexplained.
    """

    profile: Profile
    device: torch.device
    progress: Progress
    whitened: bool
    choice: Choice | None = None
    futile: float | None = None
    misfit: float | None = None
    _choices: dict[bytes, Choice] = field(default_factory=dict)
    _networks: list[dict[str, Any]] = field(default_factory=list)

    def decided(self, pattern: SamplingPattern) -> bool:
        """Whether method and kernel are known for ``pattern``."""
        return pattern.acquired.tobytes() in self._choices

    def decide(self, pattern: SamplingPattern, kspace: Tensor, acs: Tensor | None) -> None:
        """Choose for ``pattern`` on a few slices complex64 ``(slice, coil, kz, ky, kx)``."""
        wanted = self.choice.method if self.choice else Method(self.profile.method)
        if wanted is Method.ESPIRIT and not pattern.fully_sampled:
            choice = Choice(
                Method.ESPIRIT,
                "ESPIRiT with an L1-wavelet penalty was asked for, a second opinion that auto never takes.",
            )
        else:
            choice = choose(
                kspace,
                pattern,
                acs=acs,
                method=Method.AUTO if wanted is Method.ESPIRIT else wanted,
                seed=self.profile.seed,
                device=str(self.device),
                progress=self.progress,
                noise_variance=1.0 if self.whitened else None,
            )
        self._choices[pattern.acquired.tobytes()] = choice
        self.choice = self.choice or choice
        if choice.futile is not None:
            self.futile = max(choice.futile, self.futile or 0.0)

    def fill(
        self, kspace: Tensor, pattern: SamplingPattern, acs: Tensor | None, numbers: list[int]
    ) -> Interpolation:
        """Return the interpolation of complex64 ``(slice, coil, kz, ky, kx)`` of a decided pattern.

        ``numbers`` are these slices' among all of the scan: a network's first weights are the slice's own
        however slices are batched.
        """
        choice = self._choices[pattern.acquired.tobytes()]
        if choice.method is Method.ESPIRIT:
            return self._espirit(kspace, pattern, acs, choice)
        done = interpolate(
            kspace,
            pattern,
            acs=acs,
            choice=choice,
            numbers=numbers,
            seed=self.profile.seed,
            device=str(self.device),
            progress=self.progress,
        )
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

    def _espirit(
        self, kspace: Tensor, pattern: SamplingPattern, acs: Tensor | None, choice: Choice
    ) -> Interpolation:
        from ..imaging.espirit import reconstruct

        result = reconstruct(kspace, pattern, acs=acs, progress=self.progress)
        self.misfit = max(round(result.residual, 4), self.misfit or 0.0)
        return Interpolation(result.kspace, choice)
