"""How good is the image? Every method here beside BART, on fully sampled scans that are undersampled.

    python -m bench.image SCANS --work FOLDER [--r 2 4 6] [--acs 24 40] [--methods grappa raki pics auto bart]
    python -m bench.image SCANS --work FOLDER --write    # table and pictures from what is in FOLDER

SCANS is a folder of ``.npz`` files with ``kspace`` complex64 ``(coil, ky, kx)``, fully sampled. Each is
undersampled (lines 0, R, 2R ... and the centre lines) and reconstructed; acquired lines are put back, and the
root-sum-of-squares magnitude is scored inside the object after one least-squares scalar: PSNR, SSIM (scikit-
image, averaged over the object) and HFEN, the relative error of a band-pass that shows blur. BART is
``ecalib -m2 -r ACS`` and ``pics -l1 -r LAMBDA -i 30``; its oracle is the LAMBDA of highest PSNR of five. Each
score goes to FOLDER at once, and what is there already is not computed again.
"""

import argparse
import json
import os
import platform
import resource
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from scipy.ndimage import binary_fill_holes, gaussian_filter
from skimage.metrics import structural_similarity

from mrirecon.contract.profiles import Method, Profile
from mrirecon.contract.progress import silent
from mrirecon.imaging.coil_combination import rss
from mrirecon.imaging.fourier import to_image
from mrirecon.kspace.detection import detect
from mrirecon.recon.interpolator import Filler

METHODS = ("grappa", "raki", "pics", "auto", "bart")
LAMBDAS = (0.001, 0.002, 0.005, 0.01, 0.02)
RESULTS = Path(__file__).parent / "results"
SHOWN = (("brain7_labmidas", 6, 24), ("phantom16_pulseq128", 6, 24))
"""Cases that are drawn."""


def undersample(n_line, r, acs):
    mask = np.zeros(n_line, bool)
    mask[::r] = True
    start = n_line // 2 - acs // 2
    mask[start : start + acs] = True
    return mask


def magnitude(kspace):
    """Magnitude image of ``(coil, ky, kx)``, float64."""
    return rss(to_image(torch.from_numpy(kspace), (-2, -1)), 0).numpy().astype(np.float64)


def inside(reference):
    """The object: smoothed reference above 5 % of its maximum, holes filled."""
    smooth = gaussian_filter(reference, 2.0)
    return binary_fill_holes(smooth > 0.05 * smooth.max())


def fitted(image, reference, mask):
    """``image`` times the one scalar that brings it nearest to ``reference``."""
    return image * (image * reference)[mask].sum() / (image[mask] ** 2).sum()


def score(image, reference):
    """PSNR in dB, SSIM and HFEN inside the object."""
    mask = inside(reference)
    image = fitted(image, reference, mask)
    error, top = image - reference, reference.max()

    def band(of):
        return gaussian_filter(of, 1.5) - gaussian_filter(of, 3.0)

    ssim = structural_similarity(reference, image, data_range=top, full=True)[1]
    return {
        "psnr": float(10 * np.log10(top**2 / (error[mask] ** 2).mean())),
        "ssim": float(ssim[mask].mean()),
        "hfen": float(np.linalg.norm(band(error)[mask]) / np.linalg.norm(band(reference)[mask])),
    }


def ours(known, mask, method):
    """K-space filled by a method of this project, its record's reason, and CPU seconds."""
    begun = time.process_time()
    data, pattern = torch.from_numpy(known)[None, :, None], detect(mask)
    profile = Profile(name="bench", version=1, method=Method(method))
    filler = Filler(profile, torch.device("cpu"), silent, whitened=False)
    filler.decide(pattern, data, None)
    filled = filler.fill(data, pattern, None, [0]).kspace[0, :, 0].numpy()
    choice = filler.choice
    told = {"took": choice.method.value, "errors": choice.holdout_errors}
    return filled, told, time.process_time() - begun


