"""What holds for every command: terminals of any kind, pipes, other encodings, refusals, documented JSON."""

from __future__ import annotations

import io
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from shipbench.cli import main
from shipbench.results.store import Store
from shipbench.runs.export import export_run
from tests.cli.commands import UNTRIED, World, leaves, make_world
from tests.cli.conftest import Trained
from tests.conftest import Outcome

Shipbench = Callable[..., Outcome]
pytestmark = pytest.mark.usefixtures("quiet_tracer")
COMMANDS = leaves()
TRIED = [name for name in COMMANDS if name not in UNTRIED]
JSON = [name for name in TRIED if any("--json" in p.opts and p.is_flag for p in COMMANDS[name].params)]
# These take seconds, and print paths or times.
PATHS = {"report", "explain", "bench"}
DOCUMENTED = Path(__file__).parents[2] / "docs/reference/json.md"


@pytest.fixture(scope="module")
def world(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> World:
    world = make_world(tmp_path_factory.mktemp("world"), trained)
    export_run(Store(world.results), world.run, world.exported)
    return world


@pytest.fixture(autouse=True)
def surroundings(world: World, trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(world.root)
    monkeypatch.setenv("SHIPBENCH_CACHE", str(trained.results.parent / "cache"))
    monkeypatch.setattr("shipbench.runtime.exits.leave", lambda stop: None)
    for name in ("NO_COLOR", "COLUMNS", "LINES", "SHIPBENCH_DATA", "SHIPBENCH_RESULTS"):
        monkeypatch.delenv(name, raising=False)


class Screen(io.TextIOWrapper):
    """A stream that passes for a terminal, or for a pipe."""

    def __init__(self, *, terminal: bool, encoding: str = "utf-8") -> None:
        super().__init__(io.BytesIO(), encoding=encoding, write_through=True)
        self.terminal = terminal

    def isatty(self) -> bool:
        return self.terminal

    @property
    def text(self) -> str:
        return self.buffer.getvalue().decode(self.encoding)  # type: ignore[attr-defined, no-any-return]


def call(monkeypatch: pytest.MonkeyPatch, arguments: list[str], out: Screen) -> tuple[int, str, str]:
    """Run a command line on a screen; return its exit code and what it printed on standard output and error."""
    err = Screen(terminal=out.terminal, encoding=out.encoding)
    with monkeypatch.context() as patch:
        patch.setattr(sys, "argv", ["shipbench", *arguments])
        patch.setattr(sys, "stdout", out)
        patch.setattr(sys, "stderr", err)
        with pytest.raises(SystemExit) as stop:
            main()
    return int(stop.value.code or 0), out.text, err.text


def letters(text: str) -> Counter[str]:
    """Count the letters of all lines but the headings of tables: a block leaves out those of empty cells."""
    return Counter(letter for line in text.splitlines() if line[:1] != "┃" for letter in line if letter.isalpha())


@pytest.mark.parametrize("command", TRIED)
def test_narrow_terminals_lose_nothing(
    command: str, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    wide = ""
    if command not in PATHS:
        code, wide, said = call(monkeypatch, world.line(command, tmp_path / "1"), Screen(terminal=False))
        assert code == 0, said
        assert "\x1b" not in wide + said
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "40")
    narrow = Screen(terminal=True, encoding="ascii")
    code, text, said = call(monkeypatch, world.line(command, tmp_path / "2"), narrow)
    assert code == 0, said
    assert "\x1b" not in text
    assert not letters(wide) - letters(text)
    # The card that push prints is Markdown.
    assert command == "push" or [line for line in text.splitlines() if len(line) > 40 and line[0] in "|+"] == []


# A value that each option refuses.
REFUSED = {
    "--backbone": "nonsense",
    "--baseline": "nonsense",
    "--batch-size": "0",
    "--checkpoint": "{missing}.pth",
    "--cluster": "nonsense",
    "--columns": "nonsense",
    "--config": "{missing}.toml",
    "--corrupt": "nonsense",
    "--data": "{missing}",
    "--device": "nonsense",
    "--drop-path": "2",
    "--endpoint": "nonsense",
    "--engine": "nonsense",
    "--epochs": "0",
    "--fail-on": "nonsense",
    "--for": "nonsense",
    "--format": "nonsense",
    "--grid": "nonsense",
    "--image-size": "0",
    "--imported": "nonsense",
    "--jobs": "0",
    "--json": "{taken}/x",
    "--keep-weights": "nonsense",
    "--levels": "nonsense",
    "--lock": "{missing}",
    "--method": "nonsense",
    "--mode": "nonsense",
    "--on": "nonsense",
    "--only": "nonsense",
    "--output": "{taken}",
    "--precision": "nonsense",
    "--progress": "nonsense",
    "--prompt-lengths": "nonsense",
    "--published": "nonsense",
    "--recipe": "nonsense",
    "--repeats": "0",
    "--results": "{taken}",
    "--scheduler": "nonsense",
    "--seed": "-1",
    "--seeds": "nonsense",
    "--select": "nonsense",
    "--set": "nonsense=1",
    "--severity": "9",
    "--shots": "nonsense",
    "--stack": "nonsense",
    "--style": "nonsense",
    "--sweep": "nonsense=1",
    "--switch": "nonsense",
    "--task": "nonsense",
    "--tasks": "nonsense",
    "--test-images": "1",
    "--to": "{taken}",
    "--top": "0",
    "--track": "nonsense",
    "--train-images": "1",
    "--tuning-seeds": "nonsense",
    "--unit": "nonsense",
}
# Free texts, and options that the lines of LINES do not use.
FREE = {"--data", "--parts", "--pattern", "--repo", "--revision", "--title"}


def files(root: Path) -> list[str]:
    return sorted(str(path) for path in root.rglob("*"))


def is_refusal(outcome: Outcome) -> bool:
    """Return whether a command was refused in one sentence, of shipbench or of the parser."""
    ours, usage = outcome.err.count("error: "), outcome.err.count("Usage: ")
    broken = "Traceback" in outcome.err or "unexpected error" in outcome.err
    return outcome.code == 2 and outcome.out == "" and (ours == 1 or usage == 1) and not broken


@pytest.mark.parametrize("command", TRIED)
def test_values_that_no_option_takes(command: str, shipbench: Shipbench, world: World, tmp_path: Path) -> None:
    taken = world.root / "paper.csv"
    before, faults = files(world.root), []
    valued = [p.opts[-1] for p in COMMANDS[command].params if p.opts[0].startswith("--") and not p.is_flag]
    for option in ("--nonsense", *valued):
        if option in FREE:
            continue
        value = REFUSED.get(option, "nonsense").format(missing=tmp_path / "missing", taken=taken)
        outcome = shipbench(*world.line(command, tmp_path / "o"), option, value)
        if not is_refusal(outcome):
            faults.append(f"{option} {value}: {outcome.code}\n{outcome.err}")
    assert not faults, "\n".join(faults)
    assert files(world.root) == before
    assert not (tmp_path / "o").exists()
