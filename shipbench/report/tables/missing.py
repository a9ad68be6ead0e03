"""What is missing or failed: nothing is dropped without being named here."""

from __future__ import annotations

from collections.abc import Iterator

from shipbench.report.analysis.arms import Arm
from shipbench.report.analysis.normalise import reading_order
from shipbench.report.analysis.study import Study
from shipbench.report.analysis.tuned import SUPERSEDED
from shipbench.report.document import Cell, Column, Row, Table, text_cell
from shipbench.report.tables.common import arm_seeds
from shipbench.report.wording.captions import caption
from shipbench.report.wording.names import method_name, suite_name, task_list, task_order
from shipbench.report.wording.text import seed_list

_LONGEST_ERROR = 300


def missing_table(study: Study) -> Table:
    """Return failed runs, runs that the selection rule cannot speak about, and cells without a run."""
    rows = (*_failed(study), *_collapsed(study), *_without_value(study), *_missing(study))
    return Table(
        name="missing",
        title="Missing and failed",
        caption=caption(
            "Failed runs, collapsed runs (no better than always answering the commonest class), finished runs outside "
            "the selection rule, and combinations of method, task and seed that no finished run covers.",
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
        notes=() if rows else ("Nothing is missing and nothing failed.",),
        long=True,
    )


def _row(study: Study, what: str, method: str, suite: str, tasks: list[str], seeds: list[int], why: str) -> Row:
    names = task_list(tasks, study.tasks_of(suite))
    return Row(
        (
            text_cell(what),
            text_cell(method),
            Cell(names, suite_name(suite), names),
            text_cell(seed_list(seeds)),
            text_cell(why),
        )
    )


def _failed(study: Study) -> Iterator[Row]:
    failed = study.records[study.records["status"] != "done"]
    for index in reading_order(failed):
        run = failed.loc[index]
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
            why = f"{worst:.1f} % at worst, where the commonest class alone gives {chance:.1f} %; kept in the means"
            yield _row(study, "collapsed", arm.label, arm.suite, [task], list(seeds), why)


def _without_value(study: Study) -> Iterator[Row]:
    done = study.records[(study.records["status"] == "done") & study.records["accuracy"].isna()]
    superseded = done["tuning"] == SUPERSEDED
    for (suite, method, protocol, late), runs in done.groupby(["suite", "method", "protocol", superseded]):
        why = f'protocol "{protocol}": no accuracy under the rule "{study.selection.name}"'
        why = "chosen by an earlier tuning; a later one chose other settings" if late else why
        yield _row(
            study,
            "not counted",
            method_name(method),
            suite,
            sorted(set(runs["task"])),
            [int(s) for s in runs["seed"]],
            why,
        )


def _missing(study: Study) -> Iterator[Row]:
    """Group an arm's empty cells by the seeds they lack; varied settings are held to the tasks they touched."""
    for arm in study.arms:
        lacking: dict[tuple[int, ...], list[str]] = {}
        for task, seeds in _gaps(study, arm).items():
            lacking.setdefault(seeds, []).append(task)
        for seeds, tasks in lacking.items():
            yield _row(study, "missing", arm.label, arm.suite, tasks, list(seeds), "no finished run")


def _gaps(study: Study, arm: Arm) -> dict[str, tuple[int, ...]]:
    runs = study.runs[study.runs["arm"] == arm.key]
    table = study.accuracies(arm)
    expected = study.tasks_of(arm.suite) if arm.main else sorted(set(runs["task"]), key=task_order)
    failed = set(zip(*(runs.loc[runs["status"] != "done", name] for name in ("task", "seed")), strict=True))
    gaps = {}
    for task in expected:
        present = set(table[task].dropna().index) if task in table.columns else set()
        absent = [s for s in arm_seeds(study, arm) if s not in present and (task, s) not in failed]
        if absent:
            gaps[task] = tuple(absent)
    return gaps
