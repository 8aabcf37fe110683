"""The images' bases are named to the patch, and the deployment guide pins the digests of the same ones."""

import re
from pathlib import Path

import pytest

from infra.config import parse
from infra.config_parts import Images

ROOT = Path(__file__).resolve().parents[2]


def base_of(stage):
    text = (ROOT / "services" / stage / "Dockerfile").read_text()
    return re.search(r"^ARG BASE=(\S+)$", text, re.MULTILINE)[1]


@pytest.mark.parametrize("stage", ["decompress", "recon"])
def test_a_base_is_an_exact_version_that_the_guide_says_how_to_pin(stage):
    base = base_of(stage)
    assert re.search(r":\d+\.\d+\.\d+-", base)
    guide = (ROOT / "docs" / "deploy.md").read_text()
    assert f"imagetools inspect {base} " in guide
    assert f'{stage}_base: "{base}@sha256:…"' in guide
    pinned = f"{base}@sha256:{'0' * 64}"
    assert getattr(Images.model_validate({f"{stage}_base": pinned}), f"{stage}_base") == pinned


@pytest.mark.parametrize("stage", ["decompress", "recon"])
def test_a_pinned_base_reaches_the_build(stage, tmp_path):
    """Each stage's image alone, in seconds; the slow test below looks into a whole environment."""
    import aws_cdk as cdk
    import yaml

    from infra.images import container_image

    values = yaml.safe_load((ROOT / "config" / "dev.yaml").read_text())
    base = f"{base_of(stage)}@sha256:{'0' * 64}"
    images = parse({**values, "name": "pinned", "images": {f"{stage}_base": base}}).images
    app = cdk.App(outdir=str(tmp_path))
    container_image(cdk.Stack(app, "Alone"), stage, images=images)
    app.synth()
    assert f'"BASE": "{base}"' in (tmp_path / "Alone.assets.json").read_text()


@pytest.mark.slow
def test_pinned_bases_reach_the_builds_of_an_environment(synth):
    import yaml

    values = yaml.safe_load((ROOT / "config" / "dev.yaml").read_text())
    pinned = {f"{stage}_base": f"{base_of(stage)}@sha256:{'0' * 64}" for stage in ("decompress", "recon")}
    found = synth("pinned", parse({**values, "name": "pinned", "images": pinned}))
    told = "".join(path.read_text() for path in found.folder.glob("*.assets.json"))
    for base in pinned.values():
        assert f'"BASE": "{base}"' in told
