"""The documentation names commands, options and files that exist."""

from __future__ import annotations

import importlib.util
import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer.main

from shipbench.cli import app

ROOT = Path(__file__).parents[1]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted(ROOT.glob("docs/**/*.md")),
    *ROOT.glob("examples/*/*.md"),
]
# Written when the documentation is built.
GENERATED = {ROOT / "docs/reference" / name for name in ("commands.md", "record.md", "settings.md")}


def commands(page: Path) -> Iterator[str]:
    """Yield every shipbench command of a page's shell blocks, also behind srun, and of its inline code."""
    text = page.read_text(encoding="utf-8")
    for block in re.findall(r"^```(?:ba)?sh\b[^\n]*\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            parts = (re.sub(r"^srun( --\S+)* +", "", part.strip()) for part in line.split("&&"))
            yield from (part for part in parts if part.startswith("shipbench "))
    yield from re.findall(r"`(shipbench [a-z][^`]* --[^`]*)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))


EVERY_COMMAND = [(page, command) for page in PAGES for command in commands(page)]


@cache
def parser() -> Any:
    """Return the parser of the whole command line, in which ``test_commands_parse`` makes every option optional."""
    return typer.main.get_command(app)


def leaf_of(words: list[str]) -> tuple[Any, list[str]]:
    """Return the command that ``words`` name, and the words after it."""
    command = parser()
    while isinstance(command, typer.core.TyperGroup):
        command, words = command.commands[words[0]], words[1:]
    return command, words


@pytest.mark.parametrize(
    ("page", "command"), EVERY_COMMAND, ids=[f"{page.stem}-{command}" for page, command in EVERY_COMMAND]
)
def test_commands_parse(page: Path, command: str) -> None:
    words = [word for word in shlex.split(command, comments=True)[1:] if word != "..."]
    leaf, arguments = leaf_of(words)
    for parameter in leaf.params:
        # The callback of --config would read the file, which may give what is required; prose names options alone.
        parameter.callback, parameter.required = None, False
    leaf.make_context("shipbench", arguments)


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_links_lead_to_files(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    targets = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text)
    missing = [t for t in targets if not (path := (page.parent / t).resolve()).exists() and path not in GENERATED]
    assert not missing


def test_readme_fits_on_three_screens() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


@cache
def hooks() -> Any:
    """Return the module that writes the generated pages."""
    spec = importlib.util.spec_from_file_location("docs_hooks", ROOT / "docs/hooks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_settings_are_described_in_words() -> None:
    page = hooks()._settings_page()
    assert not re.findall(r"Annotated|Literal|typing|<class|NoneType|ScheduleName|\bNone\b|\bTrue\b", page)
    assert "| `schedule` | `cosine`, `ship`, `vpt`, `ssf`, `adapter-plus` | `cosine` |" in page
    assert "| `drop_path` | number, at least 0, below 1 | `0.1` |" in page
    assert "| `std` | 3 numbers, above 0, or `none` | `none` |" in page


def test_arguments_are_named_once_and_optional_ones_in_brackets() -> None:
    page = hooks()._commands_page()
    assert "shipbench evaluate RUN... [OPTIONS]" in page
    assert "shipbench explain RUN [IMAGE]... [OPTIONS]" in page
    assert "shipbench list tasks [FILE.toml|SOURCE] [OPTIONS]" in page


def test_help_breaks_lines_at_sentences_or_is_narrow() -> None:
    """A terminal shows the line breaks of all paragraphs but the first as they are."""
    for name, command in hooks()._leaves("shipbench", parser()):
        for paragraph in (command.help or "").split("\n\n")[1:]:
            for line in paragraph.strip().splitlines():
                assert line.endswith(".") or len(line) <= 78, name
