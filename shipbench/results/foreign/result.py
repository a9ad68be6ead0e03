"""What a reader returns: the results in a file of another harness, and the files without one.

Accuracies are fractions in [0, 1] and epochs count from 0, whatever the harness writes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

VTAB = "vtab-1k"
BACKBONE_PARAMETERS = 85_798_656
"""Parameters of ViT-B/16 without a head."""
HEAD_PARAMETERS_PER_CLASS = 769
"""Weights and bias of one class of a linear head on 768 features."""

LAST_COUNTS = "the last epoch in the file counts as the final one"
"""The note on a result whose file does not state how many epochs the run was to have."""

Unit: TypeAlias = Literal["percent", "fraction"]


@dataclass(frozen=True)
class Evaluation:
    """The accuracy on a split after an epoch."""

    epoch: int
    split: Literal["val", "test"]
    accuracy: float


@dataclass(frozen=True)
class ForeignResult:
    """One result of another harness, as far as its file states it; None is unknown.

    ``row`` tells the results of one file apart. ``final`` is the test accuracy after the last epoch, ``best`` the
    highest of several test evaluations; ``stated`` is one whose epoch was chosen by ``rule``: on validation images, or
    in an unknown way if it is empty. ``parameters`` counts trained parameters, ``parameters_as_written`` is the number
    in the file if it is another one, and ``with_head`` says whether both count the head; ``other_head`` that the head
    is not a linear one on the 768 features of ViT-B. ``reference`` names where the result was published, ``note`` what
    limits it.
    """

    file: Path
    method: str
    task: str
    suite: str = ""
    row: str = ""
    seed: int | None = None
    final: float | None = None
    best: float | None = None
    best_epoch: int | None = None
    stated: float | None = None
    rule: str = ""
    parameters: float | None = None
    parameters_as_written: float | None = None
    with_head: bool | None = None
    classes: int | None = None
    other_head: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)
    levels: Sequence[int] = ()
    reference: str = ""
    note: str = ""
    history: tuple[Evaluation, ...] = ()


@dataclass(frozen=True)
class Skipped:
    """A file from which nothing is imported, and why."""

    file: Path
    reason: str


Reading: TypeAlias = ForeignResult | Skipped


@dataclass(frozen=True)
class Naming:
    """What the user says about the files: the method and the task of their results, and the unit of a CSV file."""

    method: str | None = None
    task: str | None = None
    unit: Unit | None = None


@dataclass(frozen=True)
class Harness:
    """A format: its name, how messages call its files, which file names to read, and how to read one of them.

    ``read`` raises ``InputError`` for a file that makes the whole import wrong, and returns ``Skipped`` for one that
    only has no result.
    """

    name: str
    files: str
    unit: Unit
    is_candidate: Callable[[Path], bool]
    read: Callable[[Path, Naming], Iterable[Reading]]


def in_sequence(
    scores: Iterable[tuple[int | None, float | None]], split: Literal["val", "test"] = "test"
) -> list[Evaluation]:
    """Return the evaluations in a log's pairs of epoch and accuracy, without the pairs that lack one of them.

    A run appends to the log when it starts over or resumes, so an evaluation replaces earlier ones of its own epoch and
    of later epochs.
    """
    kept: list[Evaluation] = []
    for epoch, score in scores:
        if epoch is not None and score is not None:
            kept = [*(earlier for earlier in kept if earlier.epoch < epoch), Evaluation(epoch, split, score)]
    return kept


def best_of(tests: Sequence[Evaluation]) -> Evaluation:
    """Return the evaluation with the highest accuracy, the first one of several."""
    return max(tests, key=lambda test: (test.accuracy, -test.epoch))


def scores_of(tests: Sequence[Evaluation]) -> dict[str, Any]:
    """Return the fields of a ``ForeignResult`` that the test evaluations of a finished run fill."""
    best = best_of(tests)
    return {"final": tests[-1].accuracy, "best": best.accuracy, "best_epoch": best.epoch, "history": tuple(tests)}


def ends_early(tests: Sequence[Evaluation], epochs: int | None) -> bool:
    """Return whether the last test evaluation comes before the last of ``epochs``, as far as their number is known."""
    return epochs is not None and tests[-1].epoch < epochs - 1


def unfinished(file: Path, tests: Sequence[Evaluation], epochs: int | None, why: str = "") -> Skipped:
    """Return the reason why a log gives no result: how far its run came, and its accuracies until then."""
    last, best = tests[-1].accuracy, best_of(tests).accuracy
    finished = f"{tests[-1].epoch + 1}{'' if epochs is None else f' of {epochs}'} epochs"
    reached = f"the last test accuracy is {100 * last:.2f} %, the best {100 * best:.2f} %"
    return Skipped(file, f"incomplete: {finished}{f', {why}' if why else ''}; {reached}")
