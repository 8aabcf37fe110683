"""Fixtures for every suite: the real data, where they are at hand, and what it takes to skip without them."""

import os
import shutil
import signal
from pathlib import Path

import pytest


def pytest_configure() -> None:
    """Heed interrupts also where the suite runs in the background: shells start such jobs deaf to them."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


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
