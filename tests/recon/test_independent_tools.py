"""Our files in the hands of tools we did not write: dciodvfy, dcm2niix, Orthanc, ismrmrd-tools."""

import json
import shutil
import socket
import subprocess
import tarfile
import time
import urllib.request

import h5py
import nibabel
import numpy as np
import pytest

from mrirecon.contract.profiles import profile
from mrirecon.kspace.geometry import ImageIndex, unknown
from mrirecon.recon.outputs import dicom, nifti, notes
from tests.recon.recon_cases import GEOMETRIES, SCAN_ID, a_facts, a_record, a_volume, scan_file, slab, two_d

pytestmark = pytest.mark.tools
# dcm2niix resamples a sheared stack; test_voxel_positions.py holds that against the geometry
STRAIGHT = {name: geometry for name, geometry in GEOMETRIES.items() if name != "sheared"}
EACH = pytest.mark.parametrize("geometry", STRAIGHT.values(), ids=STRAIGHT.keys())
FULL_HEADER = {
    "vendor": "SIEMENS",
    "field_strength_t": 2.89362,
    "repetition_time_s": 0.01,
    "flip_angle_deg": 15.0,
    "echo_train_length": 1,
    "sequence": "GR",
}


def series(folder, geometry, images=None, **acquisition):
    folder.mkdir()
    facts = a_facts(geometry, images, **acquisition)
    dicom.write_all(folder, facts, lambda image: a_volume(geometry, image), ["A warning."])
    return sorted(folder.iterdir())


@pytest.mark.parametrize("acquisition", [{}, FULL_HEADER, {**FULL_HEADER, "sequence": "SE"}])
def test_dciodvfy_finds_no_error(tmp_path, need_tool, acquisition):
    need_tool("dciodvfy")
    echoes = [
        ImageIndex(contrast=n, repetition=r, echo_time_s=0.003 * (n + 1), inversion_time_s=0.3)
        for n in range(2)
        for r in range(2)
    ]
    cases = {**GEOMETRIES, "unknown": unknown(2, (1, 16, 16), (5.0, 160.0, 160.0))}
    for name, geometry in cases.items():
        files = series(tmp_path / name, geometry, echoes, **acquisition)
        for file in (files[0], files[-1]):
            told = subprocess.run(["dciodvfy", "-new", file], capture_output=True, text=True, check=False)
            said = told.stdout + told.stderr
            assert "MRImage" in said, said
            assert "Error" not in said, said


def test_dciodvfy_finds_no_error_in_the_notes_and_a_pacs_takes_them(tmp_path, need_tool, orthanc):
    need_tool("dciodvfy")
    need_tool("storescu")
    files = series(tmp_path / "dicom", STRAIGHT["axial_odd"])
    facts, volume = a_facts(STRAIGHT["axial_odd"]), a_volume(STRAIGHT["axial_odd"])
    notes.write(tmp_path / "dicom/notes.dcm", facts, a_record(["A warning."]), volume, volume)
    told = subprocess.run(
        ["dciodvfy", "-new", tmp_path / "dicom/notes.dcm"], capture_output=True, text=True, check=False
    )
    assert "SCImage" in told.stdout + told.stderr
    assert "Error" not in told.stdout + told.stderr
    address, port = orthanc
    for _ in range(2):
        subprocess.run(
            ["storescu", "127.0.0.1", str(port), "+sd", tmp_path / "dicom"], check=True, capture_output=True
        )
        found = statistics(address)
        assert (found["CountStudies"], found["CountSeries"]) == (1, 2)
        assert found["CountInstances"] == len(files) + 1


