"""SHIP, literally: every token goes through every block with full attention maps, and nothing is reused.

Source: Zhu et al., ICASSP 2025, arXiv 2412.16956, as the official implementation computes it. B images, N image
tokens (CLS, registers, patches), P prompt tokens, width D, L blocks, M levels.

Where the method leaves a case open:
- a block without prompt tokens is plain attention (there is no second softmax over nothing);
- without prompt tokens in the last block the matching loss is 0;
- with fewer image tokens than should be selected, all of them are; an attribute prompt whose rank has no token is
  the learned prompt alone;
- with fewer than ``attribute_levels`` levels beyond block 0, all of these get attribute prompts;
  ``prompts.attribute`` has one row of prompts for each of them, in the order of the levels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor

from tests.reference.vit import (
    Angles,
    angles_of,
    attend,
    attention_branch,
    attention_logits,
    classify,
    embed,
    keep_everything,
    merge_heads,
    mlp_branch,
    queries_keys_values,
    residual,
    unturned,
)


@dataclass(frozen=True)
class Settings:
    """The settings of the method; prompt lengths are the shapes of the parameters."""

    levels: tuple[int, ...]
    attribute_levels: int = 2
    attribute_scale: float = 0.1
    temperature: float = 1.0
    attention: Literal["decoupled", "coupled"] = "decoupled"
    attention_scale: float | Tensor = 0.1
    prompt_attention: Literal["last", "all"] = "last"
    matching_weight: float = 0.5
    top_k: int = 10


@dataclass(frozen=True)
class BlockOutput:
    """A block's tokens (B, N + P, D), image tokens first, and its CLS attention logits (B, N)."""

    tokens: Tensor
    class_logits: Tensor

    @property
    def image(self) -> Tensor:
        """The image tokens, (B, N, D)."""
        return self.tokens[:, : self.class_logits.shape[1]]

    @property
    def prompts(self) -> Tensor:
        """The prompt tokens, (B, P, D)."""
        return self.tokens[:, self.class_logits.shape[1] :]


@dataclass(frozen=True)
class Selection:
    """Image tokens with the highest CLS logits, best first: indices (B, k), tokens (B, k, D)."""

    indices: Tensor
    tokens: Tensor


@dataclass(frozen=True)
class AttributePrompts:
    """The attribute prompts (B, T, D) that enter at a level, and the previous block's tokens that guide them."""

    selection: Selection
    tokens: Tensor


@dataclass(frozen=True)
class Result:
    """One forward pass; ``cross_entropy`` and ``loss`` are None without labels."""

    logits: Tensor
    cross_entropy: Tensor | None
    matching: Tensor
    loss: Tensor | None
    matching_costs: Tensor
    blocks: tuple[BlockOutput, ...]
    attribute: dict[int, AttributePrompts]

    @property
    def block_cls(self) -> list[Tensor]:
        """The CLS token after each block, (B, D) each."""
        return [block.tokens[:, 0] for block in self.blocks]


def forward(
    vit: VisionTransformer,
    parameters: dict[str, Tensor],
    settings: Settings,
    images: Tensor,
    labels: Tensor | None = None,
    *,
    bank: Tensor | None = None,
    drop_factors: Tensor | None = None,
) -> Result:
    """Run SHIP on normalised images (B, 3, H, W).

    ``parameters``: ``prompts.independent.{m}`` (K, D), ``prompts.shared`` (S, D), ``prompts.attribute``
    (levels, T, D), ``head.weight`` (C, D), ``head.bias`` (C,); an absent prompt has length 0. ``bank`` (clusters, D)
    is needed when attribute prompts are placed. ``drop_factors`` (L, 2, B) holds 0 or 1 / keep per block,
    branch (attention, MLP) and image.
    """
    assert settings.levels[0] == 0
    assert list(settings.levels) == sorted(set(settings.levels))
    factors = keep_everything(vit, images) if drop_factors is None else drop_factors
    image, angles = embed(vit, images), angles_of(vit)
    outputs: list[BlockOutput] = []
    attribute: dict[int, AttributePrompts] = {}
    for index, block in enumerate(vit.blocks):
        if index in attribute_blocks(parameters, settings):
            attribute[index] = attribute_prompts(index, parameters, settings, outputs[-1], bank)
        prompts = entering_prompts(index, parameters, settings, image, outputs, attribute.get(index))
        is_last = index == len(vit.blocks) - 1
        outputs.append(run_block(block, image, prompts, settings, factors[index], is_last, angles))
        image = outputs[-1].image
    return conclude(vit, parameters, settings, labels, outputs, attribute)


def conclude(
    vit: VisionTransformer,
    parameters: dict[str, Tensor],
    settings: Settings,
    labels: Tensor | None,
    outputs: Sequence[BlockOutput],
    attribute: dict[int, AttributePrompts],
) -> Result:
    """Logits and loss = CE + weight * matching, from the outputs of all blocks."""
    logits = classify(vit, outputs[-1].image, parameters)
    costs = matching_costs(outputs[-1], settings.top_k)
    matching = costs.mean() if costs.numel() else logits.new_zeros(())
    cross_entropy = None if labels is None else F.cross_entropy(logits, labels)
    return Result(
        logits=logits,
        cross_entropy=cross_entropy,
        matching=matching,
        loss=None if cross_entropy is None else cross_entropy + settings.matching_weight * matching,
        matching_costs=costs,
        blocks=tuple(outputs),
        attribute=attribute,
    )


# Prompts


