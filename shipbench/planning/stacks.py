"""Group planned runs that can be trained together, in one pass over the frozen backbone."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise

from shipbench.errors import InputError
from shipbench.planning.plan import PlannedRun
from shipbench.settings import canonical_json

# Limits the memory of the measurement; not a measured optimum.
_AUTOMATIC = 4


@dataclass(frozen=True)
class Stacking:
    """The largest number of runs in a stack, and whether stacks are used only if ``measured`` to be faster."""

    most: int = 1
    measured: bool = False

    def on(self, device_type: str) -> Stacking:
        """Return the stacking for a device: none on a CPU unless requested, as matrix products dominate there."""
        return Stacking() if self.measured and device_type == "cpu" else self


def parse_stacking(text: str) -> Stacking:
    """Read ``auto``, ``off`` or the largest number of runs in a stack; raise ``InputError`` for other text."""
    if text == "auto":
        return Stacking(_AUTOMATIC, measured=True)
    if text == "off":
        return Stacking()
    if not text.isdecimal() or int(text) < 1:
        raise InputError(f"--stack {text!r} is neither auto nor off nor a number of runs; give one, as in --stack 4")
    return Stacking(int(text))


def in_stacks(runs: Sequence[PlannedRun], most: int) -> list[tuple[PlannedRun, ...]]:
    """Return stacks of at most ``most`` runs that can be trained together, ordered by their first runs.

    The runs of a stack differ only in seed, learning rate and weight decay.
    """
    groups: dict[str, list[PlannedRun]] = {}
    for run in runs:
        groups.setdefault(run.run_id if most == 1 else _stack_key(run), []).append(run)
    return [stack for group in groups.values() for stack in _split_evenly(group, most)]


def _split_evenly(group: Sequence[PlannedRun], most: int) -> Iterator[tuple[PlannedRun, ...]]:
    """Split as evenly as possible: with ``most`` 4, five runs become two and three, not four and one."""
    count = math.ceil(len(group) / most)
    bounds = [len(group) * index // count for index in range(count + 1)]
    return (tuple(group[start:end]) for start, end in pairwise(bounds))


def _stack_key(run: PlannedRun) -> str:
    """Return a text that is equal for runs that may share a stack."""
    spec, resolved = run.spec, run.spec.resolved
    if not resolved.method.stackable:
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
