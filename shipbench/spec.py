"""The spec of a run, the settings it resolves to, and the run id that follows from them."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeAlias

from shipbench.errors import InputError, unknown
from shipbench.hardware.precision import check_precision_name
from shipbench.methods import Method, get_method
from shipbench.recipe import Recipe
from shipbench.settings import (
    canonical_sha256,
    configure,
    field_names,
    parse_pairs,
    plain,
    refuse_unknown,
    whole_number,
)
from shipbench.tasks import TASKS, Task, get_task, suite_of
from shipbench.tasks.catalogue import SplitName
from shipbench.tasks.own import is_source

Overrides: TypeAlias = tuple[tuple[str, Any], ...]
Precision: TypeAlias = Literal["auto", "fp32", "bf16"]
RECIPES = ("default", "published")
# Part of every run id; raised when the computation of a spec changes.
_ID_VERSION = 4
# What decides results on a task of the catalogue and is no part of a run's id beside the task's name.
_FIXED_BY_NAME = ("draw", "resize", "augment", "metric", "shots", "shot_seed")


@dataclass(frozen=True)
class RunSpec:
    """One run: a method on a task with a seed.

    ``task`` is the name of a catalogued task, a SOURCE such as ``folder:/data/bugs``, or a ``Task`` of a task file.
    ``shots``, if given, is the number of training images per class; the seed decides which.
    ``overrides`` change settings of the method or the recipe by name: a mapping, pairs, or texts such as ``lr=0.001``.
    ``backbone`` None selects the backbone of the task's suite. ``protocol`` "final" trains on the 1000 and tests;
    "tuning" trains on the 800, scores the 200 and never opens the test split. ``keep_weights`` "full" also stores the
    weights of a run that trains the whole backbone; the trained tensors of all others are always stored. ``data`` (the
    folder of VTAB-1k or FGVC), ``device``, ``keep_weights`` and the path in ``checkpoint`` do not change the run id,
    but the weights in the checkpoint do. Paths may be text or ``Path``.
    """

    method: str
    task: str | Task
    seed: int = 0
    overrides: Overrides | Mapping[str, Any] = ()
    recipe: str = "default"
    backbone: str | None = None
    checkpoint: str | None = None
    precision: Precision = "auto"
    protocol: Literal["final", "tuning"] = "final"
    data: Path | None = field(default=None, compare=False)
    device: str = field(default="auto", compare=False)
    keep_weights: Literal["trained", "full"] = field(default="trained", compare=False)
    shots: int | None = None

    def __post_init__(self) -> None:
        """Normalise the fields and raise ``InputError`` for values that are wrong whatever the method and task."""
        object.__setattr__(self, "overrides", _pairs(self.overrides))
        object.__setattr__(self, "data", None if self.data is None else Path(self.data))
        object.__setattr__(self, "checkpoint", None if self.checkpoint is None else str(self.checkpoint))
        if self.recipe == "published" and self.precision == "auto":
            # The authors computed in full precision.
            object.__setattr__(self, "precision", "fp32")
        if self.recipe not in RECIPES:
            raise unknown("recipe", self.recipe, RECIPES)
        if self.protocol not in ("final", "tuning"):
            raise unknown("protocol", self.protocol, ("final", "tuning"))
        check_precision_name(self.precision)
        if self.keep_weights not in ("trained", "full"):
            raise unknown("weights to keep", self.keep_weights, ("trained", "full"))
        object.__setattr__(self, "seed", whole_number("seed", self.seed))
        # torch's generators on the CPU use the lower 32 bits alone, so larger seeds would repeat runs under other ids.
        if not 0 <= self.seed < 2**32:
            raise InputError(f"seed is {self.seed}; it must be 0 or more, and below 2**32")
        if self.shots is not None:
            object.__setattr__(self, "shots", whole_number("shots", self.shots, least=1))
        object.__setattr__(self, "task", _short(self.task))

    @property
    def splits(self) -> tuple[SplitName, SplitName]:
        """The splits to train on and to evaluate on; the run opens no other."""
        return ("train", "test") if self.protocol == "final" else ("train800", "val200")

    @cached_property
    def resolved(self) -> ResolvedSpec:
        """The method, the task, and every setting of this run."""
        return resolve(self)


@dataclass(frozen=True)
class ResolvedSpec:
    """A spec with its method, its task and the final value of every setting."""

    spec: RunSpec
    method: Method
    task: Task
    settings: Any
    recipe: Recipe
    backbone: str

    @property
    def switches(self) -> str:
        """The active ablation switches, joined by ``+``."""
        return "+".join(self.method.active_switches(self.settings))

    @property
    def config(self) -> dict[str, Any]:
        """Every setting that decides the result, by name: those of the method, then those of the recipe."""
        values = {**dataclasses.asdict(self.settings), **self.recipe.identity}
        return {name: _as_written(value) for name, value in values.items()}

    @property
    def overrides(self) -> str:
        """The settings that differ from the recipe's, as ``key=value`` joined by commas."""
        default = resolve(dataclasses.replace(self.spec, overrides=())).config
        return ", ".join(f"{key}={value}" for key, value in sorted(self.config.items()) if value != default[key])

    def run_id(self, *, data_fingerprint: str, backbone_sha256: str, precision: str, normalisation: str = "") -> str:
        """Return a hash of everything that decides the result, but no path: 16 hexadecimal digits.

        ``normalisation`` names the family of models whose mean and deviation replace those of the backbone's name, as
        a checkpoint's layout asks; it is empty where the name or the recipe decides.
        """
        identity = {
            "version": _ID_VERSION,
            "method": self.method.name,
            "settings": dataclasses.asdict(self.settings),
            "recipe": self.recipe.identity,
            "task": _task_identity(self.task, self.spec.seed),
            "data": data_fingerprint,
            # The name decides more than the weights: timm's normalisation of images belongs to it.
            "backbone": (self.backbone, backbone_sha256, normalisation),
            "seed": self.spec.seed,
            "protocol": self.spec.protocol,
            "precision": precision,
        }
        return canonical_sha256(identity)[:16]


