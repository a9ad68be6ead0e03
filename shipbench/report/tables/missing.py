"""The table of missing and failed runs: everything that the other tables leave out or lack."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pandas as pd

from shipbench.record import IMPORTED
from shipbench.report.analysis.arms import Arm
from shipbench.report.analysis.normalise import reading_order
from shipbench.report.analysis.study import Study
from shipbench.report.analysis.tuned import SUPERSEDED
from shipbench.report.document import Cell, Column, Row, Table, text_cell
from shipbench.report.wording.captions import caption
from shipbench.report.wording.names import method_name, suite_beside, task_list, task_order
from shipbench.report.wording.text import seed_list

_LONGEST_ERROR = 300
_MIXED = {
    "headline_metric": "some seeds are scored by the accuracy, others by its mean over classes, and no mean covers "
    "both; repeat all seeds with --force, which scores them by the metric that the task has now",
    "data_version": "seeds differ in the images, in their draw, or in resize or augment, and no mean covers both; run "
    "all seeds on the images as they are now, or give the other ones a task of another name",
}


def missing_table(study: Study) -> Table:
    """Return failed and collapsed runs, runs outside the selection rule, and table cells without a run."""
    rows = (*_failed(study), *_collapsed(study), *_not_counted(study), *_missing(study))
    return Table(
        name="missing",
        title="Missing and failed",
        caption=caption(
            "Failed runs, collapsed runs (accuracy not above majority-class accuracy), finished runs that the "
            "selection rule does not count, and combinations of method, task and seed without a finished run.",
            study.selection,
        ),
        columns=(
            Column("what", "What", align="left"),
            Column("method", "Method", align="left"),
            Column("tasks", "Tasks", align="left"),
            Column("seeds", "Seeds", align="left"),
            Column("why", "Why", align="left"),
        ),
        rows=rows,
        notes=() if rows else ("No run is missing or failed.",),
        long=True,
    )


def _row(
    study: Study,
    what: str,
    method: str,
    suite: str,
    tasks: Sequence[str],
    seeds: Sequence[int],
    why: str,
    *,
    imported: bool = False,
) -> Row:
    names = task_list(tasks, study.tasks_of(suite))
    return Row(
        (
            text_cell(what),
            Cell(method, value=method, imported=imported),
            Cell(names, suite_beside(names, suite), names),
            text_cell(seed_list(seeds)),
            text_cell(why),
        )
    )


def _failed(study: Study) -> Iterator[Row]:
    failed = study.records[study.records["status"] != "done"]
    rows = failed[["method", "error", "status", "suite", "task", "seed"]].to_dict("index")
    for index in reading_order(failed):
        run = rows[index]
        name = study.labels[index] or method_name(run["method"])
        why = " ".join(run["error"].split()) or "no reason recorded"
        why = f"{why[:_LONGEST_ERROR]}…" if len(why) > _LONGEST_ERROR else why
        yield _row(study, run["status"], name, run["suite"], [run["task"]], [int(run["seed"])], why)


def _collapsed(study: Study) -> Iterator[Row]:
    for arm in study.arms:
        for task, seeds in study.collapsed(arm).items():
            runs = study.runs[(study.runs["arm"] == arm.key) & (study.runs["task"] == task)]
            worst = 100 * runs.loc[runs["collapsed"], "accuracy"].min()
            chance = 100 * runs["chance_acc"].max()
            why = f"lowest accuracy {worst:.1f} %, majority-class accuracy {chance:.1f} %; kept in the means"
            yield _row(study, "collapsed", arm.label, arm.suite, [task], seeds, why, imported=arm.imported)


def _not_counted(study: Study) -> Iterator[Row]:
    """Yield the finished runs that count in no cell, grouped by suite, method and reason."""
    done = _uncounted(study)
    is_superseded, is_imported = done["tuning"] == SUPERSEDED, done["kind"] == IMPORTED
    mixed = pd.Series(done.index.map(lambda record: study.mixed_records.get(record, "")), done.index, dtype=object)
    for (suite, method, protocol, superseded, imported, what), runs in done.groupby(
        ["suite", "method", "protocol", is_superseded, is_imported, mixed]
    ):
        why = f'protocol "{protocol}": no accuracy under the rule "{study.selection.name}"'
        if imported:
            why = f'imported without an accuracy under the rule "{study.selection.name}"'
        why = "chosen by an earlier tuning; a later one chose other settings" if superseded else why
        why = _MIXED.get(str(what), why)
        tasks, seeds = sorted(set(runs["task"])), [int(seed) for seed in runs["seed"]]
        name = method_name(str(method))
        yield _row(study, "not counted", name, str(suite), tasks, seeds, why, imported=bool(imported))


def _uncounted(study: Study) -> pd.DataFrame:
    """Return the finished runs that the selection rule does not count, and those of cells that mix runs."""
    mixed = study.records.index.isin(list(study.mixed_records))
    return study.records[(study.records["status"] == "done") & (study.records["accuracy"].isna() | mixed)]


def _missing(study: Study) -> Iterator[Row]:
    """Yield the cells without a run, grouped by the seeds that an arm lacks."""
    beside = {arm for suite in study.suites for arm in study.imported_beside(suite)}
    uncounted = set(_uncounted(study)[["suite", "method", "task"]].itertuples(index=False, name=None))
    for arm in (arm for arm in study.arms if arm not in beside):
        tasks_by_cause: dict[tuple[tuple[int, ...], str], list[str]] = {}
        for task, seeds in _gaps(study, arm).items():
            finished = (arm.suite, arm.method, task) in uncounted
            why = "no finished run that the rule counts" if finished else "no finished run"
            tasks_by_cause.setdefault((seeds, why), []).append(task)
        for (seeds, why), tasks in tasks_by_cause.items():
            yield _row(study, "missing", arm.label, arm.suite, tasks, seeds, why, imported=arm.imported)


def _gaps(study: Study, arm: Arm) -> dict[str, tuple[int, ...]]:
    """Return the missing seeds by task; only a main arm is expected to cover every task of its suite."""
    runs = study.runs_of([arm])
    table = study.accuracies(arm)
    expected = study.tasks_of(arm.suite) if arm.main else sorted(set(runs["task"]), key=task_order)
    # They are listed as failed or as not counted.
    listed = set(zip(*(runs.loc[runs["accuracy"].isna(), name] for name in ("task", "seed")), strict=True))
    gaps = {}
    for task in expected:
        present = set(table[task].dropna().index) if task in table.columns else set()
        absent = [seed for seed in study.seeds_of(arm) if seed not in present and (task, seed) not in listed]
        if absent:
            gaps[task] = tuple(absent)
    return gaps
