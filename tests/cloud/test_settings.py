"""Bad settings end a worker at its start with a sentence and exit code 2."""

import os
import socket
import subprocess
import sys
from unittest import mock

import pytest

from mrirecon.cloud.worker.service import connect
from mrirecon.cloud.worker.settings import DecompressSettings, ReconSettings, SettingsError
from mrirecon.contract import environment as env
from mrirecon.contract.states import Stage
from tests.support.cloud_world import credentials


def start(world, stage="decompress", **more):
    """Start the real entry point; return (exit code, stderr)."""
    environ = {**world.environ, **{name: value for name, value in more.items() if value is not None}}
    for name, value in more.items():
        if value is None:
            del environ[name]
    ended = subprocess.run(
        [sys.executable, "-m", f"mrirecon.cloud.stages.{stage}_worker"],
        env=environ,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return ended.returncode, ended.stderr


@pytest.mark.parametrize("stage", ["decompress", "recon"])
def test_missing_variables_are_all_named(world, stage):
    code, told = start(world, stage, MRIRECON_LEDGER_TABLE=None, MRIRECON_KSPACE_BUCKET=None)
    assert code == 2
    assert sorted(line.split()[0] for line in told.splitlines()) == [env.KSPACE_BUCKET, env.LEDGER_TABLE]
    assert "is not set" in told
    assert "Traceback" not in told


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (env.VISIBILITY_SECONDS, "soon"),
        (env.VISIBILITY_SECONDS, "0"),
        (env.POLL_SECONDS, "21"),
        (env.SCRATCH_DIR, "/no/such/folder"),
        (env.PRICE_PER_HOUR, "-1"),
        (env.RAW_BUCKET, ""),
    ],
)
def test_a_wrong_value_is_told_by_its_name_and_not_repeated(world, name, value):
    with world.environment(**{name: value}), pytest.raises(SettingsError) as caught:
        DecompressSettings.load()
    (sentence,) = caught.value.sentences
    assert sentence.startswith(name)
    assert not value or value not in sentence.removeprefix(name)


def test_unreachable_endpoint(world):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    code, told = start(world, AWS_ENDPOINT_URL=f"http://localhost:{port}")
    assert code == 2
    assert "cannot be reached; check AWS_ENDPOINT_URL" in told
    assert "Traceback" not in told


def test_missing_region(world):
    code, told = start(world, AWS_REGION=None, AWS_DEFAULT_REGION=None)
    assert code == 2
    assert "AWS_REGION is not set" in told


def test_a_bad_failpoint(world):
    code, told = start(world, MRIRECON_FAILPOINT="read:explode")
    assert code == 2
    assert "MRIRECON_FAILPOINT" in told


def sentences(world, stage=Stage.DECOMPRESS, kind=DecompressSettings, **more):
    with world.environment(**more), pytest.raises(SettingsError) as caught:
        connect(kind.load(), stage)
    return caught.value.sentences


def test_wrong_region(world):
    """The bucket and the queue say where they are; a worker elsewhere is told so."""
    told = sentences(
        world,
        AWS_REGION="eu-west-1",
        AWS_DEFAULT_REGION="eu-west-1",
        MRIRECON_DECOMPRESS_STAT_QUEUE_URL="https://sqs.us-east-1.amazonaws.com/123456789012/q",
    )
    assert any("the queue is in us-east-1, this worker runs in eu-west-1" in line for line in told)
    assert any("the bucket is in us-east-1, this worker runs in eu-west-1" in line for line in told)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        (env.RAW_BUCKET, "bucket"),
        (env.QUARANTINE_BUCKET, "bucket"),
        (env.IMAGES_BUCKET, "bucket"),
        (env.LEDGER_TABLE, "table"),
        (env.RECON_STAT_QUEUE_URL, "queue"),
    ],
)
def test_a_thing_that_is_not_there(world, name, kind):
    value = "no-such-thing" if kind != "queue" else world.queues["recon-stat"] + "-not"
    told = sentences(world, Stage.RECON, ReconSettings, **{name: value})
    assert told == [f"{name}: there is no such {kind} in this account and region."]


def test_a_queue_url_that_is_none(world):
    told = sentences(world, MRIRECON_RECON_STAT_QUEUE_URL="recon-stat")
    assert told == ["MRIRECON_RECON_STAT_QUEUE_URL: that is no queue URL; it begins with https://."]


def test_no_credentials(world):
    code, told = start(
        world,
        AWS_ACCESS_KEY_ID=None,
        AWS_SECRET_ACCESS_KEY=None,
        HOME="/nonexistent",
    )
    assert code == 2
    assert "there are no AWS credentials" in told


def test_a_queue_without_dead_letters(world):
    url = world.sqs.create_queue(QueueName=f"{world.name}-bare")["QueueUrl"]
    told = sentences(world, MRIRECON_DECOMPRESS_STAT_QUEUE_URL=url)
    assert len(told) == 1
    assert "no dead-letter queue" in told[0]


def test_every_name_of_the_settings_is_one_of_the_contract():
    names = {value for name, value in vars(env).items() if name.isupper() and isinstance(value, str)}
    fields = {**DecompressSettings.model_fields, **ReconSettings.model_fields}
    used = {field.validation_alias for field in fields.values()} - {"ECS_AGENT_URI"}
    assert used <= names


def test_an_honest_world_is_accepted(world):
    with mock.patch.dict(os.environ, credentials(world.moto_url)), world.environment():
        assert connect(ReconSettings.load(), Stage.RECON).own_lanes[0].max_receives == 4


def test_a_worker_of_a_gpu_machine_without_a_gpu_says_so_and_leaves(world, monkeypatch):
    from mrirecon.cloud.stages import recon_worker
    from mrirecon.cloud.worker.failpoints import Failpoints

    monkeypatch.setattr(recon_worker, "gpu_found", lambda: False)
    with world.environment(**{env.REQUIRE_GPU: "1"}):
        settings = ReconSettings.load()
    assert settings.require_gpu
    with pytest.raises(SettingsError, match="finds no CUDA device"):
        recon_worker.make_handler(settings, mock.Mock(), Failpoints())


def test_the_worker_asks_for_a_cuda_device_in_a_child():
    import torch

    from mrirecon.cloud.stages.recon_worker import gpu_found

    assert gpu_found() is torch.cuda.is_available()


def test_the_worker_process_ends_without_a_gpu_and_takes_no_scan(world):
    code, _ = start(world, "recon", **{env.REQUIRE_GPU: "1", "CUDA_VISIBLE_DEVICES": ""})
    assert code == 2
