"""Images that the split files of a task list more than once, or with more than one label."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from shipbench.data.types import Entry


@dataclass(frozen=True)
class ListedPath:
    """A path that is listed more than once: its labels, and how often each split file lists it."""

    path: str
    labels: tuple[int, ...]
    times: Mapping[str, int]

    @property
    def repeated(self) -> bool:
        """Whether one split lists the path twice, or two disjoint splits list it; train800val200 repeats the others."""
        disjoint = [name for name in self.times if name != "train800val200"]
        return len(disjoint) > 1 or max(self.times.values()) > 1

    def __str__(self) -> str:
        """Return the path, its labels if they differ, and where it is listed."""
        labels = f" with the labels {', '.join(map(str, self.labels))}" if len(self.labels) > 1 else ""
        places = [f"{name}.txt{f' ({count} times)' if count > 1 else ''}" for name, count in self.times.items()]
        return f"{self.path}{labels} in {', '.join(places)}"


def listed_paths(splits: Mapping[Any, Sequence[Entry]]) -> list[ListedPath]:
    """Return the paths that are listed more than once, in the order of their first mention."""
    times = Counter(entry.path for entries in splits.values() for entry in entries)
    labels: dict[str, set[int]] = defaultdict(set)
    places: dict[str, Counter[str]] = defaultdict(Counter)
    for name, entries in splits.items():
        for entry in entries:
            if times[entry.path] > 1:
                labels[entry.path].add(entry.label)
                places[entry.path][name] += 1
    return [ListedPath(path, tuple(sorted(labels[path])), dict(places[path])) for path in labels]
