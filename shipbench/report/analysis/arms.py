"""Arms of a study: which runs belong on one line of a table, and what that line is called.

Runs share an arm when only their task and seed differ. Settings that a recipe gives per task do not split an arm;
a setting that several runs of the same task disagree on does. Nothing that differs is ever averaged together.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import pandas as pd

from shipbench.report.wording.names import (
    component_name,
    method_name,
    method_order,
    setting_name,
    suite_order,
    switch_order,
)
from shipbench.report.wording.numbers import setting
from shipbench.report.wording.text import printable, shortened

Configuration: TypeAlias = tuple[tuple[str, Any], ...]

_IDENTITY = ("suite", "method", "switches", "protocol", "recipe", "backbone", "backbone_sha256", "image_size")
_CIRCUMSTANCES = ("data_fingerprint", "image_format", "precision", "shipbench_version", "git_commit")
_UNKNOWN_SIZE = -1.0


@dataclass(frozen=True)
class Arm:
    """One way of running a method on a suite; ``changes`` are the settings that differ from its main arm."""

    key: int
    suite: str
    method: str
    switches: tuple[str, ...]
    protocol: str
    recipe: str
    backbone: str
    weights: str
    image_size: float
    changes: Configuration
    copy: int
    label: str = ""

    @property
    def main(self) -> bool:
        """Say whether this arm belongs in the main table: nothing switched off, no setting varied."""
        return not self.switches and not self.changes

    @property
    def short_label(self) -> str:
        """The label, cut to a length that a figure has room for."""
        return shortened(self.label)

    @property
    def setup(self) -> tuple[Any, ...]:
        """What an ablation or a sweep shares with the arm it is compared to."""
        return (
            self.suite,
            self.method,
            self.protocol,
            self.recipe,
            self.backbone,
            self.weights,
            self.image_size,
            self.copy,
        )


@dataclass(frozen=True)
class _Run:
    """What decides the arm of one run; ``identity`` sets arms apart whatever the settings are."""

    run_id: str
    identity: tuple[Any, ...]
    task: str
    seed: int
    done: bool
    settings: Configuration
    circumstances: tuple[str, ...]
    overridden: bool
    created: str


def assign_arms(runs: pd.DataFrame) -> tuple[pd.Series[int], tuple[Arm, ...]]:
    """Return each run's arm key (indexed as ``runs``), and the arms in the order in which tables list them."""
    facts = _facts(runs)
    groups: dict[tuple[Any, ...], list[int]] = defaultdict(list)
    for position, run in enumerate(facts):
        groups[run.identity].append(position)
    found: dict[tuple[Any, ...], list[int]] = defaultdict(list)
    for identity, members in groups.items():
        changes = _changes([facts[i] for i in members])
        copies = _copies([facts[i] for i in members], changes)
        for position, change, copy in zip(members, changes, copies, strict=True):
            full_identity = (*identity, change, copy)
            found[full_identity].append(position)
    arms = [_arm(number, identity) for number, identity in enumerate(found)]
    keys = {position: arm.key for arm, members in zip(arms, found.values(), strict=True) for position in members}
    series = pd.Series([keys[i] for i in range(len(facts))], index=runs.index, dtype=int)
    return series, tuple(sorted(_labelled(arms), key=_order))


def configurations(runs: pd.DataFrame) -> list[Configuration]:
    """Return every run's settings as sorted ``(key, value)`` pairs, leaving out those it does not have."""
    names = sorted(name for name in runs.columns if name.startswith("cfg."))
    # A frame without columns has no rows to go through before pandas 3.
    rows = runs[["run_id", *names]].itertuples(index=False, name=None)
    return [
        tuple((name, _plain(value)) for name, value in zip(names, values, strict=True) if _present(value))
        for _, *values in rows
    ]


def difference(settings: Configuration, reference: Configuration) -> Configuration:
    """Return the settings that are not as in ``reference``, sorted by key; one that is gone is "none"."""
    ours, theirs = dict(settings), dict(reference)
    keys = sorted(ours.keys() | theirs.keys())
    return tuple((key, ours.get(key, "none")) for key in keys if ours.get(key) != theirs.get(key))


def _facts(runs: pd.DataFrame) -> list[_Run]:
    sizes = runs["image_size"].fillna(_UNKNOWN_SIZE)
    identities = runs.assign(image_size=sizes)[list(_IDENTITY)].itertuples(index=False, name=None)
    circumstances = runs[list(_CIRCUMSTANCES)].itertuples(index=False, name=None)
    return [
        _Run(run_id, identity, task, seed, status == "done", settings, circumstance, bool(overrides), created)
        for run_id, identity, task, seed, status, settings, circumstance, overrides, created in zip(
            runs["run_id"],
            identities,
            runs["task"],
            runs["seed"],
            runs["status"],
            configurations(runs),
            circumstances,
            runs["overrides"],
            runs["created"],
            strict=True,
        )
    ]


