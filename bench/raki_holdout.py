"""Does the hold-out rank GRAPPA and RAKI as the fully sampled truth does?

    python -m bench.raki_holdout SCANS [--out bench/results/raki_holdout.md]
    python -m bench.raki_holdout --heads [--out bench/results/raki_heads.md]

SCANS is a folder of ``.npz`` files with ``kspace`` complex64 ``(coil, ky, kx)``, fully sampled; ``--heads``
takes generated heads of other coils, matrices and noise, on which no rule was set. Each is
undersampled (lines 0, R, 2R ... and 24 or 40 centre lines), interpolated by zero filling, GRAPPA and RAKI,
and scored as root-sum-of-squares magnitude inside the object: PSNR in dB after one least-squares scalar.
Beside that stand the hold-out errors that ``auto`` would have decided by.
"""

import argparse
import platform
import time
from pathlib import Path

import numpy as np
import scipy
import torch
from scipy.ndimage import binary_fill_holes, gaussian_filter

from mrirecon.contract.profiles import Method
from mrirecon.decompress.preparation.oversampling import crop
from mrirecon.imaging.coil_combination import rss
from mrirecon.kspace.detection import detect
from mrirecon.phantom.scanner import Protocol, full_kspace
from mrirecon.raki.fft import kspace_to_image
from mrirecon.raki.interpolate import interpolate

BRAIN = 0.6
"""Signal of the generated brain."""


def undersample(n_line, r, acs):
    mask = np.zeros(n_line, bool)
    mask[::r] = True
    start = n_line // 2 - acs // 2
    mask[start : start + acs] = True
    return mask


def image(kspace):
    """Magnitude image of ``(coil, ky, kx)``, float64."""
    return rss(kspace_to_image(torch.from_numpy(kspace)), 0).numpy().astype(np.float64)


def psnr(found, reference):
    """PSNR inside the object: smoothed reference above 5 % of its maximum, holes filled."""
    smooth = gaussian_filter(reference, 2.0)
    inside = binary_fill_holes(smooth > 0.05 * smooth.max())
    a, b = found[inside], reference[inside]
    a = a * (a * b).sum() / (a * a).sum()
    return 10 * np.log10(reference.max() ** 2 / ((a - b) ** 2).mean())


def heads():
    """Yield name and k-space of generated heads, whitened as intake leaves them."""
    for n_coils, ny, nx, snr in (
        (6, 176, 176, 80),
        (16, 200, 176, 40),
        (20, 224, 180, 15),
        (12, 192, 160, 400),
    ):
        protocol = Protocol(matrix=(ny, nx), fov_mm=(1.1 * ny, 1.1 * nx), n_slices=3, n_coils=n_coils)
        rng = np.random.default_rng(n_coils)
        clean = crop(np.fft.ifftshift(full_kspace(protocol, 1), axes=-1), nx)
        noise = rng.standard_normal((2, *clean.shape)) * BRAIN / snr / np.sqrt(2)
        yield f"head, {n_coils} coils, SNR {snr}", (clean + noise[0] + 1j * noise[1]).astype(np.complex64)


def files(folder):
    """Yield name and k-space of the scans in a folder."""
    for path in sorted(folder.glob("*.npz")):
        yield path.stem, np.load(path)["kspace"].astype(np.complex64)


def compare(name, full, r, acs):
    """Return the table's row for one case, whether the ranking is true, and dB of auto over GRAPPA."""
    reference, mask = image(full), undersample(full.shape[1], r, acs)
    data, pattern = (full * mask[:, None])[None, :, None], detect(mask)
    score, seconds, done = {}, {}, {}
    for method in (Method.ZERO_FILLED, Method.GRAPPA, Method.RAKI, Method.AUTO):
        begun = time.process_time()
        done[method] = interpolate(data, pattern, method=method, noise_variance=None)
        seconds[method] = time.process_time() - begun
        score[method] = psnr(image(done[method].kspace[0, :, 0]), reference)
    chosen = done[Method.AUTO].choice
    errors, parts = chosen.holdout_errors, chosen.holdout_parts
    true = (errors["raki"] < errors["grappa"]) == (score[Method.RAKI] > score[Method.GRAPPA])
    told = [f"{parts[one][part]:.3f}" for part in ("calibration", "outside") for one in ("grappa", "raki")]
    raki = done[Method.RAKI]
    cells = [
        name,
        r,
        acs,
        *(f"{score[method]:.2f}" for method in score),
        chosen.method.value,
        *told,
        "yes" if true else "no",
        raki.choice.kernel,
        f"{raki.choice.grown_ridge:g}",
        f"{np.mean(raki.network['nonlinear_share']):.2f}",
        *(f"{seconds[method]:.1f}" for method in (Method.GRAPPA, Method.RAKI, Method.AUTO)),
    ]
    row = "| " + " | ".join(str(cell) for cell in cells) + " |"
    return row, true, score[Method.AUTO] - score[Method.GRAPPA]


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("scans", type=Path, nargs="?")
    parser.add_argument("--heads", action="store_true")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    if args.heads == (args.scans is not None):
        parser.error("expected a folder of scans or --heads")
    out = args.out or Path(__file__).parent / "results" / (
        "raki_heads.md" if args.heads else "raki_holdout.md"
    )
    rows, worst, agree = [], 0.0, 0
    for name, full in heads() if args.heads else files(args.scans):
        for acs in (24, 40):
            for r in (2, 3, 4, 5, 6):
                row, true, gain = compare(name, full, r, acs)
                rows.append(row)
                agree, worst = agree + true, min(worst, gain)
                print(row, flush=True)
    head = (
        "| scan | R | ACS | zero-filled dB | GRAPPA dB | RAKI dB | auto dB | auto took "
        "| held-back ACS GRAPPA | RAKI | outside GRAPPA | RAKI | ranking true | kernel | grown ridge "
        "| nonlinear share | CPU s GRAPPA | RAKI | auto |"
    )
    text = [
        "# Hold-out ranking against the truth",
        "",
        f"Written by `bench/raki_holdout.py`; Python {platform.python_version()}, torch {torch.__version__}, "
        f"numpy {np.__version__}, scipy {scipy.__version__}, {torch.get_num_threads()} threads. One run, one "
        "slice each. PSNR of the RSS magnitude inside the object; hold-out errors are error energy over "
        "signal energy, on held-back calibration equations and on acquired lines outside them.",
        "",
        head,
        "|" + "---|" * (head.count("|") - 1),
        *rows,
        "",
        f"The hold-out ranks RAKI and GRAPPA as the truth does in {agree} of {len(rows)} cases; `auto` is at "
        f"worst {abs(worst):.2f} dB under `grappa`.",
        "",
    ]
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text("\n".join(text), encoding="utf-8")


if __name__ == "__main__":
    main()
