"""Group planned runs that can be trained together, in one pass over the frozen backbone."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from typing import TypeAlias

from shipbench.errors import InputError
from shipbench.planning.plan import PlannedRun
from shipbench.settings import canonical_json

# A fixed number, because a choice by measurement would give the same run other rounding errors on another day.
_AUTOMATIC = 4

Fits: TypeAlias = Callable[[PlannedRun, int], bool]


@dataclass(frozen=True)
class Stacking:
    """The largest number of runs in a stack; an ``automatic`` one also follows the device and its memory."""

    most: int = 1
    automatic: bool = False

    def on(self, device_type: str) -> Stacking:
        """Return the stacking for a device: automatic stacks are for CUDA, since matrix products dominate elsewhere."""
        return Stacking() if self.automatic and device_type != "cuda" else self


@dataclass(frozen=True)
class Stack:
    """Planned runs that share a pass over the backbone, in the order of the plan.

    Runs that are not ``due`` keep their places without being trained, because the number of runs in a pass changes how
    sums are rounded.
    """

    runs: tuple[PlannedRun, ...]
    due: tuple[PlannedRun, ...]


def parse_stacking(text: str) -> Stacking:
    """Read ``auto``, ``off`` or the largest number of runs in a stack; raise ``InputError`` for other text."""
    if text == "auto":
        return Stacking(_AUTOMATIC, automatic=True)
    if text == "off":
        return Stacking()
    if not text.isdecimal() or int(text) < 1:
        raise InputError(f"--stack {text!r} is neither auto nor off nor a number of runs; give one, as in --stack 4")
    return Stacking(int(text))


def stacks_of_plan(
    runs: Sequence[PlannedRun], plan: Sequence[PlannedRun], most: int, fits: Fits | None = None
) -> list[Stack]:
    """Return the stacks in which ``runs``, some of those of ``plan``, are due.

    Stacks are formed from the whole plan, so they are the same however many of its runs are left. A run that must be
    executed ``alone`` leaves its stack. ``most`` and ``fits`` as in ``in_stacks``.
    """
    due = {run.run_id: run for run in runs if not run.alone}
    stacks = []
    for members in in_stacks(plan, most, fits):
        if members_due := tuple(due[run.run_id] for run in members if run.run_id in due):
            stacks.append(Stack(members, members_due))
    return stacks + [Stack((run,), (run,)) for run in runs if run.alone]


def in_stacks(runs: Sequence[PlannedRun], most: int, fits: Fits | None = None) -> list[tuple[PlannedRun, ...]]:
    """Return stacks of at most ``most`` runs that can be trained together, ordered by their first runs.

    The runs of a stack differ only in seed, learning rate and weight decay. If ``fits(run, count)`` is given, it says
    whether ``count`` runs like ``run`` fit on the device together.
    """
    groups: dict[str, list[PlannedRun]] = {}
    for run in runs:
        groups.setdefault(run.run_id if most == 1 else _stack_key(run), []).append(run)
    return [stack for group in groups.values() for stack in _split_evenly(group, _largest(group, most, fits))]


def _largest(group: Sequence[PlannedRun], most: int, fits: Fits | None) -> int:
    counts = range(min(most, len(group)), 1, -1)
    return next((count for count in counts if fits is None or fits(group[0], count)), 1)


def _split_evenly(group: Sequence[PlannedRun], most: int) -> Iterator[tuple[PlannedRun, ...]]:
    """Split as evenly as possible: with ``most`` 4, five runs become two and three, not four and one."""
    count = math.ceil(len(group) / most)
    bounds = [len(group) * index // count for index in range(count + 1)]
    return (tuple(group[start:end]) for start, end in pairwise(bounds))


def _stack_key(run: PlannedRun) -> str:
    """Return a text that is equal for runs that may share a stack."""
    spec, resolved = run.spec, run.spec.resolved
    if not resolved.method.stacks(resolved.settings):
        return run.run_id
    return canonical_json(
        {
            "method": resolved.method.name,
            "task": asdict(resolved.task),
            "settings": asdict(resolved.settings),
            "recipe": asdict(replace(resolved.recipe, lr=0.0, weight_decay=0.0)),
            "backbone": [resolved.backbone, spec.checkpoint, spec.precision],
            "protocol": spec.protocol,
            "place": [str(spec.data), spec.device],
        }
    )
