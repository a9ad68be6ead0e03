"""``shipbench import``: results of other harnesses as records that are marked as such."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from shipbench.cli import completion, next_steps
from shipbench.cli.documents import print_document
from shipbench.cli.layout import make_table, printable
from shipbench.cli.options import Results
from shipbench.runtime.console import out_console, say
from shipbench.runtime.interrupts import stopping
from shipbench.settings import one_of

if TYPE_CHECKING:
    from shipbench.results.foreign.importing import Outcome

_UNITS = ("percent", "fraction")


def import_results(
    harness: Annotated[
        str,
        typer.Argument(
            metavar="FORMAT",
            help="osu, vpt, noah, ship, adapter-plus, vpetl, timm or csv.",
            autocompletion=completion.harnesses,
        ),
    ],
    path: Annotated[
        Path, typer.Argument(metavar="PATH", help="A file of that format, or a folder that holds such files.")
    ],
    results: Results = Path("results"),
    unit: Annotated[
        str | None,
        typer.Option(
            help="Unit of accuracies in a csv file: percent or fraction; every other format has one unit.",
            autocompletion=completion.one_of(*_UNITS),
        ),
    ] = None,
    method: Annotated[str | None, typer.Option(help="Name for the method of the results; timm needs it.")] = None,
    task: Annotated[str | None, typer.Option(help="Name for the task of the results; timm needs it.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Read and list everything, and write nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON; accuracies are fractions.")] = False,
) -> None:
    """Store results of other harnesses, or of a table written by hand, as records of the kind "imported"."""
    from shipbench.results.foreign.importing import import_results as import_into
    from shipbench.results.foreign.registry import get_harness
    from shipbench.results.foreign.result import Naming
    from shipbench.results.store import Store

    store = Store(results)
    if not dry_run:
        store.check_writable()
    naming = Naming(method, task, _unit(unit))
    with stopping(f"results that are stored are kept in {results}, and the same command imports the others"):
        outcomes = import_into(get_harness(harness), path, store, naming, dry_run=dry_run)
    if as_json:
        print_document("import/1", **_as_json(outcomes, dry_run=dry_run))
        return
    _print(outcomes, path)
    _summarise(outcomes, dry_run=dry_run)
    next_steps.after_import(results, dry_run=dry_run)


def _unit(text: str | None) -> Any:
    return None if text is None else one_of(text, _UNITS, "--unit", "unit")


def _print(outcomes: Sequence[Outcome], path: Path) -> None:
    table = make_table("state", "method", "task", "seed", "last %", "best %", "file", "note")
    for outcome in outcomes:
        table.add_row(outcome.state, *map(printable, (*_cells(outcome), _place(outcome.file, path), _note(outcome))))
    out_console().print(table)


def _cells(outcome: Outcome) -> tuple[str, ...]:
    record = outcome.record
    if record is None:
        return ("", "", "", "", "")
    seed = str(record.seed) if record.seed >= 0 else ""
    return record.method, record.task, seed, _percent(record.final_test_acc), _percent(record.best_test_acc)


def _percent(value: float) -> str:
    return f"{100 * value:.2f}" if value == value else ""


def _place(file: Path, root: Path) -> str:
    return file.name if file == root else file.relative_to(root).as_posix()


def _note(outcome: Outcome) -> str:
    record = outcome.record
    if record is None:
        return outcome.reason
    stated = f"{_percent(record.stated_acc)} %, {record.epoch_rule or 'epoch rule not stated'}"
    return "; ".join(filter(None, [stated if record.stated_acc == record.stated_acc else "", record.origin_note]))


def _summarise(outcomes: Sequence[Outcome], *, dry_run: bool) -> None:
    counts = Counter(outcome.state for outcome in outcomes)
    verb = "would be imported" if dry_run else "imported"
    say(f"{counts['imported']} {verb}, {counts['already imported']} already imported, {counts['skipped']} skipped")


def _as_json(outcomes: Sequence[Outcome], *, dry_run: bool) -> dict[str, Any]:
    counts = Counter(outcome.state for outcome in outcomes)
    return {
        "dry_run": dry_run,
        "imported": counts["imported"],
        "already_imported": counts["already imported"],
        "skipped": counts["skipped"],
        "results": [_row(outcome) for outcome in outcomes],
    }


def _row(outcome: Outcome) -> dict[str, Any]:
    row: dict[str, Any] = {"file": outcome.file.as_posix(), "state": outcome.state, "reason": outcome.reason}
    if outcome.record is None:
        return row
    names = ("run_id", "method", "task", "suite", "seed", "epoch_rule", "final_test_acc", "best_test_acc", "stated_acc")
    values = outcome.record.to_row()
    return row | {name: values[name] for name in names} | {"settings": dict(outcome.record.settings)}
