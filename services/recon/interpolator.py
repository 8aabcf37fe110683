"""Filling the missing lines of one scan: what is chosen once, then batch after batch."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from ..contract.profiles import Method, Profile
from ..contract.progress import Progress
from ..imaging import pics
from ..kspace.sampling import SamplingPattern
from ..raki.choice import Choice
from ..raki.interpolate import Interpolation, choose, interpolate
from ..raki.train import mean_curve
from . import contest


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
        Largest share of the acquired samples that the image and its coil maps left unexplained.
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
        few = few_coils(wanted, kspace.shape[1])
        if pattern.fully_sampled or wanted not in {Method.AUTO, Method.PICS}:
            choice = self._linear(wanted, pattern, kspace, acs)
        elif few is not None:
            choice = self._linear(Method.AUTO, pattern, kspace, acs)
            choice = replace(choice, reason=few + choice.reason)
        elif wanted is Method.PICS:
            # GRAPPA is fitted all the same: its errors show whether the calibration is of this scan
            linear = self._linear(Method.GRAPPA, pattern, kspace, acs)
            choice = Choice(Method.PICS, "PICS was asked for.", futile=linear.futile)
        else:
            choice = self._by_hold_out(pattern, kspace, acs)
        self._choices[pattern.acquired.tobytes()] = choice
        self.choice = self.choice or choice
        if choice.futile is not None:
            self.futile = max(choice.futile, self.futile or 0.0)

    def fill(
        self,
        kspace: Tensor,
        pattern: SamplingPattern,
        acs: Tensor | None,
        numbers: list[int],
        *,
        one_sided: bool = False,
    ) -> Interpolation:
        """Return the interpolation of complex64 ``(slice, coil, kz, ky, kx)`` of a decided pattern.

        ``numbers`` are these slices' among all of the scan: a network's first weights are the slice's own
        however slices are batched. With ``one_sided`` pics fills what partial Fourier left out as well.
        """
        choice = self._choices[pattern.acquired.tobytes()]
        if choice.method is Method.PICS:
            return self._pics(kspace, pattern, acs, choice, one_sided)
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
        curve = mean_curve([one["loss"] for one in self._networks], weight)
        merged["loss"] = [round(loss, 6) for loss in curve]
        merged["networks"] = sum(weight)
        merged["seconds"] = round(sum(float(one["seconds"]) for one in self._networks), 3)
        for name in ("nonlinear_share", "kept_step"):
            merged[name] = [value for one in self._networks for value in one[name]]
        digests = "".join(str(one["weights_sha256"]) for one in self._networks)
        merged["weights_sha256"] = hashlib.sha256(digests.encode()).hexdigest()
        return merged

    def _pics(
        self,
        kspace: Tensor,
        pattern: SamplingPattern,
        acs: Tensor | None,
        choice: Choice,
        one_sided: bool,
    ) -> Interpolation:
        result = pics.reconstruct(
            kspace,
            pattern,
            acs=acs,
            whitened=self.whitened,
            one_sided=one_sided,
            device=self.device,
            progress=self.progress,
        )
        self.misfit = max(round(result.residual, 4), self.misfit or 0.0)
        return Interpolation(result.kspace, choice)

    def _linear(self, method: Method, pattern: SamplingPattern, kspace: Tensor, acs: Tensor | None) -> Choice:
        """Return the choice among the methods that interpolate k-space."""
        return choose(
            kspace,
            pattern,
            acs=acs,
            method=method,
            seed=self.profile.seed,
            device=str(self.device),
            progress=self.progress,
            noise_variance=1.0 if self.whitened else None,
        )

    def _by_hold_out(self, pattern: SamplingPattern, kspace: Tensor, acs: Tensor | None) -> Choice:
        """Return the choice of ``auto``: pics where held-back lines show no other to be better."""
        errors: dict[str, float] = {}
        if acs is None:
            network = self._linear(Method.RAKI, pattern, kspace, acs)
            grappa = replace(network, method=Method.GRAPPA, grown_ridge=None)
            candidates = [grappa, *([network] if network.method is Method.RAKI else [])]
            errors = contest.compare(
                kspace,
                pattern,
                [*candidates, Choice(Method.PICS, "")],
                whitened=self.whitened,
                seed=self.profile.seed,
                device=str(self.device),
                progress=self.progress,
            )
            if errors and contest.pics_wins(errors):
                best = min(errors, key=lambda name: errors[name]) == Method.PICS.value
                how = "better than the others" if best else "hardly worse than the best"
                told = ", ".join(f"{_NAMES[name]} {error:.3g}" for name, error in errors.items())
                reason = f"PICS predicts held-back calibration lines {how}: error energy {told}."
                return Choice(Method.PICS, reason, holdout_errors=errors, futile=network.futile)
        choice = self._linear(Method.AUTO, pattern, kspace, acs)
        if errors:
            least = min(error for name, error in errors.items() if name != Method.PICS.value)
            told = f"{least:.3g} of the signal's against {errors[Method.PICS.value]:.3g} by PICS"
            how = "almost without error" if least < contest.SHARP else "better than PICS"
            more = f"Interpolation predicts held-back calibration lines {how}: error energy {told}. "
        else:
            why = "lie apart from the scan" if acs is not None else "are too few to hold any back"
            more = f"PICS was not compared, because the calibration lines {why}. "
        return replace(choice, reason=more + choice.reason)


_NAMES = {"grappa": "GRAPPA", "raki": "RAKI", "pics": "PICS"}


def few_coils(wanted: Method, n_coils: int) -> str | None:
    """Return a sentence where pics was wanted of fewer coils than it needs, ``None`` elsewhere."""
    if n_coils >= pics.MIN_COILS or wanted not in {Method.AUTO, Method.PICS}:
        return None
    asked = "PICS was asked for, but it" if wanted is Method.PICS else "PICS"
    return f"{asked} needs at least {pics.MIN_COILS} coils, the scan has {n_coils}. "
