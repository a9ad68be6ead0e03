"""The layouts in which checkpoints store a plain ViT: how each is recognised, and how its keys become timm's."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from shipbench.backbones.families import CLIP, DINO, DINOV2, GOOGLE, MAE, MOCO, SINE_COSINE, Family
from shipbench.backbones.key_conversions import (
    HF_CLIP_RULES,
    OPENAI_RULES,
    Weights,
    from_clip,
    from_google,
    from_hugging_face,
    from_timm,
    from_vpt,
)
from shipbench.backbones.weight_sets import preferred, prefixes_before, shared_prefix, unwrapped


@dataclass(frozen=True)
class Layout:
    """A naming of the tensors of a ViT.

    ``anchors`` are names that its files contain. ``convert`` returns the tensors under timm's names. Tensors whose
    names start with one of ``unused`` belong to heads and decoders, which a backbone does without; those that start
    with one of ``pool`` belong to an attention pool. ``family`` is the family of every model with this layout, or None
    if several share it.
    """

    name: str
    anchors: tuple[str, ...]
    convert: Callable[[Weights], Weights]
    unused: tuple[str, ...] = ()
    pool: tuple[str, ...] = ()
    family: Family | None = None


@dataclass(frozen=True)
class Selection:
    """A set of weights in a checkpoint: its layout, the prefix of its names there, and its tensors without the prefix.

    ``others`` are the prefixes of further sets of equal standing, which were not chosen. Names that no layout has are
    not ``recognised``.
    """

    layout: Layout
    prefix: str
    weights: Weights
    others: tuple[str, ...] = ()
    recognised: bool = True

    @property
    def part(self) -> str:
        """The name of the set in the checkpoint, such as ``model_ema``; empty if the checkpoint has no other names."""
        return self.prefix.rstrip(".")

    def hint(self) -> str:
        """Return a remark for an error message on the prefix of the names, or an empty string."""
        if self.prefix:
            return f" (keys under {self.prefix!r})"
        shared = shared_prefix(self.weights)
        return f" (all keys begin with {shared!r})" if shared else ""

    def choice(self, file: str) -> str:
        """Return a line that says which of several sets of weights is used; empty if there is one set."""
        others = ", ".join(prefix.rstrip(".") for prefix in self.others)
        return f"{file}: using the weights under {self.part}, not those under {others}" if others else ""

    def num_heads(self) -> int | None:
        """Return the number of attention heads where the layout shows it, as Flax's kernels (in, heads, out) do."""
        kernels = (value for key, value in self.weights.items() if key.endswith(".query.kernel") and value.ndim > 2)
        return next((int(kernel.shape[-2]) for kernel in kernels), None)

    def prompts(self) -> list[str]:
        """Return the names of trained prompts that lie beside the backbone."""
        return [key for key in self.weights if key.startswith(_PROMPTS)]

    def of_backbone(self, keys: Iterable[str]) -> list[str]:
        """Return the keys of a backbone: those that belong to no head, decoder or prompt."""
        # transformers calls the attention pool of SigLIP a head.
        return [key for key in keys if key.startswith(self.layout.pool) or not key.startswith(self._unused)]

    @property
    def _unused(self) -> tuple[str, ...]:
        return (*_UNUSED_BY_ALL, *_PROMPTS, *self.layout.unused)

    def in_timm_names(self) -> Weights:
        """Return the tensors under timm's names, without heads and decoders."""
        used = self.of_backbone(self.weights)
        return self.layout.convert({key: self.weights[key] for key in used})

    def family(self, converted: Mapping[str, Tensor]) -> Family | None:
        """Return the family that the layout, names or position embeddings betray, or None.

        ``converted`` are the weights under timm's names.
        """
        betrayed = (
            family
            for family, parts, starts in _BETRAYED_BY
            if self._lies_in(parts) or any(key.startswith(starts) for key in self.weights)
        )
        for family in (self.layout.family, *betrayed):
            if family is not None and self._may_be(family, converted):
                return family
        return SINE_COSINE if _are_sines_and_cosines(converted["pos_embed"]) else None

    @property
    def family_of_prefix(self) -> Family | None:
        """The family that the prefix alone betrays, or None."""
        return next((family for family, parts, _ in _BETRAYED_BY if self._lies_in(parts)), None)

    def _lies_in(self, parts: tuple[str, ...]) -> bool:
        return not {*self.prefix.split(".")}.isdisjoint(parts)

    def _may_be(self, family: Family, converted: Mapping[str, Tensor]) -> bool:
        """Return False for SigLIP, whose files have CLIP's names and no class token; CLIP always has one."""
        return family is not CLIP or "cls_token" in converted


_PROMPTS = (
    "compound_prompts_visual.",
    "semantic_share_prompt",
    "attribute_prompt",
    "visual_prompt_token_pos_embed",
    "prompt_embeddings",
    "deep_prompt_embeddings",
    "prompt_proj.",
)
_UNUSED_BY_ALL = ("head.", "pre_logits.", "head_dist.")


