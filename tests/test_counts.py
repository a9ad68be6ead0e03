"""Counts in sentences."""

from __future__ import annotations

import pytest

from shipbench.counts import counted


@pytest.mark.parametrize(
    ("number", "expected"), [(0, "0 classes"), (1, "1 class"), (2, "2 classes"), (1200, "1200 classes")]
)
def test_a_noun_agrees_with_its_number(number: int, expected: str) -> None:
    assert counted(number, "class", "classes") == expected
    assert counted(number, "run") == f"{number} run{'' if number == 1 else 's'}"
