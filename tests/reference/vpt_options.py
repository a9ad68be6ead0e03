"""The options of VPT's paper, literally: every token goes through every block, and every option is written out.

Source: Jia et al., ECCV 2022, arXiv 2203.12119. N blocks are numbered from 0 here.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from tests.reference.vit import keep_everything
from tests.reference.vpt import insert_after_cls, run_block

MEAN = torch.tensor([0.485, 0.456, 0.406], dtype=torch.float64)
STD = torch.tensor([0.229, 0.224, 0.225], dtype=torch.float64)


@dataclass(frozen=True)
class Options:
    """One choice of options; ``layers`` counts the prompted blocks."""

    layers: int
    location: str = "prepend"
    order: str = "forward"
    shared: bool = False
    pooling: str = "original"


def forward(
    vit: VisionTransformer,
    parameters: dict[str, Tensor],
    options: Options,
    images: Tensor,
    drop_factors: Tensor | None = None,
) -> Tensor:
    """Return logits (B, C) of normalised images (B, 3, H, W)."""
    factors = keep_everything(vit, images) if drop_factors is None else drop_factors
    depth = len(vit.blocks)
    first = depth - options.layers if options.order == "reverse" else 0
    tokens, present = embed(vit, parameters, options.location, images), 0
    for index, block in enumerate(vit.blocks):
        if first <= index < first + options.layers and options.location in ("prepend", "prepend-pixel"):
            prompts = block_prompts(vit, parameters, options, index - first)
            tokens = insert_after_cls(tokens, prompts, present)
            present = len(prompts)
        elif options.order == "forward-noexpand" and index == options.layers:
            tokens, present = torch.cat([tokens[:, :1], tokens[:, 1 + present :]], dim=1), 0
        elif first <= index < first + options.layers and options.location in ("add", "add-1"):
            tokens = tokens + block_prompts(vit, parameters, options, index - first)
        tokens = run_block(block, tokens, factors[index])
    read = pooled(vit.norm(tokens), present, vit.num_prefix_tokens - 1, options.pooling)
    return F.linear(read, parameters["head.weight"], parameters["head.bias"])


def block_prompts(vit: VisionTransformer, parameters: dict[str, Tensor], options: Options, row: int) -> Tensor:
    """The prompts (T, D) of the block with this ``row``."""
    if options.location == "prepend-pixel":
        pixels = parameters["prompts.pixels"]
        side = vit.patch_embed.patch_size[0]
        patches = pixels.unflatten(2, (-1, side)).permute(2, 0, 1, 3)
        weight, bias = vit.patch_embed.proj.weight, vit.patch_embed.proj.bias
        return patches.flatten(1) @ weight.flatten(1).T + bias
    prompts = parameters["prompts.tokens"][0 if options.shared else row]
    if "prompts.projection.weight" in parameters:
        prompts = F.linear(prompts, parameters["prompts.projection.weight"], parameters["prompts.projection.bias"])
    return prompts


def embed(vit: VisionTransformer, parameters: dict[str, Tensor], location: str, images: Tensor) -> Tensor:
    """The image tokens that enter block 0, (B, N, D)."""
    weight, bias, positions = vit.patch_embed.proj.weight, vit.patch_embed.proj.bias, vit.pos_embed
    side, (height, width) = vit.patch_embed.patch_size[0], vit.patch_embed.grid_size
    if location == "below":
        channels = parameters["prompts.channels"].repeat(len(images), 1, 1, 1)
        images = torch.cat([images, channels], dim=1)
        weight, bias = parameters["prompts.weight"], parameters["prompts.bias"]
    if location == "pad":
        images = framed(images, parameters["prompts.rows"], parameters["prompts.columns"])
        grid = (images.shape[2] // side, images.shape[3] // side)
        prefix = positions.shape[1] - height * width
        square = positions[:, prefix:].unflatten(1, (height, width)).permute(0, 3, 1, 2)
        larger = F.interpolate(square, size=grid, mode="bilinear", align_corners=False)
        positions = torch.cat([positions[:, :prefix], larger.flatten(2).transpose(1, 2)], dim=1)
    patches = F.conv2d(images, weight, bias, stride=side).flatten(2).transpose(1, 2)
    registers = [] if vit.reg_token is None else [vit.reg_token.expand(len(images), -1, -1)]
    tokens = torch.cat([vit.cls_token.expand(len(images), -1, -1), *registers, patches], dim=1)
    return vit.norm_pre(tokens + positions)


def framed(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Images (B, 3, H + 2p, W + 2p) in their frame."""
    count, _, height, width = images.shape
    p = rows.shape[1] // 2
    canvas = torch.zeros(count, 3, height + 2 * p, width + 2 * p, dtype=images.dtype)
    canvas[:, :, p : p + height, p : p + width] = images
    canvas[:, :, :p], canvas[:, :, p + height :] = rows[:, :p], rows[:, p:]
    canvas[:, :, p : p + height, :p] = columns[:, :, :p]
    canvas[:, :, p : p + height, p + width :] = columns[:, :, p:]
    return canvas


def pooled(tokens: Tensor, prompts: int, registers: int, pooling: str) -> Tensor:
    """What the head reads of the normalised tokens [CLS | prompts | registers | patches], (B, D)."""
    parts = {
        "original": tokens[:, :1],
        "img_pool": tokens[:, 1 + prompts + registers :],
        "prompt_pool": tokens[:, 1 : 1 + prompts],
        "imgprompt_pool": tokens[:, 1:],
    }
    return parts[pooling].mean(dim=1)


def counted(location: str, *, blocks: int, length: int, tokens: int, width: int, side: int, patch: int) -> int:
    """The number of trained prompt parameters: ``side`` is that of the image in pixels, ``tokens`` includes CLS."""
    return {
        "prepend": blocks * length * width,
        "add": blocks * tokens * width,
        "add-1": blocks * width,
        "prepend-pixel": 3 * patch**2 * length,
        "below": length * side**2 + patch**2 * width * (3 + length) + width,
        "pad": 3 * ((side + 2 * length) ** 2 - side**2),
    }[location]
