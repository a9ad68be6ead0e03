"""Arms of a study: the runs that share a table row, and the row's label.

Runs belong to the same arm if they differ only in task and seed. Settings that a recipe sets per task do not split an
arm; a setting that differs between runs of the same task does. Runs that differ in anything else are never averaged.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from shipbench.counts import counted
from shipbench.record import IMPORTED, SHIPBENCH, UNSEALED
from shipbench.report.analysis.configurations import Configuration, configurations, difference, sortable
from shipbench.report.analysis.copies import ArmRun, copies_of
from shipbench.report.wording.names import (
    component_name,
    method_name,
    method_order,
    setting_name,
    suite_order,
    switch_order,
)
from shipbench.report.wording.numbers import setting
from shipbench.report.wording.text import joined, shortened_apart

IDENTITY = (
    "suite",
    "method",
    "switches",
    "protocol",
    "recipe",
    "backbone",
    "backbone_sha256",
    "image_size",
    "origin",
    "shots",
    "kind",
    "reference",
)
"""The columns whose values set arms apart, in the order of the fields of ``Arm``; settings set them apart as well."""

UNKNOWN_SIZE = -1.0
"""The image size of an arm whose records do not state it."""

_VARIED = ("key", "switches", "changes", "copy", "precisions", "label", "short_label")
"""The fields in which an ablation or a sweep may differ from its reference arm."""

_CIRCUMSTANCES = (
    "precision",
    "shipbench_version",
    "git_commit",
    "method_package",
    "origin_file",
    "image_format",
    "data_fingerprint",
)
"""What tells copies on the same images apart, the most important first; the last two differ between tasks as well."""


@dataclass(frozen=True)
class Arm:
    """One configuration of a method on a suite; ``changes`` are the settings that differ from the main arm.

    ``precisions`` is in words, and empty unless copies differ in it. ``label`` is unique in the suite; ``short_label``,
    which fits in a figure, tells different labels of a study apart.
    """

    key: int
    suite: str
    method: str
    switches: tuple[str, ...]
    protocol: str
    recipe: str
    backbone: str
    weights: str
    image_size: float
    origin: str
    shots: int
    kind: str
    reference: str
    changes: Configuration
    copy: int
    precisions: str = ""
    label: str = ""
    short_label: str = ""

    @property
    def main(self) -> bool:
        """Whether the arm belongs in the main table: no part switched off and no setting varied."""
        return not self.switches and not self.changes

    @property
    def imported(self) -> bool:
        """Whether another harness made its results."""
        return self.kind == IMPORTED

    @property
    def tuned(self) -> bool:
        """Whether its settings were chosen on validation images."""
        return self.protocol == "validation"

    @property
    def base(self) -> tuple[str, str, float]:
        """The backbone, its weights and the image size."""
        return self.backbone, self.weights, self.image_size

    def shares_base(self, other: Arm) -> bool:
        """Return whether the ``base`` of both is the same, as far as both sets of records state it."""
        pairs = zip(self.base, other.base, strict=True)
        return all(ours == theirs or {ours, theirs} & {"", UNKNOWN_SIZE} for ours, theirs in pairs)

    @property
    def setup(self) -> tuple[Any, ...]:
        """The properties that an ablation or a sweep shares with its reference arm."""
        return tuple(value for name, value in vars(self).items() if name not in _VARIED)


def assign_arms(runs: pd.DataFrame) -> tuple[pd.Series[int], tuple[Arm, ...]]:
    """Return the arm key of every run (indexed like ``runs``) and the arms in table order."""
    facts = _facts(runs)
    by_identity: dict[tuple[Any, ...], list[int]] = defaultdict(list)
    for position, run in enumerate(facts):
        by_identity[run.identity].append(position)
    by_arm: dict[tuple[Any, ...], list[int]] = defaultdict(list)
    for identity, members in by_identity.items():
        changes = _changes([facts[i] for i in members])
        copies = copies_of([facts[i] for i in members], changes)
        for position, change, copy in zip(members, changes, copies, strict=True):
            arm_identity = (*identity, change, copy)
            by_arm[arm_identity].append(position)
    precisions = _precisions({identity: [facts[i] for i in members] for identity, members in by_arm.items()})
    arms = [_arm(number, identity, precisions[identity]) for number, identity in enumerate(by_arm)]
    keys = {position: arm.key for arm, members in zip(arms, by_arm.values(), strict=True) for position in members}
    series = pd.Series([keys[i] for i in range(len(facts))], index=runs.index, dtype=int)
    return series, tuple(_with_short_labels(sorted(_labelled(arms), key=_order)))


def identities(runs: pd.DataFrame, names: Sequence[str] = IDENTITY) -> pd.Series[Any]:
    """Return the values of ``names``, which include image size and shots, for every run as tuples that compare."""
    known = runs[list(names)].fillna({"image_size": UNKNOWN_SIZE, "shots": 0}).astype({"shots": int})
    return pd.Series(list(known.itertuples(index=False, name=None)), index=runs.index, dtype=object)


def origin_name(origin: str) -> str:
    """Return how a label says where records come from; empty for those with the seal of shipbench."""
    if origin == SHIPBENCH:
        return ""
    return "unsealed records" if origin == UNSEALED else f"records from {origin}"


def _facts(runs: pd.DataFrame) -> list[ArmRun]:
    circumstances = runs[list(_CIRCUMSTANCES)].itertuples(index=False, name=None)
    return [
        ArmRun(
            run_id, identity, task, seed, version, status == "done", settings, circumstance, bool(overrides), created
        )
        for run_id, identity, task, seed, version, status, settings, circumstance, overrides, created in zip(
            runs["run_id"],
            identities(runs),
            runs["task"],
            runs["seed"],
            runs["data_version"],
            runs["status"],
            configurations(runs),
            circumstances,
            runs["overrides"],
            runs["created"],
            strict=True,
        )
    ]


def _arm(key: int, identity: tuple[Any, ...], precisions: str) -> Arm:
    suite, method, switches, *properties = identity
    parts = tuple(switches.split("+")) if switches else ()
    return replace(Arm(key, suite, method, parts, *properties), precisions=precisions)


def _precisions(by_arm: Mapping[tuple[Any, ...], Iterable[ArmRun]]) -> dict[tuple[Any, ...], str]:
    """Return the precisions of every arm in words, empty where those of its copies are the same."""
    words = {arm: joined(sorted({run.precision for run in runs if run.done} - {""})) for arm, runs in by_arm.items()}
    copies: dict[tuple[Any, ...], set[str]] = defaultdict(set)
    for (*same, _), text in words.items():
        copies[tuple(same)].add(text)
    return {arm: text if len(copies[arm[:-1]]) > 1 else "" for arm, text in words.items()}


def _order(arm: Arm) -> tuple[Any, ...]:
    return (
        suite_order(arm.suite),
        method_order(arm.method),
        len(arm.switches),
        [switch_order(switch, arm.method) for switch in arm.switches],
        arm.origin != SHIPBENCH,
        arm.setup[2:],
        len(arm.changes),
        [key for key, _ in arm.changes],
        [sortable(value) for _, value in arm.changes],
        arm.copy,
        arm.key,
    )


def _changes(runs: Sequence[ArmRun]) -> list[Configuration]:
    """Return, for every run, the settings that differ from the reference settings of its task."""
    ranking = _ranking(runs)
    present: dict[str, set[Configuration]] = defaultdict(set)
    for run in runs:
        present[run.task].add(run.settings)
    references = {task: min(settings, key=ranking.__getitem__) for task, settings in present.items()}
    return [difference(run.settings, references[run.task]) for run in runs]


def _ranking(runs: Sequence[ArmRun]) -> Mapping[Configuration, tuple[Any, ...]]:
    """Rank settings as the reference: recipe before overrides, then by number of runs, centrality and age."""
    members: dict[Configuration, list[ArmRun]] = defaultdict(list)
    for run in runs:
        members[run.settings].append(run)
    distances = _distances(members)
    return {
        settings: (
            all(run.overridden for run in sharing),
            -len(sharing),
            distances[settings],
            min(run.created for run in sharing),
            repr(settings),
        )
        for settings, sharing in members.items()
    }


def _distances(choices: Collection[Configuration]) -> dict[Configuration, int]:
    """Return, for each of ``choices``, in how many settings the others differ from it, summed over them.

    Counting the values of each setting takes time in proportion to the choices, comparing all pairs to their square.
    """
    values: dict[str, Counter[Any]] = defaultdict(Counter)
    for choice in choices:
        for key, value in choice:
            values[key][value] += 1
    for counts in values.values():
        counts[None] += len(choices) - counts.total()
    distances = {}
    for choice in choices:
        own = dict(choice)
        distances[choice] = sum(len(choices) - counts[own.get(key)] for key, counts in values.items())
    return distances


def _labelled(arms: Sequence[Arm]) -> list[Arm]:
    suites: dict[str, list[Arm]] = defaultdict(list)
    for arm in arms:
        suites[arm.suite].append(arm)
    varieties = {suite: _variety(members) for suite, members in suites.items()}
    labels = [_label(arm, varieties[arm.suite]) for arm in arms]
    times = Counter((arm.suite, label) for arm, label in zip(arms, labels, strict=True))
    numbered: Counter[tuple[str, str, str]] = Counter()
    labelled = []
    for arm, label in zip(arms, labels, strict=True):
        numbered[arm.suite, label, arm.method] += 1
        number = numbered[arm.suite, label, arm.method]
        # Arms of one method have one label where records of one of them do not state what sets them apart.
        sign = f" [{arm.method}{f' {number}' if number > 1 else ''}]" if times[arm.suite, label] > 1 else ""
        labelled.append(replace(arm, label=label + sign))
    return labelled


def _with_short_labels(arms: Sequence[Arm]) -> Iterator[Arm]:
    labels = list(dict.fromkeys(arm.label for arm in arms))
    short = dict(zip(labels, shortened_apart(labels), strict=True))
    return (replace(arm, short_label=short[arm.label]) for arm in arms)


@dataclass(frozen=True)
class _Variety:
    """What the arms of a suite have; the labels name what more than one value exists of.

    ``weights`` are those of each backbone, ``references`` those of each method and origin.
    """

    backbones: Set[str]
    weights: Mapping[str, Set[str]]
    sizes: Set[float]
    origins: Set[str]
    references: Mapping[tuple[str, str], Set[str]]
    recipes: Set[str]


def _variety(arms: Sequence[Arm]) -> _Variety:
    weights: dict[str, set[str]] = defaultdict(set)
    references: dict[tuple[str, str], set[str]] = defaultdict(set)
    for arm in arms:
        weights[arm.backbone] |= {arm.weights} - {""}
        references[arm.method, arm.origin].add(arm.reference)
    return _Variety(
        backbones={arm.backbone for arm in arms},
        weights=weights,
        sizes={arm.image_size for arm in arms} - {UNKNOWN_SIZE},
        origins={arm.origin for arm in arms},
        references=references,
        recipes={arm.recipe for arm in arms},
    )


def _label(arm: Arm, suite: _Variety) -> str:
    """Name the method and everything that distinguishes the arm from the others of its suite."""
    several_weights = len(suite.weights[arm.backbone]) > 1
    several_references = len(suite.references[arm.method, arm.origin]) > 1
    details = [
        *(f"without {component_name(switch, arm.method)}" for switch in arm.switches),
        *(f"{setting_name(key)} {setting(value)}" for key, value in arm.changes),
        "tuned" if arm.tuned else "",
        counted(arm.shots, "shot") if arm.shots else "",
        f"{arm.recipe} recipe" if arm.recipe and len(suite.recipes) > 1 else "",
        arm.backbone if len(suite.backbones) > 1 else "",
        f"weights {arm.weights[:8]}" if several_weights and arm.weights else "",
        f"{arm.image_size:g} px" if len(suite.sizes) > 1 and arm.image_size != UNKNOWN_SIZE else "",
        origin_name(arm.origin) if len(suite.origins) > 1 else "",
        arm.reference if several_references else "",
        arm.precisions,
        f"record {arm.copy + 1} of the same seeds" if arm.copy else "",
    ]
    detail = ", ".join(filter(None, details))
    return f"{method_name(arm.method)} ({detail})" if detail else method_name(arm.method)
