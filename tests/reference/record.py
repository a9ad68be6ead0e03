"""Numbers of the references, recorded in ``recorded.json`` so that a clone can check them without other files.

``python -m tests.reference.record`` rewrites the file.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from tests.reference import ship, tiny, vpt
from tests.reference.tiny import TinyVit

FILE = Path(__file__).with_name("recorded.json")
BATCH, CLASSES, CLUSTERS = 2, 3, 7

Record = dict[str, list[float]]


@dataclass(frozen=True)
class ShipCase:
    """A SHIP forward pass on a tiny backbone."""

    settings: ship.Settings
    backbone: TinyVit = field(default_factory=TinyVit)
    length: int = 2
    shared: int = 10
    attribute: tuple[int, int] = (2, 10)
    drop_rate: float = 0.0


@dataclass(frozen=True)
class VptCase:
    """A VPT forward pass on a tiny backbone."""

    blocks: int
    backbone: TinyVit = field(default_factory=TinyVit)
    length: int = 3
    projection: int | None = None
    drop_rate: float = 0.0


SHIP_CASES = {
    "ship": ShipCase(ship.Settings((0, 1, 4)), TinyVit(depth=6)),
    "ship, stochastic depth": ShipCase(ship.Settings((0, 2, 3)), drop_rate=0.5),
    "ship, coupled attention": ShipCase(ship.Settings((0, 1, 2), attention="coupled")),
    "ship, prompts attend in every block": ShipCase(ship.Settings((0, 1, 2), prompt_attention="all")),
    "ship, two levels": ShipCase(ship.Settings((0, 2))),
    "ship, one level": ShipCase(ship.Settings((0,)), attribute=(0, 0)),
    "ship, no independent prompts": ShipCase(ship.Settings((0, 1, 2)), length=0),
    "ship, no shared prompts": ShipCase(ship.Settings((0, 1, 2)), shared=0),
    "ship, no prompts": ShipCase(ship.Settings((0,)), length=0, shared=0, attribute=(0, 0)),
    "ship, fewer tokens than ranks": ShipCase(ship.Settings((0, 1, 2)), TinyVit(image_size=8)),
    "ship, sharper guide": ShipCase(ship.Settings((0, 1, 2), temperature=0.1, attribute_scale=0.5, top_k=3)),
    "ship, richer backbone": ShipCase(
        ship.Settings((0, 1, 2), attention_scale=0.3),
        TinyVit(registers=2, layer_scale=True, qk_norm=True, pre_norm=True),
    ),
}
VPT_CASES = {
    "vpt shallow": VptCase(blocks=1),
    "vpt deep": VptCase(blocks=4),
    "vpt deep, projection, stochastic depth": VptCase(blocks=4, projection=5, drop_rate=0.5),
}


def record() -> dict[str, Record]:
    """Compute the numbers of every case."""
    ships = {name: record_ship(case) for name, case in SHIP_CASES.items()}
    return ships | {name: record_vpt(case) for name, case in VPT_CASES.items()}


def record_ship(case: ShipCase) -> Record:
    """Logits, losses, selected tokens and a digest of every gradient."""
    generator = torch.Generator().manual_seed(1)
    shape = case.backbone
    vit = tiny.tiny_vit(shape, generator)
    parameters = tiny.ship_parameters(
        width=shape.width,
        levels=len(case.settings.levels),
        length=case.length,
        shared=case.shared,
        attribute=case.attribute,
        classes=CLASSES,
        generator=generator,
    )
    bank = tiny.uniform(generator, CLUSTERS, shape.width, bound=4.0)
    images, labels = tiny.batch(shape, BATCH, CLASSES, generator)
    factors = tiny.drop_factors(shape.depth, BATCH, case.drop_rate, generator)
    require_grad(parameters)
    result = ship.forward(vit, parameters, case.settings, images, labels, bank=bank, drop_factors=factors)
    selected = [a.selection.indices[0, :3] for a in result.attribute.values()]
    return {
        "logits": numbers(result.logits),
        "cross_entropy": numbers(result.cross_entropy),
        "matching": numbers(result.matching),
        "selected": numbers(torch.cat(selected)) if selected else [],
        **gradient_digests(result.loss, parameters),
    }


def record_vpt(case: VptCase) -> Record:
    """Logits, loss and a digest of every gradient."""
    generator = torch.Generator().manual_seed(2)
    shape = case.backbone
    vit = tiny.tiny_vit(shape, generator)
    parameters = tiny.vpt_parameters(
        width=shape.width,
        blocks=case.blocks,
        length=case.length,
        projection=case.projection,
        classes=CLASSES,
        generator=generator,
    )
    images, labels = tiny.batch(shape, BATCH, CLASSES, generator)
    factors = tiny.drop_factors(shape.depth, BATCH, case.drop_rate, generator)
    require_grad(parameters)
    result = vpt.forward(vit, parameters, images, labels, drop_factors=factors)
    return {
        "logits": numbers(result.logits),
        "cross_entropy": numbers(result.loss),
        **gradient_digests(result.loss, parameters),
    }


def require_grad(parameters: dict[str, Tensor]) -> None:
    """Make every parameter require a gradient."""
    for parameter in parameters.values():
        parameter.requires_grad_()


def gradient_digests(loss: Tensor, parameters: dict[str, Tensor]) -> Record:
    """For each parameter, the norm of its gradient and the gradient's projection on cos(1), cos(2), ..."""
    gradients = torch.autograd.grad(loss, list(parameters.values()))
    return {f"gradient of {name}": digest(g) for name, g in zip(parameters, gradients, strict=True)}


def digest(values: Tensor) -> list[float]:
    """The norm and a projection, which change with any element and with the order of elements."""
    flat = values.flatten()
    directions = torch.arange(1, len(flat) + 1, dtype=flat.dtype).cos()
    return [flat.norm().item(), (flat * directions).sum().item()]


def numbers(values: Tensor) -> list[float]:
    """The elements as a flat list."""
    return values.detach().flatten().tolist()


def stored() -> dict[str, Record]:
    """The content of ``recorded.json``."""
    content: dict[str, Record] = json.loads(FILE.read_text())
    return content


if __name__ == "__main__":
    FILE.write_text(json.dumps(record(), indent=1) + "\n")
