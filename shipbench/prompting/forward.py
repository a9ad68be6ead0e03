"""One pass over the blocks that computes only what reaches the logits and the loss.

SHIP, sections 2 to 5 of Zhu et al. (arXiv 2412.16956) as the official implementation computes them, and VPT
(Jia et al. 2022) as the coupled case. What makes it cost about what the bare backbone costs, all of it exact:
prompts that do not attend are a function of the parameters and are shared by all images; a stream that ends is not
advanced; the last block computes the rows that are read and no others; a CPU leaves out images that drop a branch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor

from shipbench.prompting.attention import (
    attend_decoupled,
    attend_jointly,
    cls_scores,
    per_image,
    project_kv,
    project_out,
    project_q,
    project_qkv,
)
from shipbench.prompting.interface import AttentionRule, BlockPlan, Glimpse, PromptSource, take_tokens
from shipbench.prompting.stochastic_depth import BranchFactors
from shipbench.prompting.streams import Advanced, PromptMemo, Stream, advance, join

KeyValue = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class PassOutput:
    """What the last block leaves, before the final norm.

    ``cls`` (B, D); if a matching loss was asked for, ``selected`` (B, k, D), the image tokens with the highest CLS
    logits of the last block, and ``prompts`` (B, P, D), all its prompt tokens.
    """

    cls: Tensor
    selected: Tensor | None = None
    prompts: Tensor | None = None


@dataclass(frozen=True)
class PassTrace:
    """What a pass saw on its way: every block's CLS token (B, D), and what guided streams looked at, by block."""

    block_cls: list[Tensor] = field(default_factory=list)
    glimpses: dict[int, Glimpse] = field(default_factory=dict)


@dataclass(frozen=True)
class _Step:
    """One block of a pass: its module, and what the rest of the pass needs of it."""

    index: int
    block: Block
    attends: bool
    survivors: tuple[str, ...]
    attention_factors: BranchFactors | None
    mlp_factors: BranchFactors | None


def frozen(vit: VisionTransformer) -> VisionTransformer:
    """Freeze a backbone in place: no parameter needs a gradient, no dropout is active."""
    return vit.requires_grad_(False).eval()


def embed(vit: VisionTransformer, images: Tensor) -> Tensor:
    """Return the image tokens (B, N, D) that enter the first block; CLS is the first of them."""
    tokens = vit._pos_embed(vit.patch_embed(images))
    return vit.norm_pre(vit.patch_drop(tokens))


def pool(vit: VisionTransformer, cls: Tensor) -> Tensor:
    """Apply the final norm to the CLS token (B, D)."""
    return vit.fc_norm(vit.norm(cls))


def prompted_forward(
    vit: VisionTransformer,
    tokens: Tensor,
    source: PromptSource,
    rule: AttentionRule,
    *,
    match_top: int = 0,
    drop_factors: Tensor | None = None,
    memo: PromptMemo | None = None,
    trace: PassTrace | None = None,
) -> PassOutput:
    """Run all blocks on image tokens (B, N, D) with the prompts of ``source``.

    ``match_top`` > 0 asks for that many selected image tokens and the prompt tokens of the last block (for a
    matching loss). ``drop_factors`` (L, 2, B) on the CPU are stochastic-depth factors, 0 or 1 / keep. ``memo``
    keeps shared prompt states between passes with equal parameters.
    """
    steps = _steps(vit, source.plan, rule, match_top, drop_factors)
    streams: list[Stream] = []
    glimpse: Glimpse | None = None
    for step, plan in zip(steps, source.plan, strict=True):
        streams = [stream for stream in streams if stream.name in plan.carried]
        streams += _entering(source, step.index, glimpse, tokens.shape[0])
        if step is steps[-1]:
            break
        guides = bool(source.plan[step.index + 1].guided)
        tokens, streams, scores = _inner_block(step, tokens, streams, rule, guides, memo)
        glimpse = None if scores is None else Glimpse(tokens, scores)
        if trace is not None:
            trace.block_cls.append(tokens[:, 0])
            if glimpse is not None:
                trace.glimpses[step.index + 1] = glimpse
    output = _last_block(steps[-1], tokens, streams, rule, match_top, memo)
    if trace is not None:
        trace.block_cls.append(output.cls)
    return output


