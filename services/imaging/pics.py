"""Parallel imaging with compressed sensing: coil maps, and shrinkage of small overlapping blocks.

The image ``x`` of two ESPIRiT map sets (:mod:`.espirit_maps`) minimises its misfit to the acquired samples
while the cosine coefficients of its blocks are shrunk (:mod:`.block_dct`), by FISTA (Beck and Teboulle, SIAM
J Imaging Sci 2009;2:183) with a threshold that falls to a level set by signal and noise. Nothing is learned
from other scans. The answer is expanded to coil k-space by its own maps and the acquired samples are put
back, so that what follows treats it like any other interpolation.

Lines thinned along one axis need the transform along that axis alone; a volume is cut into planes along an
axis on which every line is whole.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..contract.codes import Code, PermanentError
from ..contract.progress import Progress, silent
from ..kspace.acs import require_acs
from ..kspace.sampling import SamplingPattern, along
from . import block_dct, noise_level
from .espirit_maps import coil_maps
from .fourier import mirror, resize_centred, to_image, to_kspace
from .noise_level import Noise

ITERATIONS = 40
FALLING = 19
"""Iterations over which the threshold falls to its level, from ``FIRST`` times it."""
FIRST = 8.0
LEVEL = 0.075
"""Threshold over the geometric mean of signal and noise ..."""
LEAST = 0.6
"""... and over the noise, of which the larger counts."""
SIGNAL_QUANTILE = 0.99
BLOCKS = (8, 4)
"""Edges of the blocks, in turn."""
SHIFTS = 16
READOUT = 48
"""Readout samples of the calibration block, at least."""
PHASE_READOUT = 32
"""Readout samples of the low-resolution image that gives the phase, at least."""
CALIBRATION = 64
"""At most so many calibration samples along each axis: more cost time and change little."""
MINIMUM = 6
"""Calibration samples needed along each axis."""
MIN_COILS = 4
"""Below so many coils the maps say too little, and the shrinkage blurs."""
MOST_COILS = 16
"""More coils than this are brought to virtual ones first: maps cost the third power of their number."""
VIRTUAL_COILS = 12
BUDGET = 256 * 1024 * 1024
"""Bytes of the maps of the planes that go together."""


@dataclass(frozen=True)
class PicsResult:
    """Filled k-space and what was found on the way.

    Attributes
    ----------
    kspace
        complex64 ``(slice, coil, kz, ky, kx)``, acquired samples bit for bit.
    planes
        How many 2-D problems were solved.
    residual
        Relative misfit of the acquired samples before they were put back, beyond what noise explains; 0 to 1.
    """

    kspace: Tensor
    planes: int
    residual: float


@dataclass(frozen=True)
class Layout:
    """How k-space ``(coil, kz, ky, kx)`` of one slice or volume is cut into planes ``(plane, coil, a, b)``.

    Attributes
    ----------
    order
        Axes of ``(coil, kz, ky, kx)`` that become ``(plane, coil, a, b)``.
    whole
        Of those, the planes' axes on which every sample is there: they go to image space once. ``a`` is such
        an axis where lines are thinned along ``b`` alone.
    """

    order: tuple[int, int, int, int]
    whole: tuple[int, ...]

    @property
    def axes(self) -> tuple[int, ...]:
        """Axes of a plane that the model transforms."""
        return (-1,) if 2 in self.whole else (-2, -1)

    def planes(self, kspace: Tensor) -> Tensor:
        """Return ``(plane, coil, a, b)`` of ``(coil, kz, ky, kx)``, every axis still in k-space."""
        return kspace.permute(self.order).contiguous()

    def volume(self, planes: Tensor) -> Tensor:
        """Return ``(coil, kz, ky, kx)`` of planes."""
        return planes.permute([self.order.index(axis) for axis in range(4)])


def layout(pattern: SamplingPattern) -> Layout:
    """Return how a pattern's slices or volumes are cut into planes."""
    acquired = pattern.acquired
    rows, columns = along(acquired, 1), along(acquired, 0)
    if not (acquired == rows[:, None] & columns[None]).all():
        return Layout((3, 0, 1, 2), (0,))  # thinned in the (kz, ky) plane: every readout position a plane
    if columns.all() and not rows.all():
        return Layout((2, 0, 3, 1), (0, 2))
    return Layout((1, 0, 3, 2), (0, 2))


