"""A release stays only when a scan comes through; else the last good version is deployed again."""

import json

import pytest

from infra.release import release

OUTPUTS = {"Mrirecon-x-Data": {"RawBucket": "raw", "LedgerTable": "ledger"}}


class Account:
    """Stands for CDK's command line and an account: knows which assembly is deployed and which work."""

    def __init__(self, kept):
        self.kept = kept
        self.version = 1
        self.deployed = None
        self.broken = set()
        self.undeployable = set()
        self.canaries = []
        self.said = []

    def run(self, arguments):
        if arguments[0] == "synth":
            folder = self.kept / "x" / "next"
            folder.mkdir(parents=True)
            (folder / "version").write_text(str(self.version))
            return 0
        folder = self.kept / "x" / arguments[arguments.index("--app") + 1].rsplit("/", 1)[-1]
        version = int((folder / "version").read_text())
        if version in self.undeployable:
            return 1
        self.deployed = version
        (self.kept / "x" / arguments[-1].rsplit("/", 1)[-1]).write_text(json.dumps(OUTPUTS))
        return 0

    def canary(self, variables):
        assert variables["MRIRECON_RAW_BUCKET"] == "raw"
        self.canaries.append(self.deployed)
        return int(self.deployed in self.broken)

    def release(self, version):
        self.version = version
        return release("x", self.run, self.canary, kept=self.kept, say=self.said.append)


@pytest.fixture
def account(tmp_path):
    return Account(tmp_path / "kept")


def test_a_version_whose_scan_comes_through_stays(account):
    assert account.release(1) == 0
    assert account.release(2) == 0
    assert account.deployed == 2
    assert account.canaries == [1, 2]


def test_a_broken_image_is_noticed_while_nothing_runs_and_the_version_before_comes_back(account):
    account.release(1)
    account.broken = {2}
    assert account.release(2) == 1
    assert account.deployed == 1
    assert account.canaries == [1, 2, 1]
    assert account.release(3) == 0, "the next one is compared with the last good one"


def test_a_deployment_that_fails_half_way_is_taken_back(account):
    account.release(1)
    account.undeployable = {2}
    assert account.release(2) == 1
    assert account.deployed == 1
    assert account.canaries == [1, 1]


def test_without_an_earlier_version_it_says_what_to_do(account):
    account.broken = {1}
    assert account.release(1) == 1
    assert "check out the version before" in account.said[-1]


def test_a_way_back_that_fails_is_told(account):
    account.release(1)
    account.broken = {1, 2}
    assert account.release(2) == 1
    assert "failed too" in account.said[-1]
