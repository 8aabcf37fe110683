"""The deployment into an emulator and the journey through it, as one slow test."""

import psutil
import pytest


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_what_the_stacks_deploy_carries_a_scan_from_archive_to_images(tmp_path):
    from emulator.deploy_local import run

    me = psutil.Process()
    before = {child.pid for child in me.children(recursive=True)}
    summary = run(tmp_path)
    assert summary["jobs"] >= 1
    left = [child.cmdline() for child in me.children(recursive=True) if child.pid not in before]
    assert not left, "something that was started is still there"
