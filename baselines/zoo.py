"""Adapters and subsets of the backbone as methods of the harness; torch is imported only to build a model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from shipbench.methods import AdaptedMethod, Grid, SettingValue

from . import recipes
from .settings import (
    AdapterPlusConfig,
    AdaptFormerConfig,
    ConvpassConfig,
    FactTkConfig,
    FactTtConfig,
    HoulsbyConfig,
    LoraConfig,
    PartialConfig,
    PfeifferConfig,
    RepAdapterConfig,
    SerialConfig,
    SsfConfig,
)

if TYPE_CHECKING:
    from timm.models.vision_transformer import VisionTransformer

    from shipbench.adapting import Adapter
    from shipbench.methods import NoSettings
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


class ConvpassAttention(AdaptedMethod):
    """Convpass beside attention alone."""

    name = "convpass-attn"
    title = "Convpass-attn"
    summary = "a convolutional bypass of attention"
    settings = ConvpassConfig
    colour = "#8c6d1f"
    marker = "<"

    def recipe(self, recipe: str, task: Task) -> _Recipe:
        """Return the authors' recipe and settings for ``task`` under ``"published"``, else nothing."""
        return recipes.published_for(self.name, task, recipes.DECAYING) if recipe == "published" else {}

    def grids(self) -> Mapping[str, Grid]:
        """Return ``small``, and ``published``, the authors' scales and initialisations."""
        axes: Grid = {"scale": recipes.FIXED_SCALES, "conv_init": ("xavier", "identity")}
        return {**super().grids(), "published": recipes.searched(recipes.DECAYING, axes)}

    def adapter(self, backbone: VisionTransformer, settings: ConvpassConfig) -> Adapter:
        """Return the bypass of every block."""
        from .convpass import ConvpassAttention

        return ConvpassAttention(backbone, settings)


class Convpass(ConvpassAttention):
    """Convpass beside attention and MLP."""

    name = "convpass"
    title = "Convpass"
    summary = "convolutional bypasses of attention and MLP"
    colour = "#b8860b"
    marker = ">"

    def adapter(self, backbone: VisionTransformer, settings: ConvpassConfig) -> Adapter:
        """Return both bypasses of every block."""
        from .convpass import Convpass

        return Convpass(backbone, settings)


class FactTt(AdaptedMethod):
    """FacT with free cores."""

    name = "fact-tt"
    title = "FacT-TT"
    summary = "one tensor-train change of all weights of all blocks"
    settings = FactTtConfig
    mergeable = True
    colour = "#a6273c"
    marker = "d"
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


class RepAdapterAttention(AdaptedMethod):
    """RepAdapter in front of attention alone."""

    name = "repadapter-attn"
    title = "RepAdapter-attn"
    summary = "a linear adapter in front of attention"
    settings = RepAdapterConfig
    mergeable = True
    colour = "#2f6b4f"
    marker = "8"

    def recipe(self, recipe: str, task: Task) -> _Recipe:
        """Return the authors' recipe and settings for ``task`` under ``"published"``, else nothing."""
        return recipes.published_for(self.name, task, recipes.DECAYING) if recipe == "published" else {}

    def grids(self) -> Mapping[str, Grid]:
        """Return ``small``, and ``published``, the authors' scales."""
        axes: Grid = {"scale": (0.1, 0.5, 1.0, 5.0, 10.0)}
        return {**super().grids(), "published": recipes.searched(recipes.DECAYING, axes)}

    def adapter(self, backbone: VisionTransformer, settings: RepAdapterConfig) -> Adapter:
        """Return the adapter of every block."""
        from .repadapter import RepAdapterAttention

        return RepAdapterAttention(backbone, settings)


class RepAdapter(RepAdapterAttention):
    """RepAdapter in front of attention and MLP."""

    name = "repadapter"
    title = "RepAdapter"
    summary = "linear adapters in front of attention and MLP"
    colour = "#5aa469"
    marker = "p"

    def adapter(self, backbone: VisionTransformer, settings: RepAdapterConfig) -> Adapter:
        """Return both adapters of every block."""
        from .repadapter import RepAdapter

        return RepAdapter(backbone, settings)


class SerialAdapter(AdaptedMethod):
    """The adapter after the MLP of NOAH's and VPT's tables."""

    name = "adapter"
    title = "Adapter"
    summary = "an adapter after the MLP, in the form of NOAH or of VPT"
    settings = SerialConfig
    colour = "#1b9e9e"
    marker = "h"

    def recipe(self, recipe: str, task: Task) -> _Recipe:
        """Return NOAH's one setting for all tasks under ``"published"``, else nothing."""
        if recipe != "published":
            return {}
        noah: _Recipe = {**recipes.NOAH, "form": "noah", "init": "noah", "dim": 8, "dropout": 0.1}
        return recipes.common_for(self.name, task, noah)

    def adapter(self, backbone: VisionTransformer, settings: SerialConfig) -> Adapter:
        """Return the adapter of every block, in the form that the settings name."""
        from .adapter import make_serial

        return make_serial(backbone, settings)


