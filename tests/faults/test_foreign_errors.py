"""Every process that runs a scan tells a foreign error by the table of causes.

The supervisor's children are asked in ``tests/cloud/test_supervisor.py``.
"""

import builtins
from dataclasses import dataclass

import pytest

from mrirecon.cloud.worker import outcomes
from mrirecon.contract.causes import TABLE, Cause
from mrirecon.contract.codes import Code, MrireconError, PermanentError
from mrirecon.contract.profiles import profile
from mrirecon.decompress.sandbox import child
from mrirecon.local import runner
from mrirecon.local import watch as watching
from mrirecon.recon import stage as recon_stage

SECRET = "DOE^JANE"


@dataclass(frozen=True)
class Example:
    """An error that a row of the table knows; made anew in each process."""

    row: int
    key: int | str

    def error(self):
        """Return the error."""
        if isinstance(self.key, int):
            return OSError(self.key, SECRET)
        kind = getattr(builtins, self.key, None) or type(self.key, (RuntimeError,), {})
        return kind(SECRET)

    @property
    def cause(self) -> Cause:
        """What it means outside the sandbox."""
        return TABLE[self.row].cause


EXAMPLES = [
    Example(number, key)
    for number, row in enumerate(TABLE)
    for key in (*sorted(row.errnos), *sorted(row.types))
]
every = pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: str(example.key))


def same(told: MrireconError, cause: Cause) -> None:
    """Check that an error is what the cause says, and quotes nothing."""
    expected = cause.error()
    assert (type(told), told.code, told.message) == (type(expected), expected.code, expected.message)
    assert SECRET not in str(told)


@every
def test_the_sandboxed_child(example):
    row = TABLE[example.row]
    expected = (row.confined or row.cause).error()
    told = child.describe(example.error())
    assert told["code"] == expected.code
    assert told["message"] == expected.message
    assert told["family"] == ("permanent" if isinstance(expected, PermanentError) else "retryable")


@every
def test_the_outcome_of_a_worker(example):
    same(outcomes.known(example.error()), example.cause)


@every
def test_the_reconstruction(example, monkeypatch, tmp_path):
    def broken(_path):
        raise example.error()

    monkeypatch.setattr(recon_stage, "open_kspace", broken)
    with pytest.raises(MrireconError) as told:
        recon_stage.reconstruct(tmp_path / "k.h5", tmp_path, scan_id="0" * 16, profile=profile())
    same(told.value, example.cause)


@every
def test_the_local_runner(example, monkeypatch, tmp_path):
    def broken(*_arguments, **_more):
        raise example.error()

    monkeypatch.setattr("mrirecon.decompress.stage.decompress", broken)
    told = runner.run_archive(tmp_path / "a.tar", tmp_path / "out")
    expected = example.cause.error()
    assert (told.status, told.code, told.message) == (expected.end, expected.code, expected.message)


@pytest.mark.parametrize(
    "example", [one for one in EXAMPLES if isinstance(one.key, int)], ids=lambda example: str(example.key)
)
def test_the_watch_where_an_end_cannot_be_kept(example, monkeypatch, tmp_path):
    (tmp_path / "share").mkdir()
    (tmp_path / "share" / "a.tar").write_bytes(b"x")
    now = [1e9]
    done = runner.Outcome("a.tar", "done", "", "", "0" * 16, None, None, 0.0)
    watch = watching.Watch(
        tmp_path / "share",
        tmp_path / "out",
        lambda *_: done,
        settle=10,
        retry_after=60,
        clock=lambda: now[0],
    )

    def broken(*_arguments):
        raise example.error()

    assert watch.step() is None
    now[0] += 11
    with monkeypatch.context() as patch:
        patch.setattr(watching, "_write", broken)
        told = watch.step()
    expected = example.cause.error()
    assert (told.status, told.code, told.message) == (expected.end, expected.code, expected.message)
    assert watch.step() is None, "not at once again"
    now[0] += 61
    assert watch.step().status == "done"
    assert watch.step() is None


def test_what_no_row_knows_is_internal_and_in_the_sandbox_the_readers():
    assert outcomes.known(ValueError(SECRET)).code is Code.INTERNAL
    assert child.describe(ValueError(SECRET))["code"] == Code.PARSER_CRASH
