"""VPT, literally: [CLS | prompts | patches] go through every block, with one softmax.

Source: Jia et al., ECCV 2022, arXiv 2203.12119. Register tokens, if any, stay with the patches.
"""

from dataclasses import dataclass

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
class Result:
    """One forward pass: logits (B, C), cross-entropy (None without labels), tokens (B, 1 + p + N - 1, D) per block."""

    logits: Tensor
    loss: Tensor | None
    block_tokens: tuple[Tensor, ...]

    @property
    def block_cls(self) -> list[Tensor]:
        """The CLS token after each block, (B, D) each."""
        return [tokens[:, 0] for tokens in self.block_tokens]


def forward(
    vit: VisionTransformer,
    parameters: dict[str, Tensor],
    images: Tensor,
    labels: Tensor | None = None,
    *,
    drop_factors: Tensor | None = None,
) -> Result:
    """Run VPT on normalised images (B, 3, H, W).

    ``parameters``: ``prompts.tokens`` (1, p, dim) for shallow, (L, p, dim) for deep, absent without prompts; with
    ``prompts.projection.weight`` (D, dim) and ``.bias`` (D,) prompts are projected; ``head.weight``, ``head.bias``.
    ``drop_factors`` (L, 2, B) as in the SHIP reference.
    """
    factors = keep_everything(vit, images) if drop_factors is None else drop_factors
    prompts = projected_prompts(parameters)
    tokens, angles, present = embed(vit, images), angles_of(vit), 0
    outputs: list[Tensor] = []
    for index, block in enumerate(vit.blocks):
        if index < len(prompts):
            old = 0 if index == 0 else prompts.shape[1]
            tokens, present = insert_after_cls(tokens, prompts[index], old), prompts.shape[1]
        turned = None if angles is None else with_prompts(angles, present)
        tokens = run_block(block, tokens, factors[index], turned)
        outputs.append(tokens)
    image = torch.cat([tokens[:, :1], tokens[:, 1 + present :]], dim=1)
    logits = classify(vit, image, parameters)
    loss = None if labels is None else F.cross_entropy(logits, labels)
    return Result(logits, loss, tuple(outputs))


def projected_prompts(parameters: dict[str, Tensor]) -> Tensor:
    """The prompts, or W prompt + b with a projection: (blocks with fresh prompts, p, D)."""
    tokens = parameters.get("prompts.tokens", torch.zeros(0, 0, 0))
    if "prompts.projection.weight" not in parameters:
        return tokens
    return F.linear(tokens, parameters["prompts.projection.weight"], parameters["prompts.projection.bias"])


def insert_after_cls(tokens: Tensor, prompts: Tensor, old: int) -> Tensor:
    """[CLS | fresh prompts | rest], with the ``old`` prompts of the previous block dropped."""
    fresh = prompts.expand(len(tokens), -1, -1)
    return torch.cat([tokens[:, :1], fresh, tokens[:, 1 + old :]], dim=1)


def with_prompts(angles: Angles, count: int) -> Angles:
    """The rotary positions of [CLS | prompts | rest]; prompts do not turn."""
    first, rest = (tuple(each[rows] for each in angles) for rows in (slice(1), slice(1, None)))
    return joined(unturned(count, first), rest)


def joined(one: Angles, other: Angles) -> Angles:
    """The rotary positions of two runs of tokens."""
    sine, cosine = (torch.cat(pair) for pair in zip(one, other, strict=True))
    return sine, cosine


def run_block(block: Block, tokens: Tensor, factors: Tensor, angles: Angles | None = None) -> Tensor:
    """One plain block with stochastic-depth factors (2, B): attention, then MLP."""
    query, key, value = queries_keys_values(block.attn, block.norm1(tokens), angles)
    mixed = merge_heads(attend(attention_logits(query, key), value))
    tokens = residual(tokens, attention_branch(block, mixed), factors[0])
    return residual(tokens, mlp_branch(block, tokens), factors[1])
