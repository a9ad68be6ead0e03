"""A format of another package, as the documentation shows it: one class and one line."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from shipbench.data import sources
from tests.conftest import Outcome
from tests.data.formats.trees import tree
from tests.plug_ins import install

PAGE = Path(__file__).parents[3] / "docs" / "how-to" / "own-format.md"


@pytest.fixture
def numbered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Install the class of the page from a module, and write a folder that it reads."""
    text = PAGE.read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    (value,) = re.findall(r'^numbered = "(.*)"', text, re.MULTILINE)
    package = tmp_path / "site" / "my_package"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "formats.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path / "site")
    point = EntryPoint("numbered", value, sources.GROUP)
    install(monkeypatch, point)
    yield tree(tmp_path / "images", *(f"{label}-{number}.png" for label in (2, 10) for number in range(10)))
    for module in ("my_package", "my_package.formats"):
        sys.modules.pop(module, None)


def test_the_format_of_the_page_is_inspected_verified_and_planned(
    numbered: Path, cache: Path, shipbench: Callable[..., Outcome]
) -> None:
    inspected = shipbench("data", "inspect", f"numbered:{numbered}")
    assert inspected.code == 0
    assert re.search(r"10 +│ 6 +│ 2 +│ 8 +│ 2", inspected.out)
    assert shipbench("data", "verify", f"numbered:{numbered}").code == 0
    options = ("--tasks", f"numbered:{numbered}", "--checkpoint", "random", "--dry-run")
    planned = shipbench("run", "--method", "linear", *options)
    assert (planned.code, "to do: will run" in planned.out) == (0, True)


def test_what_the_format_refuses_is_one_sentence(
    numbered: Path, cache: Path, shipbench: Callable[..., Outcome]
) -> None:
    outcome = shipbench("data", "inspect", f"numbered:{numbered.parent}")
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert "holds no images; name another folder" in outcome.err
