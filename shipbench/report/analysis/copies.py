"""Copies: finished runs with the same settings, task and seed, which belong to different arms."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from shipbench.report.analysis.configurations import Configuration
from shipbench.report.analysis.data_versions import DataVersion


@dataclass(frozen=True)
class ArmRun:
    """The facts that assign a run to an arm; runs with different ``identity`` never share one."""

    run_id: str
    identity: tuple[Any, ...]
    task: str
    seed: int
    version: DataVersion
    done: bool
    settings: Configuration
    circumstances: tuple[str, ...]
    overridden: bool
    created: str

    @property
    def treatment(self) -> tuple[str, str]:
        """How the images were resized and augmented."""
        return self.version.resize, self.version.augment

    @property
    def precision(self) -> str:
        """The numerical precision, the first of the circumstances."""
        return self.circumstances[0]


def copies_of(runs: Sequence[ArmRun], changes: Iterable[Configuration]) -> list[int]:
    """Number the finished runs with the same settings, task and seed; ``changes`` are the changed settings of each.

    Runs on other images have other numbers (see ``_apart``). Of those on the same images, the runs of the most common
    precision come first, and among them those of the most common version, and so on: the same ones on every task.
    """
    finished = [run for run in runs if run.done]
    places = _places((prefix, run) for run in finished for prefix in _prefixes(run.circumstances))
    treatments = _places((run.treatment, run) for run in finished)

    def rank(i: int) -> tuple[Any, ...]:
        return *(places[prefix] for prefix in _prefixes(runs[i].circumstances)), runs[i].run_id

    def preference(i: int) -> tuple[int, int]:
        return places[runs[i].circumstances[:1]], treatments[runs[i].treatment]

    members: dict[tuple[Configuration, str], list[int]] = defaultdict(list)
    for i, change in enumerate(changes):
        if runs[i].done:
            members[change, runs[i].task].append(i)
    copies = [0] * len(runs)
    for positions in members.values():
        first = 0
        for group in _apart(runs, positions, preference):
            numbered: Counter[int] = Counter()
            for i in sorted(group, key=rank):
                copies[i] = first + numbered[runs[i].seed]
                numbered[runs[i].seed] += 1
            first += max(numbered.values())
    return copies


def _apart(
    runs: Sequence[ArmRun], positions: Sequence[int], preference: Callable[[int], tuple[int, int]]
) -> list[list[int]]:
    """Split runs on a task by their data version if seeds were repeated on another one: no copy mixes them then.

    The version of the preferred runs comes first, of equals that with most seeds, and of these the latest one.
    """
    by_version: dict[DataVersion, list[int]] = defaultdict(list)
    for i in positions:
        by_version[runs[i].version].append(i)
    seeds = {version: {runs[i].seed for i in group} for version, group in by_version.items()}
    if len(set.union(*seeds.values())) == sum(map(len, seeds.values())):
        return [list(positions)]

    def order(version: DataVersion) -> tuple[int, str, DataVersion]:
        return len(seeds[version]), max(runs[i].created for i in by_version[version]), version

    groups = [by_version[version] for version in sorted(by_version, key=order, reverse=True)]
    return sorted(groups, key=lambda group: min(map(preference, group)))


def _places(runs: Iterable[tuple[tuple[str, ...], ArmRun]]) -> dict[tuple[str, ...], int]:
    """Return the place of every property among those of ``runs``: the commonest first, and of equals the latest."""
    created: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for value, run in runs:
        created[value].append(run.created)
    order = sorted(created, key=lambda value: (len(created[value]), max(created[value]), value), reverse=True)
    return {value: place for place, value in enumerate(order)}


def _prefixes(values: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    return (values[:length] for length in range(1, len(values) + 1))
