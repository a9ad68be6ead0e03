"""Random small problems: a backbone, prompts of every shape, and a batch, as inputs of both forward passes."""

from dataclasses import dataclass

import torch
from hypothesis import strategies as st
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from tests.reference import ship, tiny
from tests.reference.tiny import TinyVit

CLASSES = 3


@dataclass(frozen=True)
class ShipShape:
    """The shape of a SHIP problem, and the seed of its numbers."""

    backbone: TinyVit
    settings: ship.Settings
    length: int
    shared: int
    attribute: int
    normalise_bank: bool
    batch: int
    drop_rate: float | None
    seed: int

    @property
    def attribute_levels(self) -> int:
        """The number of levels that get attribute prompts."""
        return min(self.settings.attribute_levels, len(self.settings.levels) - 1) if self.attribute else 0


PAPER = ShipShape(
    backbone=TinyVit(depth=5),
    settings=ship.Settings(levels=(0, 1, 3)),
    length=3,
    shared=10,
    attribute=10,
    normalise_bank=False,
    batch=4,
    drop_rate=0.6,
    seed=7,
)
"""The paper's configuration on a tiny backbone."""


@dataclass(frozen=True)
class VptShape:
    """The shape of a VPT problem, and the seed of its numbers."""

    backbone: TinyVit
    deep: bool
    length: int
    projection: int | None
    batch: int
    seed: int


@dataclass(frozen=True)
class Problem:
    """The numbers of a problem, all float64."""

    vit: VisionTransformer
    parameters: dict[str, Tensor]
    bank: Tensor
    images: Tensor
    labels: Tensor
    drop_factors: Tensor | None


@st.composite
def backbones(draw: st.DrawFn) -> TinyVit:
    """Tiny backbones of 5 to 19 image tokens."""
    image_size, patch_size = draw(st.sampled_from([(8, 4), (12, 4), (16, 4), (18, 6), (24, 8)]))
    heads = draw(st.integers(1, 3))
    return TinyVit(
        image_size=image_size,
        patch_size=patch_size,
        width=heads * draw(st.sampled_from([4, 8])),
        depth=draw(st.integers(2, 6)),
        heads=heads,
        registers=draw(st.integers(0, 2)),
        layer_scale=draw(st.booleans()),
        qk_norm=draw(st.booleans()),
        pre_norm=draw(st.booleans()),
    )


@st.composite
def settings(draw: st.DrawFn, depth: int) -> ship.Settings:
    """Settings of SHIP with any set of levels."""
    later = draw(st.sets(st.integers(1, depth - 1)))
    return ship.Settings(
        levels=(0, *sorted(later)),
        attribute_levels=draw(st.integers(0, 3)),
        attribute_scale=draw(st.sampled_from([0.1, 0.5])),
        temperature=draw(st.sampled_from([0.2, 1.0])),
        attention=draw(st.sampled_from(["decoupled", "coupled"])),
        attention_scale=draw(st.sampled_from([0.1, 0.4])),
        prompt_attention=draw(st.sampled_from(["last", "all"])),
        matching_weight=draw(st.sampled_from([0.0, 0.5])),
        top_k=draw(st.sampled_from([1, 4, 10, 30])),
    )


@st.composite
def ship_shapes(draw: st.DrawFn) -> ShipShape:
    """SHIP with every combination of its parts present or absent."""
    backbone = draw(backbones())
    return ShipShape(
        backbone=backbone,
        settings=draw(settings(backbone.depth)),
        length=draw(st.integers(0, 3)),
        shared=draw(st.sampled_from([0, 1, 10])),
        attribute=min(draw(st.sampled_from([0, 2, 10])), backbone.image_tokens),
        normalise_bank=draw(st.booleans()),
        batch=draw(st.integers(1, 5)),
        drop_rate=draw(st.sampled_from([None, 0.3, 0.7])),
        seed=draw(st.integers(0, 2**20)),
    )


@st.composite
def vpt_shapes(draw: st.DrawFn) -> VptShape:
    """VPT shallow or deep, projected or not."""
    return VptShape(
        backbone=draw(backbones()),
        deep=draw(st.booleans()),
        length=draw(st.integers(1, 4)),
        projection=draw(st.sampled_from([None, 5])),
        batch=draw(st.integers(1, 3)),
        seed=draw(st.integers(0, 2**20)),
    )


def ship_problem(shape: ShipShape) -> Problem:
    """Draw the numbers of a SHIP problem."""
    generator = torch.Generator().manual_seed(shape.seed)
    backbone = shape.backbone
    vit = tiny.tiny_vit(backbone, generator)
    parameters = tiny.ship_parameters(
        width=backbone.width,
        levels=len(shape.settings.levels),
        length=shape.length,
        shared=shape.shared,
        attribute=(shape.attribute_levels, shape.attribute),
        classes=CLASSES,
        generator=generator,
    )
    images, labels = tiny.batch(backbone, shape.batch, CLASSES, generator)
    bank = tiny.uniform(generator, 6, backbone.width, bound=4.0)
    rate = shape.drop_rate
    factors = None if rate is None else tiny.drop_factors(backbone.depth, shape.batch, rate, generator)
    return Problem(vit, parameters, bank, images, labels, factors)


def vpt_problem(shape: VptShape) -> Problem:
    """Draw the numbers of a VPT problem."""
    generator = torch.Generator().manual_seed(shape.seed)
    backbone = shape.backbone
    vit = tiny.tiny_vit(backbone, generator)
    parameters = tiny.vpt_parameters(
        width=backbone.width,
        blocks=backbone.depth if shape.deep else 1,
        length=shape.length,
        projection=shape.projection,
        classes=CLASSES,
        generator=generator,
    )
    images, labels = tiny.batch(backbone, shape.batch, CLASSES, generator)
    return Problem(vit, parameters, torch.zeros(0, backbone.width), images, labels, None)
