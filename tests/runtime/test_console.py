"""Lines for the user: printed on standard error, or redirected."""

from __future__ import annotations

import pytest

from shipbench.cli.layout import make_table
from shipbench.runtime.console import out_console, redirected, say, track


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


def test_control_characters_of_others_do_not_reach_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    hostile = "a\x1b]0;title\x07b\x9b2Jc\x7f"
    say(f"{hostile}\nd")
    table = make_table("run")
    table.add_row(hostile)
    out_console().print(table)
    printed = capsys.readouterr()
    assert printed.err == "a]0;titleb2Jc\nd\n"
    assert "a]0;titleb2Jc" in printed.out
    assert "\x1b" not in printed.out