class Bart:
    """Debian's BART in a folder of its own."""

    def __init__(self, folder, known, acs):
        self.folder, self.known = folder, known
        self._write("k", np.ascontiguousarray(known.transpose(2, 1, 0)[:, :, None]))
        self.calibration = self._run("ecalib", "-m2", "-r", str(acs), "k", "s")

    def _run(self, *words):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(["bart", *words], cwd=self.folder, check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    def _write(self, name, array):
        (self.folder / f"{name}.hdr").write_text("# Dimensions\n" + " ".join(map(str, array.shape)) + "\n")
        array.astype(np.complex64).ravel(order="F").tofile(self.folder / f"{name}.cfl")

    def _read(self, name):
        sizes = (self.folder / f"{name}.hdr").read_text().splitlines()[1].split()
        shape = [int(size) for size in sizes][:5]
        return np.fromfile(self.folder / f"{name}.cfl", np.complex64).reshape(shape, order="F")

    def fill(self, mask, penalty):
        """K-space by ``pics -l1``, expanded by its own maps, and CPU seconds with the maps."""
        seconds = self._run("pics", "-S", "-l1", "-r", str(penalty), "-i", "30", "k", "s", "x")
        coils = (self._read("s") * self._read("x")).sum(4)[:, :, 0].transpose(2, 1, 0)
        axes = (-2, -1)
        filled = np.fft.fftshift(
            np.fft.fft2(np.fft.ifftshift(coils, axes=axes), norm="ortho"), axes=axes
        ).astype(np.complex64)
        filled[:, mask] = self.known[:, mask]
        return filled, seconds + self.calibration


def measure(name, full, r, acs, methods, work):
    """Score what is not scored yet of one case."""
    mask = undersample(full.shape[1], r, acs)
    known, reference = (full * mask[:, None]).astype(np.complex64), magnitude(full)
    for method in methods:
        path = work / f"{name}-{r}-{acs}-{method}.json"
        if path.exists():
            continue
        if method == "bart":
            with tempfile.TemporaryDirectory() as folder:
                bart = Bart(Path(folder), known, acs)
                found = {}
                for penalty in LAMBDAS:
                    filled, seconds = bart.fill(mask, penalty)
                    image = magnitude(filled)
                    found[str(penalty)] = {**score(image, reference), "seconds": seconds}
                    if penalty == 0.005:
                        np.save(path.with_suffix(".npy"), image.astype(np.float32))
        else:
            filled, told, seconds = ours(known, mask, method)
            image = magnitude(filled)
            np.save(path.with_suffix(".npy"), image.astype(np.float32))
            found = {**score(image, reference), **told, "seconds": seconds}
        path.write_text(json.dumps(found))
        print(path.stem, json.dumps(found), flush=True)


def scans(folder):
    """Yield name and k-space ``(coil, ky, kx)`` of the scans in a folder."""
    for path in sorted(folder.glob("*.npz")):
        kspace = np.load(path)["kspace"].astype(np.complex64)
        yield path.stem, kspace if kspace.ndim == 3 else kspace[0]


def best(found):
    """BART's penalty of highest PSNR, and its scores."""
    return max(found.items(), key=lambda item: item[1]["psnr"])


def read(work):
    """Return ``{(scan, R, ACS): {method: scores}}`` of what was measured."""
    cells = {}
    for path in work.glob("*.json"):
        name, r, acs, method = path.stem.rsplit("-", 3)
        cells.setdefault((name, int(r), int(acs)), {})[method] = json.loads(path.read_text())
    for cell in cells.values():
        found = cell.pop("bart", None)
        if found is not None:
            cell["BART .005"] = found["0.005"]
            penalty, scores = best(found)
            cell["BART oracle"] = {**scores, "penalty": penalty}
    return dict(sorted(cells.items()))


COLUMNS = ("grappa", "raki", "pics", "auto", "BART .005", "BART oracle")


def table(cells):
    """The lines of the table: PSNR / SSIM / HFEN and CPU seconds of every method in every cell."""
    head = "| scan | R | ACS | " + " | ".join(COLUMNS) + " | auto took | CPU s, in the same order |"
    rows = [head, "|" + "---|" * (head.count("|") - 1)]
    for (name, r, acs), cell in cells.items():
        shown, seconds = [], []
        for column in COLUMNS:
            one = cell.get(column)
            shown.append(f"{one['psnr']:.2f} / {one['ssim']:.3f} / {one['hfen']:.3f}" if one else "–")
            seconds.append(f"{one['seconds']:.1f}" if one else "–")
        took = cell.get("auto", {}).get("took", "–")
        rows.append(f"| {name} | {r} | {acs} | {' | '.join(shown)} | {took} | {', '.join(seconds)} |")
    return rows


def summary(cells):
    """Sentences that compare ``auto`` with BART and with its candidates, over the cells where both are."""
    told = []
    for other in ("BART .005", "BART oracle"):
        pairs = [(c["auto"], c[other]) for c in cells.values() if "auto" in c and other in c]
        if pairs:
            gains = [a["psnr"] - b["psnr"] for a, b in pairs]
            all_three = [
                a["psnr"] > b["psnr"] and a["ssim"] > b["ssim"] and a["hfen"] < b["hfen"] for a, b in pairs
            ]
            told.append(
                f"- `auto` minus {other}: mean {np.mean(gains):+.2f} dB, least {min(gains):+.2f} dB, above "
                f"in {sum(gain > 0 for gain in gains)} of {len(gains)} cells in PSNR, and in "
                f"{sum(all_three)} in PSNR, SSIM and HFEN together."
            )
    three = ("grappa", "raki", "pics")
    regrets = [
        max(c[m]["psnr"] for m in three) - c["auto"]["psnr"]
        for c in cells.values()
        if "auto" in c and all(m in c for m in three)
    ]
    if regrets:
        told.append(
            f"- `auto` under the best of GRAPPA, RAKI and pics: mean {np.mean(regrets):.2f} dB, at worst "
            f"{max(regrets):.2f} dB in {len(regrets)} cells."
        )
    missing = sum("BART .005" not in cell for cell in cells.values())
    told.append(f"- BART was measured in {len(cells) - missing} of {len(cells)} cells.")
    return told


def draw(work, folder, case, path):
    """Draw a case: images above, five times their errors below, one row of methods."""
    from PIL import Image

    name, r, acs = case
    full = dict(scans(folder))[name]
    reference = magnitude(full)
    mask, top = inside(reference), np.percentile(reference, 99.7)
    images = [reference]
    for method in ("grappa", "raki", "bart", "pics"):
        made = np.load(work / f"{name}-{r}-{acs}-{method}.npy").astype(np.float64)
        images.append(fitted(made, reference, mask))
    rows = [np.hstack(images), 5 * np.hstack([np.abs(image - reference) for image in images])]
    grey = (np.clip(np.vstack(rows) / top, 0, 1) * 255).astype(np.uint8)
    Image.fromarray(grey).save(path, optimize=True)


def write(work, folder):
    """Write table and pictures from what ``work`` holds."""
    cells = read(work)
    pictures = []
    for case in SHOWN:
        name, r, acs = case
        path = RESULTS / f"image_{name}_{r}_{acs}.png"
        draw(work, folder, case, path)
        pictures.append(
            f"\n![{name}, R={r}, {acs} lines]({path.name})\n\n{name}, R={r}, {acs} lines: fully sampled, "
            "GRAPPA, RAKI, BART (.005), pics; below, five times the error."
        )
    text = [
        "# The image, beside BART",
        "",
        f"Written by `bench/image.py`; Python {platform.python_version()}, torch {torch.__version__}, numpy "
        f"{np.__version__}, BART 0.8.00 (Debian), one thread, on a machine with other work. One slice each. "
        "A cell is PSNR [dB] / SSIM / HFEN (less is better) of the root-sum-of-squares magnitude inside the "
        "object. CPU seconds include the choice of kernel or method. The oracle is the best of λ "
        f"{', '.join(str(p) for p in LAMBDAS)} by the truth.",
        "",
        "**Which scans have set constants.** Those of pics were set on ten real and two simulated scans, "
        "`brain7_labmidas` and `phantom16_pulseq128` among them; the noise cut, the guard of the whitening "
        "and the level of the threshold after seeing further real scans. `knee_semi8` and `sag_semi12` are "
        "semi-synthetic. No scan here is independent of every constant.",
        "",
        *summary(cells),
        "",
        *table(cells),
        "",
        *pictures,
        "",
    ]
    (RESULTS / "image.md").write_text("\n".join(text), encoding="utf-8")


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("scans", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--r", type=int, nargs="+", default=[2, 3, 4, 5, 6])
    parser.add_argument("--acs", type=int, nargs="+", default=[24, 40])
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args()
    if args.write:
        write(args.work, args.scans)
        return
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"
    if "bart" in args.methods and shutil.which("bart") is None:
        parser.error("there is no bart on the path: install it, or leave it out with --methods")
    args.work.mkdir(parents=True, exist_ok=True)
    for r in args.r:
        for acs in args.acs:
            for name, full in scans(args.scans):
                measure(name, full, r, acs, args.methods, args.work)


if __name__ == "__main__":
    main()
