"""What holds for every command: terminals of any kind, pipes, other encodings, refusals, documented JSON."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from shipbench.cli import main
from shipbench.results.store import Store
from shipbench.runs.export import export_run
from tests.cli.commands import UNTRIED, World, leaves, make_world
from tests.cli.conftest import Trained
from tests.conftest import Outcome, Shipbench

pytestmark = pytest.mark.usefixtures("quiet_tracer")
COMMANDS = leaves()
TRIED = [name for name in COMMANDS if name not in UNTRIED]
JSON = [name for name in TRIED if any("--json" in p.opts and p.is_flag for p in COMMANDS[name].params)]
# These take seconds, and print paths.
PATHS = {"report", "explain"}
DOCUMENTED = Path(__file__).parents[2] / "docs/reference/json.md"


@pytest.fixture(scope="module")
def world(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> World:
    world = make_world(tmp_path_factory.mktemp("world"), trained)
    export_run(Store(world.results), world.run, world.exported)
    return world


@pytest.fixture(autouse=True)
def surroundings(world: World, trained: Trained, one_parser: None, monkeypatch: pytest.MonkeyPatch) -> None:
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


# bench would take seconds too.
@pytest.mark.parametrize("command", [name for name in TRIED if name != "bench"])
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
    "--list": "{taken}/list.csv",
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


def options_of(command: str) -> list[str]:
    """Return the options of a command that take a value."""
    return [p.opts[-1] for p in COMMANDS[command].params if p.opts[0].startswith("--") and not p.is_flag]


@pytest.mark.parametrize("command", TRIED)
def test_values_that_no_option_takes(command: str, shipbench: Shipbench, world: World, tmp_path: Path) -> None:
    taken = world.root / "paper.csv"
    before, faults = files(world.root), []
    valued = options_of(command)
    if command in ("ablate", "tune"):
        # They share the others with run, by one decorator.
        valued = [option for option in valued if option not in options_of("run")]
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


def schemas() -> dict[str, list[tuple[str, dict[str, str]]]]:
    """Return the documented tables of each schema: the key of the array that a table describes, and types by key."""
    tables_of = {}
    for heading, body in re.findall(
        r"^## (.*?)$(.*?)(?=^## |\Z)", DOCUMENTED.read_text("utf-8"), re.MULTILINE | re.DOTALL
    ):
        tables = [
            (array, {key: types.strip() for keys, types in ROW.findall(rows) for key in re.findall(r"`(\w+)`", keys)})
            for array, rows in re.findall(r"(?:^Each of `(\w+)`:\n\n)?((?:^\|.*\n)+)", body, re.MULTILINE)
        ]
        tables_of |= dict.fromkeys(re.findall(r"`(shipbench\.\w+/\d+)`", heading), tables)
    return tables_of


ROW = re.compile(r"^\| (`[^|]+) \| ([^|]+) \|", re.MULTILINE)
TYPES = {
    "string": str,
    "boolean": bool,
    "integer": int,
    "number": (int, float),
    "object": dict,
    "array": list,
    "null": type(None),
}


def has_type(value: Any, types: str) -> bool:
    for name in types.split(" or "):
        kind, _, items = name.partition(" of ")
        if isinstance(value, TYPES[kind]) and (kind == "boolean" or not isinstance(value, bool)):
            return not items or all(has_type(item, items.removesuffix("s")) for item in value)
    return False


def check(value: dict[str, Any], types: dict[str, str]) -> None:
    assert set(value) - {"schema"} == set(types)
    assert [(key, value[key]) for key in types if not has_type(value[key], types[key])] == []


@pytest.mark.parametrize("command", JSON)
def test_standard_output_is_one_documented_json_document(
    command: str, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = Screen(terminal=False)
    code, text, said = call(monkeypatch, [*world.line(command, tmp_path / "o"), "--json"], out)
    assert code == 0, said
    assert "\x1b" not in text + said
    document = json.loads(text, parse_constant=lambda constant: pytest.fail(f"{constant} is no JSON"))
    if command.startswith("list "):
        assert isinstance(document, list)
        return
    assert document["schema"] == f"shipbench.{command}/1"
    for array, types in schemas()[document["schema"]]:
        for value in document[array] if array else [document]:
            check(value, types)


PRINTING = """
import os, sys
from shipbench.cli.documents import machine_readable, print_document
from shipbench.runtime.streams import flush_streams, prepare_streams
prepare_streams()
with machine_readable(document=True, lines=True):
    import warnings
    print("a method")
    os.system("echo a child process")
    warnings.warn("a library")
    print_document("run/1", runs=[])
