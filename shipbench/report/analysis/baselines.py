"""Baselines: which arm each arm is compared with, and what the notes of a comparison say of it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from shipbench.report.analysis.arms import Arm
from shipbench.report.wording.names import method_name, task_name
from shipbench.report.wording.text import joined


@dataclass(frozen=True, eq=False)
class Baselines:
    """The arms of a ``method`` that arms are compared with; ``of`` names that of every arm, itself if it is one."""

    method: str
    of: Mapping[Arm, Arm]

    @cached_property
    def all(self) -> frozenset[Arm]:
        """The baselines, each once."""
        return frozenset(self.of.values())

    @property
    def name(self) -> str:
        """What differences are said to be to: the label of the baseline, or the method of several."""
        labels = {arm.label for arm in self.all}
        return labels.pop() if len(labels) == 1 else method_name(self.method)

    def notes(
        self, arms: Sequence[Arm], compared: Collection[Arm], changed: Mapping[Arm, Sequence[str]]
    ) -> Iterator[str]:
        """Return what several baselines are of, and which of ``arms`` are neither a baseline nor ``compared``.

        ``changed`` are the tasks on which an arm has other images than its baseline, or another metric.
        """
        method = method_name(self.method)
        left = [arm for arm in arms if not (arm in compared or arm in self.all or arm in changed)]
        without, apart = ([arm.label for arm in left if (arm in self.of) is having] for having in (False, True))
        if len(self.all) > 1:
            yield f"Methods are compared with {method} on their own backbone, weights and image size."
        if without:
            yield f"No comparison of {joined(without)}: no {method} with the same backbone, weights and image size."
        if apart:
            yield f"No comparison of {joined(apart)}: no task and seed shared with {self.name}."
        yield from changed_notes({arm.label: tasks for arm, tasks in changed.items()}, self.name)


def changed_notes(changed: Mapping[str, Sequence[str]], other: str) -> Iterator[str]:
    """Return a sentence for each set of tasks on which rows, by label, differ from ``other`` in images or metric."""
    labels: dict[tuple[str, ...], list[str]] = {}
    for label, tasks in changed.items():
        labels.setdefault(tuple(tasks), []).append(label)
    for tasks, names in labels.items():
        what = f"{joined(names)} with {other} on {joined([task_name(task) for task in tasks])}"
        yield f"No comparison of {what}: the images, their draw, resize, augment or metric differ."


def baselines_of(arms: Sequence[Arm], method: str) -> Baselines:
    """Return the baselines of ``arms``: the first one of ``method`` with the same backbone, weights and image size.

    What records do not state may be anything.
    """
    of_method = [arm for arm in arms if arm.method == method]
    candidates = {arm: [other for other in of_method if other.shares_base(arm)] for arm in arms}
    return Baselines(method, {arm: _nearest(arm, others) for arm, others in candidates.items() if others})


def _nearest(arm: Arm, others: Sequence[Arm]) -> Arm:
    return min(others, key=lambda other: other.base != arm.base)
