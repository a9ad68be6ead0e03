"""The prompts of VPT: how they start, in which blocks they are, and how images become tokens beside them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeAlias

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.func import functional_call

from shipbench.backbones import refuse_another_size
from shipbench.errors import InputError
from shipbench.prompting import BlockPlan, add_positions, embed, image_token_count

from .settings import PAD_WITHOUT_EMBEDDINGS, VptConfig, VptDeepConfig

_NAME = "prompts"
_IMAGENET = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]]).view(2, 3, 1, 1)


class VptPrompts(nn.Module):
    """The prompts ``tokens`` (blocks, T, width) and their optional ``projection``, prepended to the tokens or added.

    T is the prompt length; prompts that are added to each token are as many as the tokens. Shallow and shared prompts
    have one block. They are drawn from U(+-sqrt(6 / (3 patch^2 + width))), as in the official implementation, or start
    as ``initial`` (depth, T, D), of which they take the blocks where they are.
    """

    def __init__(
        self, backbone: VisionTransformer, config: VptConfig, *, deep: bool, initial: Tensor | None = None
    ) -> None:
        super().__init__()
        width = config.project or backbone.embed_dim
        blocks, expand = _blocks(len(backbone.blocks), config, deep)
        shared = isinstance(config, VptDeepConfig) and config.deep_shared
        self.rows = {block: 0 if shared else row for row, block in enumerate(blocks)}
        self.plan = _plan(len(backbone.blocks), blocks, added=config.location != "prepend", expand=expand)
        lengths = {"prepend": config.prompt_length, "add": image_token_count(backbone), "add-1": 1}
        tokens = torch.empty(1 if shared else len(blocks), lengths[config.location], width)
        bound = _bound(backbone, width)
        # Drawn in any case, so that the head that follows does not depend on the initiation.
        tokens.uniform_(-bound, bound)
        if initial is not None:
            tokens = initial[list(blocks)[: len(tokens)]].to(tokens)
        self.tokens = nn.Parameter(tokens)
        self.projection: nn.Module = nn.Identity()
        if config.project:
            projection = nn.Linear(width, backbone.embed_dim)
            nn.init.kaiming_normal_(projection.weight, a=0, mode="fan_out")
            self.projection = projection
        self.dropout = nn.Dropout(config.dropout)

    @property
    def draws(self) -> bool:
        """Whether there is dropout."""
        return bool(self.dropout.p)

    def embed(self, vit: VisionTransformer, images: Tensor) -> Tensor:
        """Return the image tokens (B, N, D)."""
        refuse_another_size(vit, images)
        return embed(vit, images)

    def fresh(self, vit: VisionTransformer, block: int, images: int) -> Tensor:
        """Return the projected prompts (1, T, D); with dropout in training, each image has its own mask."""
        tokens = self.projection(self.tokens[self.rows[block]]).unsqueeze(0)
        dropout = self.dropout
        if not (dropout.training and dropout.p):
            return tokens
        # CUDA draws by layout, and one image may be a part of a batch: its prompts have the layout of a batch too.
        return dropout(tokens.expand(images, -1, -1) if images > 1 else tokens.expand(2, -1, -1)[:1])


class PixelTokens(nn.Module):
    """Prompts ``pixels`` (3, P, P p), which the frozen patch embedding turns into p tokens without a position."""

    draws = False

    def __init__(self, backbone: VisionTransformer, config: VptConfig) -> None:
        super().__init__()
        height, width = backbone.patch_embed.patch_size
        pixels = torch.empty(3, height, width * config.prompt_length)
        bound = _bound(backbone, backbone.embed_dim)
        starts = {"random": lambda: pixels.uniform_(-bound, bound), "gaussian": pixels.normal_}
        self.pixels = nn.Parameter(starts.get(config.initiation, lambda: _imagenet_noise(pixels))())
        self.plan = _plan(len(backbone.blocks), range(1), added=False, expand=True)

    def embed(self, vit: VisionTransformer, images: Tensor) -> Tensor:
        """Return the image tokens (B, N, D)."""
        refuse_another_size(vit, images)
        return embed(vit, images)

    def fresh(self, vit: VisionTransformer, block: int, images: int) -> Tensor:
        """Return the tokens (1, p, D) of the trained pixels."""
        patch_embed = vit.patch_embed
        return patch_embed.norm(patch_embed.proj(self.pixels.unsqueeze(0)).flatten(2).transpose(1, 2))


class Channels(nn.Module):
    """Prompts as p further ``channels`` (1, p, H, W) of every image, and a trained patch embedding for all channels.

    ``weight`` (D, 3 + p, P, P) and ``bias`` start at the pretrained ones, and its part for the new channels at random.
    """

    draws = False
    bias: nn.Parameter | None

    def __init__(self, backbone: VisionTransformer, config: VptConfig) -> None:
        super().__init__()
        bound, embedding = _bound(backbone, backbone.embed_dim), backbone.patch_embed
        count, pretrained = config.prompt_length, embedding.proj.weight.detach()
        self.channels = nn.Parameter(torch.empty(1, count, *embedding.img_size).uniform_(-bound, bound))
        added = torch.empty(len(pretrained), count, *embedding.patch_size).uniform_(-bound, bound)
        self.weight = nn.Parameter(torch.cat([pretrained, added.to(pretrained)], dim=1))
        bias = embedding.proj.bias
        self.register_parameter("bias", None if bias is None else nn.Parameter(bias.detach().clone()))
        self.plan = (BlockPlan(),) * len(backbone.blocks)

    def embed(self, vit: VisionTransformer, images: Tensor) -> Tensor:
        """Return the image tokens (B, N, D) of images and channels."""
        # Not len(images): that is a number, to which torch.export would fix the number of images.
        channels = self.channels.expand(images.shape[0], -1, -1, -1)
        trained: dict[str, Tensor] = {"proj.weight": self.weight}
        if self.bias is not None:
            trained["proj.bias"] = self.bias
        patches = functional_call(vit.patch_embed, trained, (torch.cat([images, channels.to(images)], dim=1),))
        return add_positions(vit, patches)

    def fresh(self, vit: VisionTransformer, block: int, images: int) -> Tensor:
        """Raise ``LookupError``: no token is a prompt."""
        raise LookupError(f"block {block} has no prompts")


class Frame(nn.Module):
    """Prompts as a frame of p pixels around every image: ``rows`` (3, 2p, W + 2p) and ``columns`` (3, H, 2p).

    They start as U(0, 1) under ImageNet's normalisation. Patches that do not fit into the larger image whole are left
    out, and the backbone's position embeddings are resized bilinearly, in place, if there are more patches.
    """

    draws = False

    def __init__(self, backbone: VisionTransformer, config: VptConfig) -> None:
        super().__init__()
        if type(backbone) is not VisionTransformer or backbone.pos_embed is None:
            raise InputError(PAD_WITHOUT_EMBEDDINGS)
        self.thickness = config.prompt_length
        height, width = backbone.patch_embed.img_size
        both = 2 * self.thickness
        self.rows = nn.Parameter(_imagenet_noise(torch.empty(3, both, width + both)))
        self.columns = nn.Parameter(_imagenet_noise(torch.empty(3, height, both)))
        patch_height, patch_width = backbone.patch_embed.patch_size
        self.height = (height + both) // patch_height * patch_height
        self.width = (width + both) // patch_width * patch_width
        _enlarge(backbone, (self.height, self.width))
        self.plan = (BlockPlan(),) * len(backbone.blocks)

    def embed(self, vit: VisionTransformer, images: Tensor) -> Tensor:
        """Return the image tokens (B, N', D) of the framed images."""
        rows, columns = (frame.to(images).expand(images.shape[0], -1, -1, -1) for frame in (self.rows, self.columns))
        left, right = columns.split(self.thickness, dim=3)
        top, bottom = rows.split(self.thickness, dim=2)
        framed = torch.cat([top, torch.cat([left, images, right], dim=3), bottom], dim=2)
        return embed(vit, framed[:, :, : self.height, : self.width])

    def fresh(self, vit: VisionTransformer, block: int, images: int) -> Tensor:
        """Raise ``LookupError``: no token is a prompt."""
        raise LookupError(f"block {block} has no prompts")


Prompts: TypeAlias = VptPrompts | PixelTokens | Channels | Frame


def make_prompts(
    backbone: VisionTransformer, config: VptConfig, *, deep: bool, initial: Tensor | None = None
) -> Prompts:
    """Return new prompts in the place that ``config`` names; ``initial`` as in ``VptPrompts``."""
    kinds: dict[str, type[PixelTokens | Channels | Frame]] = {
        "prepend-pixel": PixelTokens,
        "below": Channels,
        "pad": Frame,
    }
    if config.location in kinds:
        return kinds[config.location](backbone, config)
    return VptPrompts(backbone, config, deep=deep, initial=initial)


def _blocks(depth: int, config: VptConfig, deep: bool) -> tuple[range, bool]:
    """Return the blocks that get prompts, and whether the outputs of the last of them stay among the tokens."""
    if not deep:
        return range(1), True
    if not isinstance(config, VptDeepConfig):
        return range(depth), True
    if reason := config.too_deep(depth):
        raise InputError(reason)
    count = config.deep_layers or depth
    blocks = range(depth - count, depth) if config.deep_order == "reverse" else range(count)
    return blocks, config.deep_order != "forward-noexpand"


def _plan(depth: int, blocks: Sequence[int], *, added: bool, expand: bool) -> tuple[BlockPlan, ...]:
    with_prompts = BlockPlan(added=(_NAME,)) if added else BlockPlan(fresh=(_NAME,))
    after = BlockPlan(carried=(_NAME,)) if expand and not added else BlockPlan()
    return tuple(
        with_prompts if block in blocks else after if block > blocks[-1] else BlockPlan() for block in range(depth)
    )


def _bound(backbone: VisionTransformer, width: int) -> float:
    return math.sqrt(6 / (3 * math.prod(backbone.patch_embed.patch_size) + width))


def _imagenet_noise(pixels: Tensor) -> Tensor:
    """Fill ``pixels`` (3, H, W) with U(0, 1), normalised as ImageNet's images are."""
    mean, std = _IMAGENET
    return pixels.uniform_(0, 1).sub_(mean).div_(std)


def _enlarge(backbone: VisionTransformer, size: tuple[int, int]) -> None:
    """Let a backbone take images of another size."""
    patch_embed = backbone.patch_embed
    old, prefix = patch_embed.grid_size, 0 if backbone.no_embed_class else backbone.num_prefix_tokens
    patch_embed.set_input_size(img_size=size)
    new = patch_embed.grid_size
    if new != old:
        kept, grid = backbone.pos_embed.detach().split([prefix, math.prod(old)], dim=1)
        square = grid.unflatten(1, old).permute(0, 3, 1, 2)
        resized = F.interpolate(square, size=new, mode="bilinear").flatten(2).transpose(1, 2)
        backbone.pos_embed = nn.Parameter(torch.cat([kept, resized], dim=1), requires_grad=False)
