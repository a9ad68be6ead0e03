"""Our results beside published ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from shipbench.errors import InputError, did_you_mean
from shipbench.published import PublishedRow, published_rows
from shipbench.report.analysis.arms import Arm
from shipbench.report.analysis.cautions import RANDOM
from shipbench.report.analysis.study import Study

PublishedChoice: TypeAlias = Literal["same", "all", "none"]


_SAME_METHOD = {
    "Full fine-tuning": "full",
    "Full fine-tuning (re-run, Han et al. 2024)": "full",
    "Linear probe": "linear",
    "VPT-Shallow": "vpt-shallow",
    "VPT-Deep": "vpt-deep",
    "VPT-Deep (re-run, Han et al. 2024)": "vpt-deep",
    "SHIP": "ship",
}


BACKBONE = "vit_base_patch16_224.orig_in21k"


@dataclass(frozen=True)
class Comparison:
    """A published row and our main arms of the same method; ``comparable`` are those on the same backbone."""

    row: PublishedRow
    arms: tuple[Arm, ...]
    comparable: tuple[Arm, ...]


def published_choice(text: str) -> PublishedChoice:
    """Read ``--published``; raises ``InputError`` for anything but same, all and none."""
    for choice in get_args(PublishedChoice):
        if text == choice:
            return choice
    known = list(get_args(PublishedChoice))
    raise InputError(f"--published: unknown choice {text!r}{did_you_mean(text, known)}; use {', '.join(known)}")


def comparisons(study: Study, arms: Sequence[Arm], choice: PublishedChoice) -> list[Comparison]:
    """Return the chosen published rows with our arms of the same method: those first, in our order."""
    if choice == "none":
        return []
    pairs = [_comparison(study, row, arms) for row in published_rows()]
    shown = [pair for pair in pairs if pair.arms or choice == "all"]
    return sorted(shown, key=lambda pair: list(arms).index(pair.arms[0]) if pair.arms else len(arms))


def _comparison(study: Study, row: PublishedRow, arms: Sequence[Arm]) -> Comparison:
    same = tuple(arm for arm in arms if _SAME_METHOD.get(row.method) == arm.method)
    return Comparison(row, same, tuple(arm for arm in same if _same_backbone(study, arm)))


def _same_backbone(study: Study, arm: Arm) -> bool:
    """Say whether the arm ran on the backbone of the published rows, with weights that were given."""
    return arm.backbone == BACKBONE and not (study.runs_of([arm])["checkpoint"] == RANDOM).any()


def published_means(row: PublishedRow, groups: Mapping[str, Sequence[str]]) -> dict[str, float]:
    """Return the row's own accuracies in percent for the tasks of ``groups``."""
    return {
        task: row.accuracy_percent[task] for tasks in groups.values() for task in tasks if task in row.accuracy_percent
    }
