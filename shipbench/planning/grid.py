"""Grids of runs: a spec for every method, task and seed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from shipbench.errors import InputError, did_you_mean
from shipbench.methods import Method
from shipbench.recipe import Recipe
from shipbench.settings import field_names
from shipbench.spec import RunSpec
from shipbench.tasks import Task

_SEEDS = re.compile(r"(\d{1,18})(?:-(\d{1,18}))?")
_MOST_SEEDS = 10_000
_SHOTS = re.compile(r"[1-9]\d{0,5}")


def parse_seeds(text: str, option: str = "--seeds") -> list[int]:
    """Read a list of seeds such as ``0-4``, ``0,2,5`` or ``0-2,7``, without repeats.

    Raises ``InputError``, which names ``option``, for a malformed list or a range of more than 10,000 seeds.
    """
    seeds: list[int] = []
    for part in text.split(","):
        match = _SEEDS.fullmatch(part.strip())
        span = match and range(int(match[1]), int(match[2] or match[1]) + 1)
        if not span:
            raise InputError(f"{option} {text!r} is not a list of seeds, as in 0, 0-4 or 0,2,5")
        if len(span) > _MOST_SEEDS:
            raise InputError(f"{option} {text!r} asks for {len(span)} seeds; give at most {_MOST_SEEDS} in one range")
        seeds.extend(span)
    return list(dict.fromkeys(seeds))


def parse_shots(text: str | None) -> list[int | None]:
    """Read a list of numbers of training images per class, such as ``1,2,4``, without repeats; None is all images.

    Raises ``InputError`` for a malformed list.
    """
    if text is None:
        return [None]
    parts = [part.strip() for part in text.split(",")]
    if not all(_SHOTS.fullmatch(part) for part in parts):
        raise InputError(f"--shots {text!r} is not a list of numbers of images per class, as in 1,2,4")
    return list(dict.fromkeys(map(int, parts)))


def overrides_by_method(
    methods: Iterable[Method], values: Mapping[str, Any], option: str = "--set"
) -> dict[str, dict[str, Any]]:
    """Return the overrides of each method, by its name.

    A plain key applies to every method with such a setting, of which there must be one. ``METHOD.KEY`` applies to that
    method only and takes precedence over the plain key. Errors (``InputError``) name ``option`` as the origin.
    """
    common = field_names(Recipe)
    settings = {method.name: common + field_names(method.settings) for method in methods}
    overrides: dict[str, dict[str, Any]] = {name: {} for name in settings}
    for key, value in sorted(values.items(), key=lambda item: "." in item[0]):
        method, dot, setting = key.partition(".")
        if dot and method not in settings:
            raise InputError(
                f"{option} {key}: method {method!r} is not among those of this command ({', '.join(settings)})"
            )
        candidates = [method] if dot else list(settings)
        name = setting if dot else key
        targets = [target for target in candidates if name in settings[target]]
        if not targets:
            names = sorted({name for target in candidates for name in settings[target]})
            raise InputError(
                f"unknown setting {name!r} for {', '.join(candidates)}{did_you_mean(name, names)}; "
                f"choose from {', '.join(names)}"
            )
        for target in targets:
            overrides[target][name] = value
    return overrides


def refuse_idle(keys: Iterable[str], option: str) -> None:
    """Raise ``InputError`` for a setting among ``keys`` (KEY or METHOD.KEY) whose values all give one result."""
    idle = set(field_names(Recipe)) - Recipe().identity.keys()
    for key in keys:
        if key.rpartition(".")[2].strip() in idle:
            raise InputError(f"{option}: {key} changes no result, so there is nothing to compare")


def refuse_fixed(keys: Iterable[str], fixed: Mapping[str, Any], option: str) -> None:
    """Raise ``InputError`` for a key that ``option`` varies although ``fixed`` overrides hold it."""
    for key in keys:
        if key in fixed:
            raise InputError(f"{key} is given twice: by {option} and by --set or --epochs")


def make_grid(
    methods: Iterable[Method],
    tasks: Iterable[Task],
    seeds: Iterable[int],
    template: RunSpec,
    values: Mapping[str, Any],
    shots: Sequence[int | None] = (None,),
) -> list[RunSpec]:
    """Return a spec for every method, task, number of shots and seed: seed by seed, and task by task within a seed.

    All other fields come from ``template``.

    ``values`` are overrides by key, as in ``overrides_by_method``. Every spec is resolved here, so a setting that does
    not fit raises ``InputError`` before anything runs.
    """
    methods, tasks = list(methods), list(tasks)
    overrides = overrides_by_method(methods, values)
    specs = [
        replace(template, method=method.name, task=task, seed=seed, shots=number, overrides=overrides[method.name])
        for seed in seeds
        for task in tasks
        for number in shots
        for method in methods
    ]
    for spec in specs:
        _ = spec.resolved
    return specs


def seed_by_seed(specs: Iterable[RunSpec]) -> list[RunSpec]:
    """Return all specs of the first seed, then those of the next, so that an unfinished grid is a complete table.

    Seeds come in the order of their first specs; the specs of a seed keep their order.
    """
    by_seed: dict[int, list[RunSpec]] = {}
    for spec in specs:
        by_seed.setdefault(spec.seed, []).append(spec)
    return [spec for same_seed in by_seed.values() for spec in same_seed]
