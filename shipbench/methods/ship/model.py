"""The SHIP model and its training loss with the matching term."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from shipbench.backbones import feature_width, refuse_another_size, refuse_unpromptable
from shipbench.errors import InputError
from shipbench.methods.ship.config import WITHOUT_CLASS_TOKEN, ShipConfig
from shipbench.methods.ship.prompts import ShipPrompts
from shipbench.prompting import (
    AttentionRule,
    DropFactors,
    LastRows,
    PassOutput,
    PassTrace,
    StackInput,
    StochasticDepth,
    Traced,
    draw_stack_input,
    embed,
    frozen,
    image_token_count,
    new_head,
    prompted_forward,
    read_out,
    rows_to_read,
)
from shipbench.prompting.full_precision import at_least_float32, full_precision
from shipbench.prompting.short_gradients import unit
from shipbench.prompting.streams import PromptMemo
from shipbench.settings import whole_number


@dataclass(frozen=True)
class LossTerms:
    """The loss and its terms: ``total`` = ``cross_entropy`` + weight * ``matching``; ``logits`` is (B, classes)."""

    cross_entropy: Tensor
    matching: Tensor
    total: Tensor
    logits: Tensor


@dataclass(frozen=True)
class ShipTrace:
    """The CLS token (B, D) of every block, and the tokens selected to guide attribute prompts, by guided block."""

    block_cls: list[Tensor]
    selected_indices: dict[int, Tensor]
    selected_tokens: dict[int, Tensor]


class Ship(nn.Module):
    """Semantic hierarchical prompts over a frozen backbone; only prompts, head and a learned scale require gradients.

    ``levels`` are the first blocks of the levels, starting with 0; ``prototypes`` (C, D) is the attribute bank, or
    None without attribute prompts. Images are normalised floats (B, 3, H, W). Stochastic depth in training uses the
    rates of the backbone. Raises ``InputError`` for a backbone that cannot be prompted, for one without a class token
    if ``config`` reads it, for levels or a bank that do not fit, and for fewer than one class.
    """

    attention_scale: nn.Parameter | None

    def __init__(
        self,
        backbone: VisionTransformer,
        num_classes: int,
        levels: list[int],
        prototypes: Tensor | None,
        config: ShipConfig | None = None,
    ) -> None:
        super().__init__()
        refuse_unpromptable(backbone)
        self.config = config or ShipConfig()
        if backbone.cls_token is None and self.config.reads_class_token:
            raise InputError(
                f"the backbone cannot be used so: {WITHOUT_CLASS_TOKEN}; "
                "set feature=mean, attribute_length=0 and matching_weight=0"
            )
        self.levels = [whole_number("a level", level) for level in levels]
        self.backbone = frozen(backbone)
        self.stochastic_depth = StochasticDepth(backbone)
        depth, width = len(backbone.blocks), backbone.embed_dim
        _check(self.levels, depth, prototypes, width, image_token_count(backbone), self.config)
        bank = None if prototypes is None else torch.as_tensor(prototypes).to(next(backbone.parameters()).dtype)
        self.prompts = ShipPrompts(self.levels, depth, width, bank, self.config)
        self.head = new_head(feature_width(backbone), whole_number("num_classes", num_classes, 1))
        scale = nn.Parameter(torch.tensor(self.config.attention_scale)) if self.config.learns_scale else None
        self.register_parameter("attention_scale", scale)
        self._memo: PromptMemo | None = None

    @property
    def rule(self) -> AttentionRule:
        """How tokens attend, with the attention scale as it is now."""
        return AttentionRule(
            coupled=self.config.attention == "coupled",
            scale=self.config.attention_scale if self.attention_scale is None else self.attention_scale,
            prompts_attend=self.config.prompt_attention,
        )

    def learned(self) -> dict[str, float]:
        """Return the trained attention scale, if there is one, by its name."""
        return {} if self.attention_scale is None else {"attention_scale": float(self.attention_scale.detach())}

    @property
    def draws_on_device(self) -> bool:
        """False: all random numbers of a training step are those of stochastic depth."""
        return False

    def train(self, mode: bool = True) -> Ship:
        """Set the training mode of prompts and head; the backbone stays in evaluation mode, without dropout."""
        super().train(mode)
        self.backbone.eval()
        self._memo = None
        return self

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Let all batches without gradients in the block share one memo of the prompts.

        Nothing tells the model that a parameter has changed: ``Tensor.data``, fused optimisers and captured steps raise
        no version. Outside the block, and after ``train`` or a pass with gradients, prompts are computed anew.
        """
        self._memo = PromptMemo()
        try:
            yield
        finally:
            self._memo = None

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, classes)."""
        if self.training and torch.is_grad_enabled():
            return self.logits_of(self._run(images, drop_factors=self._sample(len(images))))
        # A compiled pass would be compiled again whenever the memo changes.
        memo = None if torch.is_grad_enabled() or torch.compiler.is_compiling() else self._memo
        return self.logits_of(self._run(images, memo=memo))

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return the training loss, a scalar; stochastic depth is drawn in training mode only."""
        return self.loss_terms(images, labels, self._sample(len(images))).total

    def loss_terms(self, images: Tensor, labels: Tensor, drop_factors: DropFactors | Tensor | None = None) -> LossTerms:
        """Return the terms of the loss, under stochastic-depth factors if they are given.

        A tensor of factors is (L, 2, B), each 0 or 1 / keep, on the CPU.
        """
        return self._terms(self._run(images, match=True, drop_factors=drop_factors), labels)

    def stack_input(self, images: int, *, match: bool) -> StackInput:
        """Return this model's input to a shared pass, with stochastic depth drawn in training mode.

        ``match`` also requests what ``loss_of`` needs besides the logits.
        """
        self._expect_a_step()
        factors, rows = self._sample(images), rows_to_read(self.backbone)
        return draw_stack_input(self.prompts, self.rule, self._match_top(match), factors, rows)

    def logits_of(self, output: PassOutput) -> Tensor:
        """Return the logits (B, classes) of a pass."""
        return self.head(read_out(self.backbone, output))

    def loss_of(self, output: PassOutput, labels: Tensor) -> Tensor:
        """Return the training loss of a pass, a scalar."""
        return self._terms(output, labels).total

    def _terms(self, output: PassOutput, labels: Tensor) -> LossTerms:
        weight = self.config.matching_weight
        logits = self.logits_of(output)
        cross_entropy = F.cross_entropy(logits, labels)
        matching = matching_loss(output) if weight > 0 else torch.zeros_like(cross_entropy)
        return LossTerms(cross_entropy, matching, cross_entropy + weight * matching, logits)

    @torch.no_grad()
    def trace(self, images: Tensor) -> ShipTrace:
        """Run an evaluation pass and return its intermediate CLS tokens and selections."""
        trace = PassTrace()
        self._run(images, trace=trace)
        tops = self._tops(trace)
        indices = {block: top[0] for block, top in tops.items()}
        return ShipTrace(trace.block_cls, indices, {block: top[1] for block, top in tops.items()})

    @torch.no_grad()
    def traced(self, images: Tensor) -> Traced:
        """Run an evaluation pass and return its intermediate values, block by block."""
        trace = PassTrace()
        output = self._run(images, trace=trace, rows=LastRows(image=True))
        assert output.image is not None
        return Traced(trace, self.rule, output.image, {block: top[0] for block, top in self._tops(trace).items()})

    def _tops(self, trace: PassTrace) -> dict[int, tuple[Tensor, Tensor]]:
        """Return the indices and the tokens that guide attribute prompts, by guided block."""
        return {block: glimpse.top(self.config.attribute_length) for block, glimpse in trace.glimpses.items()}

    def _run(
        self,
        images: Tensor,
        *,
        rows: LastRows | None = None,
        match: bool = False,
        drop_factors: DropFactors | Tensor | None = None,
        memo: PromptMemo | None = None,
        trace: PassTrace | None = None,
    ) -> PassOutput:
        refuse_another_size(self.backbone, images)
        self._expect_a_step()
        return prompted_forward(
            self.backbone,
            embed(self.backbone, images),
            self.prompts,
            self.rule,
            match_top=self._match_top(match),
            rows=rows or rows_to_read(self.backbone),
            drop_factors=drop_factors,
            memo=memo,
            trace=trace,
        )

    def _match_top(self, match: bool) -> int:
        needed = match and self.config.matching_weight > 0
        return min(self.config.top_k, image_token_count(self.backbone)) if needed else 0

    def _sample(self, images: int) -> DropFactors | None:
        return self.stochastic_depth.factors(images) if self.training else None

    def _expect_a_step(self) -> None:
        """Drop the memo before a pass with gradients, as an optimiser step may follow."""
        if torch.is_grad_enabled():
            self._memo = None


