"""Python imports this at start when the folder is on PYTHONPATH: record the AWS calls of this process.

botocore is not imported before the process wants it: many of a worker's children never do.
"""

import importlib.abc
import importlib.util
import os
import sys
from pathlib import Path


class _WhenBotocoreComes(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name != "botocore.session":
            return
        sys.meta_path.remove(self)
        _record()
        return


def _record():
    file = Path(__file__).resolve().parent.parent / "aws_calls.py"
    spec = importlib.util.spec_from_file_location("aws_calls", file)
    calls = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(calls)
    # A Lambda's process has its function's variables only now; the emulator's own process has neither.
    role = os.environ.get(calls.ROLE) or os.environ.get("POWERTOOLS_SERVICE_NAME")
    if role:
        calls.install(os.environ[calls.FILE], role)


if os.environ.get("RECORD_AWS_CALLS_TO"):
    sys.meta_path.insert(0, _WhenBotocoreComes())
