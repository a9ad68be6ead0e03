"""SHIP as a module: images in, logits out; the training loss with its matching term (sections 4 and 5)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from shipbench.errors import InputError
from shipbench.methods.ship.config import ShipConfig
from shipbench.methods.ship.prompts import ShipPrompts
from shipbench.prompting import (
    AttentionRule,
    PassOutput,
    PassTrace,
    StackInput,
    draw_stack_input,
    drop_rates,
    embed,
    frozen,
    new_head,
    pool,
    prompted_forward,
    sample_drop_factors,
)
from shipbench.prompting.full_precision import at_least_float32, full_precision
from shipbench.prompting.streams import PromptMemo


@dataclass(frozen=True)
class LossTerms:
    """The training loss apart: ``total`` = ``cross_entropy`` + weight * ``matching``; ``logits`` (B, classes)."""

    cross_entropy: Tensor
    matching: Tensor
    total: Tensor
    logits: Tensor


@dataclass(frozen=True)
class ShipTrace:
    """Every block's CLS token (B, D), and the tokens chosen to guide attributes, by the block they guide."""

    block_cls: list[Tensor]
    selected_indices: dict[int, Tensor]
    selected_tokens: dict[int, Tensor]


class Ship(nn.Module):
    """Semantic hierarchical prompts over a frozen backbone; only prompts and head require gradients.

    ``levels`` are the first blocks of the levels, starting with 0; ``prototypes`` (C, D) is the attribute bank, which
    may be None when no attribute prompts are used. Images are normalised floats (B, 3, H, W).
    Stochastic depth in training is the backbone's own.
    """

    def __init__(
        self,
        backbone: VisionTransformer,
        num_classes: int,
        levels: list[int],
        prototypes: Tensor | None,
        config: ShipConfig | None = None,
    ) -> None:
        super().__init__()
        self.config = config or ShipConfig()
        self.levels = list(levels)
        self.backbone = frozen(backbone)
        depth, width = len(backbone.blocks), backbone.embed_dim
        _check(self.levels, depth, prototypes, width, _image_tokens(backbone), self.config)
        bank = None if prototypes is None else torch.as_tensor(prototypes).to(backbone.cls_token.dtype)
        self.prompts = ShipPrompts(self.levels, depth, width, bank, self.config)
        self.head = new_head(width, num_classes)
        self.rule = AttentionRule(
            coupled=self.config.attention == "coupled",
            scale=self.config.attention_scale,
            prompts_attend=self.config.prompt_attention,
        )
        self._memo: tuple[tuple[object, ...], PromptMemo] | None = None

    def train(self, mode: bool = True) -> Ship:
        """Set the training mode of everything but the backbone, whose dropout stays off."""
        super().train(mode)
        self.backbone.eval()
        return self

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, classes)."""
        if self.training and torch.is_grad_enabled():
            return self.logits_of(self._run(images, drop_factors=self._sample(len(images))))
        return self.logits_of(self._run(images, memo=self._prompt_memo()))

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return the training loss, a scalar; stochastic depth is drawn in training mode only."""
        return self.loss_terms(images, labels, self._sample(len(images))).total

    def loss_terms(self, images: Tensor, labels: Tensor, drop_factors: Tensor | None = None) -> LossTerms:
        """Return the loss in its parts, under given stochastic-depth factors (L, 2, B), or none."""
        return self._terms(self._run(images, match=True, drop_factors=drop_factors), labels)

    def stack_input(self, images: int, *, match: bool) -> StackInput:
        """Return what this model brings to a pass that several share, drawing stochastic depth in training mode.

        ``match`` asks for what the loss needs (see ``loss_of``) besides the logits (``logits_of``).
        """
        self._expect_a_step()
        return draw_stack_input(self.prompts, self.rule, self._match_top(match), self._sample(images))

    def logits_of(self, output: PassOutput) -> Tensor:
        """Return the logits (B, classes) that a pass leads to."""
        return self.head(pool(self.backbone, output.cls))

    def loss_of(self, output: PassOutput, labels: Tensor) -> Tensor:
        """Return the training loss that a pass leads to, a scalar."""
        return self._terms(output, labels).total

    def _terms(self, output: PassOutput, labels: Tensor) -> LossTerms:
        weight = self.config.matching_weight
        logits = self.logits_of(output)
        cross_entropy = F.cross_entropy(logits, labels)
        matching = matching_loss(output) if weight > 0 else torch.zeros_like(cross_entropy)
        return LossTerms(cross_entropy, matching, cross_entropy + weight * matching, logits)

    @torch.no_grad()
    def trace(self, images: Tensor) -> ShipTrace:
        """Run an evaluation pass and return what it saw on its way."""
        seen = PassTrace()
        self._run(images, trace=seen)
        tops = {block: glimpse.top(self.config.attribute_length) for block, glimpse in seen.glimpses.items()}
        indices = {block: top[0] for block, top in tops.items()}
        return ShipTrace(seen.block_cls, indices, {block: top[1] for block, top in tops.items()})

    def _run(
        self,
        images: Tensor,
        *,
        match: bool = False,
        drop_factors: Tensor | None = None,
        memo: PromptMemo | None = None,
        trace: PassTrace | None = None,
    ) -> PassOutput:
        self._expect_a_step()
        return prompted_forward(
            self.backbone,
            embed(self.backbone, images),
            self.prompts,
            self.rule,
            match_top=self._match_top(match),
            drop_factors=drop_factors,
            memo=memo,
            trace=trace,
        )

    def _match_top(self, match: bool) -> int:
        wanted = match and self.config.matching_weight > 0
        return min(self.config.top_k, _image_tokens(self.backbone)) if wanted else 0

    def _sample(self, images: int) -> Tensor | None:
        return sample_drop_factors(drop_rates(self.backbone), images) if self.training else None

    def _expect_a_step(self) -> None:
        """Forget what is known of the prompts before a pass with gradients: a step of the optimiser may follow.

        A fused one leaves no trace of it in the versions of the parameters.
        """
        if torch.is_grad_enabled():
            self._memo = None

    def _prompt_memo(self) -> PromptMemo | None:
        """Return what is known of the shared prompts, as long as no parameter has changed since."""
        # A compiled pass would be compiled again whenever what is known changes.
        if torch.is_grad_enabled() or torch.compiler.is_compiling():
            return None
        mixed = torch.is_autocast_enabled(self.head.weight.device.type)
        key = (mixed, *((p.data_ptr(), p._version, p.dtype) for p in self.prompts.parameters()))
        if self._memo is None or self._memo[0] != key:
            self._memo = (key, PromptMemo())
        return self._memo[1]


def matching_loss(output: PassOutput) -> Tensor:
    """Return the mean over prompts and images of the least 1 - cosine to a selected image token (section 5).

    In bf16, many cosines close to 1 would be the same, and share the gradient of the least.
    """
    assert output.selected is not None
    if output.prompts is None:
        return output.selected.new_zeros(())
    prompts, selected = (F.normalize(at_least_float32(t), dim=-1) for t in (output.prompts, output.selected))
    with full_precision(prompts.device):
        cosine = prompts @ selected.transpose(1, 2)
    return (1 - cosine).amin(dim=-1).mean()


def _image_tokens(backbone: VisionTransformer) -> int:
    return int(backbone.patch_embed.num_patches + backbone.num_prefix_tokens)


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
    if image_tokens < config.attribute_length:
        raise InputError(
            f"attribute_length={config.attribute_length} needs as many image tokens, but this image size gives "
            f"only {image_tokens}; use larger images or set attribute_length lower"
        )
