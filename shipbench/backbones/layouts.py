"""The layouts in which checkpoints store a plain ViT: how each is recognised, and how its keys become timm's.

A checkpoint is flattened to dotted names first, so a wrapper (``model``), a nest (``teacher``) and a prefix
(``module.``) are the same thing: whatever stands before the names of a layout.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import takewhile
from typing import TypeAlias

import torch
from torch import Tensor

from shipbench.backbones.origin import Triple
from shipbench.errors import InputError

Weights: TypeAlias = dict[str, Tensor]
# Patterns of whole names, and their replacements.
Rules: TypeAlias = tuple[tuple[str, str], ...]

# Modules that torch wraps around others: compilation, FSDP, activation checkpointing, DeepSpeed.
_WRAPPING = re.compile(r"(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module|_forward_module)\.")


@dataclass(frozen=True)
class Family:
    """A family of pretrained models, and the mean and deviation of the images that it was trained on."""

    name: str
    mean: Triple
    std: Triple


_IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_MAE = Family("MAE", *_IMAGENET)
_DINO = Family("DINO", *_IMAGENET)
_DINOV2 = Family("DINOv2", *_IMAGENET)
_MOCO = Family("MoCo", *_IMAGENET)
_SINE_COSINE = Family("MAE or MoCo v3", *_IMAGENET)
CLIP = Family("CLIP", (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
_GOOGLE = Family("Google's ViT", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


@dataclass(frozen=True)
class Layout:
    """A naming of the tensors of a ViT.

    ``anchors`` are names that its files contain. ``convert`` returns the tensors under timm's names. Tensors whose
    names start with one of ``unused`` belong to heads and decoders, which a backbone does without. ``family`` is the
    family of every model with this layout, or None if several share it.
    """

    name: str
    anchors: tuple[str, ...]
    convert: Callable[[Weights], Weights]
    unused: tuple[str, ...] = ()
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
        shared = _shared_prefix(self.weights)
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
        return [key for key in keys if not key.startswith(self._unused)]

    @property
    def _unused(self) -> tuple[str, ...]:
        return (*_UNUSED_BY_ALL, *_PROMPTS, *self.layout.unused)

    def in_timm_names(self) -> Weights:
        """Return the tensors under timm's names, without heads and decoders."""
        used = self.of_backbone(self.weights)
        return self.layout.convert({key: self.weights[key] for key in used})

    def family(self, positions: Tensor) -> Family | None:
        """Return the family that the layout or the position embeddings (1, N, D) betray, or None."""
        if self.layout.family is not None:
            return self.layout.family
        for family, betrays in _BETRAYED_BY:
            if betrays(self):
                return family
        return _SINE_COSINE if _are_sines_and_cosines(positions) else None


# Preferences between sets of equal standing. The first four are timm's, whose loader prefers averaged weights;
# DINO evaluates its teacher, MoCo its base encoder.
_PREFERRED = (
    "state_dict_ema",
    "model_ema",
    "state_dict",
    "model",
    "teacher",
    "student",
    "base_encoder",
    "momentum_encoder",
)
_PROMPTS = (
    "compound_prompts_visual.",
    "semantic_share_prompt",
    "attribute_prompt",
    "visual_prompt_token_pos_embed",
    "prompt_embeddings",
    "deep_prompt_embeddings",
    "prompt_proj.",
)
_UNUSED_BY_ALL = ("head.", "fc_norm.", "pre_logits.", "head_dist.")


def select(tensors: Mapping[str, Tensor], layouts: Iterable[Layout], where: str) -> Selection | None:
    """Return the set of weights in a flattened checkpoint that fits one of ``layouts`` best, or None if none fits.

    Averaged weights come first, as in timm's loader. Raises ``InputError`` if several sets fit equally well and no
    convention prefers one of them.
    """
    unwrapped = _unwrapped(tensors, where)
    ranked = [
        (len(matches) / len(layout.anchors), layout, prefix)
        for layout in layouts
        for prefix, matches in _prefixes(unwrapped, layout.anchors).items()
    ]
    if not ranked:
        return None
    best = max(share for share, _, _ in ranked)
    layout = next(layout for share, layout, _ in ranked if share == best)
    prefixes = [prefix for share, other, prefix in ranked if share == best and other is layout]
    chosen = _preferred(prefixes, where)
    weights = {key[len(chosen) :]: value for key, value in unwrapped.items() if key.startswith(chosen)}
    return Selection(layout, chosen, weights, tuple(prefix for prefix in prefixes if prefix != chosen))