def reconstruct(
    kspace: Tensor,
    pattern: SamplingPattern,
    *,
    acs: Tensor | None = None,
    whitened: bool = False,
    one_sided: bool = False,
    device: torch.device | None = None,
    progress: Progress = silent,
) -> PicsResult:
    """Fill the lines inside the pattern's extent, with ``one_sided`` their mirror images too.

    Parameters
    ----------
    kspace
        complex64 ``(slice, coil, kz, ky, kx)``, zero where not acquired.
    pattern
        What was acquired.
    acs
        complex64 ``(slice, coil, kz, ky, kx)``: calibration acquired apart, on its own matrix, used instead
        of the block that ``pattern`` names.
    whitened
        Whether the noise of a sample has unit variance and no correlation; else both are estimated.
    one_sided
        Whether partial Fourier is filled as well: the lines whose conjugates lie inside the extent. What the
        smooth phase leaves in the imaginary part is shrunk, which is the constraint that fills them.
    device
        Where to compute; that of ``kspace`` unless said.
    progress
        Told after every group of planes.

    Raises
    ------
    PermanentError
        ``too_few_acs`` where the calibration is smaller than the kernel.
    """
    device = device or kspace.device
    cut = layout(pattern)
    filled = torch.empty_like(kspace)
    inside = torch.from_numpy(pattern.extent)
    if one_sided:
        inside = inside | mirror(inside)
    inside = inside.to(device)
    misfit = energy = 0.0
    count = 0
    for index, one in enumerate(kspace):
        block = None if acs is None else acs[min(index, acs.shape[0] - 1)].to(device)
        answer, missed, total = _slice(one.to(device), pattern, cut, block, whitened, inside)
        filled[index] = answer.to(filled.device)
        misfit, energy = misfit + missed, energy + total
        count += one.shape[cut.order[0]]
        progress("interpolate", (index + 1) / len(kspace), f"pics, {index + 1} of {len(kspace)}")
    return PicsResult(filled, count, math.sqrt(misfit / max(energy, 1e-300)))


