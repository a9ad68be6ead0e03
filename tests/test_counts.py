"""Counts and sizes in sentences."""

from __future__ import annotations

import pytest

from shipbench.counts import counted, file_size, named_few


@pytest.mark.parametrize(
    ("number", "classes", "runs"),
    [
        (0, "0 classes", "0 runs"),
        (1, "1 class", "1 run"),
        (2, "2 classes", "2 runs"),
        (1200, "1,200 classes", "1,200 runs"),
    ],
)
def test_a_noun_agrees_with_its_number(number: int, classes: str, runs: str) -> None:
    assert counted(number, "class", "classes") == classes
    assert counted(number, "run") == runs


@pytest.mark.parametrize(
    ("size", "expected"),
    [(0, "1 kB"), (999, "1 kB"), (1_500, "2 kB"), (999_499, "999 kB"), (999_500, "1.0 MB"), (12_340_000, "12.3 MB")],
)
def test_a_size_is_shown_in_a_unit_that_fits(size: int, expected: str) -> None:
    assert file_size(size) == expected


@pytest.mark.parametrize(
    ("names", "text"), [([], ""), (["a"], "a"), ([1, 2, 3], "1, 2, 3"), (list("abcde"), "a, b, c and 2 more")]
)
def test_long_lists_end_with_the_number_of_the_others(names: list[object], text: str) -> None:
    assert named_few(names) == text
