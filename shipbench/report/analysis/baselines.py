"""Baselines: which arm each arm is compared with, and what the notes of a comparison say of it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from shipbench.report.analysis.arms import Arm
from shipbench.report.analysis.differences import changed_notes, nearest_copy
from shipbench.report.analysis.study import Study
from shipbench.report.wording.names import method_name
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
        method, bases = method_name(self.method), {arm.base for arm in self.all}
        left = [arm for arm in arms if not (arm in compared or arm in self.all or arm in changed)]
        without, apart = ([arm.label for arm in left if (arm in self.of) is having] for having in (False, True))
        own = ["backbone", "weights", "image size"] if len(bases) > 1 else []
        own += ["images"] if len(self.all) > len(bases) else []
        if own:
            yield f"Methods are compared with {method} on their own {joined(own)}."
        if without:
            yield f"No comparison of {joined(without)}: no {method} with the same backbone, weights and image size."
        if apart:
            yield f"No comparison of {joined(apart)}: no task and seed shared with {self.name}."
        yield from changed_notes({arm.label: tasks for arm, tasks in changed.items()}, self.name)


def baselines_of(study: Study, arms: Sequence[Arm], method: str) -> Baselines:
    """Return the baselines of ``arms``: the first one of ``method`` with the same backbone, weights and image size.

    Of its copies, it is the nearest one. What records do not state may be anything.
    """
    of_method = [arm for arm in arms if arm.method == method]
    candidates = {arm: [other for other in of_method if other.shares_base(arm)] for arm in arms}
    return Baselines(method, {arm: _nearest(study, arm, others) for arm, others in candidates.items() if others})


def _nearest(study: Study, arm: Arm, others: Sequence[Arm]) -> Arm:
    first = min(others, key=lambda other: other.base != arm.base)
    return nearest_copy(study, arm, [other for other in others if other.setup == first.setup])
