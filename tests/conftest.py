"""Fixtures for every suite: the real data, where they are at hand, and what it takes to skip without them."""

import importlib.util
import os
import shutil
import signal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# Several processes share the cores: a slow example says nothing about the code.
settings.register_profile("shared cores", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared cores")


def pytest_configure() -> None:
    """Heed interrupts also where the suite runs in the background: shells start such jobs deaf to them."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tell xdist what stays together in one process: a file shares its fixtures, the stacks their synth."""
    if config.pluginmanager.hasplugin("xdist"):
        for item in items:
            suite = item.path.relative_to(config.rootpath / "tests").as_posix()
            stacks = suite.startswith(("infra/", "e2e/"))  # one synth, and one build/ folder for its assets
            item.add_marker(pytest.mark.xdist_group("stacks" if stacks else suite))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real scans and hostile archives, named by MRIRECON_TEST_DATA."""
    folder = os.environ.get("MRIRECON_TEST_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("MRIRECON_TEST_DATA does not name a folder with the real scans")
    return Path(folder)


@pytest.fixture(scope="session")
def need_tool():
    """Return a function that skips the test where an independent tool is not installed."""

    def need(name: str) -> str:
        path = shutil.which(name)
        if path is None:
            pytest.skip(f"{name} is not installed")
        return path

    return need


@pytest.fixture(scope="session")
def evaluate(shared_data):
    """The scorer that stands outside the project."""
    spec = importlib.util.spec_from_file_location("evaluate", shared_data / "evaluate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def _every_aws_call_is_in_the_table(request):
    """Fail a test whose workers, Lambdas or operators made a call that the policies are not held to.

    The marker ``calls_beyond_policies`` excepts a test of keys that no event of the stacks can name.
    """
    yield
    from tests.support import aws_calls

    file = aws_calls.recorded_to()
    if not aws_calls.MAKING and file.stat().st_size:
        found = aws_calls.unknown(aws_calls.read(file))
        file.write_text("")
        if request.node.get_closest_marker("calls_beyond_policies"):
            return
        assert not found, f"calls that {aws_calls.TABLE.name} lacks (see tests/support/aws_calls.py): {found}"


@pytest.fixture(scope="session")
def moto():
    """One emulator a session, over HTTP on loopback; it ends with the session, however that ends."""
    from tests.support.cloud_world import emulator

    with emulator() as running:
        yield running


@pytest.fixture
def make_world(moto, tmp_path):
    """Return a function that makes a world of buckets, queues and a ledger; its workers end with the test."""
    from tests.support.cloud_world import World

    worlds = []

    def make(**settings):
        scratch = tmp_path / f"scratch{len(worlds)}"
        scratch.mkdir()
        worlds.append(World(moto.url, scratch, **settings))
        return worlds[-1]

    yield make
    for world in worlds:
        world.close()


@pytest.fixture
def world(make_world):
    """One world with the usual settings."""
    return make_world()
