"""The recipes and grids of the methods' authors, importable without torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, TypeAlias

from shipbench.errors import InputError
from shipbench.methods import Grid, SettingValue
from shipbench.published import published_settings

if TYPE_CHECKING:
    from shipbench.tasks import Task

_Recipe: TypeAlias = Mapping[str, SettingValue]

_IMAGENET: _Recipe = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
_HALF: _Recipe = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
_RAW: _Recipe = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}

# NOAH (arXiv 2206.04673), whose schedule is also SHIP's; batch, epochs and stochastic depth are the common recipe's.
NOAH: _Recipe = {"lr": 1e-3, "weight_decay": 1e-4, "schedule": "ship", "eval_every": 10, **_IMAGENET}
# Convpass, FacT and RepAdapter decay tensors of every dimension.
DECAYING: _Recipe = {**NOAH, "decay_all": True}
SSF: _Recipe = {"epochs": 110, "schedule": "ssf", "eval_every": 1, **_HALF}
ADAPTER_PLUS: _Recipe = {"lr": 1e-3, "weight_decay": 1e-4, "schedule": "adapter-plus", **_HALF}
# OSU-MLB/ViT_PEFT_Vision, which tunes sixteen methods under one protocol.
OSU: _Recipe = {"schedule": "ship", "decay_all": True, "eval_every": 1, **_RAW}

_OSU_AXES: Grid = {"lr": (1e-3, 1e-2), "weight_decay": (1e-4, 1e-3)}
FIXED_SCALES = (0.01, 0.1, 1.0, 10.0, 100.0)


def published_for(method: str, task: Task, recipe: _Recipe) -> _Recipe:
    """Return ``recipe`` with the published settings of ``method`` for ``task``.

    Raises ``InputError`` for a task of another suite than VTAB-1k.
    """
    settings = published_settings()[method].get(task.name)
    if settings is None:
        raise InputError(f"{method} has no published settings for {task.name}; use --recipe default")
    return {**recipe, **settings}


def common_for(method: str, task: Task, recipe: _Recipe) -> _Recipe:
    """Return ``recipe``, which a method's authors use for all tasks of VTAB-1k; raise ``InputError`` for others."""
    if task.suite != "vtab-1k":
        raise InputError(f"{method} has no published settings for {task.name}; use --recipe default")
    return recipe


def searched(recipe: _Recipe, axes: Grid) -> Grid:
    """Return a grid over ``axes`` in which the other values of ``recipe`` are fixed; each trial is scored once."""
    fixed = {name: (value,) for name, value in recipe.items() if name not in axes and name != "eval_every"}
    return {**axes, **fixed}


def searched_by_osu(axes: Grid) -> Grid:
    """Return OSU-MLB's grid: rates, decays and the ``axes`` of one method."""
    return searched(OSU, {**axes, **_OSU_AXES})
