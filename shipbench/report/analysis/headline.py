"""The result of a suite in one sentence: the best method, its lead, and whether the lead is beyond chance."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias, get_args

from shipbench.counts import counted
from shipbench.record import SEED_UNKNOWN
from shipbench.report.analysis.arms import Arm
from shipbench.report.analysis.comparisons import ALPHA, BETTER, WORSE, PairedComparison
from shipbench.report.analysis.differences import CompleteScores, complete_scores, differing_tasks
from shipbench.report.analysis.study import Score
from shipbench.report.analysis.suite import SuiteView
from shipbench.report.wording.names import task_name
from shipbench.report.wording.numbers import has_value, p_equation, percent
from shipbench.report.wording.text import joined
from shipbench.statistics import MEAN_OF_GROUPS, MEAN_OF_TASKS, mean_of_tasks_name

MeanKind: TypeAlias = Literal["groups", "tasks"]
_NAMES = {"groups": MEAN_OF_GROUPS, "tasks": MEAN_OF_TASKS}


@dataclass(frozen=True, eq=False)
class Standing:
    """Compared arms by one mean, best first: its printed name, each arm's score, and arms without one.

    ``left_out`` is a sentence on arms and tasks that are left out, after a space; empty if there are none.
    """

    kind: MeanKind
    name: str
    scores: tuple[tuple[Arm, Score], ...]
    tasks: tuple[str, ...]
    unranked: tuple[Arm, ...]
    left_out: str


def standings(view: SuiteView, arms: Collection[Arm] | None = None) -> list[Standing]:
    """Return the arms by mean of groups and by mean of tasks; one standing if the two means would not differ.

    Of ``arms``, by default all, those that are compared are ranked. A suite that no two of them cover is ranked over
    the tasks that most share.
    """
    ranked = [arm for arm in view.compared if arms is None or arm in arms]
    if not ranked:
        return []
    whole = [_whole(view, kind, ranked) for kind in get_args(MeanKind)]
    whole = [standing for standing in whole if len(standing.scores) >= min(2, len(ranked))]
    if not whole:
        complete = view.complete_scores if ranked == view.compared else complete_scores(view.study, ranked)
        return [_shared(view, ranked, complete)] if len(complete.means) else []
    return whole if len(view.groups) > 1 else whole[-1:]


def headline(view: SuiteView, standing: Standing) -> str:
    """Return the sentence that says who is best by ``standing``, by how much, and whether beyond chance."""
    (best, top), *others = standing.scores
    where = _where(view, standing)
    if not others:
        seeds = view.study.accuracies(best).index
        times = "seed not stated" if SEED_UNKNOWN in seeds else counted(len(seeds), "seed")
        return f"{best.label} reaches {percent(top.mean)} % on {where}, {times}{_not_compared(standing)}."
    level = [arm for arm, score in others if percent(score.mean) == percent(top.mean)]
    if level:
        shared = ", ".join([best.label, *(arm.label for arm in level)])
        differ = _differ(view, standing, level)
        apart = f"; not compared: {differ}" if differ else ""
        return f"{shared} share the highest accuracy on {where}: {percent(top.mean)} %{apart}."
    other, score = _rival(view, standing)
    differ = _differ(view, standing, [other])
    if differ:
        return f"{best.label} is best on {where}: {percent(top.mean)} %; not compared with {other.label}: {differ}."
    lead = f"{percent(top.mean - score.mean)} points above {other.label}"
    return f"{best.label} is best on {where}: {percent(top.mean)} %, {lead}, {_chance(view, best, other)}."


def _differ(view: SuiteView, standing: Standing, others: Sequence[Arm]) -> str:
    """Say on which tasks the best arm and one of ``others`` have other images or metrics; empty if on none."""
    best = standing.scores[0][0]
    differing = {task for other in others for task in differing_tasks(view.study, best, other)}
    names = joined([task_name(task) for task in standing.tasks if task in differing])
    return f"on {names} the images, their draw, resize, augment or metric differ" if names else ""


def _not_compared(standing: Standing) -> str:
    """Say why the only arm of ``standing`` is compared with no other; empty if there is no other."""
    others = [arm.label for arm in standing.unranked]
    names = joined(others) if len(others) < 4 else f"{len(others)} other methods"
    lacks = "lacks" if len(others) == 1 else "lack"
    return f"; not compared with {names}, which {lacks} results on these tasks" if others else ""


def left_out(view: SuiteView, standing: Standing) -> str:
    """Name the arms and tasks that ``standing`` leaves out, after a space; empty if there are none."""
    return f" {view.shots_note}{standing.left_out}" if view.shots_note else standing.left_out


def _whole(view: SuiteView, kind: MeanKind, arms: Sequence[Arm]) -> Standing:
    summaries = {arm: view.study.summary(arm) for arm in arms}
    scores = {arm: s.mean_of_groups if kind == "groups" else s.mean_of_tasks for arm, s in summaries.items()}
    return _ordered(kind, _NAMES[kind], scores, view.tasks)


def _shared(view: SuiteView, arms: Sequence[Arm], complete: CompleteScores) -> Standing:
    tasks = [str(task) for task in complete.means.index]
    scores = {arm: view.study.score_over(arm, tasks) for arm in arms if arm.key in complete.means.columns}
    standing = _ordered("tasks", mean_of_tasks_name(tasks, view.tasks), scores, tasks)
    return replace(standing, unranked=tuple(complete.missing_arms), left_out=complete.left_out)


def _ordered(kind: MeanKind, name: str, scores: dict[Arm, Score], tasks: Sequence[str]) -> Standing:
    ranked = sorted(((a, s) for a, s in scores.items() if has_value(s.mean)), key=lambda pair: -pair[1].mean)
    unranked = tuple(arm for arm, score in scores.items() if not has_value(score.mean))
    left_out = f" Left out for missing tasks: {joined([arm.label for arm in unranked])}." if unranked else ""
    only = f"accuracy on {task_name(tasks[0])}" if len(tasks) == 1 else ""
    return Standing(kind, only or name, tuple(ranked), tuple(tasks), unranked, left_out)


def _where(view: SuiteView, standing: Standing) -> str:
    if len(standing.tasks) == 1:
        task = task_name(standing.tasks[0])
        return task if task.casefold() == view.name.casefold() else f"{task} ({view.name})"
    if set(standing.tasks) != set(view.tasks):
        return f"{counted(len(standing.tasks), 'task')} of {view.name}"
    return f"{view.name} ({standing.name}, {counted(len(standing.tasks), 'task')})"


def _rival(view: SuiteView, standing: Standing) -> tuple[Arm, Score]:
    """Return the arm that the best is compared with: its baseline, or the second best if it has none or is one."""
    (best, _), *others = standing.scores
    return next(((arm, score) for arm, score in others if arm == view.baselines.of.get(best)), others[0])


def _chance(view: SuiteView, best: Arm, other: Arm) -> str:
    """Say whether the difference of two arms is beyond chance, where one of them is the baseline of the other."""
    for comparison in view.comparisons:
        if {comparison.arm, comparison.baseline} == {best, other}:
            return _verdict(comparison, BETTER if comparison.arm == best else WORSE)
    return "without a test of that difference"


def _verdict(comparison: PairedComparison, mark: str) -> str:
    adjusted = comparison.wilcoxon_adjusted
    marks = [test.mark for test in comparison.tasks.values()]
    if has_value(adjusted):
        worse = comparison.contradicts(1 if mark == BETTER else -1)
        beyond = "but worse beyond chance" if worse else "beyond chance" if adjusted < ALPHA else "not beyond chance"
        return f"{beyond} across tasks (Wilcoxon, {p_equation(adjusted)})"
    if not marks:
        return f"over too few tasks for a test across tasks ({len(comparison.differences)})"
    better, lost = marks.count(mark), len(list(filter(None, marks))) - marks.count(mark)
    if len(comparison.differences) == 1:
        return "beyond chance" if better else "but worse beyond chance" if lost else "not beyond chance"
    tasks = counted(len(marks), "task" if len(marks) == len(comparison.differences) else "tested task")
    return f"beyond chance on {better} of {tasks}{f' and worse on {lost}' if lost else ''}"