def _arm(key: int, identity: tuple[Any, ...]) -> Arm:
    suite, method, switches, protocol, recipe, backbone, weights, size, changes, copy = identity
    parts = tuple(switches.split("+")) if switches else ()
    return Arm(key, suite, method, parts, protocol, recipe, backbone, weights, size, changes, copy)


def _order(arm: Arm) -> tuple[Any, ...]:
    return (
        suite_order(arm.suite),
        method_order(arm.method),
        len(arm.switches),
        [switch_order(switch) for switch in arm.switches],
        arm.setup[2:7],
        len(arm.changes),
        [key for key, _ in arm.changes],
        [sortable(value) for _, value in arm.changes],
        arm.copy,
        arm.key,
    )


def sortable(value: Any) -> tuple[bool, float, str]:
    """Sort key for settings of any type: numbers by size, then everything else by its text."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return not number, float(value) if number else 0.0, str(value)


def _present(value: Any) -> bool:
    return value is not None and not (isinstance(value, float) and math.isnan(value)) and value is not pd.NA


def _plain(value: Any) -> Any:
    """Make equal settings equal: numpy numbers and whole floats (columns with gaps) become Python's own."""
    value = value.item() if getattr(value, "size", 0) == 1 and hasattr(value, "item") else value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, (bool, int, float)) else printable(str(value))


def _changes(runs: Sequence[_Run]) -> list[Configuration]:
    """Return what differs, for every run, from the reference settings of its task."""
    ranking = _ranking(runs)
    present: dict[str, set[Configuration]] = defaultdict(set)
    for run in runs:
        present[run.task].add(run.settings)
    references = {task: min(found, key=ranking.__getitem__) for task, found in present.items()}
    return [difference(run.settings, references[run.task]) for run in runs]


def _ranking(runs: Sequence[_Run]) -> Mapping[Configuration, tuple[Any, ...]]:
    """Rank settings as reference: the recipe's own, then the most used, the most central, the earliest."""
    members: dict[Configuration, list[_Run]] = defaultdict(list)
    for run in runs:
        members[run.settings].append(run)
    return {
        settings: (
            all(run.overridden for run in found),
            -len(found),
            sum(len(difference(other, settings)) for other in members),
            min(run.created for run in found),
            repr(settings),
        )
        for settings, found in members.items()
    }


def _copies(runs: Sequence[_Run], changes: Iterable[Configuration]) -> list[int]:
    """Number finished runs of the same settings, task and seed: 0 for those under the commonest circumstances."""
    common = Counter(run.circumstances for run in runs)
    cells = [(change, run.task, run.seed) for change, run in zip(changes, runs, strict=True)]
    order = sorted(
        range(len(runs)), key=lambda i: (-common[runs[i].circumstances], runs[i].circumstances, runs[i].run_id)
    )
    seen: Counter[tuple[Any, ...]] = Counter()
    copies = [0] * len(runs)
    for i in order:
        if runs[i].done:
            copies[i] = seen[cells[i]]
            seen[cells[i]] += 1
    return copies


def _labelled(arms: Sequence[Arm]) -> list[Arm]:
    suites: dict[str, list[Arm]] = defaultdict(list)
    for arm in arms:
        suites[arm.suite].append(arm)
    labels = [_label(arm, suites[arm.suite]) for arm in arms]
    times = Counter((arm.suite, label) for arm, label in zip(arms, labels, strict=True))
    return [
        replace(arm, label=label if times[arm.suite, label] == 1 else f"{label} [{arm.method}]")
        for arm, label in zip(arms, labels, strict=True)
    ]


def _label(arm: Arm, others: Sequence[Arm]) -> str:
    """Name the method and whatever sets the arm apart from the others of its suite."""
    names = {other.backbone for other in others}
    weights = {other.weights for other in others if other.backbone == arm.backbone}
    sizes = {other.image_size for other in others}
    parts = [
        *(f"without {component_name(switch)}" for switch in arm.switches),
        *(f"{setting_name(key)} {setting(value)}" for key, value in arm.changes),
        "tuned on validation" if arm.protocol == "validation" else "",
        f"{arm.recipe} recipe" if arm.recipe and len({other.recipe for other in others}) > 1 else "",
        arm.backbone if len(names) > 1 else "",
        f"weights {arm.weights[:8]}" if len(weights) > 1 else "",
        f"{arm.image_size:g} px" if len(sizes) > 1 and arm.image_size != _UNKNOWN_SIZE else "",
        f"record {arm.copy + 1} of the same seeds" if arm.copy else "",
    ]
    extra = ", ".join(part for part in parts if part)
    return f"{method_name(arm.method)} ({extra})" if extra else method_name(arm.method)
