"""The four baselines as the harness sees them; torch is imported only to build one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from shipbench.errors import InputError
from shipbench.methods import BuildContext, Built, SettingValue

if TYPE_CHECKING:
    from shipbench.tasks import Task


def _default_only(method: str, recipe: str) -> None:
    if recipe == "published":
        raise InputError(
            f"{method} has no published per-task settings (its paper chooses lr and weight decay on val200); "
            "use --recipe default"
        )


@dataclass(frozen=True)
class NoSettings:
    """A method without settings of its own."""


@dataclass(frozen=True)
class VptConfig:
    """Settings of VPT (Jia et al., ECCV 2022).

    ``prompt_length`` tokens (p) of width ``project``, projected to the backbone's width by one shared linear layer; 0
    means prompts of the backbone's width and no projection. ``dropout`` acts on (projected) prompts in training.
    """

    prompt_length: int = 10
    project: int = 0
    dropout: float = 0.0

    def __post_init__(self) -> None:
        """Refuse values that mean nothing."""
        if self.prompt_length < 1:
            raise InputError(f"prompt_length is {self.prompt_length}; it must be 1 or more")
        if self.project < 0:
            raise InputError(f"project is {self.project}; it must be 0 or more")
        if not 0 <= self.dropout < 1:
            raise InputError(f"dropout is {self.dropout}; it must be at least 0 and below 1")


class FullFineTuning:
    """Every weight of the backbone is trained."""

    name = "full"
    summary = "full fine-tuning: every weight of the backbone and a new head"
    settings = NoSettings

    def recipe(self, recipe: str, task: Task) -> Mapping[str, SettingValue]:
        """Use a tenth of the common learning rate: at 1e-3 AdamW destroys pretrained weights."""
        _default_only(self.name, recipe)
        return {"lr": 1e-4}

    def switches(self, settings: NoSettings) -> tuple[str, ...]:
        """Return none: there is nothing to switch."""
        return ()

    def build(self, context: BuildContext) -> Built:
        """Put a new head on the backbone and train everything."""
        from baselines.full import FullModel

        return Built(FullModel(context.backbone, context.num_classes))


class LinearProbe:
    """A new head on frozen features."""

    name = "linear"
    summary = "linear probe: a new head on the frozen backbone's final CLS token"
    settings = NoSettings

    def recipe(self, recipe: str, task: Task) -> Mapping[str, SettingValue]:
        """Train a hundred epochs at ten times the rate in every suite: on fixed features they take seconds."""
        _default_only(self.name, recipe)
        return {"epochs": 100, "warmup_epochs": 10, "lr": 1e-2}

    def switches(self, settings: NoSettings) -> tuple[str, ...]:
        """Return none: there is nothing to switch."""
        return ()

    def build(self, context: BuildContext) -> Built:
        """Freeze the backbone and train a head."""
        from baselines.linear import LinearModel

        return Built(LinearModel(context.backbone, context.num_classes))


class VptShallow:
    """Prompts that enter at the first block and travel through all of them."""

    name = "vpt-shallow"
    summary = "visual prompt tuning, shallow: p prompts at the first block, carried through"
    settings = VptConfig
    deep = False

    def recipe(self, recipe: str, task: Task) -> Mapping[str, SettingValue]:
        """Return nothing: the common recipe holds."""
        _default_only(self.name, recipe)
        return {}

    def switches(self, settings: VptConfig) -> tuple[str, ...]:
        """Return none: there is nothing to switch."""
        return ()

    def build(self, context: BuildContext) -> Built:
        """Add prompts to the frozen backbone."""
        from baselines.vpt import Vpt

        settings: Any = context.settings
        return Built(Vpt(context.backbone, context.num_classes, settings, deep=self.deep))


class VptDeep(VptShallow):
    """Fresh prompts at every block."""

    name = "vpt-deep"
    summary = "visual prompt tuning, deep: p fresh prompts at every block"
    deep = True
