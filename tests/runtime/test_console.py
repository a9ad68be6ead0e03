"""Lines for the user: printed on standard error, or redirected."""

from __future__ import annotations

import pytest

from shipbench.runtime.console import redirected, say, track


def test_lines_are_redirected_within_a_block(capsys: pytest.CaptureFixture[str]) -> None:
    lines: list[str] = []
    with redirected(lines.append):
        say("inside")
        assert list(track(range(2), "counting", 2)) == [0, 1]
    say("outside")
    assert lines == ["inside", "counting (2)"]
    assert capsys.readouterr().err == "outside\n"


def test_the_receiver_of_lines_may_print(capsys: pytest.CaptureFixture[str]) -> None:
    with redirected(lambda line: say(f"> {line}")):
        say("inside")
    assert capsys.readouterr().err == "> inside\n"