def _unwrapped(tensors: Mapping[str, Tensor], where: str) -> Weights:
    """Return the tensors by names without the wrappers of torch, at any depth."""
    names = {key: _WRAPPING.sub("", key) for key in tensors}
    if len(set(names.values())) < len(names):
        raise InputError(f"two tensors{where} have the same name once the wrappers of torch are removed")
    return {names[key]: value for key, value in tensors.items()}


def _prefixes(tensors: Iterable[str], anchors: tuple[str, ...]) -> dict[str, set[str]]:
    """Return every prefix, empty or ending with a dot, that precedes an anchor, with the anchors that it precedes."""
    prefixes: dict[str, set[str]] = {}
    for key in tensors:
        for anchor in anchors:
            prefix = key.removesuffix(anchor)
            if key.endswith(anchor) and (not prefix or prefix.endswith(".")):
                prefixes.setdefault(prefix, set()).add(anchor)
    return prefixes


def _preferred(prefixes: list[str], where: str) -> str:
    if len(prefixes) == 1:
        return prefixes[0]
    order = _PREFERRED
    ranks = {prefix: [order.index(part) for part in prefix.split(".") if part in order] for prefix in prefixes}
    if not all(ranks.values()) or len({tuple(sorted(rank)) for rank in ranks.values()}) < len(prefixes):
        sets = ", ".join(prefix.rstrip(".") or "(no prefix)" for prefix in prefixes)
        raise InputError(f"there are several sets of weights{where}: {sets}; save the one that you mean alone")
    return min(prefixes, key=lambda prefix: sorted(ranks[prefix]))


def _shared_prefix(keys: Iterable[str]) -> str:
    """Return the prefix, empty or ending with a dot, that all keys share."""
    columns = zip(*(key.split(".")[:-1] for key in keys), strict=False)
    shared = [parts[0] for parts in takewhile(lambda parts: len(set(parts)) == 1, columns)]
    return ".".join([*shared, ""])


# Families -------------------------------------------------------------------------------------------------------------


def _has(*starts: str) -> Callable[[Selection], bool]:
    return lambda selection: any(key.startswith(starts) for key in selection.weights)


def _lies_in(*parts: str) -> Callable[[Selection], bool]:
    return lambda selection: not {*selection.prefix.split(".")}.isdisjoint(parts)


def _are_sines_and_cosines(positions: Tensor) -> bool:
    """Return whether position embeddings are fixed sines and cosines, with zeros for the class token.

    For each frequency, the squares of sine and cosine add up to 1.
    """
    squares = positions[0].double().square().sum(dim=1)
    expected = torch.full_like(squares[1:], positions.shape[2] / 2)
    return squares[0].item() == 0 and torch.allclose(squares[1:], expected, rtol=1e-2)


_BETRAYED_BY: tuple[tuple[Family, Callable[[Selection], bool]], ...] = (
    (CLIP, _lies_in("visual", "vision_model")),
    (_MAE, _has("decoder_blocks.", "decoder_embed.", "decoder_pos_embed")),
    (_MOCO, _lies_in("base_encoder", "momentum_encoder")),
    (_DINO, _lies_in("teacher", "student")),
    (_DINO, _has("head.last_layer.", "dino_head.")),
    (_DINOV2, _has("register_tokens", "mask_token", "embeddings.mask_token")),
)


# Conversions ----------------------------------------------------------------------------------------------------------


def _renamed(rules: Rules, weights: Weights) -> Weights:
    """Return tensors with the first fitting rule (a pattern of whole names, its replacement) applied to each name."""
    return {_name(rules, key): value for key, value in weights.items()}


