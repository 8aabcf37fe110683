"""The configuration: what is wrong is refused, with the field named, what it got and what it takes."""

import copy
import re

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.config import CONFIG_DIR, ConfigError, load, parse

GOOD = yaml.safe_load((CONFIG_DIR / "production.yaml").read_text())


def changed(path, value):
    """Return the good configuration with one field changed (or, with ``...``, left out)."""
    config = copy.deepcopy(GOOD)
    *parents, last = path.split(".")
    here = config
    for part in parents:
        here = here[int(part)] if isinstance(here, list) else here.setdefault(part, {})
    if value is ...:
        del here[last]
    elif isinstance(here, list):
        here[int(last)] = value
    else:
        here[last] = value
    return config


def problem_of(config):
    with pytest.raises(ConfigError) as caught:
        parse(config)
    return caught.value.problems


@pytest.mark.parametrize("name", sorted(path.stem for path in CONFIG_DIR.glob("*.yaml")))
def test_every_file_of_the_folder_is_valid(name):
    assert load(name).name == name


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", "Production"),
        ("account", 123456789012),
        ("account", "1234"),
        ("account", ...),
        ("region", "frankfurt"),
        ("availability_zones", []),
        ("availability_zones.0", "us-east-1a"),
        ("network.cidr", "8.8.0.0/16"),
        ("network.cidr", "10.0.0.0/8"),
        ("network.cidr", "10.0.0/16"),
        ("network.egress", "none"),
        ("network.flow_log_days", 100),
        ("storage.kspace_days", 0),
        ("storage.images_archive_after_days", 30),
        ("storage.images_deep_archive_after_days", 180),
        ("file_share.clients.0", "0.0.0.0/0"),
        ("file_share.settling_seconds", 10),
        ("file_share.smb_users", []),
        ("file_share.smb_authentication", "Open"),
        ("lustre.capacity_gib", 3600),
        ("lustre.throughput", 100),
        ("decompress.memory_gib", 60),
        ("decompress.cpu", 100),
        ("decompress.ephemeral_gib", 500),
        ("decompress.scaling.max_workers", 0),
        ("decompress.scaling.target_seconds", 10),
        ("decompress.scaling.workers", 3),
        ("recon.instance_types.0", "m5.large"),
        ("recon.times.idle_seconds", 0),
        ("recon.times.lifetime_seconds", 0),
        ("recon.times.scan_seconds", 50_000),
        ("recon.times.silence_seconds", 20_000),
        ("recon.runnable_minutes", 1),
        ("sites.0.name", "../main"),
        ("sites.0.sender", "fax"),
        ("images.source", "none"),
        ("images.source", "pull"),
        ("operations.alarm_emails.0", "operations"),
        ("operations.cost_tag", "department"),
        ("control.scale_every_minutes", 0),
        ("development.instance_type", "g5.xlarge"),
        ("keep_data", "perhaps"),
    ],
)
def test_a_wrong_field_is_named_with_what_it_got_and_takes(field, value):
    problems = problem_of(changed(field, value))
    sentence = next((text for text in problems if text.startswith(_names(field))), None)
    assert sentence is not None, problems
    assert re.search(r"got .+; takes .+|no such field; takes one of .+", sentence)


def _names(field):
    """A policy is checked as a whole, and says its own field; a missing image is named by its own field."""
    if ".scaling." in field:
        return field.rsplit(".", 1)[0]
    return {"images.source": "images."}.get(field, field)


@pytest.mark.parametrize("where", ["", "network", "storage", "decompress", "recon", "operations", "sites.0"])
def test_an_unknown_field_is_refused_and_the_known_ones_are_told(where):
    field = f"{where}.colour" if where else "colour"
    (problem,) = problem_of(changed(field, "blue"))
    assert problem.startswith(f"{field}: no such field; takes one of ")
    assert problem.count(",") >= 1


def test_all_problems_are_told_at_once():
    config = changed("region", "nowhere")
    config["network"]["egress"] = "none"
    config["recon"]["vcpus"] = 0
    assert {text.split(":")[0] for text in problem_of(config)} == {"region", "network.egress", "recon.vcpus"}


