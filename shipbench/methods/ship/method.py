"""SHIP as the harness sees it: settings, recipes, switches, and building it from a task's training images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from shipbench.errors import InputError
from shipbench.methods.interface import BuildContext, Built, Grid, SettingValue
from shipbench.methods.ship.config import ShipConfig

if TYPE_CHECKING:
    from torch import Tensor

    from shipbench.tasks import Task

# Each ablation switch, as the settings that it changes.
SWITCHES: Mapping[str, Mapping[str, SettingValue]] = {
    "no-hierarchy": {"threshold": 1.0},
    "no-shared-prompts": {"shared_length": 0},
    "no-attribute-prompts": {"attribute_length": 0},
    "no-matching-loss": {"matching_weight": 0.0},
    "coupled-attention": {"attention": "coupled"},
}


class ShipMethod:
    """Semantic hierarchical prompts (Zhu et al., ICASSP 2025)."""

    name = "ship"
    summary = "semantic hierarchical prompts: levels, shared and attribute prompts, decoupled attention, matching loss"
    settings = ShipConfig
    stackable = True

    def recipe(self, recipe: str, task: Task) -> Mapping[str, SettingValue]:
        """Return the authors' training recipe and per-task settings under ``"published"``, and nothing else."""
        if recipe != "published":
            return {}
        from shipbench.published import published_ship_runs

        found = published_ship_runs().get(task.name)
        if found is None:
            raise InputError(f"SHIP has no published settings for {task.name}; use --recipe default")
        return {
            "lr": found.lr,
            "weight_decay": found.weight_decay,
            "prompt_length": found.prompt_length,
            "threshold": found.threshold,
            "schedule": "ship",
            "eval_every": 10,
        }

    def grids(self) -> Mapping[str, Grid]:
        """Return ``small``, a first look of ours, and ``published``: every value that the authors' results use."""
        from shipbench.published import published_ship_runs

        runs = published_ship_runs().values()
        return {
            "small": {"prompt_length": (5, 10, 50), "threshold": (0.93, 0.97), "weight_decay": (1e-4, 1e-2)},
            "published": {
                "prompt_length": sorted({run.prompt_length for run in runs}),
                "threshold": sorted({run.threshold for run in runs}),
                "weight_decay": sorted({run.weight_decay for run in runs}),
            },
        }

    def switches(self, settings: ShipConfig) -> tuple[str, ...]:
        """Return the ablation switches that ``settings`` amount to."""
        on = {
            "no-hierarchy": settings.threshold >= 1.0,
            "no-shared-prompts": settings.shared_length == 0,
            "no-attribute-prompts": not settings.has_attributes,
            "no-matching-loss": settings.matching_weight == 0,
            "coupled-attention": settings.attention == "coupled",
        }
        return tuple(name for name in SWITCHES if on[name])

    def build(self, context: BuildContext) -> Built:
        """Find levels and bank on the training images through the frozen backbone, then build the prompts."""
        from shipbench.methods.ship.model import Ship

        config: ShipConfig = context.settings
        levels, bank, facts = _restored(config, context) if context.known else _found(config, context)
        return Built(Ship(context.backbone, context.num_classes, levels, bank, config), facts)


def _found(config: ShipConfig, context: BuildContext) -> tuple[list[int], Tensor | None, Mapping[str, Any]]:
    """Return levels and bank as the training images have them."""
    from shipbench.methods.ship.hierarchy import affinity_matrix, build_hierarchy

    features = context.block_features(config.feature)
    affinity = affinity_matrix(features)
    levels = build_hierarchy(affinity, config.threshold, config.end_layer)
    _say_levels(levels, config, context)
    bank = _bank(features[:, -1], config, context) if config.has_attributes else None
    facts = {"levels": levels, "affinity": affinity.tolist(), "prototypes": 0 if bank is None else len(bank)}
    return levels, bank, facts


def _restored(config: ShipConfig, context: BuildContext) -> tuple[list[int], Tensor | None, Mapping[str, Any]]:
    """Return the levels of an earlier build, and a bank of its shape whose values are loaded afterwards."""
    import torch

    size = context.known["prototypes"]
    bank = torch.zeros(size, context.backbone.embed_dim) if size else None
    return list(context.known["levels"]), bank, context.known


def _bank(features: Tensor, config: ShipConfig, context: BuildContext) -> Tensor:
    from shipbench.methods.ship.attributes import attribute_prototypes

    bank = attribute_prototypes(features, config.prototypes)
    if len(bank) < config.prototypes:
        context.say(f"attribute bank: {len(bank)} prototypes, as there are no more training images")
    return bank


def _say_levels(levels: list[int], config: ShipConfig, context: BuildContext) -> None:
    above = sum(level > 0 for level in levels)
    context.say(f"{len(levels)} semantic levels, starting at blocks {', '.join(map(str, levels))}")
    if config.has_attributes and above < config.attribute_levels:
        context.say(f"attribute prompts enter {above} level(s): no others start beyond block 0")