def _entering(source: PromptSource, index: int, glimpse: Glimpse | None, batch: int) -> list[Stream]:
    plan = source.plan[index]
    fresh = [(name, source.fresh(index, name)) for name in plan.fresh]
    streams = [Stream(name, tokens, private=len(tokens) == batch > 1) for name, tokens in fresh]
    if glimpse is not None:
        streams += [Stream(name, source.guided(index, name, glimpse), private=True) for name in plan.guided]
    return streams


def _steps(
    vit: VisionTransformer,
    plan: tuple[BlockPlan, ...],
    rule: AttentionRule,
    match_top: int,
    drop_factors: Tensor | None,
) -> list[_Step]:
    depth = len(vit.blocks)
    steps = []
    for index, block in enumerate(vit.blocks):
        last = index == depth - 1
        survivors = (plan[index].streams if match_top else ()) if last else plan[index + 1].carried
        attention, mlp = (None, None) if drop_factors is None else map(BranchFactors, drop_factors[index])
        attends = rule.prompts_attend_in(index, depth)
        steps.append(_Step(index, block, attends, survivors, attention, mlp))
    return steps


def _inner_block(
    step: _Step,
    tokens: Tensor,
    streams: list[Stream],
    rule: AttentionRule,
    needs_scores: bool,
    memo: PromptMemo | None,
) -> tuple[Tensor, list[Stream], Tensor | None]:
    """Run a block that others follow; returns image tokens, surviving streams and the CLS scores if needed."""
    attending = [s for s in streams if step.attends and s.name in step.survivors]
    advanced = [_advance(step, stream, stream not in attending, memo) for stream in streams]
    batch = tokens.shape[0]
    outputs = [a.output for a in advanced if a.output is not None]
    scores = None
    if needs_scores or attending:
        # A guide or an attending prompt reads the attention of every image, also of those that drop the branch.
        prompts = join(advanced, batch)
        query, image = _image_qkv(step, tokens)
        if needs_scores:
            scores = cls_scores(step.block.attn, query[:, :, :1], image[0])
        if attending:
            outputs += _attend_prompts(step, attending, image, prompts)
        branch = _mix(step, query, image, prompts, rule)
        tokens = _add(tokens, branch, step.attention_factors)
    else:
        tokens = _add_kept(
            tokens,
            lambda part, kept: _image_attention(step, part, join(advanced, batch, kept), rule),
            step.attention_factors,
        )
    return _add_mlp(step, tokens), outputs, scores


def _advance(step: _Step, stream: Stream, silent: bool, memo: PromptMemo | None) -> Advanced:
    """Advance one stream, or recall it; a stream that attends gives its keys and values alone."""
    slot = (step.index, stream.name)
    if memo is not None and slot in memo.known:
        return memo.known[slot]
    survives = silent and stream.name in step.survivors
    advanced = advance(step.block, stream, survives, step.attention_factors, step.mlp_factors)
    if memo is not None and not stream.private:
        memo.known[slot] = advanced
    return advanced


def _image_attention(step: _Step, tokens: Tensor, prompts: KeyValue | None, rule: AttentionRule) -> Tensor:
    query, image = _image_qkv(step, tokens)
    return _mix(step, query, image, prompts, rule)


def _image_qkv(step: _Step, tokens: Tensor) -> tuple[Tensor, KeyValue]:
    query, key, value = project_qkv(step.block.attn, step.block.norm1(tokens))
    return query, (key, value)


def _mix(step: _Step, query: Tensor, image: KeyValue, prompts: KeyValue | None, rule: AttentionRule) -> Tensor:
    """Return the attention branch (B, T, D) of image queries."""
    if rule.coupled:
        heads = attend_jointly(query, image, prompts)
    else:
        heads = attend_decoupled(query, image, prompts, rule.scale)
    return step.block.ls1(project_out(step.block.attn, heads))


