"""What each run is: its id and the hashes in it."""

from __future__ import annotations

from collections.abc import Callable

from shipbench import data
from shipbench.backbones import loaded_sha256, pinned_sha256
from shipbench.spec import RunSpec


def make_identifier(precision_of: Callable[[str, str], str]) -> Callable[[RunSpec], tuple[str, dict[str, str]]]:
    """Return a function from spec to run id and the hashes of data and weights that are in it.

    It loads each backbone whose hash is not pinned and reads each task's folder once.
    """
    backbones: dict[tuple[str, str | None, int | None], str] = {}
    fingerprints: dict[tuple[object, ...], str] = {}

    def identify(spec: RunSpec) -> tuple[str, dict[str, str]]:
        resolved = spec.resolved
        weights = (resolved.backbone, spec.checkpoint, resolved.recipe.image_size)
        if weights not in backbones:
            backbones[weights] = pinned_sha256(*weights) or loaded_sha256(*weights)
        copy = (resolved.task.name, spec.data, resolved.splits)
        if copy not in fingerprints:
            fingerprints[copy] = data.fingerprint(resolved.task, spec.data, resolved.splits)
        hashes = {"data_fingerprint": fingerprints[copy], "backbone_sha256": backbones[weights]}
        return resolved.run_id(**hashes, precision=precision_of(spec.device, spec.precision)), hashes

    return identify
