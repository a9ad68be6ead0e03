"""The four baselines as the harness sees them; torch is imported only to build one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from shipbench.errors import InputError
from shipbench.methods import BuildContext, Built, Grid, SettingValue

from .settings import NoSettings, VptConfig

if TYPE_CHECKING:
    from shipbench.tasks import Task


def _default_only(method: str, recipe: str) -> None:
    if recipe == "published":
        raise InputError(
            f"{method} has no published per-task settings (its paper chooses lr and weight decay on val200); "
            "use --recipe default"
        )


# The rates and weight decays that the official implementation of VPT tries (tune_vtab.py of KMnP/vpt). It scales
# rates by batch / 256; the grids below hold what reaches the optimiser at its batch of 64.
_VPT_BATCH = 64
_VPT_DECAYS = (0.01, 0.001, 0.0001, 0.0)


def _scaled(*rates: float) -> tuple[float, ...]:
    return tuple(rate * _VPT_BATCH / 256 for rate in rates)


def _sgd_grid() -> Grid:
    """Return the grid for prompts and linear probes."""
    return {
        "lr": _scaled(50.0, 25.0, 10.0, 5.0, 2.5, 1.0, 0.5, 0.25, 0.1, 0.05),
        "weight_decay": _VPT_DECAYS,
        "optimizer": ("sgd",),
        "schedule": ("vpt",),
        "batch_size": (_VPT_BATCH,),
    }


class FullFineTuning:
    """Every weight of the backbone is trained."""

    name = "full"
    summary = "full fine-tuning: every weight of the backbone and a new head"
    settings = NoSettings

    def recipe(self, recipe: str, task: Task) -> Mapping[str, SettingValue]:
        """Use a tenth of the common learning rate: at 1e-3 AdamW destroys pretrained weights."""
        _default_only(self.name, recipe)
        return {"lr": 1e-4}

    def grids(self) -> Mapping[str, Grid]:
        """Return ``small``, a first look of ours, and ``published``: VPT's grid for full fine-tuning with AdamW."""
        published: Grid = {
            "lr": _scaled(0.005, 0.001, 0.0005, 0.0001),
            "weight_decay": _VPT_DECAYS,
            "schedule": ("vpt",),
            "batch_size": (_VPT_BATCH,),
        }
        return {"small": {"lr": (3e-5, 1e-4, 3e-4)}, "published": published}

    def switches(self, settings: NoSettings) -> tuple[str, ...]:
        """Return none: there is nothing to switch."""
        return ()

    def build(self, context: BuildContext) -> Built:
        """Put a new head on the backbone and train everything."""
        from .full import FullModel

        return Built(FullModel(context.backbone, context.num_classes))


class LinearProbe:
    """A new head on frozen features."""

    name = "linear"
    summary = "linear probe: a new head on the frozen backbone's final CLS token"
    settings = NoSettings
    trains_on_features = True

    def recipe(self, recipe: str, task: Task) -> Mapping[str, SettingValue]:
        """Train a hundred epochs at ten times the rate in every suite: on fixed features they take seconds."""
        _default_only(self.name, recipe)
        return {"epochs": 100, "warmup_epochs": 10, "lr": 1e-2}

    def grids(self) -> Mapping[str, Grid]:
        """Return ``small``, a first look of ours, and ``published``: VPT's grid for linear probes with SGD."""
        return {"small": {"lr": (1e-3, 1e-2, 1e-1)}, "published": _sgd_grid()}

    def switches(self, settings: NoSettings) -> tuple[str, ...]:
        """Return none: there is nothing to switch."""
        return ()

    def build(self, context: BuildContext) -> Built:
        """Freeze the backbone and train a head."""
        from .linear import LinearModel

        return Built(LinearModel(context.backbone, context.num_classes))


class VptShallow:
    """Prompts that enter at the first block and travel through all of them."""

    name = "vpt-shallow"
    summary = "visual prompt tuning, shallow: p prompts at the first block, carried through"
    settings = VptConfig
    stackable = True
    deep = False

    def recipe(self, recipe: str, task: Task) -> Mapping[str, SettingValue]:
        """Return nothing: the common recipe holds."""
        _default_only(self.name, recipe)
        return {}

    def grids(self) -> Mapping[str, Grid]:
        """Return ``small``, a first look of ours, and ``published``: VPT's rates and decays with SGD.

        The published grid leaves the prompt length as it is set: the official script tunes for one length at a time.
        """
        return {"small": {"prompt_length": (5, 10, 50), "lr": (1e-3, 5e-3)}, "published": _sgd_grid()}

    def switches(self, settings: VptConfig) -> tuple[str, ...]:
        """Return none: there is nothing to switch."""
        return ()

    def build(self, context: BuildContext) -> Built:
        """Add prompts to the frozen backbone."""
        from .vpt import Vpt

        settings: Any = context.settings
        return Built(Vpt(context.backbone, context.num_classes, settings, deep=self.deep))


class VptDeep(VptShallow):
    """Fresh prompts at every block."""

    name = "vpt-deep"
    summary = "visual prompt tuning, deep: p fresh prompts at every block"
    deep = True
