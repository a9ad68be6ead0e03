"""VPT, literally: [CLS | prompts | patches] go through every block, with one softmax.

Source: Jia et al., ECCV 2022, arXiv 2203.12119. Register tokens, if any, stay with the patches.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor

from tests.reference.vit import (
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
    tokens = embed(vit, images)
    outputs: list[Tensor] = []
    for index, block in enumerate(vit.blocks):
        if index < len(prompts):
            old = 0 if index == 0 else prompts.shape[1]
            tokens = insert_after_cls(tokens, prompts[index], old)
        tokens = run_block(block, tokens, factors[index])
        outputs.append(tokens)
    logits = classify(vit, tokens, parameters)
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


def run_block(block: Block, tokens: Tensor, factors: Tensor) -> Tensor:
    """One plain block with stochastic-depth factors (2, B): attention, then MLP."""
    query, key, value = queries_keys_values(block.attn, block.norm1(tokens))
    mixed = merge_heads(attend(attention_logits(query, key), value))
    tokens = residual(tokens, attention_branch(block, mixed), factors[0])
    return residual(tokens, mlp_branch(block, tokens), factors[1])
