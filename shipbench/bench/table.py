"""Render the JSON files of ``shipbench bench --all`` as Markdown, between two markers of a page.

``python -m shipbench.bench.table`` fills docs/explanation/performance.md from reports/bench/gpu-*.json, and ends with 1
if a file holds a failed test, an error or a difference.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from shipbench.counts import counted
from shipbench.errors import InputError, one_line
from shipbench.runtime.files import atomic_path

BEGIN = "<!-- figures of a GPU: written by python -m shipbench.bench.table -->"
END = "<!-- end of the figures of a GPU -->"
_NONE = "No GPU has run this code yet; `reports/gpu.sh` fills this section when one does."
_PAGE, _FILES = Path("docs/explanation/performance.md"), Path("reports/bench")
_FACTS = ("device", "torch", "commit")

Row: TypeAlias = Mapping[str, Any]
Content: TypeAlias = Mapping[str, Any]


def fill(page: Path, folder: Path, kind: str = "gpu") -> None:
    """Replace the text between the markers of ``page`` by the figures in ``folder``.

    Raises ``InputError`` if the page has no markers or a file is not JSON of a part.
    """
    text = page.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise InputError(f"{page} has no lines {BEGIN!r} and {END!r} to fill; put them where the figures belong")
    with atomic_path(page) as temporary:
        temporary.write_text(f"{before}{BEGIN}\n\n{render(folder, kind)}\n{END}{after}", encoding="utf-8")


def render(folder: Path, kind: str = "gpu") -> str:
    """Return the figures of all parts in ``folder`` as Markdown, or a sentence if there are none."""
    parts = _parts(folder, kind)
    if not parts:
        return _NONE + "\n"
    sections = [_SECTIONS[name](content) + _cut_off(content) for name, content in parts.items()]
    return "\n".join([_machine(list(parts.values())), *sections])


def failures(folder: Path, kind: str = "gpu") -> list[str]:
    """Return a sentence for every failed test, error and difference in the files of ``folder``."""
    found = []
    for name, content in _parts(folder, kind).items():
        if content.get("error"):
            found.append(f"{name}: {content['error']}")
        for row in filter(is_failure, content["rows"]):
            what = row["test"] if "test" in row else _case(row)
            found.append(f"{name}: {what}: {row.get('error') or row.get('reason') or 'different'}")
    return found


def is_failure(row: Row) -> bool:
    """Return whether a row holds an error, numbers that should be equal and are not, or a test that failed."""
    return "error" in row or row.get("equal") is False or row.get("outcome") == "failed"


def _parts(folder: Path, kind: str) -> dict[str, Content]:
    return {name: content for name in _SECTIONS if (content := _read(folder / f"{kind}-{name}.json"))}


def _read(file: Path) -> Content | None:
    if not file.exists():
        return None
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{file} is not JSON ({one_line(error)}); remove it, or measure its part again") from error
    if not isinstance(content, dict) or not isinstance(content.get("rows"), list):
        raise InputError(f"{file} has no rows; remove it, or measure its part again")
    return content


def _machine(parts: Sequence[Content]) -> str:
    facts = {name: next((part[name] for part in parts if part.get(name)), "unknown") for name in _FACTS}
    return f"{facts['device']}, torch {facts['torch']}, commit {facts['commit']}.\n"


def _cut_off(content: Content) -> str:
    if content.get("error"):
        return f"\nThis part ended with an error: {content['error']}\n"
    return "" if content.get("finished") else "\nThis part was cut off by its time limit.\n"


def _equality(content: Content) -> str:
    outcomes = [row["outcome"] for row in content["rows"]]
    counts = ", ".join(f"{outcomes.count(kind)} {kind}" for kind in ("passed", "failed", "skipped"))
    failed = "".join(f"\n- `{row['test']}`" for row in content["rows"] if row["outcome"] == "failed")
    return f"**Equality on the device:** {counts}.{failed}\n"


def _repeats(content: Content) -> str:
    rows = content["rows"]
    equal = sum(row.get("equal", False) for row in rows)
    others = [f"{_case(row)} ({row.get('error') or 'different'})" for row in rows if not row.get("equal")]
    steps = next((row["steps"] for row in rows if "steps" in row), "no")
    cases = f"{equal} of {counted(len(rows), 'case')}"
    text = f"**Repeated training:** {steps} steps, taken twice, are equal bit for bit in {cases}"
    recorded = sum(bool(row.get("captured")) for row in rows)
    text += f", of which {recorded} are also compared with steps that are not recorded" if recorded else ""
    return text + (f"; the others: {', '.join(others)}.\n" if others else ".\n")


def _steps(content: Content) -> str:
    columns: list[tuple[str, Callable[[Row], str]]] = [
        ("method", lambda row: row["method"]),
        ("precision", lambda row: row["precision"]),
        ("recorded", _recorded),
        ("training step, ms (range)", lambda row: _milliseconds(row["training"])),
        ("training, images/s", lambda row: f"{row['training_rate']:.0f}"),
        ("memory of training, GB", lambda row: f"{row['training_bytes'] / 1e9:.2f}"),
        ("evaluation, images/s", lambda row: f"{row['evaluation_rate']:.0f}"),
    ]
    model = content["options"]["model"]
    title = f"**Training steps and evaluation:** {model['backbone']}, batch {model['batch_size']}, "
    return f"{title}stochastic depth {model['drop_path']:g}.\n\n{_table(columns, content['rows'])}"


def _profile(content: Content) -> str:
    columns: list[tuple[str, Callable[[Row], str]]] = [
        ("step of", _case),
        ("recorded", _recorded),
        ("kernels", lambda row: f"{row['kernels']:.0f}"),
        ("launches", lambda row: f"{row['launches']:.0f}"),
        ("copies from the host", lambda row: f"{row['copies_from_host']:.1f}"),
        ("span, ms", lambda row: f"{row['span']:.2f}"),
        ("device idle", lambda row: f"{100 * row['idle']:.0f} %"),
    ]
    return f"**Gaps between kernels,** per step:\n\n{_table(columns, content['rows'])}"


def _end_to_end(content: Content) -> str:
    columns: list[tuple[str, Callable[[Row], str]]] = [
        ("run of", _case),
        ("decoding, images/s", lambda row: f"{row['decoding_rate']:.0f}"),
        ("training, images/s", lambda row: f"{row['training_rate']:.0f}"),
        ("evaluation, images/s", lambda row: f"{row['evaluation_rate']:.0f}"),
        ("matrix product reached in training", lambda row: f"{100 * row['training_fraction']:.0f} %"),
        ("19 tasks, estimated, min", lambda row: f"{row['benchmark_seconds'] / 60:.1f}"),
    ]
    return f"**Whole runs** on generated images:\n\n{_table(columns, content['rows'])}"


def _stacks(content: Content) -> str:
    columns: list[tuple[str, Callable[[Row], str]]] = [
        ("stack of", _case),
        ("recorded", _recorded),
        ("runs", lambda row: f"{row['runs']}"),
        ("step of all runs, ms (range)", lambda row: _milliseconds(row["training"])),
        ("training, images/s", lambda row: f"{row['training_rate']:.0f}"),
        ("memory of training, GB", lambda row: f"{row['training_bytes'] / 1e9:.2f}"),
    ]
    return f"**Stacks:**\n\n{_table(columns, content['rows'])}"


_SECTIONS: Mapping[str, Callable[[Content], str]] = {
    "equality": _equality,
    "repeats": _repeats,
    "steps": _steps,
    "profile": _profile,
    "end-to-end": _end_to_end,
    "stacks": _stacks,
}


def _recorded(row: Row) -> str:
    return "yes" if row.get("captured") else "no"


def _case(row: Row) -> str:
    return f"{row['method']}, {row['precision']}"


def _milliseconds(timing: Row) -> str:
    return f"{1e3 * timing['median']:.2f} ({1e3 * timing['low']:.2f} to {1e3 * timing['high']:.2f})"


def _table(columns: Sequence[tuple[str, Callable[[Row], str]]], rows: Iterable[Row]) -> str:
    """Return a Markdown table; the rows with an error follow as sentences."""
    lines = [f"| {' | '.join(name for name, _ in columns)} |", f"|{' --- |' * len(columns)}"]
    errors = []
    for row in rows:
        if "error" in row:
            errors.append(f"\n{_case(row)}: {row['error']}\n")
        else:
            lines.append(f"| {' | '.join(cell(row) for _, cell in columns)} |")
    return "\n".join(lines) + "\n" + "".join(errors)


def main(arguments: Sequence[str] | None = None) -> None:
    """Fill the page that the command line names."""
    parser = argparse.ArgumentParser(prog="python -m shipbench.bench.table", description=__doc__)
    parser.add_argument("--page", type=Path, default=_PAGE, help="the page to fill")
    parser.add_argument("--files", type=Path, default=_FILES, help="the folder of the JSON files")
    parser.add_argument("--kind", default="gpu", help="the first part of the files' names: gpu or cpu")
    options = parser.parse_args(arguments)
    try:
        fill(options.page, options.files, options.kind)
        failed = failures(options.files, options.kind)
    except (InputError, OSError) as error:
        parser.exit(2, f"error: {one_line(error)}\n")
    if failed:
        parser.exit(1, "".join(f"failed: {sentence}\n" for sentence in failed))


if __name__ == "__main__":
    main()
