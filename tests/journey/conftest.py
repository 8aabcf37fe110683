import importlib.util

import pytest


@pytest.fixture(scope="session")
def evaluate(shared_data):
    """The scorer that stands outside the project."""
    spec = importlib.util.spec_from_file_location("evaluate", shared_data / "evaluate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