class Houlsby(AdaptedMethod):
    """Houlsby: adapters after attention and MLP."""

    name = "adapter-houlsby"
    title = "Adapter (Houlsby)"
    summary = "adapters after attention and MLP, and trained norms"
    settings = HoulsbyConfig
    colour = "#3d8fd1"
    marker = "H"

    def recipe(self, recipe: str, task: Task) -> _Recipe:
        """Return under ``"published"`` the protocol in which Adapter+'s authors compare it, else nothing."""
        return recipes.common_for(self.name, task, recipes.ADAPTER_PLUS) if recipe == "published" else {}

    def adapter(self, backbone: VisionTransformer, settings: HoulsbyConfig) -> Adapter:
        """Return both adapters of every block."""
        from .adapter_houlsby import Houlsby

        return Houlsby(backbone, settings)


class Pfeiffer(AdaptedMethod):
    """Pfeiffer: an adapter with a norm after the MLP."""

    name = "adapter-pfeiffer"
    title = "Adapter (Pfeiffer)"
    summary = "an adapter after the MLP, with a norm in front"
    settings = PfeifferConfig
    colour = "#7a5195"
    marker = "1"

    def recipe(self, recipe: str, task: Task) -> _Recipe:
        """Return under ``"published"`` the protocol in which Adapter+'s authors compare it, else nothing."""
        return recipes.common_for(self.name, task, recipes.ADAPTER_PLUS) if recipe == "published" else {}

    def adapter(self, backbone: VisionTransformer, settings: PfeifferConfig) -> Adapter:
        """Return the adapter of every block."""
        from .adapter_pfeiffer import Pfeiffer

        return Pfeiffer(backbone, settings)


class AdapterPlus(AdaptedMethod):
    """Adapter+: an adapter after the block, scaled by channel."""

    name = "adapter-plus"
    title = "Adapter+"
    summary = "an adapter after every block, scaled by channel"
    settings = AdapterPlusConfig
    colour = "#ef5675"
    marker = "2"

    def recipe(self, recipe: str, task: Task) -> _Recipe:
        """Return the authors' recipe and the rank of their setting 1-32 under ``"published"``, else nothing."""
        return recipes.published_for(self.name, task, recipes.ADAPTER_PLUS) if recipe == "published" else {}

    def grids(self) -> Mapping[str, Grid]:
        """Return ``small``, and ``published``, the ranks of the authors' setting 1-32."""
        axes: Grid = {"dim": (1, 2, 4, 8, 16, 32)}
        return {**super().grids(), "published": recipes.searched(recipes.ADAPTER_PLUS, axes)}

    def adapter(self, backbone: VisionTransformer, settings: AdapterPlusConfig) -> Adapter:
        """Return the adapter of every block."""
        from .adapter_plus import AdapterPlus

        return AdapterPlus(backbone, settings)


class BitFit(AdaptedMethod):
    """BitFit: train the biases."""

    name = "bitfit"
    title = "BitFit"
    summary = "every bias of the backbone"
    mergeable = True
    colour = "#4d4d4d"
    marker = "3"

    def recipe(self, recipe: str, task: Task) -> _Recipe:
        """Return OSU-MLB's recipe and choices for ``task`` under ``"published"``, else nothing."""
        return recipes.published_for(self.name, task, recipes.OSU) if recipe == "published" else {}

    def grids(self) -> Mapping[str, Grid]:
        """Return ``small``, and ``osu``, OSU-MLB's search."""
        return {**super().grids(), "osu": recipes.searched_by_osu({})}

    def adapter(self, backbone: VisionTransformer, settings: NoSettings) -> Adapter:
        """Return the choice of the backbone's biases."""
        from .bitfit import BitFit

        return BitFit()


class LnTuning(BitFit):
    """LN tuning: train the norms."""

    name = "ln-tuning"
    title = "LN tuning"
    summary = "weight and bias of every norm of the backbone"
    colour = "#a0a8b5"
    marker = "4"

    def adapter(self, backbone: VisionTransformer, settings: NoSettings) -> Adapter:
        """Return the choice of the backbone's norms."""
        from .ln_tuning import LnTuning

        return LnTuning()


class DiffFit(BitFit):
    """DiffFit: train biases, norms, and a scale of every branch."""

    name = "difffit"
    title = "DiffFit"
    summary = "every bias and norm of the backbone, and a scale of every branch by channel"
    colour = "#bc5090"
    marker = "+"

    def adapter(self, backbone: VisionTransformer, settings: NoSettings) -> Adapter:
        """Return the scales of all branches."""
        from .difffit import DiffFit

        return DiffFit(backbone)


class Partial(AdaptedMethod):
    """Partial fine-tuning: train the last blocks."""

    name = "partial"
    title = "Partial"
    summary = "the last blocks of the backbone and its final norm"
    settings = PartialConfig
    mergeable = True
    colour = "#66a61e"
    marker = "x"

    def recipe(self, recipe: str, task: Task) -> _Recipe:
        """Return a tenth of the common learning rate, as for full fine-tuning."""
        return {**super().recipe(recipe, task), "lr": 1e-4}

    def adapter(self, backbone: VisionTransformer, settings: PartialConfig) -> Adapter:
        """Return the choice of the last blocks."""
        from .partial import Partial

        return Partial(backbone, settings)
