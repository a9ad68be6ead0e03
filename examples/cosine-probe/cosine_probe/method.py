"""The cosine probe as a method of shipbench; torch is imported only to build a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from annotated_types import Gt

from shipbench.methods import BuildContext, Built, Grid, Method, SettingValue, Switches
from shipbench.settings import Settings

if TYPE_CHECKING:
    from shipbench.tasks import Task


@dataclass(frozen=True)
class CosineSettings(Settings):
    """Settings of the cosine probe.

    Logits are cosines times ``scale``. Without ``normalise``, features keep their length.
    """

    scale: Annotated[float, Gt(0)] = 20.0
    normalise: bool = True


class CosineProbe(Method):
    """Cosine probe: train one direction per class on frozen features."""

    name = "cosine-probe"
    title = "Cosine probe"
    summary = "cosine probe: one direction per class on the frozen backbone's final CLS token"
    settings = CosineSettings
    switches: ClassVar[Switches] = {"no-normalisation": {"normalise": False}}
    trains_on_features = True

    def recipe(self, recipe: str, task: Task) -> Mapping[str, SettingValue]:
        """Return 100 epochs in every suite: on fixed features they take seconds."""
        return {**super().recipe(recipe, task), "epochs": 100, "warmup_epochs": 10, "lr": 1e-2}

    def grids(self) -> Mapping[str, Grid]:
        """Return ``small``, which every method has, and ``scale``, a search over the scale and the learning rate."""
        return {**super().grids(), "scale": {"scale": (10.0, 20.0, 40.0), "lr": (1e-3, 1e-2)}}

    def build(self, context: BuildContext) -> Built:
        """Freeze the backbone and add the directions."""
        from cosine_probe.model import CosineModel

        return Built(CosineModel(context.backbone, context.num_classes, context.settings))
