"""Methods x tasks x seeds x overrides -> specs, and the plan: which of them are done, to do, or failed before."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
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


def parse_seeds(text: str, option: str = "--seeds") -> list[int]:
    """Read ``0-4``, ``0,2,5`` or a mixture of both, without repeats."""
    seeds: list[int] = []
    for part in text.split(","):
        match = _SEEDS.fullmatch(part.strip())
        span = match and range(int(match[1]), int(match[2] or match[1]) + 1)
        if not span:
            raise InputError(f"{option} {text!r} is not a list of seeds, as in 0, 0-4 or 0,2,5")
        if len(span) > _MOST_SEEDS:
            raise InputError(f"{option} {text!r} asks for {len(span)} seeds; {_MOST_SEEDS} at a time are the most")
        seeds.extend(span)
    return list(dict.fromkeys(seeds))


def overrides_by_method(
    methods: Iterable[Method], values: Mapping[str, Any], option: str = "--set"
) -> dict[str, dict[str, Any]]:
    """Give every method the overrides that it has; ``option`` is where the user gave them.

    A plain key goes to all methods that have such a setting, and at least one must; ``METHOD.KEY`` goes to one, where
    it counts more than the plain key.
    """
    common = field_names(Recipe)
    known = {method.name: common + field_names(method.settings) for method in methods}
    chosen: dict[str, dict[str, Any]] = {name: {} for name in known}
    for key, value in sorted(values.items(), key=lambda item: "." in item[0]):
        method, dot, setting = key.partition(".")
        if dot and method not in known:
            raise InputError(
                f"{option} {key}: method {method!r} is not among those of this command ({', '.join(known)})"
            )
        targets = [method] if dot else list(known)
        name = setting if dot else key
        having = [target for target in targets if name in known[target]]
        if not having:
            every = sorted({k for target in targets for k in known[target]})
            raise InputError(
                f"unknown setting {name!r} for {', '.join(targets)}{did_you_mean(name, every)}; "
                f"known are {', '.join(every)}"
            )
        for target in having:
            chosen[target][name] = value
    return chosen


def make_grid(
    methods: Iterable[Method],
    tasks: Iterable[Task],
    seeds: Iterable[int],
    template: RunSpec,
    values: Mapping[str, Any],
) -> list[RunSpec]:
    """Return a spec for every method, task and seed, task by task; everything else comes from ``template``.

    Every spec is resolved here, so that a setting that does not fit is refused before anything runs.
    """
    methods, seeds = list(methods), list(seeds)
    overrides = overrides_by_method(methods, values)
    specs = [
        replace(template, method=method.name, task=task.name, seed=seed, overrides=overrides[method.name])
        for task in tasks
        for method in methods
        for seed in seeds
    ]
    for spec in specs:
        _ = spec.resolved
    return specs
