"""Methods that change the frozen blocks inside or beside them; torch is imported only to build a model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from shipbench.methods import Grid, Switches

from .recipes import DECAYING, FIXED_SCALES, NOAH, SSF, PublishedMethod, Recipe
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
    from shipbench.backbones import Origin


class Lora(PublishedMethod):
    """LoRA: low-rank changes of the attention's projections."""

    name = "lora"
    title = "LoRA"
    summary = "low-rank changes of the attention's projections, in the form of NOAH, of Jie and Deng, or of peft"
    settings = LoraConfig
    mergeable = True
    colour = "#cc79a7"
    marker = "v"
    # NOAH's one setting for all tasks; NOAH searched nothing.
    published: ClassVar[Recipe] = {**NOAH, "form": "noah", "init": "noah", "rank": 8, "scale": 1.0, "dropout": 0.1}
    searched_by_osu: ClassVar[Grid] = {"rank": (1, 8, 16, 32)}
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

    def adapter(self, backbone: VisionTransformer, settings: LoraConfig) -> Adapter:
        """Return the pairs of every block, in the form that the settings name."""
        from .lora import make_lora

        return make_lora(backbone, settings)


class AdaptFormer(PublishedMethod):
    """AdaptFormer: an adapter parallel to the MLP."""

    name = "adaptformer"
    title = "AdaptFormer"
    summary = "an adapter parallel to the MLP, scaled"
    settings = AdaptFormerConfig
    colour = "#e69f00"
    marker = "P"
    # How others obtained its rows of VTAB-1k; its authors ran none.
    published: ClassVar[Recipe] = {**NOAH, "dim": 8, "scale": 0.1, "dropout": 0.1}
    searched_by_osu: ClassVar[Grid] = {"dim": (4, 16, 32), "scale": (0.05, 0.1, 0.2)}
    switches: ClassVar[Switches] = {
        "serial": {"placement": "serial"},
        "learned-scale": {"learned_scale": True},
        "no-activation": {"activation": False},
    }
    components: ClassVar[Mapping[str, str]] = {
        "serial": "parallel placement",
        "learned-scale": "fixed scale",
    }

    def adapter(self, backbone: VisionTransformer, settings: AdaptFormerConfig) -> Adapter:
        """Return the parallel adapter of every block."""
        from .adaptformer import AdaptFormer

        return AdaptFormer(backbone, settings)


class Ssf(PublishedMethod):
    """SSF: scale and shift the output of every operation."""

    name = "ssf"
    title = "SSF"
    summary = "scale and shift of the output of every operation of the backbone"
    settings = SsfConfig
    mergeable = True
    colour = "#6f4fa3"
    marker = "X"
    published: ClassVar[Recipe] = SSF
    # Every value in the authors' settings.
    searched: ClassVar[Grid] = {
        "lr": (1e-3, 2e-3, 3e-3, 5e-3, 1e-2, 2e-2, 5e-2),
        "weight_decay": (5e-5, 5e-2),
        "drop_path": (0.0, 0.1, 0.2),
    }
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

    def why_unusable(self, origin: Origin, settings: SsfConfig) -> str:
        """Return why adapters cannot join the blocks of a backbone, or SSF its MLP, or an empty string."""
        return super().why_unusable(origin, settings) or settings.why_unusable(origin.mlp)

    def adapter(self, backbone: VisionTransformer, settings: SsfConfig) -> Adapter:
        """Return the scales and shifts of all operations."""
        from .ssf import Ssf

        return Ssf(backbone, settings)


class Convpass(PublishedMethod):
    """Convpass beside attention and MLP."""

    name = "convpass"
    title = "Convpass"
    summary = "convolutional bypasses of attention and MLP"
    settings = ConvpassConfig
    colour = "#b8860b"
    marker = ">"
    published: ClassVar[Recipe] = DECAYING
    searched: ClassVar[Grid] = {"scale": FIXED_SCALES, "conv_init": ("xavier", "identity")}
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


class FactTt(PublishedMethod):
    """FacT with free cores."""

    name = "fact-tt"
    title = "FacT-TT"
    summary = "one tensor-train change of all weights of all blocks"
    settings = FactTtConfig
    mergeable = True
    colour = "#a6273c"
    marker = "d"
    published: ClassVar[Recipe] = DECAYING
    # The authors' scales, and the ranks in their settings.
    searched: ClassVar[Grid] = {"scale": FIXED_SCALES, "rank": (4, 8, 16)}
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

    def why_unusable(self, origin: Origin, settings: FactTtConfig) -> str:
        """Return why adapters cannot join the blocks of a backbone, or FacT its MLP, or an empty string."""
        if reason := super().why_unusable(origin, settings):
            return reason
        reason = settings.why_unusable(origin.mlp)
        return f"{reason}; add --set {self.name}.at_mlp=false" if reason else ""

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
    searched: ClassVar[Grid] = {"scale": FIXED_SCALES, "rank": (16, 32)}

    def adapter(self, backbone: VisionTransformer, settings: FactTtConfig) -> Adapter:
        """Return the shared factors and the tensors from which the cores follow."""
        from .fact import FactTk

        return FactTk(backbone, settings)


class RepAdapter(PublishedMethod):
    """RepAdapter in front of attention and MLP."""

    name = "repadapter"
    title = "RepAdapter"
    summary = "linear adapters in front of attention and MLP"
    settings = RepAdapterConfig
    mergeable = True
    colour = "#5aa469"
    marker = "p"
    published: ClassVar[Recipe] = DECAYING
    searched: ClassVar[Grid] = {"scale": (0.1, 0.5, 1.0, 5.0, 10.0)}
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
