"""The recipes and grids of the methods' authors, and the methods that have them; importable without torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, TypeAlias

from shipbench.errors import InputError
from shipbench.methods import AdaptedMethod, Grid, SettingValue
from shipbench.published import PUBLISHED_SUITE, published_settings

if TYPE_CHECKING:
    from shipbench.tasks import Task

Recipe: TypeAlias = Mapping[str, SettingValue]

_IMAGENET: Recipe = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
_HALF: Recipe = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
_RAW: Recipe = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}

# NOAH (arXiv 2206.04673), whose schedule is also SHIP's; batch, epochs and stochastic depth are the common recipe's.
NOAH: Recipe = {"lr": 1e-3, "weight_decay": 1e-4, "schedule": "ship", "eval_every": 10, **_IMAGENET}
# Convpass, FacT and RepAdapter decay tensors of every dimension.
DECAYING: Recipe = {**NOAH, "decay_all": True}
SSF: Recipe = {"epochs": 110, "schedule": "ssf", "eval_every": 1, **_HALF}
ADAPTER_PLUS: Recipe = {"lr": 1e-3, "weight_decay": 1e-4, "schedule": "adapter-plus", **_HALF}
# OSU-MLB/ViT_PEFT_Vision, which tunes sixteen methods under one protocol.
OSU: Recipe = {"schedule": "ship", "decay_all": True, "eval_every": 1, **_RAW}

_OSU_AXES: Grid = {"lr": (1e-3, 1e-2), "weight_decay": (1e-4, 1e-3)}
FIXED_SCALES = (0.01, 0.1, 1.0, 10.0, 100.0)


class PublishedMethod(AdaptedMethod):
    """A method with published settings for VTAB-1k.

    ``published`` are the settings and recipe values that all tasks share; petl_settings.json adds those of each task
    for most methods. ``searched`` are the values that the authors searched or used, the axes of the grid ``published``,
    and ``searched_by_osu`` the values that OSU-MLB searched beside rates and decays, None for methods that it left out.
    """

    published: ClassVar[Recipe]
    searched: ClassVar[Grid] = {}
    searched_by_osu: ClassVar[Grid | None] = None

    def recipe(self, recipe: str, task: Task) -> Recipe:
        """Return the published settings for ``task`` under ``"published"``, else nothing.

        Raises ``InputError`` for a task of another suite than VTAB-1k.
        """
        if recipe != "published":
            return {}
        if task.suite != PUBLISHED_SUITE:
            raise InputError(f"{self.name} has no published settings for {task.name}; use --recipe default")
        by_task = published_settings().get(self.name)
        return {**self.published, **(by_task[task.name] if by_task else {})}

    def grids(self) -> Mapping[str, Grid]:
        """Return ``small``, ``published`` if the authors searched, and ``osu`` if OSU-MLB did."""
        grids = dict(super().grids())
        if self.searched:
            grids["published"] = _searched(self.published, self.searched)
        if self.searched_by_osu is not None:
            grids["osu"] = _searched(OSU, {**self.searched_by_osu, **_OSU_AXES})
        return grids


def _searched(recipe: Recipe, axes: Grid) -> Grid:
    """Return a grid over ``axes`` in which the other values of ``recipe`` are fixed; each trial is scored once."""
    fixed = {name: (value,) for name, value in recipe.items() if name not in axes and name != "eval_every"}
    return {**axes, **fixed}