def prompt_rows(parameters: dict[str, Tensor], name: str, image: Tensor) -> Tensor:
    """A learned prompt repeated for every image, (B, rows, D); no rows where the parameter is absent."""
    rows = parameters.get(name, image.new_zeros(0, image.shape[-1]))
    return rows.expand(len(image), -1, -1)


def attribute_blocks(parameters: dict[str, Tensor], settings: Settings) -> list[int]:
    """First blocks of the levels with attribute prompts: the last ones, never block 0."""
    if "prompts.attribute" not in parameters or parameters["prompts.attribute"].shape[1] == 0:
        return []
    beyond_first = list(settings.levels[1:])
    return beyond_first[max(0, len(beyond_first) - settings.attribute_levels) :]


def entering_prompts(
    index: int,
    parameters: dict[str, Tensor],
    settings: Settings,
    image: Tensor,
    outputs: Sequence[BlockOutput],
    attribute: AttributePrompts | None,
) -> Tensor:
    """Prompt tokens that enter block ``index`` in the order [SIP | AP | SSP], (B, P, D)."""
    shared = prompt_rows(parameters, "prompts.shared", image)
    if index not in settings.levels:
        previous = outputs[-1].prompts
        carried = previous[:, : previous.shape[1] - shared.shape[1]]
        return torch.cat([carried, shared], dim=1)
    independent = prompt_rows(parameters, f"prompts.independent.{settings.levels.index(index)}", image)
    attribute_tokens = image[:, :0] if attribute is None else attribute.tokens
    return torch.cat([independent, attribute_tokens, shared], dim=1)


# Attribute guide


def select(previous: BlockOutput, count: int) -> Selection:
    """The ``count`` image tokens of a block's output with the highest CLS logits, in descending order."""
    count = min(count, previous.image.shape[1])
    indices = previous.class_logits.argsort(dim=-1, descending=True)[:, :count]
    batch = torch.arange(len(indices))[:, None]
    return Selection(indices, previous.image[batch, indices])


def guide(tokens: Tensor, bank: Tensor, temperature: float) -> Tensor:
    """softmax over the prototypes of cosine(token, prototype) / temperature, times the bank: (B, k, D)."""
    cosine = F.normalize(tokens, dim=-1) @ F.normalize(bank, dim=-1).T
    return (cosine / temperature).softmax(dim=-1) @ bank


def attribute_prompts(
    index: int,
    parameters: dict[str, Tensor],
    settings: Settings,
    previous: BlockOutput,
    bank: Tensor | None,
) -> AttributePrompts:
    """scale * guided + (1 - scale) * learned, rank r with row r."""
    assert bank is not None, "attribute prompts need a bank"
    learned = parameters["prompts.attribute"][attribute_blocks(parameters, settings).index(index)]
    selection = select(previous, len(learned))
    ranks = selection.tokens.shape[1]
    guided = guide(selection.tokens, bank, settings.temperature)
    mixed = settings.attribute_scale * guided + (1 - settings.attribute_scale) * learned[:ranks]
    unguided = learned[ranks:].expand(len(mixed), -1, -1)
    return AttributePrompts(selection, torch.cat([mixed, unguided], dim=1))


# Attention


def run_block(
    block: Block,
    image: Tensor,
    prompts: Tensor,
    settings: Settings,
    factors: Tensor,
    is_last: bool,
    angles: Angles | None = None,
) -> BlockOutput:
    """One block over [image | prompts] with stochastic-depth factors (2, B): attention, then MLP."""
    count = image.shape[1]
    tokens = torch.cat([image, prompts], dim=1)
    normed = block.norm1(tokens)
    turned = None if angles is None else unturned(prompts.shape[1], angles)
    query, key, value = queries_keys_values(block.attn, normed, turned)
    logits = attention_logits(query, key)
    if settings.attention == "coupled":
        mixed = merge_heads(attend(logits, value))
    else:
        prompts_attend = is_last or settings.prompt_attention == "all"
        image_out = decoupled_image_attention(logits, value, count, settings.attention_scale)
        prompt_out = joint_prompt_attention(logits, value, count) if prompts_attend else normed[:, count:]
        mixed = torch.cat([image_out, prompt_out], dim=1)
    tokens = residual(tokens, attention_branch(block, mixed), factors[0])
    tokens = residual(tokens, mlp_branch(block, tokens), factors[1])
    return BlockOutput(tokens, class_logits=logits[:, :, 0, :count].mean(dim=1))


def decoupled_image_attention(logits: Tensor, value: Tensor, count: int, scale: float | Tensor) -> Tensor:
    """(1 - s) softmax(q_i k_i^T) v_i + s softmax(q_i k_p^T) v_p, (B, N, D)."""
    to_image = attend(logits[:, :, :count, :count], value[:, :, :count])
    if logits.shape[-1] == count:
        return merge_heads(to_image)
    to_prompts = attend(logits[:, :, :count, count:], value[:, :, count:])
    return merge_heads((1 - scale) * to_image + scale * to_prompts)


def joint_prompt_attention(logits: Tensor, value: Tensor, count: int) -> Tensor:
    """softmax(q_p [k_i, k_p]^T) [v_i, v_p], (B, P, D)."""
    return merge_heads(attend(logits[:, :, count:], value))


# Matching loss


def matching_costs(last: BlockOutput, top_k: int) -> Tensor:
    """For every prompt token the smallest 1 - cosine to the selected image tokens, (B, P)."""
    prompts = F.normalize(last.prompts, dim=-1)
    selected = F.normalize(select(last, top_k).tokens, dim=-1)
    cost = 1 - prompts @ selected.transpose(-2, -1)
    return cost.min(dim=-1).values