def _name(rules: Rules, key: str) -> str:
    for pattern, new in rules:
        match = re.fullmatch(pattern, key)
        if match is not None:
            return match.expand(new)
    return key


def timm_name_of_vpt(key: str) -> str:
    """Return timm's name for a key of the official VPT's encoder, or the key itself if it belongs to no backbone."""
    return _name(_VPT_RULES, key)


def fuse(weights: Weights, query: str = "q", key: str = "k", value: str = "v") -> Weights:
    """Return tensors with ``blocks.N.attn.q``, ``k`` and ``v`` concatenated to ``qkv`` where all three are present."""
    fused = dict(weights)
    for name in weights:
        match = re.fullmatch(rf"(blocks\.\d+\.attn\.){query}\.(weight|bias)", name)
        if match is None:
            continue
        parts = [f"{match[1]}{part}.{match[2]}" for part in (query, key, value)]
        target = f"{match[1]}qkv.{match[2]}"
        if target not in weights and all(part in weights for part in parts):
            fused[target] = torch.cat([fused.pop(part) for part in parts])
    return fused


_TIMM_RULES = (
    # DINOv2 stores its blocks in chunks while it trains; the inner number counts through.
    (r"blocks\.\d+\.(\d+)\.(.+)", r"blocks.\1.\2"),
    (r"(blocks\.\d+)\.gamma_([12])", r"\1.ls\2.gamma"),
    (r"(blocks\.\d+)\.mlp\.w12\.(.+)", r"\1.mlp.fc1.\2"),
    (r"(blocks\.\d+)\.mlp\.w3\.(.+)", r"\1.mlp.fc2.\2"),
)


def _from_timm(weights: Weights) -> Weights:
    renamed = fuse(_renamed(_TIMM_RULES, weights))
    registers = renamed.pop("register_tokens", None)
    if registers is not None and {"cls_token", "pos_embed"} <= renamed.keys():
        # timm gives neither the class token nor the registers a position.
        positions = renamed.pop("pos_embed")
        renamed |= {"reg_token": registers, "cls_token": renamed["cls_token"] + positions[:, :1]}
        renamed["pos_embed"] = positions[:, 1:]
    return renamed


