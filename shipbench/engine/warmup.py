"""Fetch weights and decode images once, before worker processes share them."""

from __future__ import annotations

from functools import cache

from shipbench import data
from shipbench.backbones import pinned_sha256
from shipbench.planning.plan import Plan
from shipbench.runtime.console import say


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
        key = (resolved.task, run.spec.data, size, resolved.splits)
        if key not in copies:
            copies[key] = data.find(resolved.task, run.spec.data, resolved.splits), size
    for copy, _ in copies.values():
        if copy.warning:
            _warn_once(copy.warning)
    data.require_room(copies.values())
    for copy, size in copies.values():
        copy.load(size)


def _fetch_weights(plan: Plan) -> None:
    specs = [run.spec for run in plan.chosen]
    wanted = [(spec.resolved.backbone, spec.checkpoint, spec.resolved.recipe.image_size) for spec in specs]
    for weights in dict.fromkeys(wanted):
        # Planning has loaded all backbones whose hash is not pinned.
        if pinned_sha256(*weights):
            _load(*weights)


def _load(name: str, checkpoint: str | None, image_size: int | None) -> None:
    # Imported late: a plan with nothing to do needs no torch.
    from shipbench.backbones import load_backbone

    load_backbone(name, checkpoint=checkpoint, image_size=image_size)


@cache
def _warn_once(warning: str) -> None:
    # A command may prepare several plans, as tuning does.
    say(warning)


@cache
def _native_size(backbone: str) -> int:
    from shipbench.backbones import load_backbone, preprocessing_of

    return preprocessing_of(load_backbone(backbone, checkpoint="random")).image_size
