"""Both images are built without a container engine; decompress reads a real archive, recon makes images.

The base is bootstrapped from Debian, so that nothing is pulled from an image registry; the reconstruction's
has torch's build for CPUs instead of CUDA's.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
import uuid
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SERVICES = ROOT / "services"
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
LARGEST_MIB = 1100
BASE_PYTHON = "3.11"
"""Of Debian bookworm."""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]


def run(*command, **options):
    done = subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
        **options,
    )
    assert done.returncode == 0, f"{command[:4]}: {done.stdout[-1500:]}\n{done.stderr[-3000:]}"
    return done.stdout


def debian_mirror():
    """Return the mirror this machine itself is installed from."""
    if os.environ.get("MRIRECON_DEBIAN_MIRROR"):
        return os.environ["MRIRECON_DEBIAN_MIRROR"]
    texts = [path.read_text() for path in Path("/etc/apt").glob("sources.list*") if path.is_file()]
    texts += [path.read_text() for path in Path("/etc/apt/sources.list.d").glob("*")]
    lines = [line for text in texts for line in text.splitlines() if not line.lstrip().startswith("#")]
    found = re.search(r"(https?://\S*debian\S*)", "\n".join(lines))
    if not found:
        pytest.skip("no Debian mirror is known: set MRIRECON_DEBIAN_MIRROR")
    return found[1].rstrip("/")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """Bootstrap a base image from Debian; remove it afterwards."""
    for tool in ("buildah", "debootstrap"):
        if not shutil.which(tool):
            pytest.skip(f"{tool} is not installed")
    if os.geteuid() != 0:
        pytest.skip("bootstrapping a base wants root")
    folder = tmp_path_factory.mktemp("base")
    name = f"localhost/mrirecon-base:{uuid.uuid4().hex[:8]}"
    run(
        "debootstrap",
        "--variant=minbase",
        "--include=ca-certificates,python3,python3-venv",
        "bookworm",
        folder / "root",
        debian_mirror(),
    )
    scratch = run("buildah", "from", "scratch").strip()
    run("buildah", "add", scratch, folder / "root", "/")
    run("buildah", "commit", "--rm", scratch, name)
    shutil.rmtree(folder / "root")
    yield name
    subprocess.run(["buildah", "rmi", "--force", name], capture_output=True, check=False)


def build(stage, base, folder, *, wheels=None):
    """Build the image of ``stage`` on ``base`` from the context that the deployment sends."""
    from infra.images import context_patterns

    name = f"localhost/mrirecon-{stage}:{uuid.uuid4().hex[:8]}"
    links = "find-links = /wheels\n" if wheels else ""
    (folder / "pip.conf").write_text(f"[global]\ncert = {CERTIFICATES}\ntimeout = 120\n{links}")
    ignore = folder / "ignore"
    ignore.write_text("\n".join(context_patterns(stage)) + "\n")
    run(
        "buildah",
        "bud",
        "--isolation",
        "chroot",
        "--pull-never",
        "--network",
        "host",
        "--build-arg",
        f"BASE={base}",
        "--ignorefile",
        ignore,
        "--format",
        "docker",
        "-v",
        f"{CERTIFICATES}:{CERTIFICATES}:ro",
        "-v",
        f"{folder / 'pip.conf'}:/etc/pip.conf:ro",
        *(("-v", f"{wheels}:/wheels:ro") if wheels else ()),
        "-t",
        name,
        "-f",
        SERVICES / stage / "Dockerfile",
        SERVICES,
    )
    return name


@pytest.fixture(scope="module")
def image(base, tmp_path_factory):
    """Build the decompress image; remove it afterwards."""
    name = build("decompress", base, tmp_path_factory.mktemp("decompress"))
    yield name
    subprocess.run(["buildah", "rmi", "--force", name], capture_output=True, check=False)


@pytest.fixture(scope="module")
def container(image):
    name = run("buildah", "from", "--pull-never", image).strip()
    yield name
    run("buildah", "rm", name)


def inside(container, *command, volumes=()):
    mounts = [part for volume in volumes for part in ("-v", volume)]
    return subprocess.run(
        ["buildah", "run", "--isolation", "chroot", *mounts, container, "--", *command],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def test_the_image_is_small_unprivileged_and_checked(image):
    told = json.loads(run("buildah", "inspect", "--type", "image", image))
    config = told["Docker"]["config"]
    assert config["User"] == "10001:10001"
    assert config["Entrypoint"] == ["python3", "-m", "mrirecon.cloud.stages.decompress_worker"]
    assert "heartbeat" in json.dumps(config["Env"])
    assert config["Healthcheck"]["Test"][0] == "CMD"
    listed = json.loads(run("buildah", "images", "--json", image))
    size = listed[0]["size"]
    number, unit = re.match(r"([\d.]+)\s*(\w+)", size).groups()
    mib = float(number) * {"MB": 0.954, "GB": 954}[unit]
    assert mib < LARGEST_MIB, size


def test_it_holds_the_pinned_packages_and_no_others(container):
    script = (
        "import importlib.metadata as m\n"
        "print(*(d.metadata['Name'] + '==' + d.version for d in m.distributions()))"
    )
    done = inside(container, "python3", "-c", script)
    assert done.returncode == 0, done.stderr
    pinned = (SERVICES / "decompress" / "requirements.txt").read_text().splitlines()[1:]

    def plain(line):
        name, version = line.split("==")
        return re.sub(r"[-_.]+", "-", name).lower(), version

    assert {plain(line) for line in done.stdout.split()} == {plain(line) for line in pinned}


def test_it_holds_only_its_rooms(container):
    done = inside(container, "sh", "-c", "ls /opt/app/mrirecon; id -u")
    assert done.stdout.split() == ["__init__.py", "aws", "cloud", "contract", "decompress", "kspace", "10001"]


def test_a_worker_without_settings_ends_with_a_sentence(container):
    done = inside(container, "python3", "-m", "mrirecon.cloud.stages.decompress_worker")
    assert done.returncode == 2, done.stdout + done.stderr
    assert "MRIRECON_RAW_BUCKET" in done.stdout + done.stderr


REAL = "scans/siemens_twix/twixtools_gre.dat"


def archive_of(kind, folder):
    """Return a generated archive, or one of a scanner's own file where the test data are at hand."""
    if kind == "generated":
        from emulator.truth import make_archive

        return make_archive(folder)
    data = os.environ.get("MRIRECON_TEST_DATA")
    if not data or not Path(data, REAL).is_file():
        pytest.skip("MRIRECON_TEST_DATA does not name a folder with the real scans")
    from mrirecon.phantom.scanner import pack

    pack(folder / "real.tar", [Path(data, REAL)])
    return folder / "real.tar"


