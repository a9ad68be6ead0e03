"""What a method can use of a timm model: blocks that take prompts and adapters, the class of their MLP, its pooling."""

from __future__ import annotations

from typing import Any

from timm.layers import AttentionRope, DropPath
from timm.models.eva import Eva, EvaAttention, EvaBlock
from timm.models.vision_transformer import Attention, Block, VisionTransformer
from torch import nn

from shipbench.errors import InputError

_PROMPTABLE = {VisionTransformer: (Block, (Attention,)), Eva: (EvaBlock, (EvaAttention, AttentionRope))}


def refuse_unpromptable(model: Any) -> None:
    """Raise ``InputError`` unless prompts can join the tokens of ``model``; see ``why_unpromptable``."""
    if reason := why_unpromptable(model):
        raise InputError(f"the backbone cannot be prompted: {reason}")


def refuse_unadaptable(model: Any) -> None:
    """Raise ``InputError`` unless adapters can join the blocks of ``model``; see ``why_unpromptable``."""
    if reason := why_unpromptable(model):
        raise InputError(f"the backbone cannot be adapted: {reason}")


def why_unpromptable(model: Any) -> str:
    """Return why prompts cannot join the tokens of ``model``, nor adapters its blocks, or an empty string.

    They can in plain pre-norm ViTs, with or without class token, register tokens and pooling, and in those with rotary
    positions (timm's ``Eva``). Their MLP may have any layers.
    """
    if type(model) not in _PROMPTABLE:
        return f"its class is {type(model).__name__}, not VisionTransformer or Eva of timm"
    return _why_not_read(model) or _why_blocks_are_unusable(model) or _why_positions_are_unusable(model)


def mlp_class(model: Any) -> str:
    """Return the class of the MLP in the blocks of ``model``, as in ``SwiGLU``; empty for an unpromptable model."""
    return "" if why_unpromptable(model) else type(model.blocks[0].mlp).__name__


def _why_not_read(model: Any) -> str:
    # Early releases of timm 1.0 have no attention pool in Eva.
    if getattr(model, "attn_pool", None) is not None or model.global_pool in ("avg", "avgmax", "max"):
        return ""
    if model.global_pool != "token":
        return f"it classifies from {model.global_pool or 'no'} pooling, which gives no features of the whole image"
    return "" if model.cls_token is not None else "it has no class token and no pooling to classify from"


def _why_blocks_are_unusable(model: Any) -> str:
    expected, attentions = _PROMPTABLE[type(model)]
    for block in model.blocks:
        if type(block) is not expected:
            return f"its blocks are {type(block).__name__}, not plain pre-norm blocks"
        if type(block.attn) not in attentions or getattr(block.attn, "gate", None) is not None:
            return f"its attention is {type(block.attn).__name__}, not plain self-attention"
    return ""


def _why_positions_are_unusable(model: Any) -> str:
    if getattr(model, "rope_mixed", False):
        return "its rotary positions differ from block to block"
    if any(getattr(block.attn, "num_kv_groups", 1) > 1 for block in model.blocks):
        return "several heads share keys and values"
    return ""


def repeated_layers(model: nn.Module, kind: type[nn.Module]) -> list[str]:
    """Return the names of the layers of class ``kind`` itself in repeated blocks and stages, without grouped ones."""
    # A low rank does not divide into the groups of a grouped convolution.
    return [
        name
        for name, module in model.named_modules()
        if type(module) is kind
        and getattr(module, "groups", 1) == 1
        and any(part.isdigit() for part in name.split("."))
    ]


def has_stochastic_depth(model: Any) -> bool:
    """Return whether ``model`` was built with a rate of stochastic depth above 0."""
    return any(isinstance(module, DropPath) and module.drop_prob for module in model.modules())


def classifiers_of(model: Any) -> tuple[str, ...]:
    """Return the names of a timm model's classifiers: one, as in ``head.fc``, or two in a distilled model."""
    names = getattr(model, "pretrained_cfg", {}).get("classifier") or "head"
    return (names,) if isinstance(names, str) else tuple(names)