print("after it")
flush_streams()
"""


def process(*command: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *command],
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_what_others_print_goes_to_standard_error() -> None:
    out, err = process("-c", PRINTING).communicate()
    document, _, after = out.partition("}\n")
    assert json.loads(document + "}") == {"schema": "shipbench.run/1", "runs": []}
    assert after == "after it\n"
    *printed, warning = err.splitlines()
    assert printed == ["a method", "a child process"]
    assert json.loads(warning) == {"event": "note", "run_id": None, "text": "a library"}


def test_a_closed_stream_takes_letters_that_the_encoding_of_files_lacks() -> None:
    program = "import sys; sys.stdout = None\nfrom shipbench.runtime.streams import prepare_streams\n"
    ascii_files = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    started = process("-c", f"{program}prepare_streams(); print('\\u00b1 \\u25b2')", **ascii_files)
    assert started.communicate() == ("", "")
    assert started.returncode == 0


@pytest.mark.skipif(os.name != "posix", reason="pipes of other systems fail otherwise")
@pytest.mark.parametrize("line", [("list", "tasks"), ("run", "--help")])
def test_a_pipe_that_is_closed_early(line: tuple[str, ...]) -> None:
    command = process("-m", "shipbench", *line)
    assert command.stdout is not None
    assert command.stderr is not None
    command.stdout.close()
    said = command.stderr.read()
    assert command.wait() == 141
    assert "Traceback" not in said
    assert "Broken" not in said


FULL_DISK = Path("/dev/full")


@pytest.mark.skipif(not FULL_DISK.exists(), reason="this system has no disk that is always full")
@pytest.mark.parametrize("line", [("list", "trackers", "--json"), ("--version",)])
def test_results_for_a_full_disk_are_an_error(line: tuple[str, ...]) -> None:
    with FULL_DISK.open("w") as full:
        outcome = subprocess.run(
            [sys.executable, "-m", "shipbench", *line], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    said = "error: standard output cannot be written: No space left on device; send it elsewhere\n"
    assert (outcome.returncode, outcome.stderr) == (1, said)


@pytest.mark.skipif(not FULL_DISK.exists(), reason="this system has no disk that is always full")
@pytest.mark.parametrize(("line", "code"), [(("list", "trackers"), 0), (("list", "trackers", "--columns", "x"), 2)])
def test_messages_for_a_full_disk_are_dropped(line: tuple[str, ...], code: int) -> None:
    with FULL_DISK.open("w") as full:
        outcome = subprocess.run(
            [sys.executable, "-m", "shipbench", *line], stdout=subprocess.PIPE, stderr=full, text=True, check=False
        )
    assert outcome.returncode == code
    assert ("tensorboard" in outcome.stdout) == (code == 0)


def test_help_without_colours_has_none() -> None:
    line = ("-m", "shipbench", "list", "--help")
    assert "\x1b" in process(*line, FORCE_COLOR="1").communicate()[0]
    plain = process(*line, FORCE_COLOR="1", NO_COLOR="1").communicate()[0]
    assert "backbones" in plain
    assert "\x1b" not in plain


def test_an_interruption_is_one_sentence(world: World, shipbench: Shipbench, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    places = {
        "run": "shipbench.planning.plan.make_plan",
        "report": "shipbench.report.write.report_files",
        "data import": "shipbench.data.acquisition.importing.import_archives",
        "import": "shipbench.results.foreign.importing.import_results",
        "explain": "shipbench.explaining.explain.open_explanation",
    }
    for command, place in places.items():
        with monkeypatch.context() as patch:
            patch.setattr(place, interrupt)
            outcome = shipbench(*world.line(command, world.root / "never"))
        assert (outcome.code, outcome.out) == (130, ""), command
        assert outcome.err.splitlines()[-1].startswith("stopped; "), command
        assert outcome.err.count("stopped") == 1