@pytest.mark.parametrize("kind", ["generated", "real"])
def test_it_reads_an_archive_as_the_unprivileged_user(kind, container, tmp_path):
    archive = archive_of(kind, tmp_path)
    tmp_path.chmod(0o755)
    archive.chmod(0o644)
    script = textwrap.dedent(
        """
        from pathlib import Path
        from mrirecon.decompress.stage import decompress
        out = Path("/scratch/kspace.h5")
        out.unlink(missing_ok=True)
        intake = decompress(Path("/in/archive.tar"), out, work_dir=Path("/scratch"))
        print(intake.scan_id, out.stat().st_size > 1000)
        """
    )
    done = inside(container, "python3", "-c", script, volumes=[f"{archive}:/in/archive.tar:ro"])
    assert done.returncode == 0, done.stderr[-3000:]
    scan_id, there = done.stdout.split()[-2:]
    assert len(scan_id) == 16
    assert there == "True"


def test_torch_is_not_in_it(container):
    assert inside(container, "python3", "-c", "import torch").returncode != 0


@pytest.fixture(scope="module")
def recon(base, tmp_path_factory):
    """Build the reconstruction's Dockerfile on the Debian base, torch for CPUs; yield a container."""
    folder = tmp_path_factory.mktemp("recon")
    wanted = next(
        line for line in (ROOT / "constraints.txt").read_text().splitlines() if line.startswith("torch==")
    )
    cpu = wanted.split(";")[0].strip().removesuffix("+cpu") + "+cpu"
    wheels = folder / "wheels"
    found = subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--quiet",
            "--no-deps",
            "--only-binary=:all:",
            "--python-version",
            BASE_PYTHON,
            "--platform",
            "manylinux_2_28_x86_64",
            "--dest",
            wheels,
            cpu,
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    if found.returncode:
        pytest.skip(f"{cpu} is not to be had from pip's indexes, and the GPU build is several gigabytes")
    name = build("recon", base, folder, wheels=wheels)
    container = run("buildah", "from", "--pull-never", name).strip()
    yield container
    subprocess.run(["buildah", "rm", container], capture_output=True, check=False)
    subprocess.run(["buildah", "rmi", "--force", name], capture_output=True, check=False)


