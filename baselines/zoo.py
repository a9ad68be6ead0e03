"""Methods that change the frozen blocks inside or beside them; torch is imported only to build a model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from shipbench.methods import AdaptedMethod, Grid, SettingValue, Switches

from . import recipes
from .settings import (
    AdaptFormerConfig,
    ConvpassAttentionConfig,
    ConvpassConfig,
    FactTkConfig,
    FactTtConfig,
    LoraConfig,
    RepAdapterAttentionConfig,
    RepAdapterConfig,
    SsfConfig,
)

if TYPE_CHECKING:
    from timm.models.vision_transformer import VisionTransformer

    from shipbench.adapting import Adapter
    from shipbench.tasks import Task

_Recipe = Mapping[str, SettingValue]


class Lora(AdaptedMethod):
    """LoRA: low-rank changes of the attention's projections."""

    name = "lora"
    title = "LoRA"
    summary = "low-rank changes of the attention's projections, in the form of NOAH, of Jie and Deng, or of peft"
    settings = LoraConfig
    mergeable = True
    colour = "#cc79a7"
    marker = "v"
    switches: ClassVar[Switches] = {
        "no-query": {"at_query": False},
        "no-key": {"at_key": False},
        "no-value": {"at_value": False},
    }
    components: ClassVar[Mapping[str, str]] = {
        "no-query": "change of queries",
        "no-key": "change of keys",
        "no-value": "change of values",
    }

    def recipe(self, recipe: str, task: Task) -> _Recipe:
        """Return NOAH's one setting for all tasks under ``"published"``, else nothing."""
        if recipe != "published":
            return {}
        noah: _Recipe = {**recipes.NOAH, "form": "noah", "init": "noah", "rank": 8, "scale": 1.0, "dropout": 0.1}
        return recipes.common_for(self.name, task, noah)

    def grids(self) -> Mapping[str, Grid]:
        """Return ``small``, and ``osu``, OSU-MLB's search; NOAH searched nothing."""
        return {**super().grids(), "osu": recipes.searched_by_osu({"rank": (1, 8, 16, 32)})}

    def adapter(self, backbone: VisionTransformer, settings: LoraConfig) -> Adapter:
        """Return the pairs of every block, in the form that the settings name."""
        from .lora import make_lora

        return make_lora(backbone, settings)


class AdaptFormer(AdaptedMethod):
    """AdaptFormer: an adapter parallel to the MLP."""

    name = "adaptformer"
    title = "AdaptFormer"
    summary = "an adapter parallel to the MLP, scaled"
    settings = AdaptFormerConfig
    colour = "#e69f00"
    marker = "P"
    switches: ClassVar[Switches] = {
        "serial": {"placement": "serial"},
        "learned-scale": {"learned_scale": True},
        "no-activation": {"activation": False},
    }
    components: ClassVar[Mapping[str, str]] = {
        "serial": "parallel placement",
        "learned-scale": "fixed scale",
    }

    def recipe(self, recipe: str, task: Task) -> _Recipe:
        """Return under ``"published"`` how others obtained its VTAB-1k rows (its authors ran none), else nothing."""
        if recipe != "published":
            return {}
        return recipes.common_for(self.name, task, {**recipes.NOAH, "dim": 8, "scale": 0.1, "dropout": 0.1})

    def grids(self) -> Mapping[str, Grid]:
        """Return ``small``, and ``osu``, OSU-MLB's search."""
        axes: Grid = {"dim": (4, 16, 32), "scale": (0.05, 0.1, 0.2)}
        return {**super().grids(), "osu": recipes.searched_by_osu(axes)}

    def adapter(self, backbone: VisionTransformer, settings: AdaptFormerConfig) -> Adapter:
        """Return the parallel adapter of every block."""
        from .adaptformer import AdaptFormer

        return AdaptFormer(backbone, settings)


class Ssf(AdaptedMethod):
    """SSF: scale and shift the output of every operation."""

    name = "ssf"
    title = "SSF"
    summary = "scale and shift of the output of every operation of the backbone"
    settings = SsfConfig
    mergeable = True
    colour = "#6f4fa3"
    marker = "X"
    switches: ClassVar[Switches] = {
        "no-scales": {"scales": False},
        "no-shifts": {"shifts": False},
        "no-patches": {"at_patches": False},
        "no-norms": {"at_norms": False},
        "no-attention": {"at_attention": False},
        "no-mlp": {"at_mlp": False},
        "identity-start": {"init": "identity"},
    }
    components: ClassVar[Mapping[str, str]] = {
        "no-patches": "patch projection",
        "no-mlp": "MLP",
        "identity-start": "random start",
    }

    def recipe(self, recipe: str, task: Task) -> _Recipe:
        """Return the authors' recipe and settings for ``task`` under ``"published"``, else nothing."""
        return recipes.published_for(self.name, task, recipes.SSF) if recipe == "published" else {}

    def grids(self) -> Mapping[str, Grid]:
        """Return ``small``, and ``published``, every value in the authors' settings."""
        axes: Grid = {
            "lr": (1e-3, 2e-3, 3e-3, 5e-3, 1e-2, 2e-2, 5e-2),
            "weight_decay": (5e-5, 5e-2),
            "drop_path": (0.0, 0.1, 0.2),
        }
        return {**super().grids(), "published": recipes.searched(recipes.SSF, axes)}

    def adapter(self, backbone: VisionTransformer, settings: SsfConfig) -> Adapter:
        """Return the scales and shifts of all operations."""
        from .ssf import Ssf

        return Ssf(backbone, settings)


