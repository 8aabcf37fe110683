"""BART pairs: read as bart reads them; sizes that do not fit are refused."""

from __future__ import annotations

import subprocess

import numpy as np
import pytest

from mrirecon.contract.codes import Code, PermanentError
from mrirecon.decompress.archive.members import Member, RawKind
from mrirecon.decompress.preparation import prepare as readers
from mrirecon.kspace.file import open_kspace
from tests.support.feature_scans import LIMITS, error, member


def write_cfl(folder, name: str, array: np.ndarray, stem: int = 0, dims: str | None = None) -> list[Member]:
    """Write ``array`` (first dimension readout, as BART counts) as a pair."""
    header, data = folder / f"{name}.hdr", folder / f"{name}.cfl"
    header.write_text(f"# Dimensions\n{dims or ' '.join(map(str, array.shape))}\n# Command\nphantom -k\n")
    data.write_bytes(array.astype("<c8").tobytes(order="F"))
    return [member(header, RawKind.HDR, 0, stem), member(data, RawKind.CFL, 1, stem)]


def random(*shape: int) -> np.ndarray:
    rng = np.random.default_rng(1)
    return (rng.normal(size=shape) + 1j * rng.normal(size=shape)).astype(np.complex64)


def test_every_dimension_goes_to_its_place(tmp_path) -> None:
    # readout, phases 1 and 2, coil, maps, echo, …, time (10), time2 (11), level, slice (13), average (14)
    array = random(6, 5, 1, 2, 1, 3, 1, 1, 1, 1, 2, 2, 1, 4, 2, 1)
    readers.read(write_cfl(tmp_path, "k", array), tmp_path / "k.h5", LIMITS)
    with open_kspace(tmp_path / "k.h5") as file:
        assert file.shape == (12, 4, 2, 1, 5, 6)
        for number, image in enumerate(file.info.images):
            for slice_ in range(4):
                block = array[
                    :, :, :, :, 0, image.contrast, 0, 0, 0, 0, image.repetition, image.phase, 0, slice_
                ]
                wanted = block[..., 0].mean(axis=-1) if block.ndim == 6 else block.mean(axis=-2)[..., 0]
                found = file.read(number, slice_)
                assert error(found, wanted.transpose(3, 2, 1, 0)) < 1e-6
        assert not file.info.geometry.known


def test_a_volume_with_missing_lines(tmp_path) -> None:
    array = random(8, 12, 6, 2)
    mask = np.ones((12, 6), bool)
    mask[1::2] = False
    mask[3:9] = True
    array[:, ~mask] = 0
    summary = readers.read(write_cfl(tmp_path, "k", array), tmp_path / "k.h5", LIMITS)
    assert summary["acceleration"] == [2, 1]
    with open_kspace(tmp_path / "k.h5") as file:
        assert np.array_equal(file.mask[0, 0], mask.T)
        assert error(file.read(0, 0), array.transpose(3, 2, 1, 0)) < 1e-6


@pytest.mark.parametrize(
    ("dims", "code"),
    [
        ("4096 4096 4096 4096 1", Code.LENGTH_MISMATCH),
        ("8 8 1 3", Code.LENGTH_MISMATCH),
        ("", Code.LENGTH_MISMATCH),
        ("8 8 0 2", Code.LENGTH_MISMATCH),
        ("-8 -8 1 2", Code.LENGTH_MISMATCH),
        ("9" * 4000, Code.LENGTH_MISMATCH),
        ("8 8 1 1 2", Code.UNSUPPORTED),
        ("1 64 1 2", Code.UNSUPPORTED),
    ],
)
def test_headers_that_do_not_fit(dims, code, tmp_path) -> None:
    members = write_cfl(tmp_path, "k", random(8, 8, 1, 2), dims=dims or " ")
    with pytest.raises(PermanentError) as refused:
        readers.inspect(members, LIMITS)
    assert refused.value.code is code


def test_a_header_or_data_alone_and_two_pairs(tmp_path) -> None:
    one = write_cfl(tmp_path, "a", random(8, 8, 1, 2))
    two = write_cfl(tmp_path, "b", random(8, 8, 1, 2), stem=1)
    for members, code in (
        (one[:1], Code.LENGTH_MISMATCH),
        (one[1:], Code.LENGTH_MISMATCH),
        (one + two, Code.MIXED_SCANS),
    ):
        with pytest.raises(PermanentError) as refused:
            readers.inspect(members, LIMITS)
        assert refused.value.code is code


def test_nothing_acquired(tmp_path) -> None:
    with pytest.raises(PermanentError) as refused:
        readers.inspect(write_cfl(tmp_path, "k", np.zeros((8, 8, 1, 2))), LIMITS)
    assert refused.value.code is Code.NO_ACQUISITIONS


def read_cfl(path) -> np.ndarray:
    dims = [int(n) for n in path.with_suffix(".hdr").read_text().splitlines()[1].split()]
    return np.fromfile(path.with_suffix(".cfl"), "<c8").reshape(dims, order="F")


def test_the_phantom_that_bart_made(shared_data, tmp_path) -> None:
    pair = [
        member(shared_data / f"scans/bart/bartphantom_ksp.{end}", kind, number)
        for number, (end, kind) in enumerate((("hdr", RawKind.HDR), ("cfl", RawKind.CFL)))
    ]
    readers.read(pair, tmp_path / "k.h5", LIMITS)
    array = read_cfl(shared_data / "scans/bart/bartphantom_ksp.cfl")
    with open_kspace(tmp_path / "k.h5") as file:
        assert error(file.read(0, 0), array.reshape(96, 96, 1, 8).transpose(3, 2, 1, 0)) < 1e-6


@pytest.mark.tools
def test_the_image_is_the_one_that_bart_transforms(need_tool, tmp_path) -> None:
    bart = need_tool("bart")
    for command in (["phantom", "-x", "48", "-k", "-s", "4", "ksp"], ["fft", "-i", "3", "ksp", "image"]):
        subprocess.run([bart, *command], check=True, capture_output=True, timeout=60, cwd=tmp_path)
    pair = [member(tmp_path / "ksp.hdr", RawKind.HDR), member(tmp_path / "ksp.cfl", RawKind.CFL, 1)]
    readers.read(pair, tmp_path / "k.h5", LIMITS)
    theirs = read_cfl(tmp_path / "image.cfl").reshape(48, 48, 4).transpose(2, 1, 0)
    with open_kspace(tmp_path / "k.h5") as file:
        kspace = np.fft.ifftshift(file.read(0, 0)[:, 0], axes=(-2, -1))
    ours = np.fft.fftshift(np.fft.ifft2(kspace), axes=(-2, -1))
    assert error(ours * np.vdot(ours, theirs) / np.vdot(ours, ours), theirs) < 1e-5
