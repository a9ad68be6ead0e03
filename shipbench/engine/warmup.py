"""Fetch weights and decode images once, before workers share them."""

from __future__ import annotations

from functools import cache

from shipbench import data
from shipbench.backbones import pinned_sha256
from shipbench.planning.identity import loaded_sha256
from shipbench.planning.plan import Plan
from shipbench.runtime.console import say


def make_ready(plan: Plan) -> None:
    """Fetch the weights of every chosen run and decode its images, once, with all cores, before workers share them.

    Raises ``InputError`` for images that cannot be read or have no room on the disk, and ``ShipbenchError`` for weights
    that cannot be fetched, so that a grid stops before it begins.
    """
    ready: set[tuple[object, ...]] = set()
    wanted: dict[tuple[object, ...], tuple[data.Copy, int]] = {}
    for run in plan.chosen:
        resolved = run.spec.resolved
        weights = (resolved.backbone, run.spec.checkpoint, resolved.recipe.image_size)
        # The others were loaded for the plan.
        if weights not in ready and pinned_sha256(*weights):
            loaded_sha256(*weights)
            ready.add(weights)
        size = resolved.recipe.image_size or _native_size(resolved.backbone)
        key = (resolved.task.name, run.spec.data, size, resolved.splits)
        if key not in wanted:
            wanted[key] = data.find(resolved.task, run.spec.data, resolved.splits), size
    for copy, _ in wanted.values():
        if copy.warning:
            _say_once(copy.warning)
    data.require_room(wanted.values())
    for copy, size in wanted.values():
        copy.load(size)


@cache
def _say_once(warning: str) -> None:
    # A command may get several plans ready, as tuning does.
    say(warning)


@cache
def _native_size(backbone: str) -> int:
    from shipbench.backbones import load_backbone, preprocessing_of

    return preprocessing_of(load_backbone(backbone, checkpoint="random")).image_size
