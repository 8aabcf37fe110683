import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "cloud"))

from cloud_world import make_world, moto, world  # noqa: F401 - fixtures
from fault_proxy import FaultProxy


@pytest.fixture
def proxy(moto):  # noqa: F811
    """A loopback proxy before the emulator that makes the services misbehave."""
    with FaultProxy(moto.port) as running:
        yield running
