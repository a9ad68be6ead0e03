"""Read the attention and the features of every block of a trained model.

Passes over prompts report what enters each block (``shipbench.prompting.Traceable``). Every other model is read where
its blocks call timm's modules: queries and keys at the norms of the attention, tokens at the norms before it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from timm.models.eva import Eva
from timm.models.vision_transformer import Attention, VisionTransformer
from torch import Tensor, nn

from shipbench.backbones.architecture import why_unpromptable
from shipbench.errors import InputError
from shipbench.prompting import Traceable, Traced, image_token_count
from shipbench.prompting.architectures import rotary_positions, rotated
from shipbench.prompting.attention import per_image, project_kv, project_q
from shipbench.prompting.forward import BlockInput
from shipbench.prompting.interface import AttentionRule


@dataclass(frozen=True)
class BlockView:
    """One block of a pass over B images.

    ``attention`` (B, P) is the share of the CLS token's attention that each patch receives, the mean over heads; the
    class token, register tokens and prompts receive the rest. ``prompts`` is the share (B,) that each stream of prompts
    receives. ``patches`` (B, P, D) are the patch tokens after the block. ``guiding`` (B, A) are the patches that guide
    prompts of the next block, -1 for other tokens; None if no prompts enter there that images guide.
    """

    attention: Tensor
    patches: Tensor
    prompts: Mapping[str, Tensor] = field(default_factory=dict)
    guiding: Tensor | None = None


@torch.no_grad()
def read_blocks(model: nn.Module, images: Tensor, backbone: VisionTransformer, title: str) -> list[BlockView]:
    """Return the blocks of a pass of ``model`` over normalised images (B, 3, H, W).

    ``backbone`` is the ViT inside the model, ``title`` names the model in messages. Raises ``InputError`` if its
    attention cannot be read.
    """
    # Of subclasses, as that of distilled ViTs, the calls tell.
    reason = why_unpromptable(backbone) if type(backbone) in (VisionTransformer, Eva) else ""
    if not reason and backbone.cls_token is None:
        reason = "the ViT has no class token, whose attention would be drawn"
    if reason:
        raise InputError(f"the attention of {title} cannot be read: {reason}; --features works for it")
    model.eval()
    if isinstance(model, Traceable):
        return _of_traced(model.traced(images), backbone, title)
    with _recording(backbone) as calls:
        model(images)
    return _of_calls(calls, backbone, title)


def _of_traced(traced: Traced, backbone: VisionTransformer, title: str) -> list[BlockView]:
    prefix, inputs, positions = backbone.num_prefix_tokens, traced.trace.inputs, rotary_positions(backbone)
    after = [entering.tokens for entering in inputs[1:]] + [traced.tokens]
    views = []
    for index, (entering, tokens) in enumerate(zip(inputs, after, strict=True)):
        _require_grid(tokens, backbone, title)
        block = backbone.blocks[index]
        attention, prompts = prompted_attention(block.attn, block.norm1, entering, traced.rule, positions)
        guiding = traced.guiding.get(index + 1)
        chosen = None if guiding is None else (guiding - prefix).clamp(min=-1)
        views.append(BlockView(attention[:, prefix:], tokens[:, prefix:], prompts, chosen))
    return views


def prompted_attention(
    attention: Attention,
    norm: nn.Module,
    entering: BlockInput,
    rule: AttentionRule,
    positions: Tensor | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the attention of CLS to image tokens (B, N) and to each prompt stream (B,), the mean over heads.

    The shares of all image and prompt tokens sum to 1. With decoupled attention, the prompts together receive the scale
    of the rule, whatever the image. ``positions`` are the rotary positions of the image tokens; neither CLS nor prompts
    turn.
    """
    tokens, batch = norm(entering.tokens), len(entering.tokens)
    query = project_q(attention, tokens[:, :1])
    keys = [project_kv(attention, tokens, positions)[0]]
    for stream in entering.streams:
        (key,) = stream.spread((project_kv(attention, norm(stream.tokens))[0],), batch)
        keys.append(per_image(key, batch))
    logits = [query @ key.transpose(-2, -1) * attention.scale for key in keys]
    lengths = [part.shape[-1] for part in logits]
    if rule.coupled or len(logits) == 1:
        shares = torch.cat(logits, dim=-1).softmax(dim=-1)
    else:
        to_prompts = torch.cat(logits[1:], dim=-1).softmax(dim=-1)
        shares = torch.cat([(1 - rule.scale) * logits[0].softmax(dim=-1), rule.scale * to_prompts], dim=-1)
    image, *prompts = shares.mean(dim=1)[:, 0].split(lengths, dim=-1)
    names = [stream.name for stream in entering.streams]
    return image, {name: part.sum(dim=-1) for name, part in zip(names, prompts, strict=True)}


