"""Which planned runs can be trained together, in one pass over the frozen backbone."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise

from shipbench.errors import InputError
from shipbench.planning.plan import PlannedRun
from shipbench.settings import canonical_json

# A limit to the memory that a measurement on the spot may take, not a measured optimum.
_AUTOMATIC = 4


@dataclass(frozen=True)
class Stacking:
    """How many runs a stack may have at ``most``, and whether it must first be ``measured`` to be faster."""

    most: int = 1
    measured: bool = False

    def on(self, device_type: str) -> Stacking:
        """Return what this means on a device: on a CPU, where matrix products take the time, stacks gain nothing."""
        return Stacking() if self.measured and device_type == "cpu" else self


def parse_stacking(text: str) -> Stacking:
    """Read ``auto``, ``off`` or the largest number of runs in a stack."""
    if text == "auto":
        return Stacking(_AUTOMATIC, measured=True)
    if text == "off":
        return Stacking()
    if not text.isdecimal() or int(text) < 1:
        raise InputError(f"--stack {text!r} is neither auto nor off nor a number of runs, as in 4")
    return Stacking(int(text))


def in_stacks(runs: Sequence[PlannedRun], most: int) -> list[tuple[PlannedRun, ...]]:
    """Group runs that can be trained together, at most so many in a group, in the order of their first ones.

    They have the same method, task, settings and recipe but for seed, learning rate and weight decay.
    """
    alike: dict[str, list[PlannedRun]] = {}
    for run in runs:
        alike.setdefault(run.run_id if most == 1 else _likeness(run), []).append(run)
    return [stack for group in alike.values() for stack in _evenly(group, most)]


def _evenly(group: Sequence[PlannedRun], most: int) -> Iterator[tuple[PlannedRun, ...]]:
    """Split as evenly as can be: five runs with at most four in a stack are two and three, not four and one."""
    count = math.ceil(len(group) / most)
    bounds = [len(group) * index // count for index in range(count + 1)]
    return (tuple(group[start:end]) for start, end in pairwise(bounds))


def _likeness(run: PlannedRun) -> str:
    """Return what runs of one stack have in common; a run of a method that cannot be stacked is like no other."""
    spec, resolved = run.spec, run.spec.resolved
    if not getattr(resolved.method, "stackable", False):
        return run.run_id
    return canonical_json(
        {
            "method": resolved.method.name,
            "task": resolved.task.name,
            "settings": asdict(resolved.settings),
            "recipe": asdict(replace(resolved.recipe, lr=0.0, weight_decay=0.0)),
            "backbone": [resolved.backbone, spec.checkpoint, spec.precision],
            "protocol": spec.protocol,
            "place": [str(spec.data), spec.device],
            "fresh": run.fresh,
        }
    )
