"""One pass over the blocks that computes only what the logits and the loss depend on.

It covers SHIP (Zhu et al., arXiv 2412.16956) as the official implementation computes it, and VPT (Jia et al. 2022) as
the coupled case. Four exact savings bring its cost close to that of the bare backbone: prompts that do not attend
depend on the parameters alone and are shared by all images; a stream that ends is not advanced; the last block
computes only the rows that are read; a CPU skips branches for the images that drop them. A GPU computes prompts as rows
of the images where that takes fewer operations.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor

from shipbench.prompting.architectures import (
    add_positions,
    reads_class_token,
    rotary_positions,
    scale_attention,
)
from shipbench.prompting.attention import (
    KeyValue,
    attend_decoupled,
    attend_jointly,
    cls_scores,
    per_image,
    project_kv,
    project_out,
    project_q,
    project_qkv,
)
from shipbench.prompting.branch_factors import BranchFactors, add_branch, add_mlp, add_scaled, factors_of_blocks
from shipbench.prompting.full_precision import at_least_float32
from shipbench.prompting.interface import AttentionRule, BlockPlan, Glimpse, LastRows, PromptSource
from shipbench.prompting.joined import JoinedTokens, joined_block, joins, matched_rows
from shipbench.prompting.static import is_static, take_tokens
from shipbench.prompting.stochastic_depth import DropFactors
from shipbench.prompting.streams import Advanced, PromptMemo, Stream, advance, join


@dataclass(frozen=True)
class PassOutput:
    """The output of the last block, before the final norm.

    ``cls`` is (B, D). For a matching loss, ``selected`` (B, k, D) are the image tokens with the highest CLS attention
    logits of the last block, and ``prompts`` (B, P, D) its prompt tokens. A pass that is asked for them also returns
    the prompt tokens, and all image tokens as ``image`` (B, N, D). Otherwise, they are None.
    """

    cls: Tensor
    selected: Tensor | None = None
    prompts: Tensor | None = None
    image: Tensor | None = None


@dataclass(frozen=True)
class BlockInput:
    """What enters a block: the image tokens (B, N, D), and the prompt streams."""

    tokens: Tensor
    streams: tuple[Stream, ...]


@dataclass(frozen=True)
class PassTrace:
    """Intermediate values of a pass.

    ``inputs`` is what enters each block, ``block_cls`` the CLS token (B, D) after each block, and ``glimpses`` the
    glimpse of each guided block.
    """

    inputs: list[BlockInput] = field(default_factory=list)
    block_cls: list[Tensor] = field(default_factory=list)
    glimpses: dict[int, Glimpse] = field(default_factory=dict)


@dataclass(frozen=True)
class _Step:
    """One block of a pass: ``attends`` tells whether its prompts do, ``survivors`` are the streams it must advance.

    ``positions`` are the rotary positions of the image tokens, if there are any.
    """

    index: int
    block: Block
    attends: bool
    survivors: tuple[str, ...]
    attention_factors: BranchFactors | None
    mlp_factors: BranchFactors | None
    positions: Tensor | None

    @property
    def plain(self) -> bool:
        """Whether the block is that of a plain ViT, without rotary positions."""
        return isinstance(self.block, Block)

    @property
    def factors(self) -> tuple[BranchFactors | None, BranchFactors | None]:
        """The factors of both branches."""
        return self.attention_factors, self.mlp_factors


def frozen(vit: VisionTransformer) -> VisionTransformer:
    """Freeze a backbone in place, in evaluation mode and without gradients, and return it."""
    return vit.requires_grad_(False).eval()


def embed(vit: VisionTransformer, images: Tensor) -> Tensor:
    """Return the image tokens (B, N, D) that enter the first block, CLS first, for ``images`` (B, 3, H, W)."""
    return add_positions(vit, vit.patch_embed(images))


def pool(vit: VisionTransformer, cls: Tensor) -> Tensor:
    """Apply the final norm to CLS tokens (B, D)."""
    return vit.fc_norm(vit.norm(cls))


def read_out(vit: VisionTransformer, output: PassOutput) -> Tensor:
    """Return the features (B, D) from which ``vit`` classifies: its class token, or what it pools of all tokens.

    A ViT that pools needs the tokens for which ``rows_to_read`` asks.
    """
    if output.image is None or reads_class_token(vit):
        return pool(vit, output.cls)
    return vit.forward_head(vit.norm(output.image), pre_logits=True)


def rows_to_read(vit: VisionTransformer) -> LastRows:
    """Return the rows of the last block that ``read_out`` reads beside the first."""
    return LastRows(image=not reads_class_token(vit))


def prompted_forward(
    vit: VisionTransformer,
    tokens: Tensor,
    source: PromptSource,
    rule: AttentionRule,
    *,
    match_top: int = 0,
    rows: LastRows | None = None,
    drop_factors: DropFactors | Tensor | None = None,
    memo: PromptMemo | None = None,
    trace: PassTrace | None = None,
) -> PassOutput:
    """Run all blocks on image tokens (B, N, D) with the prompts of ``source``.

    With ``match_top`` > 0, the output also holds that many selected image tokens and the prompt tokens of the last
    block, for a matching loss; ``rows`` asks for other tokens of that block instead. ``drop_factors`` are the
    stochastic-depth factors; a tensor (L, 2, B) lies on the CPU. ``memo`` keeps shared prompt states between passes
    with equal parameters. ``trace`` is filled in during the pass.
    """
    if isinstance(drop_factors, Tensor):
        drop_factors = DropFactors.of(drop_factors)
    factors = factors_of_blocks(drop_factors, len(vit.blocks), tokens.device)
    steps = _steps(vit, source.plan, rule, match_top, factors)
    joined = JoinedTokens(tokens, tokens.shape[1])
    streams: list[Stream] = []
    glimpse: Glimpse | None = None
    for step, plan in zip(steps, source.plan, strict=True):
        streams = [stream for stream in streams if stream.name in plan.carried]
        streams += _entering(source, step.index, glimpse, tokens.shape[0])
        for name in plan.added:
            joined = joined.add_to_image(per_image(source.fresh(step.index, name), tokens.shape[0]))
        if trace is not None:
            image, guests = joined.apart()
            trace.inputs.append(BlockInput(image, (*guests, *streams)))
        if step is steps[-1]:
            break
        guides = bool(source.plan[step.index + 1].guided)
        joined, streams, scores = _inner_block(step, joined, streams, rule, guides, memo)
        glimpse = None if scores is None else Glimpse(joined.image, scores)
        if trace is not None:
            trace.block_cls.append(joined.tokens[:, 0])
            if glimpse is not None:
                trace.glimpses[step.index + 1] = glimpse
    tokens, guests = joined.apart()
    output = _last_block(steps[-1], tokens, guests + streams, rule, match_top, rows or LastRows(), memo)
    if trace is not None:
        trace.block_cls.append(output.cls)
    return output


def _entering(source: PromptSource, index: int, glimpse: Glimpse | None, batch: int) -> list[Stream]:
    plan = source.plan[index]
    # A linear or convolutional layer returns bf16 under autocast, but the residual stream of image tokens is fp32.
    fresh = [(name, at_least_float32(source.fresh(index, name))) for name in plan.fresh]
    streams = [Stream(name, tokens, private=tokens.shape[0] == batch > 1) for name, tokens in fresh]
    if glimpse is not None:
        streams += [Stream(name, source.guided(index, name, glimpse), private=True) for name in plan.guided]
    return streams


def _steps(
    vit: VisionTransformer,
    plan: tuple[BlockPlan, ...],
    rule: AttentionRule,
    match_top: int,
    factors: list[tuple[BranchFactors | None, BranchFactors | None]],
) -> list[_Step]:
    depth, positions = len(vit.blocks), rotary_positions(vit)
    steps = []
    for index, block in enumerate(vit.blocks):
        last = index == depth - 1
        survivors = (plan[index].streams if match_top else ()) if last else plan[index + 1].carried
        attends = rule.prompts_attend_in(index, depth)
        steps.append(_Step(index, block, attends, survivors, *factors[index], positions))
    return steps


def _inner_block(
    step: _Step,
    joined: JoinedTokens,
    streams: list[Stream],
    rule: AttentionRule,
    needs_scores: bool,
    memo: PromptMemo | None,
) -> tuple[JoinedTokens, list[Stream], Tensor | None]:
    """Run a block before the last; return its image tokens, surviving streams, and the CLS scores if needed."""
    surviving = [stream for stream in streams if stream.name in step.survivors]
    if step.plain and not step.attends and joins(joined, surviving, step.attention_factors):
        results = joined_block(step.block, joined, streams, step.survivors, step.factors, rule.scale, needs_scores)
        return results[0], [], results[1]
    tokens, guests = joined.apart()
    tokens, streams, scores = _separate_block(step, tokens, guests + streams, rule, needs_scores, memo)
    return JoinedTokens(tokens, tokens.shape[1]), streams, scores


def _separate_block(
    step: _Step,
    tokens: Tensor,
    streams: list[Stream],
    rule: AttentionRule,
    needs_scores: bool,
    memo: PromptMemo | None,
) -> tuple[Tensor, list[Stream], Tensor | None]:
    """Run a block before the last with every stream computed beside the image tokens (B, N, D)."""
    attending = [s for s in streams if step.attends and s.name in step.survivors]
    advanced = _advance(step, streams, {s.name for s in attending}, memo)
    batch = tokens.shape[0]
    outputs = [a.output for a in advanced if a.output is not None]
    scores = None
    if needs_scores or attending:
        # Guides and attending prompts read the attention of every image, also of images that drop the branch.
        prompts = join(step.block.attn, advanced, batch)
        query, image = _image_qkv(step, tokens)
        if needs_scores:
            scores = cls_scores(step.block.attn, query[:, :, :1], image[0])
        if attending:
            outputs += _attend_prompts(step, attending, image, prompts)
        branch = _mix(step, query, image, prompts, rule)
        tokens = add_scaled(tokens, branch, step.attention_factors)
    else:
        tokens = add_branch(
            tokens,
            lambda rows, kept: _image_attention(
                step, rows, join(step.block.attn, advanced, batch, kept), rule.of_images(kept)
            ),
            step.attention_factors,
        )
    return _add_mlp(step, tokens), outputs, scores


def _advance(step: _Step, streams: list[Stream], attending: set[str], memo: PromptMemo | None) -> list[Advanced]:
    """Advance streams, or recall from ``memo`` those that all images share; the ``attending`` get keys and values only.

    They come in any order, which no image depends on.
    """
    if memo is None:
        return _advance_together(step, streams, attending)
    new = [stream for stream in streams if stream.name not in memo.of_block(step.index)]
    # Separately, so that the first batch of an evaluation computes the same products as the others.
    memo.keep(step.index, _advance_together(step, [stream for stream in new if not stream.private], attending))
    private = _advance_together(step, [stream for stream in new if stream.private], attending)
    return [*memo.of_block(step.index).values(), *private]


def _advance_together(step: _Step, streams: list[Stream], attending: set[str]) -> list[Advanced]:
    if not streams:
        return []
    survivors = [stream for stream in streams if stream.name in step.survivors and stream.name not in attending]
    others = [stream for stream in streams if stream.name not in step.survivors or stream.name in attending]
    return advance(step.block, survivors, others, step.attention_factors, step.mlp_factors)


def _image_attention(step: _Step, tokens: Tensor, prompts: KeyValue | None, rule: AttentionRule) -> Tensor:
    query, image = _image_qkv(step, tokens)
    return _mix(step, query, image, prompts, rule)


def _image_qkv(step: _Step, tokens: Tensor) -> tuple[Tensor, KeyValue]:
    query, key, value = project_qkv(step.block.attn, step.block.norm1(tokens), step.positions)
    return query, (key, value)


def _mix(step: _Step, query: Tensor, image: KeyValue, prompts: KeyValue | None, rule: AttentionRule) -> Tensor:
    """Return the attention branch (B, T, D) of image queries (B, H, T, d)."""
    if rule.coupled:
        heads = attend_jointly(query, image, prompts)
    else:
        heads = attend_decoupled(query, image, prompts, rule.scale)
    return scale_attention(step.block, project_out(step.block.attn, heads))


def _add_mlp(step: _Step, tokens: Tensor) -> Tensor:
    return add_mlp(step.block, tokens, step.mlp_factors)


def _attend_prompts(step: _Step, streams: list[Stream], image: KeyValue, prompts: KeyValue | None) -> list[Stream]:
    """Advance streams whose tokens attend to image and prompts in one softmax; their outputs are private streams."""
    outputs = _prompt_rows(step, streams, image, prompts)
    lengths = [stream.tokens.shape[1] for stream in streams]
    split = outputs.split(lengths, dim=1)
    return [Stream(s.name, tokens, private=True) for s, tokens in zip(streams, split, strict=True)]


def _prompt_rows(step: _Step, streams: list[Stream], image: KeyValue, prompts: KeyValue | None) -> Tensor:
    """Return the block's output (B, P, D) for the prompt tokens as queries."""
    block, batch = step.block, image[0].shape[0]
    pairs = [s.spread((s.tokens, project_q(block.attn, block.norm1(s.tokens))), batch) for s in streams]
    tokens = torch.cat([per_image(states, batch) for states, _ in pairs], dim=1)
    query = torch.cat([per_image(queries, batch) for _, queries in pairs], dim=2)
    branch = scale_attention(block, project_out(block.attn, attend_jointly(query, image, prompts)))
    return _add_mlp(step, add_scaled(tokens, branch, step.attention_factors))


