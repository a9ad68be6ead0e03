"""SHIP as a method of the harness: its recipes, grids and switches, and building it from a task's training images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, ClassVar

from shipbench.counts import counted
from shipbench.errors import InputError
from shipbench.methods.interface import BuildContext, Built, Grid, Method, SettingValue, Switches
from shipbench.methods.ship.config import WITHOUT_CLASS_TOKEN, ShipConfig

if TYPE_CHECKING:
    from torch import Tensor

    from shipbench.backbones import Origin
    from shipbench.tasks import Task


class ShipMethod(Method):
    """Semantic hierarchical prompt tuning (Zhu et al., ICASSP 2025)."""

    name = "ship"
    title = "SHIP"
    summary = "semantic hierarchical prompts: levels, shared and attribute prompts, decoupled attention, matching loss"
    settings = ShipConfig
    switches: ClassVar[Switches] = {
        "no-hierarchy": {"threshold": 1.0},
        "no-shared-prompts": {"shared_length": 0},
        "no-attribute-prompts": {"attribute_length": 0},
        "no-matching-loss": {"matching_weight": 0.0},
        "coupled-attention": {"attention": "coupled"},
    }
    optional_switches: ClassVar[Switches] = {"learned-scale": {"learn_scale": True}}
    components: ClassVar[Mapping[str, str]] = {
        "coupled-attention": "decoupled attention",
        "learned-scale": "fixed attention scale",
    }
    stackable = True
    order = 5
    colour = "#d55e00"

    def recipe(self, recipe: str, task: Task) -> Mapping[str, SettingValue]:
        """Return the authors' training recipe and settings for ``task`` under ``"published"``, else nothing."""
        if recipe != "published":
            return {}
        from shipbench.published import PUBLISHED_SUITE, published_ship_runs

        run = published_ship_runs().get(task.name)
        if run is None or task.suite != PUBLISHED_SUITE:
            raise InputError(f"SHIP has no published settings for {task.name}; use --recipe default")
        return {
            "lr": run.lr,
            "weight_decay": run.weight_decay,
            "prompt_length": run.prompt_length,
            "threshold": run.threshold,
            "schedule": "ship",
            "eval_every": 10,
        }

    def grids(self) -> Mapping[str, Grid]:
        """Return ``small``, and ``published``, every value in the authors' results."""
        from shipbench.published import published_ship_runs

        runs = published_ship_runs().values()
        return {
            **super().grids(),
            "published": {
                "prompt_length": sorted({run.prompt_length for run in runs}),
                "threshold": sorted({run.threshold for run in runs}),
                "weight_decay": sorted({run.weight_decay for run in runs}),
            },
        }

    def active_switches(self, settings: ShipConfig) -> tuple[str, ...]:
        """Return the active switches; settings with the effect of a switch count like the switch.

        A threshold above 1.0 is one of 1.0, attribute prompts in no level are none, and a scale is trained only in
        decoupled attention.
        """
        equivalent = replace(
            settings,
            threshold=min(settings.threshold, 1.0),
            attribute_length=settings.attribute_length if settings.has_attributes else 0,
            learn_scale=settings.learns_scale,
        )
        return super().active_switches(equivalent)

    def why_unusable(self, origin: Origin, settings: ShipConfig) -> str:
        """Return why a backbone takes no prompts, or that the settings read a class token which it does not have."""
        if origin.unpromptable or origin.class_token or not settings.reads_class_token:
            return origin.unpromptable
        off = ("feature=mean", "attribute_length=0", "matching_weight=0")
        return f"{WITHOUT_CLASS_TOKEN}; add {' '.join(f'--set {self.name}.{setting}' for setting in off)}"

    def build(self, context: BuildContext) -> Built:
        """Compute levels and bank from the frozen features of the training images, then build the model."""
        from shipbench.methods.ship.model import Ship

        config: ShipConfig = context.settings
        levels, bank, facts = _restored(context) if context.known else _computed(config, context)
        return Built(Ship(context.backbone, context.num_classes, levels, bank, config), facts)


def _computed(config: ShipConfig, context: BuildContext) -> tuple[list[int], Tensor | None, Mapping[str, Any]]:
    """Return levels, bank and facts as they follow from the training images."""
    from shipbench.methods.ship.hierarchy import affinity_deviation, affinity_matrix, build_hierarchy

    features = context.block_features(config.feature)
    affinity = affinity_matrix(features)
    levels = build_hierarchy(affinity, config.threshold, config.end_layer)
    _say_levels(levels, config, context)
    bank = _bank(features[:, -1], config, context) if config.has_attributes else None
    facts = {"levels": levels, "affinity": affinity.tolist(), "prototypes": 0 if bank is None else len(bank)}
    if len(features) > 1:
        facts["affinity_std"] = affinity_deviation(features).tolist()
    return levels, bank, facts


def _restored(context: BuildContext) -> tuple[list[int], Tensor | None, Mapping[str, Any]]:
    """Return the levels of an earlier build, a bank of zeros in its shape to load values into, and its facts."""
    import torch

    size = context.known["prototypes"]
    bank = torch.zeros(size, context.backbone.embed_dim) if size else None
    return list(context.known["levels"]), bank, context.known


def _bank(features: Tensor, config: ShipConfig, context: BuildContext) -> Tensor:
    from shipbench.methods.ship.attributes import BANK_IMAGES, BANK_SEED, attribute_prototypes

    # The features' own cache key names torch.
    name = ("attribute bank", config.feature, config.prototypes, BANK_IMAGES, BANK_SEED, version("scikit-learn"))
    bank = context.cached(name, lambda: attribute_prototypes(features, config.prototypes))
    if len(bank) < config.prototypes:
        context.say(f"attribute bank: {len(bank)} prototypes, as there are no more different training images")
    return bank


def _say_levels(levels: list[int], config: ShipConfig, context: BuildContext) -> None:
    above = sum(level > 0 for level in levels)
    context.say(f"{len(levels)} semantic levels, starting at blocks {', '.join(map(str, levels))}")
    if config.has_attributes and above < config.attribute_levels:
        context.say(f"attribute prompts enter {counted(above, 'level')}: no others start beyond block 0")
