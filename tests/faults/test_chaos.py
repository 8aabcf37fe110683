"""Two hundred small scans through the emulated services while workers die at random."""

import pytest

from tests.support import chaos


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_two_hundred_scans_with_workers_dying_at_random():
    facts = chaos.run(200, workers=4, every=4, patience=1400)
    assert facts["scans"] == facts["end states"] == 200
    assert facts["lost"] == facts["double"] == 0
    assert facts["killed"] > 0
    assert facts["ends"]["done"] == facts["records published (all versions)"]
