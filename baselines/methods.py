"""The four baselines as methods of the harness; torch is imported only to build a model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from shipbench.methods import BuildContext, Built, Grid, Method, SettingValue, Switches

from .settings import CLS_INITIATIONS, PAD_WITHOUT_EMBEDDINGS, VptConfig, VptDeepConfig

if TYPE_CHECKING:
    from shipbench.backbones import Origin
    from shipbench.tasks import Task


# The learning rates and weight decays that VPT's official implementation tries (tune_vtab.py of KMnP/vpt). It scales
# rates by batch / 256; the grids below hold the rates that reach the optimiser at its batch size of 64.
_VPT_BATCH = 64
_VPT_DECAYS = (0.01, 0.001, 0.0001, 0.0)


def _scaled(*rates: float) -> tuple[float, ...]:
    return tuple(rate * _VPT_BATCH / 256 for rate in rates)


# Its encoder has no stochastic depth, it keeps the last, smaller batch of an epoch, and normalises as for ImageNet.
_VPT_TRAINING: Grid = {
    "schedule": ("vpt",),
    "batch_size": (_VPT_BATCH,),
    "drop_path": (0.0,),
    "drop_last": (False,),
    "mean": ((0.485, 0.456, 0.406),),
    "std": ((0.229, 0.224, 0.225),),
}


def _sgd_grid() -> Grid:
    """Return VPT's grid for prompts and linear probes."""
    return {
        "lr": _scaled(50.0, 25.0, 10.0, 5.0, 2.5, 1.0, 0.5, 0.25, 0.1, 0.05),
        "weight_decay": _VPT_DECAYS,
        "optimizer": ("sgd",),
        **_VPT_TRAINING,
    }


class FullFineTuning(Method):
    """Full fine-tuning: train every weight of the backbone and a new head."""

    name = "full"
    mergeable = True
    title = "Full fine-tuning"
    summary = "full fine-tuning: every weight of the backbone and a new head"
    order = 0
    colour = "#009e73"
    marker = "s"

    def recipe(self, recipe: str, task: Task) -> Mapping[str, SettingValue]:
        """Return a tenth of the common learning rate: at 1e-3, AdamW destroys the pretrained weights."""
        return {**super().recipe(recipe, task), "lr": 1e-4}

    def grids(self) -> Mapping[str, Grid]:
        """Return ``small``, and ``published``, VPT's grid for full fine-tuning with AdamW."""
        published: Grid = {
            "lr": _scaled(0.005, 0.001, 0.0005, 0.0001),
            "weight_decay": (0.01,),
            "warmup_epochs": (5,),
            **_VPT_TRAINING,
        }
        return {**super().grids(), "published": published}

    def build(self, context: BuildContext) -> Built:
        """Add a new head to the backbone and train everything."""
        from .full import FullModel

        return Built(FullModel(context.backbone, context.num_classes))


class LinearProbe(Method):
    """Linear probe: train a new head on frozen features."""

    name = "linear"
    mergeable = True
    title = "Linear probe"
    summary = "linear probe: a new head on the frozen backbone's final features"
    trains_on_features = True
    order = 1
    colour = "#7b7f87"

    def recipe(self, recipe: str, task: Task) -> Mapping[str, SettingValue]:
        """Return 100 epochs at ten times the common rate in every suite: on fixed features they take seconds."""
        return {**super().recipe(recipe, task), "epochs": 100, "warmup_epochs": 10, "lr": 1e-2}

    def grids(self) -> Mapping[str, Grid]:
        """Return ``small``, and ``published``, VPT's grid for linear probes with SGD."""
        return {**super().grids(), "published": _sgd_grid()}

    def build(self, context: BuildContext) -> Built:
        """Freeze the backbone and add a new head."""
        from .linear import LinearModel

        return Built(LinearModel(context.backbone, context.num_classes))


class VptShallow(Method):
    """VPT-shallow: prompts enter at the first block and pass through all others."""

    name = "vpt-shallow"
    title = "VPT-shallow"
    summary = "visual prompt tuning, shallow: p prompts at the first block, carried through"
    settings: type[VptConfig] = VptConfig
    stackable = True
    order = 3
    colour = "#56b4e9"
    marker = "^"
    deep = False
    switches: ClassVar[Switches] = {
        "added-prompts": {"location": "add"},
        "image-pooling": {"pooling": "img_pool"},
    }
    components: ClassVar[Mapping[str, str]] = {
        "added-prompts": "prompt tokens",
        "image-pooling": "CLS read-out",
    }

    def why_unusable(self, origin: Origin, settings: VptConfig) -> str:
        """Return why prompts cannot join the tokens of a backbone, its images a frame, or prompts start as asked."""
        if origin.unpromptable:
            return origin.unpromptable
        if settings.location == "pad" and not origin.position_embeddings:
            return PAD_WITHOUT_EMBEDDINGS
        if settings.initiation in CLS_INITIATIONS and not origin.class_token:
            return f"it has no class token, from which initiation={settings.initiation} starts; use initiation=random"
        return ""

    def grids(self) -> Mapping[str, Grid]:
        """Return ``small``, and ``published``, VPT's rates and weight decays with SGD.

        The published grid does not vary the prompt length: the official script tunes at one length at a time.
        """
        return {**super().grids(), "published": _sgd_grid()}

    def stacks(self, settings: VptConfig) -> bool:
        """Return whether images become the same tokens in every run, and the head reads as the backbone's own."""
        return settings.location not in ("below", "pad") and settings.pooling == "original"

    def build(self, context: BuildContext) -> Built:
        """Add prompts and a new head to the frozen backbone."""
        from .vpt import Vpt
        from .vpt_initiation import initial_prompts

        config: VptConfig = context.settings
        from_cls = config.initiation in CLS_INITIATIONS
        # The weights of an earlier build will replace those that the prompts start from.
        initial = initial_prompts(context) if from_cls and not context.known else None
        model = Vpt(context.backbone, context.num_classes, config, deep=self.deep, initial=initial)
        return Built(model, {"initiation": config.initiation} if from_cls else {})


class VptDeep(VptShallow):
    """VPT-deep: fresh prompts at every block."""

    name = "vpt-deep"
    title = "VPT-deep"
    settings = VptDeepConfig
    summary = "visual prompt tuning, deep: p fresh prompts at every block"
    order = 4
    colour = "#0072b2"
    marker = "D"
    deep = True
    switches: ClassVar[Switches] = {"shared-prompts": {"deep_shared": True}, **VptShallow.switches}
    components: ClassVar[Mapping[str, str]] = {"shared-prompts": "prompts per block", **VptShallow.components}

    def why_unusable(self, origin: Origin, settings: VptConfig) -> str:
        """Return why prompts cannot join the tokens of a backbone, or that it has too few blocks for them."""
        assert isinstance(settings, VptDeepConfig)
        return super().why_unusable(origin, settings) or settings.too_deep(origin.blocks)

    def grids(self) -> Mapping[str, Grid]:
        """Return the grids of VPT-shallow, the published one with VPT's dropout of deep prompts."""
        grids = super().grids()
        return {**grids, "published": {**grids["published"], "dropout": (0.1,)}}