def _last_block(
    step: _Step,
    tokens: Tensor,
    streams: list[Stream],
    rule: AttentionRule,
    match_top: int,
    read: LastRows,
    memo: PromptMemo | None,
) -> PassOutput:
    """Run the last block for CLS and for what is read beside it, or what a matching loss needs."""
    attention = step.block.attn
    normed = step.block.norm1(tokens)
    image = project_kv(attention, normed, step.positions)
    if step.plain and match_top and streams and not read.image and is_static(tokens.device):
        return PassOutput(*matched_rows(step.block, tokens, normed, streams, image, step.factors, rule, match_top))
    prompts = join(attention, _advance(step, streams, {s.name for s in streams}, memo), tokens.shape[0])
    read_rows = slice(None) if read.image else slice(1)
    rows, positions = tokens[:, read_rows], step.positions
    query = project_q(attention, normed[:, read_rows], None if positions is None else positions[read_rows])
    count = rows.shape[1]
    if match_top:
        top = cls_scores(attention, query[:, :, :1], image[0]).topk(match_top, dim=1).indices
        rows = torch.cat([rows, take_tokens(tokens, top)], dim=1)
        places = None if positions is None else positions[top].unsqueeze(1)
        query = torch.cat([query, project_q(attention, take_tokens(normed, top), places)], dim=2)
    rows = _add_mlp(step, add_scaled(rows, _mix(step, query, image, prompts, rule), step.attention_factors))
    # A method without prompts has nothing to match.
    needed = streams if match_top or read.prompts else []
    prompt_rows = _prompt_rows(step, needed, image, prompts) if needed else None
    selected, whole = rows[:, count:] if match_top else None, rows[:, :count] if read.image else None
    return PassOutput(rows[:, 0], selected, prompt_rows, whole)
