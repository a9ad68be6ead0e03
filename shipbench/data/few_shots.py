"""Few shots of tasks whose source draws nothing itself: VTAB-1k, the demo suite, sources of other packages."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shipbench.data.drawing import draw_shots
from shipbench.data.types import Entry, Identity, NativeSplit, Source
from shipbench.tasks import Task
from shipbench.tasks.catalogue import SplitName


@dataclass(frozen=True)
class FewShotSource:
    """The requested splits of a task with a number of shots: train is drawn from train800, val200 from val200."""

    source: Source
    drawn: Mapping[SplitName, NDArray[np.int64]]
    requested: tuple[SplitName, ...]

    @classmethod
    def draw(cls, task: Task, source: Source, requested: tuple[SplitName, ...]) -> FewShotSource:
        """Draw the shots of ``task``; raise ``InputError`` that names the classes with too few images."""
        names = [f"{label}" for label in range(task.num_classes)]
        fit, val = draw_shots(task, _entries(source, "train800"), _entries(source, "val200"), names)
        return cls(source, {"train800": _indices(fit), "val200": _indices(val)}, requested)

    @property
    def counts(self) -> Mapping[SplitName, int]:
        """Number of images of each requested split."""
        return {name: len(self._indices(name)) for name in self.requested}

    @property
    def warning(self) -> str:
        """The warning of the source."""
        return self.source.warning

    def identity(self, jobs: int | None = None) -> Identity:
        """Return the identity of the source; the drawn splits have contents of their own."""
        identity = self.source.identity(jobs)
        contents = {str(name): self._content(name, identity.fingerprint) for name in self.requested if name != "test"}
        return Identity(identity.fingerprint, identity.image_format, {**identity.contents, **contents})

    def open_split(self, name: SplitName) -> NativeSplit:
        """Return a split whose images are decoded on access."""
        if name == "test":
            return self.source.open_split(name)
        split, indices = self.source.open_split(_parent(name)), self._indices(name)
        return NativeSplit(split.labels[indices], lambda index: split.open(int(indices[index])))

    def _indices(self, name: SplitName) -> NDArray[np.int64]:
        return np.arange(self.source.counts["test"]) if name == "test" else self.drawn[_parent(name)]

    def _content(self, name: SplitName, fingerprint: str) -> str:
        digest = hashlib.sha256(f"{fingerprint} {_parent(name)}\0".encode())
        digest.update(self._indices(name).astype("<i8").tobytes())
        return digest.hexdigest()


def _parent(name: SplitName) -> SplitName:
    """Return the split of the source that a drawn split is part of."""
    return "train800" if name == "train" else name


def _entries(source: Source, name: SplitName) -> list[Entry]:
    return [Entry(str(index), int(label)) for index, label in enumerate(source.open_split(name).labels)]


def _indices(entries: Sequence[Entry]) -> NDArray[np.int64]:
    return np.array(sorted(int(entry.path) for entry in entries), dtype=np.int64)
