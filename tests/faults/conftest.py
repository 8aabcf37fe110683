import pytest

from tests.support.fault_proxy import FaultProxy


@pytest.fixture
def proxy(moto):
    """A loopback proxy before the emulator that makes the services misbehave."""
    with FaultProxy(moto.port) as running:
        yield running
