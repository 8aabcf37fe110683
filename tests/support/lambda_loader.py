"""Load a Lambda's modules from its folder, as its runtime does: there they are top-level modules.

``lambda`` is a keyword of Python, so its folders cannot be packages; a handler imports its neighbours by
their plain names (``import scaler_settings``). While a module loads, a finder looks those up in the Lambda's
folder; ``sys.path`` stays as it is.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType

LAMBDAS = Path(__file__).resolve().parents[2] / "lambda"


class _Neighbours:
    """A finder for ``sys.meta_path`` that knows one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if path is not None or not (self._folder / f"{name}.py").is_file():
            return None
        return PathFinder.find_spec(name, [str(self._folder)])


def load(name: str, module: str = "handler") -> ModuleType:
    """Return ``module`` of Lambda ``name``; a module is loaded once a process.

    All handlers are called ``handler``, so each is known to ``sys.modules`` as ``lambda_<name>_handler``;
    the other modules have names of their own and keep them.
    """
    folder = LAMBDAS / name
    unique = f"lambda_{name}_{module}" if module == "handler" else module
    if unique not in sys.modules:
        spec = importlib.util.spec_from_file_location(unique, folder / f"{module}.py")
        if spec is None or spec.loader is None:
            raise ImportError(f"{folder} has no module {module}")
        sys.modules[unique] = loaded = importlib.util.module_from_spec(spec)
        finder = _Neighbours(folder)
        sys.meta_path.insert(0, finder)
        try:
            spec.loader.exec_module(loaded)
        except BaseException:
            del sys.modules[unique]
            raise
        finally:
            sys.meta_path.remove(finder)
    return sys.modules[unique]