def test_the_reconstruction_image_holds_its_rooms_and_needs_settings(recon):
    done = inside(recon, "sh", "-c", "ls /opt/app/mrirecon; id -u; command -v pip || true")
    rooms = ["__init__.py", "aws", "cloud", "contract", "imaging", "kspace", "raki", "recon"]
    assert done.stdout.split() == [*rooms, "10001"], done.stderr
    done = inside(recon, "python3", "-m", "mrirecon.cloud.stages.recon_worker")
    assert done.returncode == 2, done.stdout + done.stderr
    assert "MRIRECON_KSPACE_BUCKET" in done.stdout + done.stderr


def test_the_reconstruction_image_makes_images_as_the_unprivileged_user(recon, tmp_path):
    from mrirecon.decompress.stage import decompress

    archive = archive_of("generated", tmp_path)
    kspace = tmp_path / "kspace.h5"
    intake = decompress(archive, kspace)
    tmp_path.chmod(0o755)
    kspace.chmod(0o644)
    script = textwrap.dedent(
        f"""
        import os
        from pathlib import Path
        from mrirecon.contract.profiles import DEFAULT_PROFILE, PROFILES
        from mrirecon.recon.stage import reconstruct
        out = Path("/scratch/out")
        told = reconstruct(
            Path("/in/kspace.h5"), out, scan_id="{intake.scan_id}", profile=PROFILES[DEFAULT_PROFILE]
        )
        slices = len(list((out / "dicom").glob("*.dcm")))
        print(os.getuid(), told["status"], slices, (out / "image.h5").exists())
        """
    )
    done = inside(recon, "python3", "-c", script, volumes=[f"{kspace}:/in/kspace.h5:ro"])
    assert done.returncode == 0, done.stderr[-3000:]
    uid, status, slices, images = done.stdout.split()[-4:]
    assert (uid, status, images) == ("10001", "done", "True")
    assert int(slices) >= 1


def test_the_reconstructions_install_steps_work_in_a_clean_environment(tmp_path):
    """All but the GPU build of torch, of several gigabytes: its place is taken by what is installed here."""
    venv = tmp_path / "venv"
    run(sys.executable, "-m", "venv", venv)
    lines = (SERVICES / "recon" / "requirements.txt").read_text().splitlines()
    light = [line for line in lines if not line.startswith(("torch==", "#"))]
    assert len(light) == len(lines) - 2
    (tmp_path / "requirements.txt").write_text("\n".join(light))
    python = venv / "bin" / "python"
    run(python, "-m", "pip", "install", "--quiet", "--only-binary=:all:", "-r", tmp_path / "requirements.txt")
    run(python, "-m", "pip", "check")
    app = tmp_path / "app" / "mrirecon"
    app.mkdir(parents=True)
    shutil.copy(SERVICES / "__init__.py", app)
    text = (SERVICES / "recon" / "Dockerfile").read_text()
    for room, _ in re.findall(r"^COPY (\w+) (/opt/app/mrirecon/\w+)$", text, re.MULTILINE):
        shutil.copytree(SERVICES / room, app / room, ignore=shutil.ignore_patterns("__pycache__"))
    script = "import mrirecon.recon, mrirecon.cloud.worker.settings"
    script += ", nibabel, pydicom, jinja2, PIL, h5py, scipy"
    run(python, "-c", script, env={**os.environ, "PYTHONPATH": str(app.parent)})