def test_repetitions_are_one_volume_in_four_dimensions_and_echoes_volumes_of_their_own(tmp_path, need_tool):
    """dcm2niix: one file a series; its volumes in order, each voxel where our NIfTI has it."""
    need_tool("dcm2niix")
    repetitions = [ImageIndex(repetition=n) for n in range(3)]
    echoes = [
        ImageIndex(contrast=c, repetition=n, echo_time_s=0.01 * (c + 1)) for c in range(2) for n in range(3)
    ]
    for name, images in (("repetitions", repetitions), ("echoes", echoes)):
        for way, geometry in (
            ("oblique", STRAIGHT["oblique_left_handed"]),
            ("slab", STRAIGHT["slab_oblique"]),
        ):
            folder = tmp_path / f"{name}-{way}"
            folder.mkdir()
            series(folder / "dicom", geometry, images, **FULL_HEADER)
            (folder / "out").mkdir()
            subprocess.run(
                ["dcm2niix", "-z", "n", "-b", "n", "-f", "%s", "-o", folder / "out", folder / "dicom"],
                check=True,
                capture_output=True,
            )
            made = sorted((folder / "out").glob("*.nii"))
            assert len(made) == len(images) // 3
            for n, path in enumerate(made):
                theirs = nibabel.load(path)
                assert theirs.shape[3:] == (3,)
                for time_ in range(3):
                    nifti.write(folder / "ours.nii.gz", geometry, [a_volume(geometry, 3 * n + time_)], 1)
                    same_grid(
                        nibabel.load(folder / "ours.nii.gz"), theirs, np.asarray(theirs.dataobj)[..., time_]
                    )
                    (folder / "ours.nii.gz").unlink()


def test_dcentvfy_finds_the_series_of_one_piece(tmp_path, need_tool):
    need_tool("dcentvfy")
    files = series(
        tmp_path / "dicom", GEOMETRIES["oblique_gap_nonsquare"], [ImageIndex(), ImageIndex(contrast=1)]
    )
    told = subprocess.run(["dcentvfy", *files], capture_output=True, text=True, check=False)
    assert (told.stdout + told.stderr).strip() == ""


@EACH
def test_dcm2niix_sees_the_voxels_where_our_nifti_has_them(tmp_path, need_tool, geometry):
    need_tool("dcm2niix")
    series(tmp_path / "dicom", geometry, **FULL_HEADER)
    nifti.write(tmp_path / "ours.nii.gz", geometry, [a_volume(geometry)], 1)
    same_voxels(tmp_path / "ours.nii.gz", tmp_path / "dicom", tmp_path / "out")


def test_dcm2niix_agrees_over_random_oblique_geometries(tmp_path, need_tool):
    need_tool("dcm2niix")
    rng = np.random.default_rng(20)
    for n in range(25):
        angles, handed = rng.uniform(-np.pi, np.pi, 3), int(rng.choice((-1, 1)))
        ny, nx = (int(v) for v in rng.integers(12, 30, 2))
        geometry = (
            slab((5, ny, nx), (15.0, 180.0, 200.0), angles=angles, handed=handed)
            if n % 3 == 0
            else two_d(
                4, (ny, nx), (180.0, 200.0), angles=angles, handed=handed, gap=float(rng.uniform(-7, 3))
            )
        )
        folder = tmp_path / str(n)
        folder.mkdir()
        series(folder / "dicom", geometry, **FULL_HEADER)
        nifti.write(folder / "ours.nii.gz", geometry, [a_volume(geometry)], 1)
        same_voxels(folder / "ours.nii.gz", folder / "dicom", folder / "out")


def same_voxels(ours, dicom_folder, out):
    """Every voxel that dcm2niix makes of the DICOM files must fall onto one of our NIfTI file."""
    out.mkdir()
    subprocess.run(
        ["dcm2niix", "-z", "n", "-b", "n", "-f", "%s", "-o", out, dicom_folder],
        check=True,
        capture_output=True,
    )
    theirs = nibabel.load(next(path for path in out.glob("*.nii") if not path.stem.endswith("099")))
    same_grid(nibabel.load(ours), theirs, np.asarray(theirs.dataobj))