def select(tensors: Mapping[str, Tensor], layouts: Iterable[Layout], where: str) -> Selection | None:
    """Return the set of weights in a flattened checkpoint that fits one of ``layouts`` best, or None if none fits.

    Averaged weights come first, as in timm's loader. Raises ``InputError`` if several sets fit equally well and no
    convention prefers one of them.
    """
    weights = unwrapped(tensors, where)
    ranked = [
        (len(matches) / len(layout.anchors), layout, prefix)
        for layout in layouts
        for prefix, matches in prefixes_before(layout.anchors, weights).items()
    ]
    if not ranked:
        return None
    best = max(share for share, _, _ in ranked)
    layout = next(layout for share, layout, _ in ranked if share == best)
    prefixes = [prefix for share, other, prefix in ranked if share == best and other is layout]
    return _selected(weights, layout, prefixes, where)


def select_named(tensors: Mapping[str, Tensor], names: Sequence[str], where: str) -> Selection:
    """Return the set of weights of a timm model whose tensors have these ``names``, whatever its architecture.

    Averaged weights come first, as in timm's loader. Raises ``InputError`` if there are several sets and no convention
    prefers one of them.
    """
    weights, known = unwrapped(tensors, where), set(names)
    found = prefixes_before(names[:1], weights).keys()
    # The blocks of a ResNet, whose first tensor is conv1.weight, have one of that name too.
    inner = {
        prefix
        for prefix in found
        for outer in found - {prefix}
        if prefix.startswith(outer) and f"{prefix}{names[0]}"[len(outer) :] in known
    }
    prefixes = [prefix for prefix in found if prefix not in inner]
    return _selected(weights, TIMM, prefixes, where) if prefixes else Selection(TIMM, "", weights, recognised=False)


def _selected(weights: Weights, layout: Layout, prefixes: Sequence[str], where: str) -> Selection:
    chosen = preferred(prefixes, where)
    kept = {key[len(chosen) :]: value for key, value in weights.items() if key.startswith(chosen)}
    return Selection(layout, chosen, kept, tuple(prefix for prefix in prefixes if prefix != chosen))


def _are_sines_and_cosines(positions: Tensor) -> bool:
    """Return whether position embeddings are fixed sines and cosines, with zeros for the class token.

    For each frequency, the squares of sine and cosine add up to 1.
    """
    squares = positions[0].double().square().sum(dim=1)
    expected = torch.full_like(squares[1:], positions.shape[2] / 2)
    return squares[0].item() == 0 and torch.allclose(squares[1:], expected, rtol=1e-2)


# Each family with parts of the prefix and beginnings of the names that show it.
_BETRAYED_BY: tuple[tuple[Family, tuple[str, ...], tuple[str, ...]], ...] = (
    (CLIP, ("visual", "vision_model"), ()),
    (MAE, (), ("decoder_blocks.", "decoder_embed.", "decoder_pos_embed")),
    (MOCO, ("base_encoder", "momentum_encoder"), ()),
    (DINO, ("teacher", "student"), ("head.last_layer.", "dino_head.")),
    (DINOV2, (), ("register_tokens", "mask_token", "embeddings.mask_token")),
)


_DECODERS = ("decoder", "mask_token", "dino_head.", "ibot_head.", "predictor.", "projector.")

TIMM = Layout(
    "timm",
    ("patch_embed.proj.weight", "cls_token", "pos_embed", "blocks.0.norm1.weight", "blocks.0.mlp.fc1.weight"),
    from_timm,
    _DECODERS,
    ("attn_pool.",),
)
VPT = Layout(
    "VPT",
    (
        "embeddings.patch_embeddings.weight",
        "embeddings.position_embeddings",
        "encoder.encoder_norm.weight",
        "encoder.layer.0.ffn.fc1.weight",
    ),
    from_vpt,
)
BACKBONES: tuple[Layout, ...] = (
    TIMM,
    Layout(
        "OpenAI's CLIP",
        ("conv1.weight", "class_embedding", "positional_embedding", "transformer.resblocks.0.ln_1.weight"),
        partial(from_clip, OPENAI_RULES),
        ("proj",),
        family=CLIP,
    ),
    Layout(
        "transformers' CLIP and SigLIP",
        (
            "embeddings.patch_embedding.weight",
            "embeddings.class_embedding",
            "pre_layrnorm.weight",
            "encoder.layers.0.self_attn.q_proj.weight",
        ),
        partial(from_clip, HF_CLIP_RULES),
        ("embeddings.position_ids",),
        ("head.probe", "head.attention.", "head.layernorm.", "head.mlp."),
        CLIP,
    ),
    Layout(
        "transformers' ViT",
        (
            "embeddings.patch_embeddings.projection.weight",
            "embeddings.cls_token",
            "encoder.layer.0.attention.attention.query.weight",
            "layernorm.weight",
        ),
        from_hugging_face,
        ("pooler.", "embeddings.mask_token"),
    ),
    Layout(
        "Google's",
        (
            "embedding.kernel",
            "cls",
            "Transformer.encoder_norm.scale",
            "Transformer.encoderblock_0.LayerNorm_0.scale",
        ),
        from_google,
        pool=("MAPHead_0.",),
        family=GOOGLE,
    ),
    VPT,
)


def grid_side(positions: int) -> int | None:
    """Return the side of a square grid of ``positions``, or None if they form none."""
    side = math.isqrt(positions)
    return side if positions > 0 and side * side == positions else None
