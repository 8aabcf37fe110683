from __future__ import annotations

from ...contract.progress import Progress
from ..limits import Limits
from ..members import Member
from ..readouts import Part


def read(member: Member | list[Member], limits: Limits, progress: Progress) -> list[Part]:
    """Not read yet."""
    raise NotImplementedError
