"""Fetch weights and decode images once, before worker processes share them."""

from __future__ import annotations

from functools import cache

from shipbench import data
from shipbench.backbones import RANDOM, load_backbone, preprocessing_of
from shipbench.planning.plan import Plan
from shipbench.runs.backbone_cache import copy_of_backbone
from shipbench.runtime.console import say_once


def make_ready(plan: Plan) -> None:
    """Fetch the weights of every chosen run and decode its images, once and with all cores.

    Raises ``InputError`` for images that cannot be read or do not fit on the disk, and ``ShipbenchError`` for weights
    that cannot be fetched, so that a plan fails before its first run.
    """
    _fetch_weights(plan)
    copies: dict[tuple[object, ...], tuple[data.Copy, int]] = {}
    for run in plan.chosen:
        resolved = run.spec.resolved
        size = resolved.recipe.image_size or _native_size(resolved.backbone)
        key = (resolved.task, run.spec.data, size, run.spec.splits)
        if key not in copies:
            copies[key] = data.find(resolved.task, run.spec.data, run.spec.splits), size
    for copy, _ in copies.values():
        if copy.warning:
            # A command may prepare several plans, as tuning does.
            say_once(copy.warning)
    data.require_room(copies.values())
    for copy, size in copies.values():
        copy.load(size)


def _fetch_weights(plan: Plan) -> None:
    resolved = [run.spec.resolved for run in plan.chosen]
    wanted = [(r.backbone, r.spec.checkpoint, r.recipe.image_size, r.recipe.drop_path) for r in resolved]
    for name, checkpoint, image_size, drop_path in dict.fromkeys(wanted):
        copy_of_backbone(name, checkpoint, image_size, drop_path)


@cache
def _native_size(backbone: str) -> int:
    return preprocessing_of(load_backbone(backbone, checkpoint=RANDOM)).image_size
