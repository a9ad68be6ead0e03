"""The cost table: parameters, FLOPs, throughput, memory and time of every main arm, per device."""

from __future__ import annotations

import pandas as pd

from shipbench.report.analysis.arms import Arm
from shipbench.report.analysis.places import places
from shipbench.report.analysis.study import mean_over_tasks
from shipbench.report.analysis.suite import SuiteView
from shipbench.report.document import Cell, Column, Row, Table
from shipbench.report.tables.common import evenly, name_cell
from shipbench.report.wording.captions import features_sentence
from shipbench.report.wording.numbers import has_value, short

_GIB = 1024**3
_MEASURES = (
    (Column("trainable_params", "with head", "Parameters (M)"), 1e6),
    (Column("trainable_params_without_head", "without head", "Parameters (M)"), 1e6),
    (Column("total_params", "total", "Parameters (M)"), 1e6),
    (Column("flops_per_image", "GFLOPs per image"), 1e9),
    (Column("train_images_per_second", "training", "Images/s"), 1.0),
    (Column("eval_images_per_second", "evaluation", "Images/s"), 1.0),
    (Column("peak_memory_bytes", "Memory (GiB)"), float(_GIB)),
    (Column("train_seconds", "training", "Minutes per run"), 60.0),
    (Column("eval_seconds", "evaluation", "Minutes per run"), 60.0),
)
_CAPTION = (
    "Cost of a run, averaged over seeds and then over tasks. Speeds are comparable only on the same device, with the "
    "same precision and, on a CPU, the same number of threads."
)
_DETAILS = (
    "Trainable parameters with and without the classification head, all parameters of the model, FLOPs per evaluated "
    "image, throughput, peak memory, and wall-clock minutes. A row averages the tasks that it has; rows with other "
    "tasks have heads and test sets of other sizes."
)


def cost_table(view: SuiteView) -> Table | None:
    """Return a row per main arm, device, precision and number of threads; None if no cost is recorded."""
    runs = view.runs[view.runs["status"] == "done"]
    if runs[[column.key for column, _ in _MEASURES]].isna().to_numpy().all():
        return None
    rows = [row for arm in view.arms for row in _rows(arm, runs[runs["arm"] == arm.key])]
    return Table(
        name=f"cost-{view.slug}",
        title=f"{view.name}: cost",
        caption=view.caption(_CAPTION, _DETAILS),
        columns=(
            Column("method", "Method", align="left"),
            Column("device", "Device", align="left"),
            *(column for column, _ in _MEASURES),
            Column("tasks", "Tasks"),
            Column("runs", "Runs"),
        ),
        rows=tuple(evenly(rows, {2 + i: scale for i, (_, scale) in enumerate(_MEASURES)})),
        notes=(*_stacked_note(runs), *_features_note(runs)),
        warnings=view.cautions,
    )


def _stacked_note(runs: pd.DataFrame) -> tuple[str, ...]:
    """Explain the time and memory of stacked runs, which differ from those of a run alone."""
    runs = runs.drop_duplicates("run_id")
    stacked = int((runs["stacked_runs"] > 1).sum())
    if not stacked:
        return ()
    return (
        f"{stacked:,} of {len(runs):,} runs shared passes over the backbone with others (stacked_runs in the "
        "records); their time is an equal share of the total, and their memory is that of the whole stack.",
    )


def _features_note(runs: pd.DataFrame) -> tuple[str, ...]:
    """Explain the seconds of methods on fixed features, which go through the backbone before they are measured."""
    sentence = features_sentence("minutes and images/s", runs["method"][runs["train_seconds"].notna()])
    return (sentence,) if sentence else ()


def _rows(arm: Arm, runs: pd.DataFrame) -> list[Row]:
    """Return a row for every device, precision and number of CPU threads of an arm."""
    by_run = places(runs)
    rows = []
    for place in sorted(set(by_run)):
        there = runs[[other == place for other in by_run]]
        where = Cell(place.device or "not recorded", place.conditions, place.name)
        measures = [_measure(there, column.key, scale) for column, scale in _MEASURES]
        counts = (there["task"].nunique(), len(there))
        rows.append(Row((name_cell(arm), where, *measures, *(Cell(f"{count:,}", value=count) for count in counts))))
    return rows


def _measure(runs: pd.DataFrame, column: str, scale: float) -> Cell:
    value = mean_over_tasks(runs, column)
    return Cell(short(value, scale), value=value if has_value(value) else None)
