"""Errors in one line."""

from __future__ import annotations

import errno
import os
import pickle
from types import SimpleNamespace

import pytest

from shipbench import errors
from shipbench.errors import InputError, check_all, one_line, system_reason


def test_several_problems_are_listed_each_once() -> None:
    def refuse(*problems: str) -> None:
        raise InputError(*problems)

    checks = [lambda: refuse("one"), lambda: refuse("two", "one"), lambda: refuse("three")]
    with pytest.raises(InputError) as caught:
        check_all(checks)
    assert caught.value.problems == ("one", "two", "three")
    assert str(caught.value) == "3 problems:\n- one\n- two\n- three"
    assert check_all([lambda: 1, lambda: 2]) == [1, 2]


def test_an_input_error_survives_its_way_between_processes() -> None:
    error = pickle.loads(pickle.dumps(InputError("one", "two")))
    assert str(error) == "2 problems:\n- one\n- two"


def test_a_message_of_several_lines_becomes_one() -> None:
    assert one_line(ValueError("first\n\tsecond  third\n")) == "first second third"


def test_an_error_without_a_message_is_named_by_its_class() -> None:
    assert one_line(ValueError("\n")) == "ValueError"


def test_a_long_message_is_cut() -> None:
    text = one_line(ValueError("x" * 1000))
    assert len(text) == 500
    assert text.endswith("x...")
    assert one_line(ValueError("abcdef"), limit=5) == "ab..."


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "runs/a1.parquet"),
        RuntimeError(f"I/O error: (os error {errno.ENOSPC})"),
        RuntimeError(f"Error writing bytes to file. Detail: [errno {errno.ENOSPC}] message"),
    ],
)
def test_the_reason_of_the_system_is_found(error: Exception) -> None:
    assert system_reason(error) == os.strerror(errno.ENOSPC)


def test_a_number_of_windows_is_not_looked_up_among_those_of_posix(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its number 5 refuses access; elsewhere that is an error of a disk."""
    monkeypatch.setattr(errors, "sys", SimpleNamespace(platform="win32"))
    assert system_reason(RuntimeError("Access is denied. (os error 5)")) == "Access is denied. (os error 5)"


def test_other_errors_give_their_message_as_the_reason() -> None:
    assert system_reason(OSError("a file\nis missing")) == "a file is missing"
