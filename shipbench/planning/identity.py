"""Run ids, and the hashes of data and weights that they contain."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from shipbench import data
from shipbench.backbones import Origin, pinned_origin
from shipbench.backbones.pinned import no_stochastic_depth
from shipbench.errors import InputError
from shipbench.planning.origin_cache import remembered_origin
from shipbench.spec import ResolvedSpec, RunSpec
from shipbench.tasks import Task


@dataclass(frozen=True)
class Identity:
    """The id of a run, and what it contains: the hash (hex) of the data, the weights, the precision (fp32 or bf16)."""

    run_id: str
    data_fingerprint: str
    origin: Origin
    precision: str


class UnusableBackboneError(InputError):
    """Methods cannot use the backbone of their runs, for the same ``reason``."""

    def __init__(self, methods: Sequence[str], backbone: str, reason: str) -> None:
        super().__init__(f"{', '.join(methods)} cannot use backbone {backbone!r}: {reason}")
        self.methods, self.backbone, self.reason = tuple(methods), backbone, reason


@dataclass
class _Weights:
    """The weights of backbones: pinned origins, and those of backbones that had to be loaded, once each."""

    say: Callable[[str], None] | None
    known: dict[tuple[str, str | None, int | None], Origin] = field(default_factory=dict)
    said: set[str] = field(default_factory=set)

    def of(self, resolved: ResolvedSpec) -> Origin:
        """Return the origin of a spec's weights; raise ``InputError`` if the method cannot use the backbone."""
        recipe = resolved.recipe
        key = (resolved.backbone, resolved.spec.checkpoint, recipe.image_size)
        if key not in self.known:
            self.known[key] = pinned_origin(*key) or _loaded_origin(*key)
        origin = self.known[key]
        _refuse_unusable(resolved, origin)
        for line in origin.lines(recipe.mean, recipe.std):
            if self.say is not None and line not in self.said:
                self.said.add(line)
                self.say(line)
        return origin


def _refuse_unusable(resolved: ResolvedSpec, origin: Origin) -> None:
    """Raise ``InputError`` for a backbone that the method cannot use, or that lacks the recipe's stochastic depth."""
    reason = resolved.method.why_unusable(origin, resolved.settings)
    if reason:
        raise UnusableBackboneError([resolved.method.name], resolved.backbone, reason)
    if resolved.recipe.drop_path and not origin.stochastic_depth:
        raise InputError(no_stochastic_depth(resolved.backbone, resolved.recipe.drop_path))


def make_identifier(
    precision_of: Callable[[str, str], str], say: Callable[[str], None] | None = None
) -> Callable[[RunSpec], Identity]:
    """Return a function from a spec to its identity.

    The function fingerprints each copy of a task once and loads each backbone whose hash is not pinned once; ``say``,
    if given, receives each line about the weights in a file once. It raises ``UnusableBackboneError`` for a method that
    cannot use the backbone, and ``InputError`` for what else does not fit.
    """
    weights = _Weights(say)
    fingerprints: dict[tuple[Task, Path | None, tuple[str, ...]], str] = {}

    def fingerprint(spec: RunSpec) -> str:
        copy = (replace(spec.resolved.task, shots=0, shot_seed=0), spec.data, spec.splits)
        if copy not in fingerprints:
            fingerprints[copy] = data.fingerprint(copy[0], spec.data, spec.splits)
        return fingerprints[copy]

    def identify(spec: RunSpec) -> Identity:
        if spec.checkpoint is None:
            # Before the weights, which may have to be fetched only to find that the data are damaged.
            fingerprint(spec)
        origin, recipe = weights.of(spec.resolved), spec.resolved.recipe
        precision = precision_of(spec.device, spec.precision)
        run_id = spec.resolved.run_id(
            data_fingerprint=fingerprint(spec),
            backbone_sha256=origin.sha256,
            precision=precision,
            normalisation=origin.normalisation(recipe.mean, recipe.std),
        )
        return Identity(run_id, fingerprint(spec), origin, precision)

    return identify


def _loaded_origin(name: str, checkpoint: str | None, image_size: int | None) -> Origin:
    def load() -> Origin:
        # Loading a backbone imports torch, which a plan of pinned or remembered backbones does without.
        from shipbench.backbones import load_backbone, origin_of

        return origin_of(load_backbone(name, checkpoint=checkpoint, image_size=image_size))

    return remembered_origin(name, checkpoint, image_size, load)
