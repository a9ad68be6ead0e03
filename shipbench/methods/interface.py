"""The interface between the harness and a method: its description, its settings, and the model it builds."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeAlias, cast, runtime_checkable

from shipbench.errors import InputError
from shipbench.settings import Settings, plain

if TYPE_CHECKING:
    from timm.models.vision_transformer import VisionTransformer
    from torch import Tensor, nn

    from shipbench.backbones import Origin
    from shipbench.prompting import PassOutput, StackInput
    from shipbench.tasks import Task

SettingValue = str | int | float | bool | None | tuple[float, ...]
Grid: TypeAlias = Mapping[str, Sequence[SettingValue]]
# The same budget for every method: six points, the same learning rates.
SMALL_GRID: Grid = {"lr": (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2)}
Switches: TypeAlias = Mapping[str, Mapping[str, SettingValue]]


def _computed(name: tuple[object, ...], compute: Callable[[], Tensor]) -> Tensor:
    return compute()


@dataclass(frozen=True)
class BuildContext:
    """The inputs of ``Method.build``.

    ``backbone`` is a copy for this run alone, on its device, with the recipe's stochastic depth. ``settings`` is an
    instance of the method's settings class. ``block_features(kind)`` returns the features (images, blocks, D) of the
    training images after every block of the frozen backbone: the CLS token for kind ``"cls"``, the mean of the image
    tokens for ``"mean"``. ``say`` shows the user one line. ``known`` holds the facts of an earlier build whose weights
    will be loaded, and is empty otherwise: with them, a method builds the same shapes without images.
    ``cached(name, compute)`` returns the tensor ``compute()`` from an earlier run if there is one; it may depend on the
    block features and on what ``name`` contains (settings, versions of libraries), and on nothing else.
    """

    backbone: VisionTransformer
    num_classes: int
    settings: Any
    block_features: Callable[[str], Tensor]
    say: Callable[[str], None]
    known: Mapping[str, Any] = field(default_factory=dict)
    cached: Callable[[tuple[object, ...], Callable[[], Tensor]], Tensor] = _computed


@dataclass(frozen=True)
class Built:
    """A model to train, and ``facts`` with which a later build makes the same model without images.

    Checkpoints and stored weights keep the facts, as JSON; tensors and arrays become tuples of Python numbers. The
    record has a column for SHIP's ``levels``, ``affinity`` and ``affinity_std``, and for ``peft_version``. Raises
    ``InputError`` for a fact that JSON cannot hold.
    The model offers ``model(images) -> logits`` and ``model.loss(images, labels) -> scalar``. Exactly the tensors to be
    trained require gradients. A model whose features stay fixed in training may implement ``FrozenFeatures``.
    """

    model: nn.Module
    facts: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Convert the facts to Python values."""
        facts = {name: plain(value) for name, value in self.facts.items()}
        for name, value in facts.items():
            try:
                json.dumps(value)
            except (TypeError, ValueError) as error:
                # Found out at the end of the training otherwise, when weights are stored.
                raise InputError(
                    f"the fact {name!r} of the model cannot be stored: {error}; use plain values"
                ) from error
        object.__setattr__(self, "facts", facts)


class FrozenFeatures(Protocol):
    """A trained readout on fixed features, which the harness computes once for all epochs.

    ``readout`` is a module with ``readout(features) -> logits`` and ``readout.loss(features, labels) -> scalar``.
    """

    readout: nn.Module

    def features(self, images: Tensor) -> Tensor:
        """Return features (B, D) of normalised images (B, 3, H, W)."""
        ...


def as_frozen_features(model: nn.Module) -> FrozenFeatures | None:
    """Return the model if it implements ``FrozenFeatures``, else None."""
    # From Python 3.12 on, isinstance does not see the modules of a module, which torch looks up itself.
    return cast("FrozenFeatures", model) if hasattr(model, "readout") and hasattr(model, "features") else None


class Stackable(Protocol):
    """A model over a frozen backbone that can share passes with models of the same method, settings and shapes.

    See ``shipbench.prompting.stacked``.
    """

    backbone: VisionTransformer

    def stack_input(self, images: int, *, match: bool) -> StackInput:
        """Return this model's input to a shared pass over ``images`` images, with its random numbers drawn.

        ``match`` also requests what the loss needs besides the logits. Random numbers are drawn in training mode only.
        """
        ...

    def logits_of(self, output: PassOutput) -> Tensor:
        """Return the logits (B, classes) of this model's share of a pass."""
        ...

    def loss_of(self, output: PassOutput, labels: Tensor) -> Tensor:
        """Return the training loss, a scalar, of this model's share of a pass."""
        ...


@runtime_checkable
class Mergeable(Protocol):
    """A trained model that a plain timm model with other weights equals."""

    def merged_state(self) -> dict[str, Tensor]:
        """Return the state of that timm model, with a classifier of the run's classes.

        Raises ``InputError`` for a backbone that lacks a tensor which the merged model needs, and for one whose
        classifier is no linear layer.
        """
        ...


