"""From specs to a plan: find out what each run is, look it up in the store, and make its data ready."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache

from shipbench import data
from shipbench.backbones import pinned_sha256
from shipbench.errors import InputError
from shipbench.hardware.device import precision_elsewhere, precision_on
from shipbench.planning.grid import Plan, PlannedRun, State
from shipbench.results.store import Store
from shipbench.runtime.console import say
from shipbench.spec import RunSpec


def make_plan(
    specs: Iterable[RunSpec], store: Store, *, force: bool, retry_failed: bool, elsewhere: bool = False
) -> Plan:
    """Look up every spec in the store; equal specs are one run.

    ``elsewhere`` is for runs on other machines, whose device need not be here. Raises ``InputError`` for a backbone,
    data or a device that are not there or do not fit.
    """
    identify = _identifier(precision_elsewhere if elsewhere else precision_on)
    runs: dict[str, PlannedRun] = {}
    for spec in specs:
        run_id, hashes = identify(spec)
        if run_id not in runs:
            # The time first: a record that is written in between is then one that came after.
            seen = store.written(run_id)
            runs[run_id] = PlannedRun(spec, run_id, _state(store, run_id), seen, force, **hashes)
    wanted = {State.TO_DO} | ({State.FAILED} if retry_failed else set())
    chosen = tuple(run for run in runs.values() if force or run.state in wanted)
    return Plan(tuple(runs.values()), chosen)


def _state(store: Store, run_id: str) -> State:
    return {None: State.TO_DO, "done": State.DONE, "failed": State.FAILED}[store.status(run_id)]


def _identifier(precision_of: Callable[[str, str], str]) -> Callable[[RunSpec], tuple[str, dict[str, str]]]:
    """Return a function from spec to run id and the hashes of data and weights that are in it.

    It loads each backbone whose hash is not pinned and reads each task's folder once.
    """
    backbones: dict[tuple[str, str | None, int | None], str] = {}
    fingerprints: dict[tuple[object, ...], str] = {}

    def identify(spec: RunSpec) -> tuple[str, dict[str, str]]:
        resolved = spec.resolved
        weights = (resolved.backbone, spec.checkpoint, resolved.recipe.image_size)
        if weights not in backbones:
            backbones[weights] = pinned_sha256(*weights) or _loaded_sha256(*weights)
        copy = (resolved.task.name, spec.data, resolved.splits)
        if copy not in fingerprints:
            fingerprints[copy] = data.fingerprint(resolved.task, spec.data, resolved.splits)
        hashes = {"data_fingerprint": fingerprints[copy], "backbone_sha256": backbones[weights]}
        return resolved.run_id(**hashes, precision=precision_of(spec.device, spec.precision)), hashes

    return identify


def _loaded_sha256(name: str, checkpoint: str | None, image_size: int | None) -> str:
    from shipbench.backbones import load_backbone, sha256_of

    return sha256_of(load_backbone(name, checkpoint=checkpoint, image_size=image_size))


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
            _loaded_sha256(*weights)
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


def require_runs(plan: Plan) -> None:
    """Refuse an empty plan."""
    if not plan.runs:
        raise InputError("there is nothing to run: no method, task or seed is left")