def same_grid(ours, theirs, values):
    """Compare one volume ``values`` of ``theirs`` with ``ours``, voxel by voxel by their places."""
    to_ours = np.linalg.inv(ours.affine) @ theirs.affine
    index = np.stack(np.meshgrid(*[np.arange(n) for n in values.shape], indexing="ij"), axis=-1)
    landed = index @ to_ours[:3, :3].T + to_ours[:3, 3]
    whole = np.rint(landed).astype(int)
    sizes = np.linalg.norm(ours.affine[:3, :3], axis=0)
    assert np.abs((landed - whole) * sizes).max() < 0.05
    assert whole.min() >= 0
    assert (whole.reshape(-1, 3).max(axis=0) == np.array(ours.shape) - 1).all()
    mine = np.asarray(ours.dataobj)[tuple(np.moveaxis(whole, -1, 0))]
    assert np.corrcoef(mine.ravel(), values.ravel())[0, 1] > 0.99999


@pytest.fixture
def orthanc(tmp_path, need_tool):
    """An Orthanc on loopback with nothing in it; yields its HTTP address and its DICOM port."""
    program = need_tool("Orthanc")
    ports = []
    for _ in range(2):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            ports.append(probe.getsockname()[1])
    settings = {
        "Name": "test",
        "StorageDirectory": str(tmp_path / "db"),
        "IndexDirectory": str(tmp_path / "db"),
        "HttpPort": ports[0],
        "DicomPort": ports[1],
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "DicomAlwaysAllowStore": True,
        "DicomAlwaysAllowFind": True,
        "Plugins": [],
        "HttpServerEnabled": True,
        "DicomServerEnabled": True,
        "DicomCheckCalledAet": False,
    }
    (tmp_path / "orthanc.json").write_text(json.dumps(settings))
    log = (tmp_path / "orthanc.log").open("w")
    server = subprocess.Popen([program, tmp_path / "orthanc.json"], stdout=log, stderr=log)
    address = f"http://127.0.0.1:{ports[0]}"
    try:
        for _ in range(100):
            try:
                statistics(address)
                break
            except OSError:
                assert server.poll() is None, (tmp_path / "orthanc.log").read_text()
                time.sleep(0.1)
        yield address, ports[1]
    finally:
        server.terminate()
        server.wait(20)
        log.close()


def statistics(address):
    with urllib.request.urlopen(f"{address}/statistics", timeout=5) as answer:
        told = json.load(answer)
    return {name: value for name, value in told.items() if name.startswith("Count")}


def test_a_second_delivery_to_a_pacs_adds_nothing(tmp_path, need_tool, orthanc):
    need_tool("storescu")
    address, port = orthanc
    geometry = two_d(4, (20, 24), (200, 240), angles=(0.2, 0.1, -0.4))
    images = [ImageIndex(), ImageIndex(contrast=1)]
    first = series(tmp_path / "first", geometry, images)
    again = series(tmp_path / "again", geometry, images)
    assert [f.read_bytes() for f in first] == [f.read_bytes() for f in again]

    def send(folder):
        subprocess.run(["storescu", "127.0.0.1", str(port), "+sd", folder], check=True, capture_output=True)
        return statistics(address)

    expected = {"CountPatients": 1, "CountStudies": 1, "CountSeries": 2, "CountInstances": 8}
    assert send(tmp_path / "first") == expected
    assert send(tmp_path / "again") == expected


def one_slice(source, target, slice_):
    """Copy the readouts of one slice: the independent tool knows no slices."""
    with h5py.File(source) as theirs, h5py.File(target, "w") as ours:
        group = ours.create_group("dataset")
        theirs.copy("dataset/xml", group)
        rows = theirs["dataset/data"][:]
        rows = rows[rows["head"]["idx"]["slice"] == slice_]
        data = group.create_dataset("data", (len(rows),), theirs["dataset/data"].dtype, maxshape=(None,))
        data[:] = rows


