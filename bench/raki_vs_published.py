"""Our RAKI beside the layout the paper published, on the same data, threads and machine.

    python -m bench.raki_vs_published SCANS [--r 4] [--acs 40] [--threads 1] [--out FILE]

The published layout (Akcakaya et al., MRM 2019;81:439), written here from its description: every coil is
split into its real and imaginary part, and each of the 2C real channels has a network of its own that
predicts that channel's R - 1 missing lines from all 2C channels. Convolutions 5x2 -> 32, 1x1 -> 8, 3x2
-> R - 1 (readout x phase), the phase direction dilated by R, ReLU after the first two, no biases, no
padding; truncated normal weights of standard deviation 0.1; k-space scaled to a maximum of 0.015; loss
the L2 norm over the calibration targets; Adam with learning rate 3e-3 for 1,000 steps, full batch.
Missing lines are those after the first of the three lattice lines a network sees; beyond the matrix
sources are zero.

CPU seconds (of the process) are the honest column: wall time depends on what else the machine does.
"""

import argparse
import platform
import time
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from bench.raki_holdout import image, psnr, undersample
from mrirecon.contract.profiles import Method
from mrirecon.kspace.detection import detect
from mrirecon.raki.interpolate import interpolate

STEPS, RATE, SCALE, SPREAD = 1000, 3e-3, 0.015, 0.1


def channels(kspace):
    """``(coil, ky, kx)`` complex to ``(1, 2 coil, ky, kx)`` real: all real parts, then all imaginary ones."""
    return torch.cat([kspace.real, kspace.imag])[None].contiguous()


def network(weights, values, r):
    first, second, third = weights
    hidden = functional.relu(functional.conv2d(values, first, dilation=(r, 1)))
    hidden = functional.relu(functional.conv2d(hidden, second))
    return functional.conv2d(hidden, third, dilation=(r, 1))


def start(n_channel, r, generator):
    shapes = ((32, n_channel, 2, 5), (8, 32, 1, 1), (r - 1, 8, 2, 3))
    weights = [torch.empty(shape) for shape in shapes]
    for weight in weights:
        torch.nn.init.trunc_normal_(weight, std=SPREAD, a=-2 * SPREAD, b=2 * SPREAD, generator=generator)
        weight.requires_grad_(True)
    return weights


def targets(acs, r, channel):
    """The R - 1 lines after every position of the valid output: ``(1, r - 1, y, kx - 6)``."""
    count = acs.shape[2] - 2 * r
    lines = [acs[:, channel, step : step + count, 3 : acs.shape[3] - 3] for step in range(1, r)]
    return torch.stack(lines, dim=1)


def train(acs, r, channel, steps, generator):
    weights, wanted = start(acs.shape[1], r, generator), targets(acs, r, channel)
    adam = torch.optim.Adam(weights, lr=RATE)
    for _ in range(steps):
        adam.zero_grad(set_to_none=True)
        torch.linalg.vector_norm(wanted - network(weights, acs, r)).backward()
        adam.step()
    return [weight.detach() for weight in weights]


def published(data, mask, r, acs_range, steps=STEPS):
    """Interpolate ``(coil, ky, kx)`` with 2C networks; every first line must be lattice line 0."""
    scale = SCALE / np.abs(data).max()
    filled = channels(torch.from_numpy(data * scale))
    lattice = torch.zeros_like(filled)
    lattice[:, :, ::r] = filled[:, :, ::r]
    padded = functional.pad(lattice, (3, 3, 0, 3 * r))
    acs = filled[:, :, acs_range[0] : acs_range[1]]
    n_line = data.shape[1]
    for channel in range(filled.shape[1]):
        generator = torch.Generator().manual_seed(channel)
        weights = train(acs, r, channel, steps, generator)
        with torch.no_grad():
            predicted = network(weights, padded, r)[0]
        for step in range(1, r):
            lines = np.arange(step, n_line, r)
            lines = lines[~mask[lines]]
            filled[0, channel, lines] = predicted[step - 1, lines - step]
    n_coil = data.shape[0]
    out = torch.complex(filled[0, :n_coil], filled[0, n_coil:]).numpy() / scale
    out[:, mask] = data[:, mask]
    return out


def published_flops(data, r, acs_range):
    """Floating-point operations of all trainings: one step of one network, counted, times all of them."""
    acs = channels(torch.from_numpy(data))[:, :, acs_range[0] : acs_range[1]]
    with FlopCounterMode(display=False) as counter:
        train(acs, r, 0, 1, torch.Generator().manual_seed(0))
    return counter.get_total_flops() * STEPS * acs.shape[1]


def our_flops(data, pattern):
    """The same count for ours. The counter takes a complex product for a real one: four times as many."""
    with FlopCounterMode(display=False) as counter:
        interpolate(data, pattern, method=Method.RAKI, noise_variance=None)
    return 4 * counter.get_total_flops()


def timed(call):
    cpu, wall = time.process_time(), time.perf_counter()
    result = call()
    return result, time.process_time() - cpu, time.perf_counter() - wall


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("scans", type=Path)
    parser.add_argument("--r", type=int, default=4)
    parser.add_argument("--acs", type=int, default=40)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parent / "results" / "raki_vs_published.md"
    )
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    rows = []
    for path in sorted(args.scans.glob("*.npz")):
        full = np.load(path)["kspace"].astype(np.complex64)
        mask = undersample(full.shape[1], args.r, args.acs)
        low = full.shape[1] // 2 - args.acs // 2
        acs_range = (low, low + args.acs)
        data, reference = full * mask[:, None], image(full)
        stack, pattern = data[None, :, None], detect(mask)

        def ours(stack=stack, pattern=pattern):
            return interpolate(stack, pattern, method=Method.RAKI, noise_variance=None)

        def theirs(data=data, mask=mask, acs_range=acs_range):
            return published(data, mask, args.r, acs_range)

        ours()  # the first call of a process pays for loading kernels
        mine, cpu, wall = timed(ours)
        other, other_cpu, other_wall = timed(theirs)
        flops = our_flops(stack, pattern), published_flops(data, args.r, acs_range)
        for name, result, seconds, clock, count in (
            ("ours (joint complex, L-BFGS)", mine.kspace[0, :, 0], cpu, wall, flops[0]),
            (f"published layout ({2 * full.shape[0]} networks)", other, other_cpu, other_wall, flops[1]),
        ):
            cells = [
                path.stem,
                name,
                f"{psnr(image(result), reference):.2f}",
                f"{seconds:.1f}",
                f"{clock:.1f}",
            ]
            cells += [f"{count / 1e9:,.0f}", f"{other_cpu / seconds:.0f}"]
            rows.append("| " + " | ".join(cells) + " |")
            print(rows[-1], flush=True)
    head = "| scan | network | PSNR dB | CPU s | wall s | GFLOP | CPU: times less than published |"
    text = [
        "# RAKI beside the published layout",
        "",
        f"Written by `bench/raki_vs_published.py`; R={args.r}, {args.acs} calibration lines, one slice, "
        f"{args.threads} thread(s), one run. Python {platform.python_version()}, torch {torch.__version__}, "
        f"numpy {np.__version__}, {platform.machine()}.",
        "GFLOP: matrix products and convolutions of training as torch's counter sees them, four real "
        "products for a complex one; ours with the kernel's hold-out and prediction, the published one "
        "without.",
        "",
        head,
        "|" + "---|" * (head.count("|") - 1),
        *rows,
        "",
    ]
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text("\n".join(text), encoding="utf-8")


if __name__ == "__main__":
    main()
