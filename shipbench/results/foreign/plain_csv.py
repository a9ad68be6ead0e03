"""A CSV file written by hand: one result per line, such as a row of a paper's table."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from shipbench.counts import counted
from shipbench.errors import InputError, did_you_mean
from shipbench.results.foreign.result import ForeignResult, Harness, Naming, Reading, Skipped
from shipbench.results.foreign.tasks import catalogued_task, nearest_tasks
from shipbench.results.foreign.text import number, read_text, whole
from shipbench.runtime.console import say
from shipbench.tasks import TASKS

_REQUIRED = ("method", "task", "accuracy")
_COLUMNS = (*_REQUIRED, "seed", "epoch_rule", "params", "params_with_head", "source")
_RULES = {
    "": "",
    "final": "final",
    "last": "final",
    "validation": "validation",
    "val": "validation",
    "oracle": "oracle",
    "best": "oracle",
    "max": "oracle",
}
_HEADS = {"": None, "yes": True, "no": False}
_SUFFIXES = {"": 1.0, "K": 1e3, "M": 1e6, "B": 1e9}


@dataclass(frozen=True)
class _Line:
    """A line of the file with its number, where messages say it is, and whether its numbers may have a comma."""

    file: Path
    number: int
    cells: Mapping[str, str]
    decimal_comma: bool

    def cell(self, name: str) -> str:
        return self.cells.get(name, "").strip()

    def amount(self, name: str) -> str:
        """Return a cell with a number, whose decimal comma becomes a point."""
        return self.cell(name).replace(",", ".") if self.decimal_comma else self.cell(name)

    def refuse(self, reason: str) -> InputError:
        return InputError(f"{self.file}, line {self.number}: {reason}; the file is refused and nothing is written")


def _read(path: Path, naming: Naming) -> Iterator[Reading]:
    lines = _lines(path)
    if lines is None:
        yield Skipped(path, f"no table of results: its header has none of the columns {', '.join(_REQUIRED)}")
        return
    values = _accuracies(path, lines, naming)
    results = [_result(line, value) for line, value in zip(lines, values, strict=True)]
    first: dict[tuple[object, ...], int] = {}
    for line, result in zip(lines, results, strict=True):
        key = (result.method, result.task, result.seed, _rule(line))
        if key in first:
            raise line.refuse(f"method, task, seed and epoch_rule are those of line {first[key]}")
        first[key] = line.number
    yield from results


def _lines(path: Path) -> list[_Line] | None:
    """Return the lines below the header; None for a table of something else, without any of the required columns."""
    numbered = [(i, text) for i, text in enumerate(read_text(path).split("\n"), 1) if _is_content(text)]
    if not numbered:
        raise InputError(f"{path} is empty; it needs a header with {', '.join(_REQUIRED)}")
    header = numbered[0][1]
    delimiter = "," if "," in header else ";" if ";" in header else "\t"
    rows = [(i, next(csv.reader([text], delimiter=delimiter))) for i, text in numbered]
    names = [re.sub(r"[ -]+", "_", name.strip().lower()) for name in rows[0][1]]
    if not set(names) & set(_REQUIRED):
        return None
    _check_header(path, names)
    return [_line(path, i, names, row, decimal_comma=delimiter != ",") for i, row in rows[1:]]


def _is_content(text: str) -> bool:
    """Return whether a line is neither empty nor a comment, nor the name of the delimiter that Excel reads."""
    return bool(text.strip(" \t,;")) and not text.lstrip().startswith("#") and not text.lower().startswith("sep=")


def _check_header(path: Path, names: Sequence[str]) -> None:
    absent = [name for name in _REQUIRED if name not in names]
    if absent:
        raise InputError(f"{path} has no column {absent[0]!r}; its header needs {', '.join(_REQUIRED)}")
    twice = [name for name in _COLUMNS if names.count(name) > 1]
    if twice:
        raise InputError(f"{path} has the column {twice[0]!r} twice; leave one of them out")
    unknown = [name for name in names if name and name not in _COLUMNS]
    if unknown:
        absent = [name for name in _COLUMNS if name not in names]
        hint = did_you_mean(unknown[0], absent) if len(unknown) == 1 else ""
        say(f"warning: {path}: the columns {', '.join(unknown)} are not read{hint}")


def _line(path: Path, i: int, names: Sequence[str], row: Sequence[str], *, decimal_comma: bool) -> _Line:
    line = _Line(path, i, dict(zip(names, row, strict=False)), decimal_comma)
    if len(row) > len(names):
        raise line.refuse(f"it has {counted(len(row), 'value')}, the header {len(names)}")
    return line


def _accuracies(path: Path, lines: Sequence[_Line], naming: Naming) -> list[float]:
    """Return the accuracies as fractions; raises ``InputError`` unless their unit is certain."""
    texts = [line.amount("accuracy") for line in lines]
    marked = [text.endswith("%") for text in texts]
    values = [_value(line, text) for line, text in zip(lines, texts, strict=True)]
    if naming.unit is None and values and all(v <= 1 and not m for v, m in zip(values, marked, strict=True)):
        raise InputError(f"no accuracy in {path} is above 1; say whether they are fractions with --unit fraction")
    fractions = []
    for line, value, is_percent in zip(lines, values, marked, strict=True):
        if naming.unit is None and value <= 1 and not is_percent:
            raise line.refuse(f"{value:g} among percentages; write {value:g}% if it is one")
        most = 1 if naming.unit == "fraction" and not is_percent else 100
        if not 0 <= value <= most:
            raise line.refuse(f"an accuracy of {value:g} is not between 0 and {most}")
        fractions.append(value / most)
    return fractions


def _value(line: _Line, text: str) -> float:
    value = number(text.removesuffix("%").strip())
    if value is None:
        raise line.refuse(f"accuracy {text!r} is not a number")
    return value


def _result(line: _Line, accuracy: float) -> ForeignResult:
    rule = _rule(line)
    task, suite = _task(line)
    method = line.cell("method")
    if not method:
        raise line.refuse("it has no method")
    return ForeignResult(
        line.file,
        method,
        task,
        suite,
        row=f"line {line.number}",
        seed=_seed(line),
        final=accuracy if rule == "final" else None,
        best=accuracy if rule == "oracle" else None,
        stated=accuracy if rule in ("", "validation") else None,
        rule=rule,
        parameters=_parameters(line),
        with_head=_with_head(line),
        reference=line.cell("source"),
    )


def _task(line: _Line) -> tuple[str, str]:
    name = line.cell("task")
    task = catalogued_task(name)
    if task is not None:
        return task, TASKS[task].suite
    raise line.refuse(f"unknown task {name!r}; the nearest names are {', '.join(nearest_tasks(name))}")


def _seed(line: _Line) -> int | None:
    text = line.cell("seed")
    seed = whole(text)
    if text and (seed is None or seed < 0):
        raise line.refuse(f"seed {text!r} is not a whole number of at least 0, or too large")
    return seed


def _rule(line: _Line) -> str:
    text = line.cell("epoch_rule").lower()
    if text not in _RULES:
        hint = did_you_mean(text, _RULES)
        raise line.refuse(f"unknown epoch_rule {text!r}{hint}; use final, validation or oracle")
    return _RULES[text]


def _parameters(line: _Line) -> float | None:
    text = line.amount("params").replace("_", "")
    if not text:
        return None
    # Without a suffix, a point stands between thousands, except in 294912.0 as programs write it.
    match = re.fullmatch(r"(\d+(?:\.0)?|[\d.]+(?= ?[KMB])) ?([KMB]?)", text, re.IGNORECASE)
    amount = number(match[1]) if match else None
    count = None if match is None or amount is None else _rounded(amount * _SUFFIXES[match[2].upper()])
    if count is None:
        raise line.refuse(f"params {text!r} is not a count such as 294912, 0.29M or 1.2K")
    return float(count)


def _rounded(amount: float) -> int | None:
    return whole(round(amount)) if math.isfinite(amount) else None


def _with_head(line: _Line) -> bool | None:
    text = line.cell("params_with_head").lower()
    if text not in _HEADS:
        raise line.refuse(f"params_with_head {text!r} is neither yes nor no")
    return _HEADS[text]


def _is_candidate(path: Path) -> bool:
    return path.suffix.lower() in (".csv", ".tsv")


CSV = Harness("csv", "CSV file with method, task and accuracy", "percent", _is_candidate, _read)
