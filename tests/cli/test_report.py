"""``shipbench report``: the page contains the command that reproduces it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from shipbench.results.store import Store
from tests.conftest import Outcome
from tests.results.test_store import make_record


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
