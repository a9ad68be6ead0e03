"""``shipbench diff``: two results folders, or two selections of runs, paired run by run."""

from __future__ import annotations

import sys
from dataclasses import asdict
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from shipbench.cli import completion, next_steps
from shipbench.cli.documents import document, print_document
from shipbench.cli.layout import make_table, printable
from shipbench.cli.options import Results
from shipbench.counts import counted
from shipbench.errors import InputError
from shipbench.runtime.console import out_console, say
from shipbench.runtime.files import check_output
from shipbench.settings import one_of

if TYPE_CHECKING:
    from shipbench.report.analysis.changes import Changes, Side
    from shipbench.report.document import Table
    from shipbench.results.selecting import Selector

_REGRESSION = "regression"
_PERCENT = ("a", "b", "difference", "mean", "low", "high")


def diff(
    a: Annotated[
        str,
        typer.Argument(
            metavar="A", help="A results folder DIR, or runs of it by column: DIR@NAME=VALUE,... or @NAME=VALUE,..."
        ),
    ],
    b: Annotated[str, typer.Argument(metavar="B", help="What A is compared with, in the same form.")],
    results: Results = Path("results"),
    select: Annotated[
        str,
        typer.Option(
            help="The accuracy that counts: final, validation, oracle (best test epoch), or a rule of another package."
        ),
    ] = "final",
    fail_on: Annotated[
        str | None,
        typer.Option(
            help="regression: exit with code 1 if something is worse in B beyond chance, or failed only there, with 2 "
            "if nothing can be compared.",
            autocompletion=completion.one_of(_REGRESSION),
        ),
    ] = None,
    output: Annotated[Path | None, typer.Option(help="Folder for tables, the figure and diff.json.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON; accuracies are fractions.")] = False,
) -> None:
    """Compare two sets of runs, A and B, pair by pair: what changed, by how much, and whether beyond chance."""
    if fail_on is not None:
        one_of(fail_on, [_REGRESSION], "--fail-on", "event")
    if output is not None:
        check_output(output, "--output")
    from shipbench.report.analysis.changes import compare
    from shipbench.results.selecting import parse_selector

    selectors = parse_selector(a, results), parse_selector(b, results)
    (side_a, named_a), (side_b, named_b) = (_side(selector, select) for selector in selectors)
    changes = compare(side_a, side_b, named_a | named_b)
    if fail_on and not changes.compared:
        raise InputError(f"--fail-on {fail_on} compares nothing: {_why_no_pair(changes)}")
    if as_json:
        print_document("diff/1", **_as_json(changes, a, b))
    else:
        _print(changes)
    if output is not None:
        _write(changes, output, document("diff/1", **_as_json(changes, a, b)))
    if changes.tasks and not as_json:
        next_steps.after_diff(a, b, results, output)
    if fail_on and changes.regressions:
        sys.exit(1)


def _side(selector: Selector, select: str) -> tuple[Side, set[str]]:
    """Return the runs that a selector names, and the columns that it restricts."""
    from shipbench.report.analysis.changes import Side
    from shipbench.report.analysis.study import build_study
    from shipbench.results.loading import load_history, load_predictions, load_results
    from shipbench.results.tunings import load_tunings
    from shipbench.selection import get_selection

    rule = get_selection(select)
    frame = load_results(selector.folder)
    run_ids = selector.select(frame)["run_id"]
    # These rules score a tuned run like any other; with tunings, a study leaves out runs that a later one supersedes.
    tunings = () if rule.name in ("final", "oracle") else load_tunings(selector.folder)
    study = build_study(frame, load_history(selector.folder, run_ids), rule, tunings)
    side = Side(study, partial(load_predictions, selector.folder), frozenset(run_ids))
    return side, selector.columns(frame.columns)


def _print(changes: Changes) -> None:
    from shipbench.report.tables.changes import method_changes_table, task_changes_table, unpaired_table

    tables = [task_changes_table(changes), method_changes_table(changes), unpaired_table(changes)]
    printed = [table for table in tables if table.rows]
    for table in printed:
        _print_table(table)
    for sentence in (*chain.from_iterable(table.notes for table in printed), *changes.warnings):
        say(sentence)
    if not changes.compared:
        say(_why_no_pair(changes))
    for regression in changes.regressions:
        say(f"worse: {regression}")


def _why_no_pair(changes: Changes) -> str:
    if not changes.unscored:
        return (
            "no finished run of A has a partner in B; whatever a selection does not name must agree, data and metric "
            "included"
        )
    pairs = counted(changes.unscored, "pair")
    hint = "runs of a tuning have none" if changes.select == "final" else "try --select final"
    return f"{pairs} of finished runs, but none has accuracies under the rule {changes.select}; {hint}"


def _print_table(table: Table) -> None:
    shown = make_table(*(column.title for column in table.columns), title=table.title)
    for column, heading in zip(shown.columns, table.columns, strict=True):
        column.justify = heading.align
    for row in table.rows:
        shown.add_row(*(printable(cell.text) for cell in row.cells))
    out_console().print(shown)


def _as_json(changes: Changes, a: str, b: str) -> dict[str, Any]:
    """Return all that differs as plain values; accuracies are fractions, as in every other file."""
    content = asdict(changes)
    for row, of_task in zip(content["tasks"], changes.tasks, strict=True):
        row |= {"difference": of_task.difference, "verdict": of_task.verdict}
    for row, of_method in zip(content["methods"], changes.methods, strict=True):
        row |= {"verdict": of_method.verdict}
    for row in (*content["pairs"], *content["tasks"], *(row["interval"] for row in content["methods"])):
        # Rounded, so that a fraction of a record is the same number here.
        row |= {name: round(row[name] / 100, 12) for name in _PERCENT if name in row}
    regressions = changes.regressions
    return {"a": a, "b": b, "regression": bool(regressions), "regressions": regressions, **content}


def _write(changes: Changes, output: Path, content: str) -> None:
    """Write the tables as Markdown and CSV, the figure as SVG, and everything as JSON."""
    from shipbench.report.render.csv_text import table_csv
    from shipbench.report.render.images import images
    from shipbench.report.render.markdown import markdown_table
    from shipbench.report.tables.changes import changes_figure, method_changes_table, task_changes_table, unpaired_table

    output.mkdir(parents=True, exist_ok=True)
    (output / "diff.json").write_text(content, encoding="utf-8")
    for table in (task_changes_table(changes), method_changes_table(changes), unpaired_table(changes)):
        (output / f"{table.name}.md").write_text(markdown_table(table), encoding="utf-8")
        (output / f"{table.name}.csv").write_text(table_csv(table), encoding="utf-8")
    figure, drawn = changes_figure(changes), output / "differences.svg"
    if figure is not None:
        drawn.write_bytes(images(figure, ["svg"])["svg"])
    else:
        # The figure of an earlier comparison would stand beside the tables of this one.
        drawn.unlink(missing_ok=True)