@dataclass
class _Calls:
    """What timm's modules were called with, by block: queries and keys (B, H, N, d), and the tokens before norms."""

    queries: dict[int, list[Tensor]] = field(default_factory=dict)
    keys: dict[int, list[Tensor]] = field(default_factory=dict)
    tokens: dict[int, list[Tensor]] = field(default_factory=dict)


@contextmanager
def _recording(backbone: VisionTransformer) -> Iterator[_Calls]:
    """Record the calls of a backbone's modules; the final norm counts as that of a block after the last."""
    calls, handles = _Calls(), []

    def outputs_to(records: dict[int, list[Tensor]], index: int) -> nn.Module:
        return lambda module, arguments, output: records.setdefault(index, []).append(output)  # type: ignore[return-value]

    def inputs_to(records: dict[int, list[Tensor]], index: int) -> nn.Module:
        return lambda module, arguments: records.setdefault(index, []).append(arguments[0])  # type: ignore[return-value]

    for index, block in enumerate(backbone.blocks):
        handles.append(block.attn.q_norm.register_forward_hook(outputs_to(calls.queries, index)))
        handles.append(block.attn.k_norm.register_forward_hook(outputs_to(calls.keys, index)))
        handles.append(block.norm1.register_forward_pre_hook(inputs_to(calls.tokens, index)))
    handles.append(backbone.norm.register_forward_pre_hook(inputs_to(calls.tokens, len(backbone.blocks))))
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def _of_calls(calls: _Calls, backbone: VisionTransformer, title: str) -> list[BlockView]:
    prefix, depth, positions = backbone.num_prefix_tokens, len(backbone.blocks), rotary_positions(backbone)
    views = []
    for index in range(depth):
        records = (calls.queries.get(index), calls.keys.get(index), calls.tokens.get(index + 1))
        if any(record is None or len(record) != 1 for record in records):
            raise InputError(
                f"the attention of {title} cannot be read: its blocks do not compute one attention each with timm's "
                "modules; --features works for it"
            )
        query, key, tokens = (record[0] for record in records if record is not None)
        _require_grid(tokens, backbone, title)
        attn, count = backbone.blocks[index].attn, tokens.shape[1]
        # The norms lie before the rotation, which leaves the query of CLS and the keys of prompts as they are.
        key = torch.cat([rotated(attn, key[:, :, :count], positions), key[:, :, count:]], dim=2)
        logits = query[:, :, :1] @ key.transpose(-2, -1) * attn.scale
        attention = logits.softmax(dim=-1).mean(dim=1)[:, 0]
        views.append(BlockView(attention[:, prefix:count], tokens[:, prefix:]))
    return views


def _require_grid(tokens: Tensor, backbone: VisionTransformer, title: str) -> None:
    expected = image_token_count(backbone)
    if tokens.ndim != 3 or tokens.shape[1] != expected:
        raise InputError(
            f"the attention of {title} cannot be read: its blocks hold other tokens than the {expected} of the images; "
            "--features works for it"
        )