def _pairs(overrides: Any) -> Overrides:
    """Return overrides in any form that ``RunSpec`` takes as pairs, sorted by name."""
    if isinstance(overrides, str):
        overrides = (overrides,)
    pairs = [_pair(item) for item in (overrides.items() if isinstance(overrides, Mapping) else overrides or ())]
    for name, number in Counter(name for name, _ in pairs).items():
        if number > 1:
            raise InputError(f"overrides give {name!r} twice")
    return tuple(sorted(pairs))


def _pair(item: object) -> tuple[str, Any]:
    if isinstance(item, str):
        (item,) = parse_pairs([item], "overrides").items()
    if not isinstance(item, (tuple, list)) or len(item) != 2:
        raise InputError(
            f"overrides hold {item!r}; give a mapping, pairs of a name and a value, or texts such as 'lr=0.001'"
        )
    return str(item[0]), plain(item[1])


def _as_written(value: Any) -> Any:
    """Return the values of enums in place of their members, whose texts differ between releases of Python."""
    if isinstance(value, tuple):
        return tuple(map(_as_written, value))
    return value.value if isinstance(value, Enum) else value


def _short(task: str | Task) -> str | Task:
    """Return the name of a catalogued task, and the task of a SOURCE, which must not depend on the working folder."""
    if isinstance(task, str):
        return get_task(task) if is_source(task) else task
    if not isinstance(task, Task):
        raise InputError(f"task is {task!r:.60}; give a name, a SOURCE such as 'folder:PATH', or a Task")
    known = TASKS.get(task.name) if task.catalogued else None
    if known is None:
        return task
    changed = [name for name in _FIXED_BY_NAME if getattr(task, name) != getattr(known, name)]
    if changed:
        raise InputError(
            f"task {task.name!r} differs from the catalogue's in {', '.join(changed)}, but its name alone identifies "
            "runs; put the images into a task file, or give the number of shots to RunSpec"
        )
    return task.name if task == known else task


def _task_identity(task: Task, seed: int) -> object:
    """Return what identifies a task, in a run with ``seed``, beside the fingerprint of its data.

    The fingerprint covers the numbering of the classes. A task outside the catalogue has the same results under any
    name and in any suite.
    """
    drawn = [task.draw.train, task.draw.val, task.draw.test]
    identity: object = task.name if task.catalogued else [*drawn, task.resize, task.augment]
    if not task.shots:
        return identity
    return [identity, task.shots] if task.shot_seed == seed else [identity, task.shots, task.shot_seed]


def resolve(spec: RunSpec) -> ResolvedSpec:
    """Look up the method and task of a spec and fill in every setting.

    Values come from the common recipe, the suite, the method and the spec's overrides; later ones take precedence.
    Raises ``InputError`` for unknown names and for values that do not fit.
    """
    method, task = get_method(spec.method), get_task(spec.task) if isinstance(spec.task, str) else spec.task
    if spec.shots is not None:
        task = dataclasses.replace(task, shots=spec.shots, shot_seed=spec.seed)
    suite = suite_of(task)
    values: dict[str, Any] = dict(suite.recipe) if spec.recipe == "default" else {}
    values.update(method.recipe(spec.recipe, task))
    values.update(spec.overrides)
    of_method, of_recipe = field_names(method.settings), field_names(Recipe)
    refuse_unknown(values, of_method + of_recipe, f"method {method.name}")
    settings = configure(method.settings, {key: value for key, value in values.items() if key in of_method})
    recipe = configure(Recipe, {key: value for key, value in values.items() if key in of_recipe})
    return ResolvedSpec(
        spec, method, task, settings, recipe, suite.backbone if spec.backbone is None else spec.backbone
    )