def _add(tokens: Tensor, branch: Tensor, factors: BranchFactors | None) -> Tensor:
    return tokens + branch if factors is None else torch.addcmul(tokens, factors.column(tokens), branch)


def _add_kept(
    tokens: Tensor, branch: Callable[[Tensor, Tensor | None], Tensor], factors: BranchFactors | None
) -> Tensor:
    """Return tokens + factor * branch(tokens); on the CPU, images that drop the branch do not go through it.

    On a GPU they do. They are few, while moving the tokens of the others out and back, forward and backward, reads and
    writes all of them several times, and sorts the indices each time to add in a fixed order.
    """
    kept = factors.kept if factors is not None and _leaves_out_dropped(tokens.device) else None
    if factors is None or kept is None:
        return _add(tokens, branch(tokens, None), factors)
    if len(kept) == 0:
        return tokens
    kept = kept.to(tokens.device, non_blocking=True)
    # The gradient of index_select is a sum over slices, several times faster than that of tokens[kept].
    part = branch(tokens.index_select(0, kept), kept)
    return tokens.index_add(0, kept, part.to(tokens.dtype), alpha=factors.scale)


def _leaves_out_dropped(device: torch.device) -> bool:
    return device.type == "cpu"


def _add_mlp(step: _Step, tokens: Tensor) -> Tensor:
    block = step.block
    return _add_kept(tokens, lambda part, _: block.ls2(block.mlp(block.norm2(part))), step.mlp_factors)


def _attend_prompts(step: _Step, streams: list[Stream], image: KeyValue, prompts: KeyValue | None) -> list[Stream]:
    """Advance streams whose tokens attend to image and prompts in one softmax; from here on they are private."""
    outputs = _prompt_rows(step, streams, image, prompts)
    lengths = [stream.tokens.shape[1] for stream in streams]
    parts = outputs.split(lengths, dim=1)
    return [Stream(s.name, part, private=True) for s, part in zip(streams, parts, strict=True)]


def _prompt_rows(step: _Step, streams: list[Stream], image: KeyValue, prompts: KeyValue | None) -> Tensor:
    """Return the block's output (B, P, D) for the prompt tokens as queries."""
    block, batch = step.block, image[0].shape[0]
    tokens = torch.cat([per_image(s.spread(s.tokens, batch), batch) for s in streams], dim=1)
    queries = [s.spread(project_q(block.attn, block.norm1(s.tokens)), batch) for s in streams]
    query = torch.cat([per_image(q, batch) for q in queries], dim=2)
    branch = block.ls1(project_out(block.attn, attend_jointly(query, image, prompts)))
    return _add_mlp(step, _add(tokens, branch, step.attention_factors))


def _last_block(
    step: _Step,
    tokens: Tensor,
    streams: list[Stream],
    rule: AttentionRule,
    match_top: int,
    memo: PromptMemo | None,
) -> PassOutput:
    """Run the last block for the rows that are read: CLS and, for a matching loss, selected tokens and prompts."""
    attention = step.block.attn
    advanced = [_advance(step, stream, False, memo) for stream in streams]
    prompts = join(advanced, tokens.shape[0])
    normed = step.block.norm1(tokens)
    image = project_kv(attention, normed)
    rows, query = tokens[:, :1], project_q(attention, normed[:, :1])
    if match_top:
        top = cls_scores(attention, query, image[0]).topk(match_top, dim=1).indices
        rows = torch.cat([rows, take_tokens(tokens, top)], dim=1)
        query = torch.cat([query, project_q(attention, take_tokens(normed, top))], dim=2)
    rows = _add_mlp(step, _add(rows, _mix(step, query, image, prompts, rule), step.attention_factors))
    if not match_top:
        return PassOutput(rows[:, 0])
    # A method without prompts has nothing to match.
    prompt_rows = _prompt_rows(step, streams, image, prompts) if streams else None
    return PassOutput(rows[:, 0], rows[:, 1:], prompt_rows)
