"""Few-shot runs: accuracy against the number of training images per class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from shipbench.counts import counted
from shipbench.report.analysis.arms import Arm
from shipbench.report.analysis.differences import shared_tasks
from shipbench.report.analysis.study import Score, Study, summarise

ALL = 0
"""Stands for all training images, as in records."""

MEAN = "mean"


@dataclass(frozen=True)
class ShotsFamily:
    """The arms of a method that differ in the number of shots alone, by their short labels.

    ``scores`` maps tasks, and ``MEAN`` for the mean over them, to scores in percent by number of shots, in ascending
    order with ``ALL`` at the end.
    """

    name: str
    method: str
    arms: tuple[str, ...]
    scores: Mapping[str, Mapping[int, Score]]


@dataclass(frozen=True)
class FewShots:
    """The families of a suite, the tasks that all of them share on the same test images, and the shots of any."""

    families: tuple[ShotsFamily, ...]
    tasks: tuple[str, ...]
    shots: tuple[int, ...]


def few_shots(study: Study, suite: str) -> FewShots | None:
    """Return the families of a suite with finished runs for two or more numbers of shots; None if there are none."""
    by_setup: dict[tuple[object, ...], list[Arm]] = {}
    for arm in study.arms_of(suite, main=True):
        if len(study.accuracies(arm)):
            by_setup.setdefault((replace(arm, shots=ALL).setup, arm.copy), []).append(arm)
    members = [sorted(arms, key=lambda arm: arm.shots or float("inf")) for arms in by_setup.values() if len(arms) > 1]
    shared = shared_tasks(study, [arm for arms in members for arm in arms], any_draw=True)
    tasks = [task for task in study.tasks_of(suite) if task in shared]
    if not members or not tasks:
        return None
    shots = sorted({arm.shots for arms in members for arm in arms}, key=lambda number: number or float("inf"))
    return FewShots(tuple(_family(study, arms, tasks) for arms in members), tuple(tasks), tuple(shots))


def shots_name(number: int) -> str:
    """Return a number of shots as tables and axes print it."""
    return "all" if number == ALL else str(number)


def _family(study: Study, arms: Sequence[Arm], tasks: Sequence[str]) -> ShotsFamily:
    summaries = {arm.shots: summarise(study.accuracies(arm), {"all": list(tasks)}) for arm in arms}
    of_tasks = {task: {shots: summary.tasks[task] for shots, summary in summaries.items()} for task in tasks}
    means = {MEAN: {shots: summary.mean_of_tasks for shots, summary in summaries.items()}}
    labels = tuple(arm.short_label for arm in arms)
    return ShotsFamily(_name(arms[0]), arms[0].method, labels, {**of_tasks, **means})


def _name(arm: Arm) -> str:
    """Return the label of an arm without its number of shots."""
    shots = counted(arm.shots, "shot") if arm.shots else ""
    if not shots:
        return arm.label
    without = arm.label.replace(f"{shots}, ", "").replace(f", {shots}", "")
    return without.replace(f" ({shots})", "")
