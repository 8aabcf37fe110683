"""The network: complex, one for all coils and all missing lines, one set of weights a slice, no bias.

A linear path (a GRAPPA kernel) and beside it three complex convolutions, 2x5 -> 64, 1x1 -> 32, 1x5 -> all
missing lines of all coils, with LeakyReLU on real and imaginary part after the first two. Written as
unfoldings and batched products, so that many slices train at once. Without biases the network is positively
homogeneous: weighting an equation is the same as scaling its patch.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from .grappa import GrappaWeights
from .lines import patches

FEATURES = (64, 32)
WIDTHS = (5, 5)
SLOPE = 0.5


@dataclass(frozen=True)
class NetworkWeights:
    """Weights of one network a slice.

    Attributes
    ----------
    linear
        The linear path.
    convolutions
        complex64 ``(slice, out, in)``, three of them.
    share
        float32 ``(slice,)``: how much of the nonlinear path is added, as the validation equations say.
    """

    linear: GrappaWeights
    convolutions: tuple[Tensor, Tensor, Tensor]
    share: Tensor

    @property
    def by(self) -> int:
        """Lattice lines that :meth:`predict` wants as sources."""
        return self.linear.by

    @property
    def half(self) -> int:
        """Readout samples lost on either side by :meth:`predict`."""
        return max(self.linear.half, NONLINEAR_HALF)

    def predict(self, sources: Tensor) -> Tensor:
        """Predict from sources ``(slice, coil * by, row, kx)``.

        Returns ``(slice, (r - 1) * coil, row, kx - 2 half)``.
        """
        linear = self.linear.predict(crop(sources, self.half - self.linear.half))
        middle = middle_lines(sources, self.by)
        curved = nonlinear(
            patches(crop(middle, self.half - NONLINEAR_HALF), WIDTHS[0]), self.convolutions, sources.shape[2]
        )
        return linear + self.share[:, None, None, None] * curved

    def digest(self) -> str:
        """Return the SHA-256 of all weights, hex."""
        sha = hashlib.sha256()
        for tensor in (self.linear.weights, *self.convolutions, self.share):
            sha.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        return sha.hexdigest()


NONLINEAR_HALF = sum(width // 2 for width in WIDTHS)


def shapes(n_coil: int, r: int) -> tuple[tuple[int, int], ...]:
    """Return ``(out, in)`` of the three convolutions for ``n_coil`` coils and acceleration ``r``."""
    first, second = FEATURES
    return (first, 2 * n_coil * WIDTHS[0]), (second, first), ((r - 1) * n_coil, second * WIDTHS[1])


def initial(n_coil: int, r: int, seeds: list[int]) -> list[Tensor]:
    """Return first weights, complex Gaussian with variance 1/in, the last layer zero.

    One generator a slice, seeded with that slice's number, on the CPU: the weights depend neither on how
    slices are batched nor on the device.
    """
    layers: list[list[Tensor]] = [[], [], []]
    for seed in seeds:
        generator = torch.Generator().manual_seed(seed)
        for index, (n_out, n_in) in enumerate(shapes(n_coil, r)):
            parts = torch.randn(2, n_out, n_in, generator=generator) / (2 * n_in) ** 0.5
            weight = torch.complex(parts[0], parts[1])
            layers[index].append(torch.zeros_like(weight) if index == 2 else weight)
    return [torch.stack(layer) for layer in layers]


def nonlinear(first_patches: Tensor, weights: tuple[Tensor, ...], rows: int) -> Tensor:
    """Run the nonlinear path on ``patches(sources of two lines, 5)``: ``(slice, m, row, kx - 8)``."""
    n_slice = first_patches.shape[0]
    hidden = activate(weights[1] @ activate(weights[0] @ first_patches))
    hidden = hidden.reshape(n_slice, hidden.shape[1], rows, -1)
    out = weights[2] @ patches(hidden, WIDTHS[1])
    return out.reshape(n_slice, out.shape[1], rows, -1)


def activate(values: Tensor) -> Tensor:
    """LeakyReLU on the real and on the imaginary part."""
    return torch.view_as_complex(functional.leaky_relu(torch.view_as_real(values), SLOPE))


def crop(values: Tensor, half: int) -> Tensor:
    """Cut ``half`` samples off both ends of kx."""
    return values[..., half : values.shape[-1] - half] if half else values


def middle_lines(sources: Tensor, by: int) -> Tensor:
    """Return the two lines next to the gap: ``(slice, coil * by, ...)`` to ``(slice, coil * 2, ...)``."""
    if by == 2:
        return sources
    split = sources.reshape(sources.shape[0], -1, by, *sources.shape[2:])
    return split[:, :, by // 2 - 1 : by // 2 + 1].flatten(1, 2)
