"""Serial adapters as methods of the harness; torch is imported only to build a model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from shipbench.methods import AdaptedMethod, Grid, SettingValue, Switches

from . import recipes
from .settings import AdapterPlusConfig, HoulsbyConfig, PfeifferConfig, SerialConfig

if TYPE_CHECKING:
    from timm.models.vision_transformer import VisionTransformer

    from shipbench.adapting import Adapter
    from shipbench.tasks import Task

_Recipe = Mapping[str, SettingValue]


class SerialAdapter(AdaptedMethod):
    """The adapter after the MLP of NOAH's and VPT's tables."""

    name = "adapter"
    title = "Adapter"
    summary = "an adapter after the MLP, in the form of NOAH or of VPT"
    settings = SerialConfig
    colour = "#1b9e9e"
    marker = "h"
    switches: ClassVar[Switches] = {"zero-start": {"init": "zero_up"}, "no-activation": {"activation": False}}
    components: ClassVar[Mapping[str, str]] = {"zero-start": "random start"}

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
    switches: ClassVar[Switches] = {
        "no-attention": {"at_attention": False},
        "no-mlp": {"at_mlp": False},
        "no-norms": {"train_norms": False},
        "no-activation": {"activation": False},
        "no-drop-path": {"adapter_drop_path": 0.0},
    }
    components: ClassVar[Mapping[str, str]] = {
        "no-attention": "adapter of attention",
        "no-mlp": "adapter of the MLP",
        "no-norms": "trained norms",
        "no-drop-path": "stochastic depth of adapters",
    }

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
    switches: ClassVar[Switches] = {
        "no-residual": {"reads_residual": False},
        "no-norm": {"norm": False},
        "no-activation": {"activation": False},
        "no-drop-path": {"adapter_drop_path": 0.0},
    }
    components: ClassVar[Mapping[str, str]] = {
        "no-residual": "residual in the input",
        "no-norm": "norm in front",
        "no-drop-path": "stochastic depth of adapters",
    }

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
    switches: ClassVar[Switches] = {
        "no-residual": {"reads_residual": False},
        "no-scaling": {"scaling": "none"},
        "no-activation": {"activation": False},
        "no-drop-path": {"adapter_drop_path": 0.0},
    }
    components: ClassVar[Mapping[str, str]] = {
        "no-residual": "residual in the input",
        "no-drop-path": "stochastic depth of adapters",
    }

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
