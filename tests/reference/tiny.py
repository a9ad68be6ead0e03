"""Tiny seeded vision transformers and batches in float64, bit-identical on every machine.

All draws are uniform: unlike normal draws, they do not depend on machine-specific kernels of torch.
"""

from dataclasses import dataclass

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor


@dataclass(frozen=True)
class TinyVit:
    """The shape of a tiny backbone."""

    image_size: int = 16
    patch_size: int = 4
    width: int = 24
    depth: int = 4
    heads: int = 3
    registers: int = 0
    layer_scale: bool = False
    qk_norm: bool = False
    pre_norm: bool = False
    drop_path: float = 0.0

    @property
    def image_tokens(self) -> int:
        """N, the number of CLS, register and patch tokens."""
        return 1 + self.registers + (self.image_size // self.patch_size) ** 2


def uniform(generator: torch.Generator, *shape: int, bound: float = 1.0) -> Tensor:
    """U(-bound, bound) in float64."""
    return bound * (2 * torch.rand(shape, generator=generator, dtype=torch.float64) - 1)


def tiny_vit(shape: TinyVit, generator: torch.Generator) -> VisionTransformer:
    """A headless backbone with all parameters random, including biases, norms and layer scales."""
    vit = VisionTransformer(
        img_size=shape.image_size,
        patch_size=shape.patch_size,
        num_classes=0,
        embed_dim=shape.width,
        depth=shape.depth,
        num_heads=shape.heads,
        mlp_ratio=2.0,
        reg_tokens=shape.registers,
        init_values=0.5 if shape.layer_scale else None,
        qk_norm=shape.qk_norm,
        pre_norm=shape.pre_norm,
        drop_path_rate=shape.drop_path,
    )
    vit = vit.double().eval().requires_grad_(False)
    for name, parameter in vit.named_parameters():
        parameter.copy_(random_like(name, parameter, generator))
    return vit


def random_like(name: str, parameter: Tensor, generator: torch.Generator) -> Tensor:
    """Uniform values that keep activations of order one: unit variance through matrices, norms around one."""
    values = uniform(generator, *parameter.shape)
    if "embed" in name or "token" in name:
        return values
    if parameter.ndim >= 2:
        return values * (3 / parameter[0].numel()) ** 0.5
    around_one = name.endswith(("weight", "gamma"))
    return 1 + 0.3 * values if around_one else 0.3 * values


def ship_parameters(
    *,
    width: int,
    levels: int,
    length: int,
    shared: int,
    attribute: tuple[int, int],
    classes: int,
    generator: torch.Generator,
) -> dict[str, Tensor]:
    """Random SHIP parameters by name; ``attribute`` is (levels, length), and a length of 0 omits the parameter."""
    sizes = {f"prompts.independent.{level}": (length, width) for level in range(levels)}
    sizes["prompts.shared"] = (shared, width)
    sizes["prompts.attribute"] = (*attribute, width)
    drawn = {name: uniform(generator, *size) for name, size in sizes.items() if 0 not in size}
    return drawn | head_parameters(width, classes, generator)


def vpt_parameters(
    *, width: int, blocks: int, length: int, projection: int | None, classes: int, generator: torch.Generator
) -> dict[str, Tensor]:
    """Random VPT parameters by name, with fresh prompts in the first ``blocks`` blocks."""
    drawn = {"prompts.tokens": uniform(generator, blocks, length, projection or width)}
    if projection:
        drawn["prompts.projection.weight"] = uniform(generator, width, projection, bound=projection**-0.5)
        drawn["prompts.projection.bias"] = uniform(generator, width, bound=0.3)
    return drawn | head_parameters(width, classes, generator)


def head_parameters(width: int, classes: int, generator: torch.Generator) -> dict[str, Tensor]:
    """A random linear head."""
    return {"head.weight": uniform(generator, classes, width), "head.bias": uniform(generator, classes)}


def batch(shape: TinyVit, size: int, classes: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Images (B, 3, H, W) and labels (B,)."""
    images = uniform(generator, size, 3, shape.image_size, shape.image_size)
    labels = torch.randint(classes, (size,), generator=generator)
    return images, labels


def drop_factors(depth: int, size: int, rate: float, generator: torch.Generator) -> Tensor:
    """Stochastic-depth factors (L, 2, B): 0 or 1 / keep, with a rate that grows linearly from 0 to ``rate``."""
    keep = 1 - torch.linspace(0, rate, depth, dtype=torch.float64)[:, None, None]
    kept = torch.rand(depth, 2, size, generator=generator, dtype=torch.float64) < keep
    return kept / keep
