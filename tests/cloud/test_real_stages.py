"""The two workers as their containers start them, with the real stages, on generated scans."""

import io
import json
import subprocess
import sys
from dataclasses import replace

import h5py
import jsonschema
import numpy as np

from mrirecon.contract import environment as env
from mrirecon.contract.record import schema
from mrirecon.phantom.scanner import Protocol, pack, simulate
from tests.support.cloud_world import scan_of

SCAN = Protocol(
    matrix=(64, 48),
    fov_mm=(240.0, 180.0),
    n_slices=2,
    n_coils=8,
    acceleration=2,
    n_acs=16,
    snr=500.0,
    subject="SENTINEL^DOE",
)
FULL = replace(SCAN, acceleration=1, snr=10000.0)
"""Every line, hardly any noise, through the same coils: what the images of the other should show."""


def archive_of(folder, protocol):
    raw, archive = folder / f"{protocol.acceleration}.h5", folder / f"{protocol.acceleration}.tar"
    wanted = folder / "scan.json"
    simulate(raw, protocol)
    wanted.write_text(json.dumps({"profile": "fast", "label": "knee 7"}))
    pack(archive, [raw, wanted])
    return archive.read_bytes()


def serve(world, stage):
    """Run a worker until its queues are empty; return its log."""
    environ = {**world.environ, env.IDLE_SECONDS: "1", env.VISIBILITY_SECONDS: "30"}
    done = subprocess.run(
        [sys.executable, "-m", f"mrirecon.cloud.stages.{stage}_worker"],
        env=environ,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def image_of(world, record):
    file = world.read("images", f"images/{record['scan_id']}/{record['recon_id']}/image.h5")
    with h5py.File(io.BytesIO(file)) as found:
        return found["image"][()].astype(float)


def test_archives_become_scored_images_and_ended_rows(world, tmp_path):
    scan, full = archive_of(tmp_path, SCAN), archive_of(tmp_path, FULL)
    world.put(scan, "DOE.tar", announce=2)
    world.put(full, "full.tar")
    told = serve(world, "decompress") + serve(world, "recon")

    records = {
        record["scan_id"]: record
        for record in (json.loads(world.read("images", key)) for key in world.records())
    }
    assert sorted(records) == sorted([scan_of(scan), scan_of(full)])
    for record in records.values():
        jsonschema.validate(record, schema())
        assert record["status"] == "done"
        assert record["profile"]["name"] == "fast", "as the archive asks"
        assert record["label"] == "knee 7"
        assert world.states_of(record["scan_id"]) == {"intake": "done", "recon": "done"}
        assert {"decompress", "read"} < set(record["seconds"]), "the intake's are told, too"
        place = f"images/{record['scan_id']}/{record['recon_id']}/"
        made = {key.removeprefix(place) for key in world.keys_in("images") if key.startswith(place)}
        assert {"image.h5", "image.nii.gz", "preview.png", "report.html", "scan.json"} < made
        assert sum(name.startswith("dicom/0") for name in made) == SCAN.n_slices
        assert "dicom/notes.dcm" in made
    assert world.all_ended()
    assert not world.outstanding()
    assert not any(world.dead().values())
    assert world.leftovers() == []

    mine = records[scan_of(scan)]
    assert (mine["method"], mine["acceleration"]["ky"]) == ("grappa", 2)
    image, truth = image_of(world, mine), image_of(world, records[scan_of(full)])
    image *= (image * truth).sum() / (image * image).sum()
    assert np.linalg.norm(image - truth) / np.linalg.norm(truth) < 0.02
    lines = [json.loads(line) for line in told.splitlines() if line.startswith("{")]
    ready = [line for line in lines if line.get("event") in {"k-space ready", "images published"}]
    assert len(ready) == 4
    assert all(line["label"] == "knee 7" for line in ready)
    rows = [
        item
        for item in world.items()
        if item.get("sk") == "intake" or item.get("sk", "").startswith("recon#")
    ]
    assert len(rows) == 4
    assert all(row["label"] == "knee 7" for row in rows)
    assert "DOE" not in told + json.dumps(world.items())
