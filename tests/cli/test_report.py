"""``shipbench report``: the page contains the command that reproduces it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from shipbench.cli.report import ReportChoices
from shipbench.results.store import Store
from tests.conftest import Outcome
from tests.results.test_store import make_record


def test_the_command_of_a_report_names_every_choice() -> None:
    assert ReportChoices().command() == (
        "shipbench report --results results --output reports/latest --select final --format md,tex,csv,html,svg "
        "--published same"
    )
    choices = ReportChoices(
        results=Path("/home/me/r"),
        output=Path("o/p"),
        select="oracle",
        formats="md",
        baseline="linear",
        published="all",
        imported="none",
        style="cvpr",
        title="Ours: all",
    )
    assert choices.command() == (
        "shipbench report --results r --output o/p --select oracle --format md --baseline linear --published all "
        "--style cvpr --title 'Ours: all' --imported none"
    )


@pytest.mark.parametrize(("title", "shown"), [(("--title", "Ours: all"), "--title 'Ours: all'"), ((), "--published")])
def test_the_command_of_a_report_has_its_title(
    shipbench: Callable[..., Outcome], tmp_path: Path, title: tuple[str, ...], shown: str
) -> None:
    Store(tmp_path / "r").write(make_record())
    line = ("report", "--results", tmp_path / "r", "--output", tmp_path / "o", "--format", "md", *title)
    assert shipbench(*line).code == 0
    page = (tmp_path / "o" / "report.md").read_text()
    assert shown in page
    assert ("--title" in page) is bool(title)
