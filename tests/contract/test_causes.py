"""One table says what a foreign error means."""

import errno

import numpy as np
import pytest

from mrirecon.contract.causes import TABLE, Blame, cause_of, ours, outside_archive, translated
from mrirecon.contract.codes import Code, PermanentError, RetryableError

torch = pytest.importorskip("torch")


def raised(function):
    """Return what a library really raises."""
    try:
        function()
    except Exception as error:
        return error
    raise AssertionError("nothing was raised")


@pytest.mark.parametrize(
    ("error", "blame", "code"),
    [
        (OSError(errno.ENOSPC, "x"), Blame.MACHINE, Code.DISK_FULL),
        (OSError(errno.EDQUOT, "x"), Blame.MACHINE, Code.DISK_FULL),
        (OSError(errno.EBADF, "x"), Blame.MACHINE, Code.STORAGE),
        (OSError(errno.ESPIPE, "x"), Blame.MACHINE, Code.STORAGE),
        (OSError(errno.EIO, "x"), Blame.MACHINE, Code.STORAGE),
        (OSError(errno.ENOMEM, "x"), Blame.MACHINE, Code.OUT_OF_MEMORY),
        (MemoryError(), Blame.MACHINE, Code.OUT_OF_MEMORY),
        (raised(lambda: np.empty(1 << 46)), Blame.MACHINE, Code.OUT_OF_MEMORY),
        (raised(lambda: torch.empty(1 << 50)), Blame.MACHINE, Code.OUT_OF_MEMORY),
        (torch.OutOfMemoryError("CUDA out of memory."), Blame.MACHINE, Code.OUT_OF_MEMORY),
        (raised(lambda: __import__("no_such_module_is_here")), Blame.MACHINE, Code.INTERNAL),
        (raised(lambda: np.linalg.inv(np.zeros((2, 2)))), Blame.ARCHIVE, Code.NON_FINITE),
        (
            raised(lambda: torch.linalg.solve(torch.zeros(2, 2), torch.ones(2))),
            Blame.ARCHIVE,
            Code.NON_FINITE,
        ),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else str(value),
)
def test_errors_of_real_libraries_are_known(error, blame, code):
    cause = cause_of(error)
    assert (cause.blame, cause.code) == (blame, code)
    family = RetryableError if blame is Blame.MACHINE else PermanentError
    assert type(ours(error)) is family


@pytest.mark.parametrize(
    "error", [ValueError("x"), RuntimeError("x"), OSError(errno.EINVAL, "x"), OSError("no number")]
)
def test_what_a_damaged_file_can_cause_is_not_in_the_table(error):
    assert cause_of(error) is None
    assert not outside_archive(error)
    told = ours(error)
    assert (type(told), told.code) == (RetryableError, Code.INTERNAL)
    assert type(error).__name__ in told.message


def test_the_first_error_of_a_chain_decides_and_its_text_stays_behind():
    def closing_fails_too():
        try:
            raise OSError(errno.ENOSPC, "DOE^JANE")
        except OSError:
            raise RuntimeError("could not close DOE^JANE")  # noqa: B904 - as h5py does

    error = raised(closing_fails_too)
    assert ours(error).code is Code.DISK_FULL
    assert "DOE" not in str(ours(error))


def test_a_failed_import_counts_only_by_itself():
    def falls_back():
        try:
            import no_such_module_is_here  # noqa: F401
        except ImportError:
            raise ValueError("a bad number")  # noqa: B904 - the fallback's own error

    assert cause_of(raised(falls_back)) is None


def test_limits_that_were_set_on_purpose_are_settings():
    for error in (MemoryError(), OSError(errno.ENOMEM, "x"), OSError(errno.EFBIG, "x")):
        cause = cause_of(error, confined=True)
        assert (cause.blame, cause.code) == (Blame.SETTINGS, Code.TOO_LARGE)
        assert type(cause.error()) is PermanentError
        assert cause_of(error).blame is Blame.MACHINE


def test_no_error_is_in_two_rows():
    keys = [key for row in TABLE for key in (*row.errnos, *row.types)]
    assert len(keys) == len(set(keys))


def test_a_block_raises_ours_for_what_is_known_and_the_rest_as_it_came():
    with pytest.raises(RetryableError) as told, translated():
        raise MemoryError
    assert told.value.code is Code.OUT_OF_MEMORY
    assert isinstance(told.value.__cause__, MemoryError)
    mine = PermanentError(Code.GEOMETRY, "Mine.")
    for error in (ValueError("x"), mine):
        with pytest.raises(type(error)) as same, translated():
            raise error
        assert same.value is error
