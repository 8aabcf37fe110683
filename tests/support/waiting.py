"""Wait for what must become so, not for a time in which it usually does."""

import time


def wait_until(look, *, seconds=60, every=0.05):
    """Return what ``look`` finds as soon as it finds something; AssertionError after ``seconds``."""
    deadline = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < deadline, f"{look} found nothing in {seconds} s"
        time.sleep(every)
    return found