class Convpass(AdaptedMethod):
    """Convpass beside attention and MLP."""

    name = "convpass"
    title = "Convpass"
    summary = "convolutional bypasses of attention and MLP"
    settings = ConvpassConfig
    colour = "#b8860b"
    marker = ">"
    switches: ClassVar[Switches] = {
        "no-attention": {"at_attention": False},
        "no-mlp": {"at_mlp": False},
        "no-convolution": {"convolution": False},
        "no-activation": {"activation": False},
    }
    components: ClassVar[Mapping[str, str]] = {
        "no-attention": "bypass of attention",
        "no-mlp": "bypass of the MLP",
    }

    def recipe(self, recipe: str, task: Task) -> _Recipe:
        """Return the authors' recipe and settings for ``task`` under ``"published"``, else nothing."""
        return recipes.published_for(self.name, task, recipes.DECAYING) if recipe == "published" else {}

    def grids(self) -> Mapping[str, Grid]:
        """Return ``small``, and ``published``, the authors' scales and initialisations."""
        axes: Grid = {"scale": recipes.FIXED_SCALES, "conv_init": ("xavier", "identity")}
        return {**super().grids(), "published": recipes.searched(recipes.DECAYING, axes)}

    def adapter(self, backbone: VisionTransformer, settings: ConvpassConfig) -> Adapter:
        """Return the bypasses of every block."""
        from .convpass import Convpass

        return Convpass(backbone, settings)


class ConvpassAttention(Convpass):
    """Convpass beside attention alone."""

    name = "convpass-attn"
    title = "Convpass-attn"
    summary = "a convolutional bypass of attention"
    settings = ConvpassAttentionConfig
    colour = "#8c6d1f"
    marker = "<"
    switches: ClassVar[Switches] = {"no-convolution": {"convolution": False}, "no-activation": {"activation": False}}


class FactTt(AdaptedMethod):
    """FacT with free cores."""

    name = "fact-tt"
    title = "FacT-TT"
    summary = "one tensor-train change of all weights of all blocks"
    settings = FactTtConfig
    mergeable = True
    colour = "#a6273c"
    marker = "d"
    switches: ClassVar[Switches] = {
        "no-attention": {"at_attention": False},
        "no-mlp": {"at_mlp": False},
        "factors-per-block": {"shared_factors": False},
    }
    components: ClassVar[Mapping[str, str]] = {
        "no-attention": "change of attention",
        "no-mlp": "change of the MLP",
        "factors-per-block": "shared factors",
    }
    ranks: tuple[int, ...] = (4, 8, 16)

    def recipe(self, recipe: str, task: Task) -> _Recipe:
        """Return the authors' recipe and settings for ``task`` under ``"published"``, else nothing."""
        return recipes.published_for(self.name, task, recipes.DECAYING) if recipe == "published" else {}

    def grids(self) -> Mapping[str, Grid]:
        """Return ``small``, and ``published``, the authors' scales and the ranks in their settings."""
        axes: Grid = {"scale": recipes.FIXED_SCALES, "rank": self.ranks}
        return {**super().grids(), "published": recipes.searched(recipes.DECAYING, axes)}

    def adapter(self, backbone: VisionTransformer, settings: FactTtConfig) -> Adapter:
        """Return the shared factors and the cores of every block."""
        from .fact import FactTt

        return FactTt(backbone, settings)


class FactTk(FactTt):
    """FacT with cores from a Tucker decomposition."""

    name = "fact-tk"
    title = "FacT-TK"
    summary = "one Tucker change of all weights of all blocks"
    settings = FactTkConfig
    colour = "#e0607e"
    marker = "*"
    ranks = (16, 32)

    def adapter(self, backbone: VisionTransformer, settings: FactTtConfig) -> Adapter:
        """Return the shared factors and the tensors from which the cores follow."""
        from .fact import FactTk

        return FactTk(backbone, settings)


class RepAdapter(AdaptedMethod):
    """RepAdapter in front of attention and MLP."""

    name = "repadapter"
    title = "RepAdapter"
    summary = "linear adapters in front of attention and MLP"
    settings = RepAdapterConfig
    mergeable = True
    colour = "#5aa469"
    marker = "p"
    switches: ClassVar[Switches] = {
        "no-attention": {"at_attention": False},
        "no-mlp": {"at_mlp": False},
        "no-groups": {"groups": 1},
        "no-biases": {"biases": False},
    }
    components: ClassVar[Mapping[str, str]] = {
        "no-attention": "adapter of attention",
        "no-mlp": "adapter of the MLP",
    }

    def recipe(self, recipe: str, task: Task) -> _Recipe:
        """Return the authors' recipe and settings for ``task`` under ``"published"``, else nothing."""
        return recipes.published_for(self.name, task, recipes.DECAYING) if recipe == "published" else {}

    def grids(self) -> Mapping[str, Grid]:
        """Return ``small``, and ``published``, the authors' scales."""
        axes: Grid = {"scale": (0.1, 0.5, 1.0, 5.0, 10.0)}
        return {**super().grids(), "published": recipes.searched(recipes.DECAYING, axes)}

    def adapter(self, backbone: VisionTransformer, settings: RepAdapterConfig) -> Adapter:
        """Return the adapters of every block."""
        from .repadapter import RepAdapter

        return RepAdapter(backbone, settings)


class RepAdapterAttention(RepAdapter):
    """RepAdapter in front of attention alone."""

    name = "repadapter-attn"
    title = "RepAdapter-attn"
    summary = "a linear adapter in front of attention"
    settings = RepAdapterAttentionConfig
    colour = "#2f6b4f"
    marker = "8"
    switches: ClassVar[Switches] = {"no-groups": {"groups": 1}, "no-biases": {"biases": False}}
