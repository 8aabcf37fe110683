import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "cloud"))

from cloud_world import World, emulator
from fault_proxy import FaultProxy


@pytest.fixture(scope="session")
def moto():
    """One emulator a session, over HTTP on loopback; it ends with the session, however that ends."""
    with emulator() as running:
        yield running


@pytest.fixture
def proxy(moto):
    """A loopback proxy before the emulator that makes the services misbehave."""
    with FaultProxy(moto.port) as running:
        yield running


@pytest.fixture
def make_world(moto, tmp_path):
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
    return make_world()
