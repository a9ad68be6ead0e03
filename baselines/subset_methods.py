"""Methods that train some tensors of the backbone; torch is imported only to build a model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from shipbench.methods import AdaptedMethod, Grid, Switches

from .recipes import OSU, PublishedMethod, Recipe
from .settings import BitFitConfig, DiffFitConfig, LnTuningConfig, PartialConfig

if TYPE_CHECKING:
    from timm.models.vision_transformer import VisionTransformer

    from shipbench.adapting import Adapter
    from shipbench.backbones import Origin
    from shipbench.tasks import Task


class _OsuMethod(PublishedMethod):
    """A method whose published settings and grid are OSU-MLB's."""

    mergeable = True
    published: ClassVar[Recipe] = OSU
    searched_by_osu: ClassVar[Grid] = {}


class BitFit(_OsuMethod):
    """BitFit: train the biases."""

    name = "bitfit"
    title = "BitFit"
    summary = "every bias of the backbone"
    settings = BitFitConfig
    colour = "#4d4d4d"
    marker = "3"
    switches: ClassVar[Switches] = {
        "no-patches": {"at_patches": False},
        "no-norms": {"at_norms": False},
        "no-attention": {"at_attention": False},
        "no-mlp": {"at_mlp": False},
    }
    components: ClassVar[Mapping[str, str]] = {
        "no-patches": "bias of the patch projection",
        "no-norms": "biases of norms",
        "no-attention": "biases of attention",
        "no-mlp": "biases of the MLP",
    }

    def adapter(self, backbone: VisionTransformer, settings: BitFitConfig) -> Adapter:
        """Return the choice of the backbone's biases."""
        from .bitfit import BitFit

        return BitFit(settings)


class LnTuning(_OsuMethod):
    """LN tuning: train the norms."""

    name = "ln-tuning"
    title = "LN tuning"
    summary = "weight and bias of every norm of the backbone"
    settings = LnTuningConfig
    colour = "#a0a8b5"
    marker = "4"
    switches: ClassVar[Switches] = {
        "no-weights": {"weights": False},
        "no-biases": {"biases": False},
        "no-final-norm": {"final_norm": False},
    }

    def adapter(self, backbone: VisionTransformer, settings: LnTuningConfig) -> Adapter:
        """Return the choice of the backbone's norms."""
        from .ln_tuning import LnTuning

        return LnTuning(settings)


class DiffFit(_OsuMethod):
    """DiffFit: train biases, norms, and a scale of every branch."""

    name = "difffit"
    title = "DiffFit"
    summary = "every bias and norm of the backbone, and a scale of every branch by channel"
    settings = DiffFitConfig
    colour = "#bc5090"
    marker = "+"
    switches: ClassVar[Switches] = {
        "no-gammas": {"gammas": False},
        "no-norms": {"norms": False},
        "no-biases": {"biases": False},
    }
    components: ClassVar[Mapping[str, str]] = {"no-gammas": "scales of branches"}

    def adapter(self, backbone: VisionTransformer, settings: DiffFitConfig) -> Adapter:
        """Return the scales of all branches."""
        from .difffit import DiffFit

        return DiffFit(backbone, settings)


class Partial(AdaptedMethod):
    """Partial fine-tuning: train the last blocks."""

    name = "partial"
    title = "Partial"
    summary = "the last blocks of the backbone and its final norm"
    settings = PartialConfig
    mergeable = True
    colour = "#66a61e"
    marker = "x"
    switches: ClassVar[Switches] = {"no-final-norm": {"final_norm": False}}

    def recipe(self, recipe: str, task: Task) -> Recipe:
        """Return a tenth of the common learning rate, as for full fine-tuning."""
        return {**super().recipe(recipe, task), "lr": 1e-4}

    def why_unusable(self, origin: Origin, settings: PartialConfig) -> str:
        """Return why adapters cannot join the blocks of a backbone, or that it has too few, or an empty string."""
        return super().why_unusable(origin, settings) or settings.too_many(origin.blocks)

    def adapter(self, backbone: VisionTransformer, settings: PartialConfig) -> Adapter:
        """Return the choice of the last blocks."""
        from .partial import Partial

        return Partial(backbone, settings)