def _slice(
    kspace: Tensor,
    pattern: SamplingPattern,
    cut: Layout,
    acs: Tensor | None,
    whitened: bool,
    inside: Tensor,
) -> tuple[Tensor, float, float]:
    """Fill the lines ``inside``; return k-space and the energies of the misfit and the acquired samples."""
    largest = float(kspace.abs().max())
    if largest == 0:
        return kspace, 0.0, 0.0
    scale = 2.0 ** -math.frexp(largest)[1]  # a power of two: exact, so the scale of the data changes nothing
    acquired = torch.from_numpy(pattern.acquired).to(kspace.device)
    data = kspace * scale
    noise = _noise(data, pattern, scale if whitened else None)
    white = torch.tensordot(noise.whiten, data, dims=([1], [0]))
    calibration = _calibration(white, pattern, cut, acs, noise, scale)
    basis = _virtual_coils(calibration)
    calibration = torch.einsum("cv,pcab->pvab", basis.conj(), calibration)
    planes = cut.planes(torch.tensordot(basis.mH, white, dims=([1], [0])))
    measured = to_image(planes, cut.whole) if cut.whole else planes
    mask = _plane_mask(acquired, cut)
    out = torch.empty_like(measured)
    size = 8 * 2 * max(1, measured[0].numel())
    step = max(1, BUDGET // (4 * size))
    for low in range(0, measured.shape[0], step):
        some = slice(low, low + step)
        out[some] = solve(measured[some], mask, calibration[some], noise.sigma, cut.axes)
    expected = noise.sigma**2 * float(mask.expand(measured.shape).sum())
    misfit = max(0.0, float(((out - measured) * mask).abs().square().sum()) - expected)
    total = max(misfit, float(measured.abs().square().sum()) - expected)
    back = to_kspace(out, cut.whole) if cut.whole else out
    volume = torch.tensordot(noise.unwhiten @ basis, cut.volume(back), dims=([1], [0])) / scale
    volume = torch.where(inside[None, :, :, None], volume, torch.zeros_like(volume))
    return torch.where(acquired[None, :, :, None], kspace, volume), misfit, total


def solve(measured: Tensor, mask: Tensor, calibration: Tensor, sigma: float, axes: tuple[int, ...]) -> Tensor:
    """Return the model's samples everywhere, in the space of ``measured``.

    Parameters
    ----------
    measured
        complex64 ``(plane, coil, a, b)``: in k-space along ``axes``, in image space along the others; zero
        where not acquired.
    mask
        float32, broadcast to ``(a, b)``: 1 where acquired.
    calibration
        complex64 ``(plane, coil, a', b')``: fully sampled centre of k-space, along both axes.
    sigma
        Standard deviation of the noise of a sample.
    axes
        ``(-1,)`` or ``(-2, -1)``.
    """
    shape = (measured.shape[-2], measured.shape[-1])
    maps = torch.stack([coil_maps(one, shape, sigma) for one in calibration])  # (plane, set, coil, a, b)
    phase = _phase(maps, calibration, shape)
    # The origin goes to index 0 along the axes of the model once, in place of two shifts in each iteration.
    maps, phase, data, mask = (
        torch.fft.ifftshift(one, dim=[axis for axis in axes if one.shape[axis] > 1]).contiguous()
        for one in (maps, phase, measured, mask)
    )
    conjugate = maps.conj().resolve_conj()

    def adjoint(samples: Tensor) -> Tensor:
        coils = torch.fft.ifftn(samples, dim=axes, norm="ortho")
        images: Tensor = (conjugate * coils[:, None]).sum(dim=2)
        return images

    def forward(images: Tensor) -> Tensor:
        coils = (maps * images[:, :, None]).sum(dim=1)
        samples: Tensor = torch.fft.fftn(coils, dim=axes, norm="ortho")
        return samples

    start = adjoint(data)
    signal = torch.quantile(_thinned(start.abs().flatten(1)), SIGNAL_QUANTILE, dim=1)
    level = torch.maximum(LEVEL * (signal * sigma).sqrt(), torch.full_like(signal, LEAST * sigma))
    generator = torch.Generator().manual_seed(0)
    last = ahead = start
    momentum = 1.0
    for step in range(ITERATIONS):
        threshold = level * FIRST ** (1 - min(1.0, step / FALLING))
        moved = ahead - (adjoint(forward(ahead) * mask) - start)
        shift = torch.randint(0, SHIFTS, (2,), generator=generator).tolist()
        side = BLOCKS[step % len(BLOCKS)]
        new = block_dct.shrink(moved, phase, threshold, side, (shift[0], shift[1]))
        following = (1 + math.sqrt(1 + 4 * momentum * momentum)) / 2
        ahead = new + (momentum - 1) / following * (new - last)
        last, momentum = new, following
    answer: Tensor = torch.fft.fftshift(forward(last), dim=axes)
    return answer


# ------------------------------------------------------------------------------------------------ pieces


def _thinned(values: Tensor, most: int = 2**22) -> Tensor:
    """Return at most ``most`` values of each row, evenly spread: ``torch.quantile`` takes no more."""
    return values[:, :: -(-values.shape[1] // most)]


def _noise(data: Tensor, pattern: SamplingPattern, sigma: float | None) -> Noise:
    """Return the noise of ``(coil, kz, ky, kx)``: ``sigma`` where it is known, else estimated."""
    if sigma is not None:
        return noise_level.known(data.shape[0], sigma, data.device)
    n_z, n_y = pattern.shape
    outer = torch.zeros(pattern.shape, dtype=torch.bool)
    for axis, n in ((0, n_z), (1, n_y)):
        if n > 1:
            edge = max(1, n // noise_level.OUTER)
            outer.narrow(axis, 0, edge).fill_(True)
            outer.narrow(axis, n - edge, edge).fill_(True)
    chosen = outer & torch.from_numpy(pattern.acquired)
    if not bool(chosen.any()):
        chosen = torch.from_numpy(pattern.acquired)
    return noise_level.estimate(to_image(data[:, chosen.to(data.device)], (-1,)))


def _calibration(
    data: Tensor, pattern: SamplingPattern, cut: Layout, acs: Tensor | None, noise: Noise, scale: float
) -> Tensor:
    """Return the calibration of every plane, ``(plane, coil, a, b)`` in k-space along both axes."""
    if acs is None:
        require_acs(pattern)
        assert pattern.acs_z is not None
        assert pattern.acs_y is not None
        low_z, low_y = pattern.acs_z[0], pattern.acs_y[0]
        matrix = (data.shape[1], data.shape[2])
        block = data[:, slice(*pattern.acs_z), slice(*pattern.acs_y)]
    else:
        white = torch.tensordot(noise.whiten, acs * scale, dims=([1], [0]))
        lines = (acs != 0).any(dim=3).any(dim=0)
        z, y = (torch.nonzero(lines.any(dim=dim)).flatten().tolist() for dim in (1, 0))
        require_acs(pattern, (z[-1] + 1 - z[0], y[-1] + 1 - y[0]))
        low_z, low_y = z[0], y[0]
        matrix = (acs.shape[1], acs.shape[2])
        block = white[:, z[0] : z[-1] + 1, y[0] : y[-1] + 1]
    if 0 in cut.whole and cut.order[0] != 3:  # the axis between the planes: zeros around the block
        axis = cut.order[0]
        own = matrix[axis - 1]
        full = pattern.shape[axis - 1]
        start = full // 2 - own // 2 + (low_z if axis == 1 else low_y)
        block = _placed(block, axis, full, start)
    planes = cut.planes(block)
    planes = to_image(planes, (0,))
    for dim in (-2, -1):
        most = max(READOUT, planes.shape[-1]) if dim == -2 and 2 in cut.whole else CALIBRATION
        if planes.shape[dim] > most:
            planes = planes.narrow(dim, _centre_start(planes, dim, most), most)
    if min(planes.shape[-2:]) < MINIMUM:
        raise PermanentError(
            Code.TOO_FEW_ACS,
            f"pics needs at least {MINIMUM} calibration lines along each accelerated direction, "
            f"{planes.shape[-2]} x {planes.shape[-1]} samples were found: use grappa.",
        )
    return planes


def _centre_start(planes: Tensor, dim: int, size: int) -> int:
    return planes.shape[dim] // 2 - size // 2


def _virtual_coils(calibration: Tensor) -> Tensor:
    """Return an orthonormal basis complex64 ``(coil, virtual)`` of what the coils see together.

    The principal components of the whitened calibration (Buehrer et al., MRM 2007;57:1131); the noise stays
    white. All coils as they are where there are no more than ``MOST_COILS``.
    """
    n_coil = calibration.shape[1]
    if n_coil <= MOST_COILS:
        return torch.eye(n_coil, dtype=torch.complex64, device=calibration.device)
    coils = calibration.transpose(0, 1).flatten(1).to(torch.complex128)
    basis: Tensor = torch.linalg.eigh(coils @ coils.mH)[1][:, -VIRTUAL_COILS:]
    return basis.to(torch.complex64)


def _placed(block: Tensor, axis: int, size: int, start: int) -> Tensor:
    """Return ``block`` between zeros along ``axis``: its first row is at ``start`` of ``size``."""
    shape = list(block.shape)
    shape[axis] = size
    out = block.new_zeros(shape)
    low, high = max(0, start), min(size, start + block.shape[axis])
    out.narrow(axis, low, high - low).copy_(block.narrow(axis, low - start, high - low))
    return out


def _plane_mask(acquired: Tensor, cut: Layout) -> Tensor:
    """Return float32 ``(a, b)``, or ``(1, b)`` where all samples along ``a`` are there."""
    if cut.axes == (-2, -1):
        return acquired.to(torch.float32)
    axis = cut.order[3] - 1
    return acquired.any(dim=1 - axis).to(torch.float32)[None]


def _phase(maps: Tensor, calibration: Tensor, shape: tuple[int, int]) -> Tensor:
    """Return the smooth phase of the images, complex64 ``(plane, set, a, b)`` of modulus 1."""
    low = calibration
    n_b = low.shape[-1]
    keep = min(low.shape[-2], max(n_b, PHASE_READOUT))
    low = low.narrow(-2, _centre_start(low, -2, keep), keep)
    for dim, n in ((-2, keep), (-1, n_b)):
        window = torch.hann_window(n + 2, periodic=False, device=low.device)[1:-1]
        low = low * (window[:, None] if dim == -2 else window)
    for dim, n in ((-2, shape[0]), (-1, shape[1])):
        low = resize_centred(low, dim, n)
    coils = to_image(low, (-2, -1))
    image = (maps.conj() * coils[:, None]).sum(dim=2)
    return torch.exp(1j * torch.angle(image))