_OPENAI_RULES = (
    (r"conv1\.(.+)", r"patch_embed.proj.\1"),
    (r"class_embedding", "cls_token"),
    (r"positional_embedding", "pos_embed"),
    (r"ln_pre\.(.+)", r"norm_pre.\1"),
    (r"ln_post\.(.+)", r"norm.\1"),
    (r"transformer\.resblocks\.(\d+)\.ln_([12])\.(.+)", r"blocks.\1.norm\2.\3"),
    (r"transformer\.resblocks\.(\d+)\.attn\.in_proj_(weight|bias)", r"blocks.\1.attn.qkv.\2"),
    (r"transformer\.resblocks\.(\d+)\.attn\.out_proj\.(.+)", r"blocks.\1.attn.proj.\2"),
    (r"transformer\.resblocks\.(\d+)\.mlp\.c_fc\.(.+)", r"blocks.\1.mlp.fc1.\2"),
    (r"transformer\.resblocks\.(\d+)\.mlp\.c_proj\.(.+)", r"blocks.\1.mlp.fc2.\2"),
)
_HF_CLIP_RULES = (
    (r"embeddings\.class_embedding", "cls_token"),
    (r"embeddings\.patch_embedding\.(.+)", r"patch_embed.proj.\1"),
    (r"embeddings\.position_embedding\.weight", "pos_embed"),
    (r"pre_layrnorm\.(.+)", r"norm_pre.\1"),
    (r"post_layernorm\.(.+)", r"norm.\1"),
    (r"encoder\.layers\.(\d+)\.layer_norm([12])\.(.+)", r"blocks.\1.norm\2.\3"),
    (r"encoder\.layers\.(\d+)\.self_attn\.([qkv])_proj\.(.+)", r"blocks.\1.attn.\2.\3"),
    (r"encoder\.layers\.(\d+)\.self_attn\.out_proj\.(.+)", r"blocks.\1.attn.proj.\2"),
    (r"encoder\.layers\.(\d+)\.mlp\.(.+)", r"blocks.\1.mlp.\2"),
)
_HF_RULES = (
    (r"embeddings\.cls_token", "cls_token"),
    (r"embeddings\.register_tokens", "register_tokens"),
    (r"embeddings\.position_embeddings", "pos_embed"),
    (r"embeddings\.patch_embeddings\.projection\.(.+)", r"patch_embed.proj.\1"),
    (r"layernorm\.(.+)", r"norm.\1"),
    (r"encoder\.layer\.(\d+)\.attention\.attention\.(query|key|value)\.(.+)", r"blocks.\1.attn.\2.\3"),
    (r"encoder\.layer\.(\d+)\.attention\.output\.dense\.(.+)", r"blocks.\1.attn.proj.\2"),
    # ViT, DeiT and ViTMAE
    (r"encoder\.layer\.(\d+)\.layernorm_before\.(.+)", r"blocks.\1.norm1.\2"),
    (r"encoder\.layer\.(\d+)\.layernorm_after\.(.+)", r"blocks.\1.norm2.\2"),
    (r"encoder\.layer\.(\d+)\.intermediate\.dense\.(.+)", r"blocks.\1.mlp.fc1.\2"),
    (r"encoder\.layer\.(\d+)\.output\.dense\.(.+)", r"blocks.\1.mlp.fc2.\2"),
    # DINOv2
    (r"encoder\.layer\.(\d+)\.layer_scale([12])\.lambda1", r"blocks.\1.ls\2.gamma"),
    (r"encoder\.layer\.(\d+)\.mlp\.weights_in\.(.+)", r"blocks.\1.mlp.fc1.\2"),
    (r"encoder\.layer\.(\d+)\.mlp\.weights_out\.(.+)", r"blocks.\1.mlp.fc2.\2"),
    (r"encoder\.layer\.(\d+)\.(.+)", r"blocks.\1.\2"),
)
_VPT_RULES = (
    (r"embeddings\.patch_embeddings\.(.+)", r"patch_embed.proj.\1"),
    (r"embeddings\.cls_token", "cls_token"),
    (r"embeddings\.position_embeddings", "pos_embed"),
    (r"encoder\.encoder_norm\.(.+)", r"norm.\1"),
    (r"encoder\.layer\.(\d+)\.attention_norm\.(.+)", r"blocks.\1.norm1.\2"),
    (r"encoder\.layer\.(\d+)\.ffn_norm\.(.+)", r"blocks.\1.norm2.\2"),
    (r"encoder\.layer\.(\d+)\.attn\.out\.(.+)", r"blocks.\1.attn.proj.\2"),
    (r"encoder\.layer\.(\d+)\.attn\.(query|key|value)\.(.+)", r"blocks.\1.attn.\2.\3"),
    (r"encoder\.layer\.(\d+)\.ffn\.(.+)", r"blocks.\1.mlp.\2"),
)


def _from_clip(rules: Rules, weights: Weights) -> Weights:
    renamed = fuse(_renamed(rules, weights))
    if "cls_token" in renamed:
        renamed["cls_token"] = renamed["cls_token"].reshape(1, 1, -1)
    if "pos_embed" in renamed:
        renamed["pos_embed"] = renamed["pos_embed"].unsqueeze(0)
    return renamed


def _from_hugging_face(weights: Weights) -> Weights:
    return _from_timm(fuse(_renamed(_HF_RULES, weights), "query", "key", "value"))


def _from_vpt(weights: Weights) -> Weights:
    return fuse(_renamed(_VPT_RULES, weights), "query", "key", "value")


