"""The base class of methods that adapt a frozen ViT by an ``Adapter``."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any

from shipbench.methods.interface import BuildContext, Built, Method

if TYPE_CHECKING:
    from timm.models.vision_transformer import VisionTransformer

    from shipbench.adapting import Adapter
    from shipbench.backbones import Origin


class AdaptedMethod(Method):
    """A method whose model is a frozen backbone, an ``Adapter`` and a new head (``shipbench.adapting.AdaptedModel``).

    A subclass implements ``adapter`` in place of ``build``, and imports torch inside it.
    """

    @abstractmethod
    def adapter(self, backbone: VisionTransformer, settings: Any) -> Adapter:
        """Return a new adapter for ``backbone``; ``settings`` is an instance of the method's settings class."""

    def why_unusable(self, origin: Origin, settings: Any) -> str:
        """Return why adapters cannot join the blocks of a backbone, or an empty string."""
        return origin.unpromptable

    def build(self, context: BuildContext) -> Built:
        """Freeze the backbone; add the adapter and a new head."""
        from shipbench.adapting import AdaptedModel

        adapter = self.adapter(context.backbone, context.settings)
        return Built(AdaptedModel(context.backbone, context.num_classes, adapter))