def test_a_wrong_entry_is_told_once():
    (problem,) = problem_of(changed("file_share.clients.0", "0.0.0.0/0"))
    assert problem.startswith("file_share.clients.0: got '0.0.0.0/0'; takes a network of /8 or narrower")


def test_a_gateway_without_a_site_that_uses_it_is_refused():
    problems = problem_of(changed("sites", [{"name": "research", "sender": "s3"}]))
    assert problems[0].startswith("sites: ")


def test_a_site_behind_a_gateway_that_is_not_there_is_refused():
    problems = problem_of(changed("file_share", None))
    assert problems == ["sites.0.sender: got 'gateway'; takes 's3', or a file_share to send through"]


def test_the_network_must_hold_the_subnets():
    config = changed("network", {"cidr": "10.0.0.0/22", "egress": "nat"})
    config["availability_zones"] = ["eu-central-1a", "eu-central-1b", "eu-central-1c"]
    assert problem_of(config)[0].startswith("network.cidr: ")


def test_only_an_emulator_may_lack_parts_and_it_keeps_nothing():
    emulator = {"absent": ["batch"]}
    assert problem_of({**GOOD, "emulator": emulator})[0].startswith("keep_data: ")


def test_a_frozen_configuration_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        load("dev").region = "eu-west-1"


@pytest.mark.parametrize("name", [None, "", "prod", "../production"])
def test_a_name_that_is_no_environment_is_refused_and_the_known_are_told(name):
    with pytest.raises(ConfigError, match="dev, emulated, production"):
        load(name)


def test_the_files_name_and_the_environments_must_agree(tmp_path):
    (tmp_path / "other.yaml").write_text(yaml.safe_dump(GOOD))
    with pytest.raises(ConfigError, match="name: got 'production'; takes 'other'"):
        load("other", tmp_path)


@pytest.mark.parametrize("text", ["a: [", "- 1\n- 2\n", ""])
def test_a_file_that_is_no_mapping_is_refused(tmp_path, text):
    (tmp_path / "bad.yaml").write_text(text)
    with pytest.raises(ConfigError, match="the whole file"):
        load("bad", tmp_path)


LEAVES = sorted(
    {
        f"{part}.{name}"
        for part, value in GOOD.items()
        if isinstance(value, dict)
        for name, leaf in value.items()
        if not isinstance(leaf, dict | list) and part not in ("tags",)
    }
)


@settings(max_examples=150, deadline=None)
@given(
    field=st.sampled_from(LEAVES),
    junk=st.one_of(
        st.just({}),
        st.just([[]]),
        st.integers(max_value=-1),
        st.just("\x00"),
        st.just("Ω" * 80),
        st.floats(-5, -1),
    ),
)
def test_junk_in_any_field_is_refused_and_the_field_is_named(field, junk):
    problems = problem_of(changed(field, junk))
    assert any(text.startswith(field) for text in problems), problems


@settings(max_examples=60, deadline=None)
@given(
    low=st.integers(30, 39_000),
    scan=st.integers(60, 39_600),
    silence=st.integers(30, 39_600),
)
def test_times_are_accepted_exactly_when_they_nest(low, scan, silence):
    config = changed(
        "recon.times",
        {
            "idle_seconds": 300,
            "lifetime_seconds": 3600,
            "scan_seconds": scan,
            "silence_seconds": silence,
            "visibility_seconds": min(low, 3600),
        },
    )
    if silence <= scan:
        environment = parse(config)
        assert environment.recon.job_seconds > environment.recon.times.lifetime_seconds + scan
    else:
        assert problem_of(config)[0].startswith("recon.times.silence_seconds")


@settings(max_examples=60, deadline=None)
@given(cpu=st.sampled_from([1024, 2048, 4096, 8192, 16384]), memory=st.integers(2, 120))
def test_a_fargate_task_is_accepted_exactly_when_fargate_has_it(cpu, memory):
    table = {1024: (2, 8), 2048: (4, 16), 4096: (8, 30), 8192: (16, 60), 16384: (32, 120)}
    config = changed("decompress.cpu", cpu)
    config["decompress"]["memory_gib"] = memory
    low, high = table[cpu]
    if low <= memory <= high:
        assert parse(config).decompress.memory_gib == memory
    else:
        assert problem_of(config)[0].startswith("decompress.memory_gib")
