"""Published rows matched with the arms of the same method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

from shipbench.backbones.pinned import RANDOM
from shipbench.published import PublishedRow, published_rows
from shipbench.report.analysis.arms import UNKNOWN_SIZE, Arm
from shipbench.report.analysis.study import Study
from shipbench.settings import one_of

PublishedChoice: TypeAlias = Literal["default", "all", "none"]
IMAGE_SIZE = 224
BACKBONES = {
    "ViT-B/16 IN-21k supervised (original ViT-B_16.npz)": "vit_base_patch16_224.orig_in21k",
    "ViT-B/16 IN-21k AugReg": "vit_base_patch16_224.augreg_in21k",
}
"""The backbones of published rows whose weights are known, by their names in the rows."""

# By the name of a row: our method, and the settings of all tasks that tell the row from others of the method. Left out
# are the adapters of VPT's table, whose numbers may be widths or factors; RepAdapter's README, which swaps its two
# methods between tables; and PSOFT's runs, whose weights are not known and whose LoRA has a pair each for q, k and v.
_SAME_METHOD: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "Full fine-tuning": ("full", {}),
    "Full fine-tuning (re-run, Han et al. 2024)": ("full", {}),
    "Linear probe": ("linear", {}),
    "Partial-1": ("partial", {"blocks": 1}),
    "Bias / BitFit": ("bitfit", {}),
    "VPT-Shallow": ("vpt-shallow", {}),
    "VPT-Deep": ("vpt-deep", {}),
    "VPT-Deep (re-run, Han et al. 2024)": ("vpt-deep", {}),
    "SHIP": ("ship", {}),
    "Adapter-8": ("adapter", {"form": "noah", "dim": 8}),
    "AdaptFormer": ("adaptformer", {"dim": 8, "scale": 0.1}),
    "LoRA-8": ("lora", {"form": "noah", "rank": 8}),
    "SSF": ("ssf", {}),
    "FacT-TT": ("fact-tt", {}),
    "FacT-TK": ("fact-tk", {}),
    "RepAdapter": ("repadapter", {"dim": 8}),
    "Convpass": ("convpass", {"dim": 8}),
    "Convpass-attn": ("convpass-attn", {"dim": 8}),
}


@dataclass(frozen=True)
class PublishedMatch:
    """A published row and our main arms of the same configuration.

    ``comparable`` arms also use its weights and image size, and train on all images of a task.
    """

    row: PublishedRow
    arms: tuple[Arm, ...]
    comparable: tuple[Arm, ...]


def published_choice(text: str) -> PublishedChoice:
    """Parse ``--published``; raises ``InputError`` unless it is default, all or none."""
    choices: tuple[PublishedChoice, ...] = get_args(PublishedChoice)
    return one_of(text, choices, "--published", "choice")


def published_matches(study: Study, arms: Sequence[Arm], choice: PublishedChoice) -> list[PublishedMatch]:
    """Return the chosen published rows with our arms of their configuration; matched rows come first, in arm order."""
    if choice == "none":
        return []
    matches = [_match(study, row, arms) for row in published_rows()]
    shown = [match for match in matches if match.arms or choice == "all"]
    return sorted(shown, key=lambda match: list(arms).index(match.arms[0]) if match.arms else len(arms))


def published_means(row: PublishedRow, groups: Mapping[str, Sequence[str]]) -> dict[str, float]:
    """Return the published accuracies, in percent, of the tasks in ``groups``."""
    return {
        task: row.accuracy_percent[task] for tasks in groups.values() for task in tasks if task in row.accuracy_percent
    }


def _match(study: Study, row: PublishedRow, arms: Sequence[Arm]) -> PublishedMatch:
    same = tuple(arm for arm in arms if _is_same(study, row, arm))
    return PublishedMatch(row, same, tuple(arm for arm in same if _is_comparable(study, row, arm)))


def _is_same(study: Study, row: PublishedRow, arm: Arm) -> bool:
    method, shared = _SAME_METHOD.get(row.method, ("", {}))
    settings = (
        [dict(configuration) for configuration in study.settings_of(arm).values()] if method == arm.method else []
    )
    return bool(settings) and all(own.get(f"cfg.{name}") == value for own in settings for name, value in shared.items())


def _is_comparable(study: Study, row: PublishedRow, arm: Arm) -> bool:
    has_images = arm.shots == 0 and arm.image_size in (IMAGE_SIZE, UNKNOWN_SIZE)
    return has_images and arm.backbone == BACKBONES.get(row.backbone) and _has_published_weights(study, arm)


def _has_published_weights(study: Study, arm: Arm) -> bool:
    """Return whether an arm uses the weights of its backbone's name, or a file that holds the same ones."""
    records, checkpoints = study.records, study.runs_of([arm])["checkpoint"]
    by_name = records[(records["backbone"] == arm.backbone) & (records["checkpoint"] == "")]
    is_known = arm.weights in set(by_name["backbone_sha256"]) - {""}
    return bool((checkpoints == "").all() or (is_known and (checkpoints != RANDOM).all()))
