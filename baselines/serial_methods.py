"""Serial adapters as methods of the harness; torch is imported only to build a model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from shipbench.methods import Grid, Switches

from .recipes import ADAPTER_PLUS, NOAH, PublishedMethod, Recipe
from .settings import AdapterPlusConfig, HoulsbyConfig, PfeifferConfig, SerialConfig

if TYPE_CHECKING:
    from timm.models.vision_transformer import VisionTransformer

    from shipbench.adapting import Adapter


class SerialAdapter(PublishedMethod):
    """The adapter after the MLP of NOAH's and VPT's tables."""

    name = "adapter"
    title = "Adapter"
    summary = "an adapter after the MLP, in the form of NOAH or of VPT"
    settings = SerialConfig
    colour = "#1b9e9e"
    marker = "h"
    # NOAH's one setting for all tasks.
    published: ClassVar[Recipe] = {**NOAH, "form": "noah", "init": "noah", "dim": 8, "dropout": 0.1}
    switches: ClassVar[Switches] = {"zero-start": {"init": "zero_up"}, "no-activation": {"activation": False}}
    components: ClassVar[Mapping[str, str]] = {"zero-start": "random start"}

    def adapter(self, backbone: VisionTransformer, settings: SerialConfig) -> Adapter:
        """Return the adapter of every block, in the form that the settings name."""
        from .adapter import make_serial

        return make_serial(backbone, settings)


class Houlsby(PublishedMethod):
    """Houlsby: adapters after attention and MLP."""

    name = "adapter-houlsby"
    title = "Adapter (Houlsby)"
    summary = "adapters after attention and MLP, and trained norms"
    settings = HoulsbyConfig
    colour = "#3d8fd1"
    marker = "H"
    # The protocol in which Adapter+'s authors compare it.
    published: ClassVar[Recipe] = ADAPTER_PLUS
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

    def adapter(self, backbone: VisionTransformer, settings: HoulsbyConfig) -> Adapter:
        """Return both adapters of every block."""
        from .adapter_houlsby import Houlsby

        return Houlsby(backbone, settings)


class Pfeiffer(PublishedMethod):
    """Pfeiffer: an adapter with a norm after the MLP."""

    name = "adapter-pfeiffer"
    title = "Adapter (Pfeiffer)"
    summary = "an adapter after the MLP, with a norm in front"
    settings = PfeifferConfig
    colour = "#7a5195"
    marker = "1"
    # The protocol in which Adapter+'s authors compare it.
    published: ClassVar[Recipe] = ADAPTER_PLUS
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

    def adapter(self, backbone: VisionTransformer, settings: PfeifferConfig) -> Adapter:
        """Return the adapter of every block."""
        from .adapter_pfeiffer import Pfeiffer

        return Pfeiffer(backbone, settings)


class AdapterPlus(PublishedMethod):
    """Adapter+: an adapter after the block, scaled by channel."""

    name = "adapter-plus"
    title = "Adapter+"
    summary = "an adapter after every block, scaled by channel"
    settings = AdapterPlusConfig
    colour = "#ef5675"
    marker = "2"
    published: ClassVar[Recipe] = ADAPTER_PLUS
    # The ranks of the authors' setting 1-32.
    searched: ClassVar[Grid] = {"dim": (1, 2, 4, 8, 16, 32)}
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

    def adapter(self, backbone: VisionTransformer, settings: AdapterPlusConfig) -> Adapter:
        """Return the adapter of every block."""
        from .adapter_plus import AdapterPlus

        return AdapterPlus(backbone, settings)