@pytest.mark.parametrize(
    ("name", "n_slices"), [("ismrmrd/shepp_oblique_5sl.h5", 5), ("ismrmrd_from_siemens/twixtools_gre.h5", 1)]
)
def test_our_image_is_that_of_the_reference_reconstruction(tmp_path, need_tool, shared_data, name, n_slices):
    """Fully sampled and without noise measurement, so not whitened: RSS of the plain transform."""
    from mrirecon.decompress.stage import decompress
    from mrirecon.recon.stage import reconstruct

    program = need_tool("ismrmrd_recon_cartesian_2d")
    with tarfile.open(tmp_path / "scan.tar", "w") as tar:
        tar.add(shared_data / "scans" / name, "scan.h5")
    decompress(tmp_path / "scan.tar", tmp_path / "kspace.h5")
    record = reconstruct(tmp_path / "kspace.h5", tmp_path / "out", scan_id=SCAN_ID, profile=profile())
    assert record["sampling"]["fully_sampled"]
    assert record["network"] is None
    with h5py.File(tmp_path / "out" / "image.h5") as file:
        ours = file["image"][0]
    assert len(ours) == n_slices
    for slice_ in range(n_slices):
        alone = tmp_path / f"slice{slice_}.h5"
        one_slice(shared_data / "scans" / name, alone, slice_)
        subprocess.run([program, alone], check=True, capture_output=True)
        with h5py.File(alone) as file:
            theirs = file["dataset/cpp/data"][:].squeeze()
        assert theirs.shape == ours[slice_].shape
        scale = float((theirs * ours[slice_]).sum() / (ours[slice_] ** 2).sum())
        error = np.linalg.norm(scale * ours[slice_] - theirs) / np.linalg.norm(theirs)
        assert error < 1e-4, f"slice {slice_ + 1}: relative error {error:.2g}"
    need_tool("dcm2niix")
    same_voxels(tmp_path / "out/image.nii.gz", tmp_path / "out/dicom", tmp_path / "theirs")
    need_tool("dciodvfy")
    for file in (tmp_path / "out/dicom").iterdir():
        told = subprocess.run(["dciodvfy", "-new", file], capture_output=True, text=True, check=False)
        assert "Error" not in told.stdout + told.stderr


def test_the_tools_are_where_ci_puts_them(need_tool):
    tools = "dciodvfy dcm2niix storescu Orthanc ismrmrd_recon_cartesian_2d chromium pdftoppm"
    for name in tools.split():
        assert shutil.which(need_tool(name))


def test_the_printed_report_fills_its_pages(tmp_path, need_tool):
    """Chromium prints A4; every page but the last must be filled to 85 % of the sheet."""
    from PIL import Image

    from mrirecon.recon.stage import reconstruct

    chromium, rasterise = need_tool("chromium"), need_tool("pdftoppm")
    rng = np.random.default_rng(2)
    kspace = rng.standard_normal((1, 3, 4, 1, 48, 64, 2)).astype(np.float32).view(np.complex64)[..., 0]
    mask = np.zeros((1, 3, 1, 48), bool)
    mask[..., ::2] = mask[..., 16:32] = True
    path = scan_file(tmp_path / "kspace.h5", kspace, mask, geometry=two_d(3, (48, 64), (192.0, 256.0)))
    reconstruct(path, tmp_path / "out", scan_id=SCAN_ID, profile=profile(method="grappa"), device="cpu")
    subprocess.run(
        [
            chromium,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--no-pdf-header-footer",
            f"--user-data-dir={tmp_path / 'chromium'}",
            f"--print-to-pdf={tmp_path / 'report.pdf'}",
            (tmp_path / "out/report.html").as_uri(),
        ],
        check=True,
        capture_output=True,
        timeout=100,
    )
    subprocess.run(
        [rasterise, "-r", "40", "-gray", tmp_path / "report.pdf", tmp_path / "page"], check=True, timeout=60
    )
    pages = [np.asarray(Image.open(page)) for page in sorted(tmp_path.glob("page*.pgm"))]
    assert 1 < len(pages) <= 3
    for page in pages[:-1]:
        lowest = np.flatnonzero((page < 128).any(axis=1)).max()
        assert lowest > 0.85 * len(page)