_GOOGLE_NAMES = {
    "embedding.bias": "patch_embed.proj.bias",
    "cls": "cls_token",
    "Transformer.posembed_input.pos_embedding": "pos_embed",
    "pos_embedding": "pos_embed",
    "Transformer.encoder_norm.scale": "norm.weight",
    "Transformer.encoder_norm.bias": "norm.bias",
}
_GOOGLE_KINDS = {"kernel": "weight", "scale": "weight", "bias": "bias"}
# The numbers of Flax's submodules: those of Google's first release, then big_vision's.
_GOOGLE_MODULES = {
    "LayerNorm_0": "norm1",
    "LayerNorm_1": "norm2",
    "LayerNorm_2": "norm2",
    "MultiHeadDotProductAttention_0": "attn",
    "MultiHeadDotProductAttention_1": "attn",
    "MlpBlock_0": "mlp",
    "MlpBlock_3": "mlp",
    "Dense_0": "fc1",
    "Dense_1": "fc2",
    "out": "proj",
}


def _from_google(weights: Weights) -> Weights:
    """Convert Flax's kernels (in, out), which attention splits by head, to timm's (out, in)."""
    converted: Weights = {}
    for key, value in _unscanned(weights).items():
        match = re.fullmatch(r"Transformer\.encoderblock_(\d+)\.(.+)\.(kernel|scale|bias)", key)
        if key == "embedding.kernel" and value.ndim == 4:
            converted["patch_embed.proj.weight"] = value.permute(3, 2, 0, 1)
        elif match is not None:
            modules = ".".join(_GOOGLE_MODULES.get(part, part) for part in match[2].split("."))
            converted[f"blocks.{match[1]}.{modules}.{_GOOGLE_KINDS[match[3]]}"] = _google_matrix(modules, value)
        else:
            converted[_GOOGLE_NAMES.get(key, key)] = value
    if "pos_embed" in converted and converted["pos_embed"].ndim == 2:
        converted["pos_embed"] = converted["pos_embed"].unsqueeze(0)
    return fuse(converted, "query", "key", "value")


def _unscanned(weights: Weights) -> Weights:
    """Return the blocks of a scanned encoder, whose tensors are stacked along their first axis, one by one."""
    single = {}
    for key, value in weights.items():
        if key.startswith("Transformer.encoderblock.") and value.ndim:
            for index, part in enumerate(value):
                single[key.replace("encoderblock", f"encoderblock_{index}", 1)] = part
        else:
            single[key] = value
    return single


def _google_matrix(modules: str, value: Tensor) -> Tensor:
    if modules == "attn.proj":
        return value.flatten(0, -2).T if value.ndim > 1 else value
    if modules.startswith("attn."):
        return value.flatten(1).T if value.ndim > 2 else value.flatten()
    return value.T if value.ndim == 2 else value


# The table ------------------------------------------------------------------------------------------------------------

_DECODERS = ("decoder", "mask_token", "dino_head.", "ibot_head.", "predictor.", "projector.")

TIMM = Layout(
    "timm",
    ("patch_embed.proj.weight", "cls_token", "pos_embed", "blocks.0.norm1.weight", "blocks.0.mlp.fc1.weight"),
    _from_timm,
    _DECODERS,
)
VPT = Layout(
    "VPT",
    (
        "embeddings.patch_embeddings.weight",
        "embeddings.position_embeddings",
        "encoder.encoder_norm.weight",
        "encoder.layer.0.ffn.fc1.weight",
    ),
    _from_vpt,
)
BACKBONES: tuple[Layout, ...] = (
    TIMM,
    Layout(
        "OpenAI's CLIP",
        ("conv1.weight", "class_embedding", "positional_embedding", "transformer.resblocks.0.ln_1.weight"),
        partial(_from_clip, _OPENAI_RULES),
        ("proj",),
        CLIP,
    ),
    Layout(
        "transformers' CLIP",
        (
            "embeddings.patch_embedding.weight",
            "embeddings.class_embedding",
            "pre_layrnorm.weight",
            "encoder.layers.0.self_attn.q_proj.weight",
        ),
        partial(_from_clip, _HF_CLIP_RULES),
        ("embeddings.position_ids",),
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
        _from_hugging_face,
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
        _from_google,
        (),
        _GOOGLE,
    ),
    VPT,
)


def grid_side(positions: int) -> int | None:
    """Return the side of a square grid of ``positions``, or None if they form none."""
    side = math.isqrt(positions)
    return side if positions > 0 and side * side == positions else None
