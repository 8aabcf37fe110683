"""Where to compute."""

from __future__ import annotations

import torch

from ..contract.codes import Code, PermanentError


def choose_device(name: str) -> torch.device:
    """Return the torch device called ``name``; ``auto`` is CUDA where there is one.

    Raises
    ------
    PermanentError
        ``bad_settings`` for a device that is not there.
    """
    cuda = torch.cuda.is_available()
    if name == "auto":
        return torch.device("cuda" if cuda else "cpu")
    if name == "cpu" or (cuda and name.startswith("cuda")):
        return torch.device(name)
    raise PermanentError(
        Code.BAD_SETTINGS, "There is no device of that name here: take auto, cpu or, with a GPU, cuda."
    )