@runtime_checkable
class Learned(Protocol):
    """A model some of whose trained numbers are worth a place in the record of its run."""

    def learned(self) -> Mapping[str, float | Tensor]:
        """Return these numbers, as they are now, by name; a tensor holds one."""
        ...


@dataclass(frozen=True)
class NoSettings(Settings):
    """The settings of a method that has none."""


class Method(ABC):
    """A way to adapt a pretrained ViT.

    Subclass it, set ``name`` and ``summary``, implement ``build``, and register the class in the entry-point group
    ``shipbench.methods`` under its name. The module of the class must import without torch (import it inside
    ``build``), so that listing and planning stay fast.

    - ``name`` is used on the command line and in records; ``title`` is printed in reports; ``summary`` is one line.
    - ``settings`` is a frozen dataclass whose fields all have defaults; see ``shipbench.settings.Settings``.
    - ``switches`` maps the name of each ablation switch to the settings that it changes; ``optional_switches`` are
      those that ``shipbench ablate`` varies only if they are named. ``components`` maps a switch to the printed name
      of the part that it takes away; without an entry, the name is the switch without ``no-``.
    - ``stackable``: every model of this method is ``Stackable``, so runs that differ only in seed, learning rate or
      weight decay may be trained together.
    - ``trains_on_features``: every model of this method has ``FrozenFeatures``, so its runs are short.
    - ``mergeable``: every trained model of this method is ``Mergeable``, so ``shipbench export --merged`` writes a
      plain timm model.
    - ``order`` sorts the rows of tables: full fine-tuning is 0, the linear probe 1, VPT 3 and 4, SHIP 5.
    - ``colour`` (hexadecimal) and ``marker`` (a matplotlib name) are used in figures; without a colour, the report
      chooses both.
    """

    name: str = ""
    summary: str = ""
    settings: type[Any] = NoSettings
    switches: ClassVar[Switches] = {}
    optional_switches: ClassVar[Switches] = {}
    components: ClassVar[Mapping[str, str]] = {}
    stackable: bool = False
    trains_on_features: bool = False
    mergeable: bool = False
    order: int = 2
    colour: str | None = None
    marker: str = "o"

    @property
    def title(self) -> str:
        """The name as papers print it; a subclass may set a class attribute."""
        return self.name

    @property
    def all_switches(self) -> Switches:
        """All ablation switches, the optional ones last."""
        return {**self.switches, **self.optional_switches}

    def why_unusable(self, origin: Origin, settings: Any) -> str:
        """Return why the method cannot use a backbone of this kind with ``settings``, or an empty string.

        Planning asks before anything runs. The base class accepts every timm model.
        """
        return ""

    @abstractmethod
    def build(self, context: BuildContext) -> Built:
        """Build the model; take random numbers from torch's global generators, which the run has seeded."""

    def recipe(self, recipe: str, task: Task) -> Mapping[str, SettingValue]:
        """Return the settings and recipe values that this method changes under ``"default"`` or ``"published"``.

        Raises ``InputError`` if the method has no such recipe for ``task``. The base class changes nothing by default
        and has no published recipe.
        """
        if recipe == "published":
            raise InputError(
                f"{self.name} has no published settings per task; use --recipe default, "
                "or choose settings on val200 with 'shipbench tune'"
            )
        return {}

    def grids(self) -> Mapping[str, Grid]:
        """Return the grids for ``shipbench tune --grid NAME``: settings and their values, in the order to try them.

        The base class returns ``small``, the six learning rates that every method tries. An override keeps it, so that
        methods are compared at equal budgets.
        """
        return {"small": SMALL_GRID}

    def stacks(self, settings: Any) -> bool:
        """Return whether models with these ``settings`` are ``Stackable``: by default ``stackable``, whatever they are.

        Override it if some settings change what the model of one run needs from the images.
        """
        return self.stackable

    def active_switches(self, settings: Any) -> tuple[str, ...]:
        """Return the names of the switches whose settings all have their switched values in ``settings``."""
        values = asdict(settings)
        return tuple(name for name, changes in self.all_switches.items() if changes.items() <= values.items())


class MethodFamily(ABC):
    """Methods that one class makes out of another library, called ``PREFIX-NAME``.

    Subclass it and register the class in the entry-point group ``shipbench.method_families`` under ``PREFIX``. Neither
    its module nor its methods may import torch or the library before a model is built. ``library`` is the package of
    that library, if its release decides what the methods compute.
    """

    library: str = ""

    @abstractmethod
    def names(self) -> Sequence[str]:
        """Return the names of the usable methods, sorted; none if the library is not installed."""

    @abstractmethod
    def method(self, name: str) -> Method:
        """Return the method called ``name``; raise ``InputError`` if there is none, or none that is usable."""