def matching_loss(output: PassOutput) -> Tensor:
    """Return the mean over prompts and images of min over selected tokens of 1 - cos(prompt, token).

    It is computed in float32 or better: in bf16, many cosines close to 1 are equal and share the minimum's gradient.
    """
    assert output.selected is not None
    if output.prompts is None:
        return output.selected.new_zeros(())
    prompts, selected = map(at_least_float32, (output.prompts, output.selected))
    with full_precision(prompts.device):
        prompts, selected = unit(prompts), unit(selected)
        cosine = prompts @ selected.transpose(1, 2)
    return (1 - cosine).amin(dim=-1).mean()


def _check(
    levels: list[int], depth: int, prototypes: Tensor | None, width: int, image_tokens: int, config: ShipConfig
) -> None:
    if not levels or levels[0] != 0 or sorted(set(levels)) != levels or levels[-1] >= depth:
        raise InputError(f"levels {levels} must start with 0, rise, and stay below the backbone's {depth} blocks")
    if not config.has_attributes:
        return
    if prototypes is None:
        raise InputError("attribute prompts need a bank of prototypes; pass one, or set attribute_length=0")
    if prototypes.ndim != 2 or prototypes.shape[1] != width:
        raise InputError(f"the bank of prototypes is {tuple(prototypes.shape)}, but the backbone's width is {width}")
    if not len(prototypes) or not torch.as_tensor(prototypes).isfinite().all():
        raise InputError("the bank of prototypes is empty or has values that are not finite; compute it again")
    if image_tokens < config.attribute_length:
        raise InputError(
            f"attribute_length={config.attribute_length} needs as many image tokens, but this image size gives "
            f"only {image_tokens}; use larger images or set attribute_length lower"
        )
