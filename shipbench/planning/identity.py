"""Run ids, and the hashes of data and weights that they contain."""

from __future__ import annotations

from collections.abc import Callable

from shipbench import data
from shipbench.backbones import pinned_sha256
from shipbench.spec import RunSpec


def make_identifier(precision_of: Callable[[str, str], str]) -> Callable[[RunSpec], tuple[str, dict[str, str]]]:
    """Return a function from a spec to its run id and the hashes of data and weights in that id.

    The function fingerprints each copy of a task once and loads each backbone whose hash is not pinned once.
    """
    backbones: dict[tuple[str, str | None, int | None], str] = {}
    fingerprints: dict[tuple[object, ...], str] = {}

    def identify(spec: RunSpec) -> tuple[str, dict[str, str]]:
        resolved = spec.resolved
        copy = (resolved.task.name, spec.data, resolved.splits)
        # Before the weights, which may have to be fetched only to find that the data are damaged.
        if copy not in fingerprints:
            fingerprints[copy] = data.fingerprint(resolved.task, spec.data, resolved.splits)
        weights = (resolved.backbone, spec.checkpoint, resolved.recipe.image_size)
        if weights not in backbones:
            backbones[weights] = pinned_sha256(*weights) or _loaded_sha256(*weights)
        hashes = {"data_fingerprint": fingerprints[copy], "backbone_sha256": backbones[weights]}
        return resolved.run_id(**hashes, precision=precision_of(spec.device, spec.precision)), hashes

    return identify


def _loaded_sha256(name: str, checkpoint: str | None, image_size: int | None) -> str:
    # Loading a backbone imports torch, which a plan of pinned backbones does without.
    from shipbench.backbones import loaded_sha256

    return loaded_sha256(name, checkpoint, image_size)
