"""A scan's label: what a site calls it in its archive's ``scan.json``, never a file's or a patient's name.

It is shown in record, report, ledger, logs and lists; it is part of no key and of no metric.
"""

from __future__ import annotations

import re
from typing import Final

FORM: Final = "1 to 40 of the letters A-Z and a-z, digits, space, and . _ -"
_LABEL = re.compile(r"[A-Za-z0-9._ -]{1,40}")


def is_label(value: object) -> bool:
    """Whether ``value`` is text of :data:`FORM`."""
    return isinstance(value, str) and _LABEL.fullmatch(value) is not None
