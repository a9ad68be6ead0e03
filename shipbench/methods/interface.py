"""What a method is to the harness: a name, its settings, and how it builds a trainable model.

A method is found through the entry-point group ``shipbench.methods``. Its class must be importable without torch
(import torch inside ``build``), so that ``shipbench list`` stays fast.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, runtime_checkable

if TYPE_CHECKING:
    from timm.models.vision_transformer import VisionTransformer
    from torch import Tensor, nn

    from shipbench.prompting import PassOutput, StackInput
    from shipbench.tasks import Task

SettingValue = str | int | float | bool | None | tuple[float, ...]
Grid: TypeAlias = Mapping[str, Sequence[SettingValue]]


@dataclass(frozen=True)
class BuildContext:
    """What a method may build from.

    ``backbone`` is the run's own copy on its device, with the recipe's stochastic depth. ``block_features(kind)``
    returns features (images, blocks, D) of the training images in every block of the frozen backbone, for kind
    ``"cls"`` or ``"mean"`` (over image tokens). ``say`` tells the user something in one line. ``known`` are the facts
    of an earlier build whose weights will be loaded: with them, a method builds the same shapes without any images.
    """

    backbone: VisionTransformer
    num_classes: int
    settings: Any
    block_features: Callable[[str], Tensor]
    say: Callable[[str], None]
    known: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Built:
    """A model to train, and ``facts`` about it for the record (``levels`` and ``affinity``, say).

    The model gives ``model(images) -> logits`` and ``model.loss(images, labels) -> scalar``; tensors that are to be
    trained require gradients, and no others do. A model whose features never change in training has ``features`` and
    ``readout`` (see ``FrozenFeatures``).
    """

    model: nn.Module
    facts: Mapping[str, Any] = field(default_factory=dict)


@runtime_checkable
class FrozenFeatures(Protocol):
    """A model that is a trained readout on fixed features: the harness computes features once for all epochs.

    ``readout`` is a module with ``readout(features) -> logits`` and ``readout.loss(features, labels)``. A method that
    builds nothing else may have ``trains_on_features = True``, so that a plan counts its runs as short ones.
    """

    readout: nn.Module

    def features(self, images: Tensor) -> Tensor:
        """Return features (B, D) of normalised images (B, 3, H, W)."""
        ...


@runtime_checkable
class Stackable(Protocol):
    """A model over a frozen backbone that can share passes with models of the same method, settings and shapes.

    A method whose models are all like this says so with ``stackable = True``; then runs that differ in their seed,
    learning rate or weight decay alone may be trained together (see ``shipbench.prompting.stacked``).
    """

    backbone: VisionTransformer

    def stack_input(self, images: int, *, match: bool) -> StackInput:
        """Return what this model brings to a pass over so many images, with its random numbers drawn.

        ``match`` asks for what the loss needs besides the logits; the model's mode decides about random numbers.
        """
        ...

    def logits_of(self, output: PassOutput) -> Tensor:
        """Return the logits (B, classes) of this model's share of a pass."""
        ...

    def loss_of(self, output: PassOutput, labels: Tensor) -> Tensor:
        """Return the training loss, a scalar, of this model's share of a pass."""
        ...


@runtime_checkable
class Tunable(Protocol):
    """A method that brings grids of its own for ``shipbench tune --grid NAME``; a method need not."""

    def grids(self) -> Mapping[str, Grid]:
        """Return the method's grids by name, each as settings with the values to try, in the order to try them."""
        ...


class Method(Protocol):
    """A way to adapt a pretrained ViT; implement these and register the class as an entry point.

    ``settings`` is a frozen dataclass whose fields (with defaults) are the method's settings.
    """

    name: str
    summary: str
    settings: type[Any]

    def recipe(self, recipe: str, task: Task) -> Mapping[str, SettingValue]:
        """Return settings and recipe values that this method changes under ``"default"`` or ``"published"``.

        Raises ``InputError`` if the method has no such recipe for the task.
        """
        ...

    def switches(self, settings: Any) -> tuple[str, ...]:
        """Return the ablation switches that are on under ``settings``, by name."""
        ...

    def build(self, context: BuildContext) -> Built:
        """Build the model; random numbers come from torch's global generators, which the run has seeded."""
        ...
