"""Visual prompt tuning, shallow and deep (Jia et al., ECCV 2022, arXiv 2203.12119)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from shipbench.backbones import feature_width, refuse_unpromptable
from shipbench.backbones.key_conversions import timm_name_of_vpt
from shipbench.backbones.layouts import Layout
from shipbench.backbones.state_dicts import (
    build_vit,
    fuse_qkv,
    read_state_dict,
    refuse_shapes,
    require_dimensions,
    where_of,
)
from shipbench.errors import InputError
from shipbench.prompting import (
    AttentionRule,
    BlockPlan,
    DropFactors,
    Glimpse,
    LastRows,
    PassOutput,
    PassTrace,
    StackInput,
    StochasticDepth,
    Traced,
    draw_stack_input,
    frozen,
    new_head,
    prompted_forward,
    read_out,
    rows_to_read,
)
from shipbench.settings import whole_number

from .settings import VptConfig
from .vpt_prompts import Prompts, make_prompts

_JOINT = AttentionRule(coupled=True)
# What each pooling reads of the last block, beside its first token; the original one is that of the backbone.
_READ = {
    "img_pool": LastRows(image=True),
    "prompt_pool": LastRows(prompts=True),
    "imgprompt_pool": LastRows(image=True, prompts=True),
}
_ENCODER = "enc.transformer."
_WHAT = "an official VPT checkpoint"
# Names under which the official training stores prompts alone, epoch by epoch.
_PROMPTS_ALONE = {"shallow_prompt", "deep_prompt"}
_OFFICIAL = Layout(
    "official VPT",
    (
        f"{_ENCODER}embeddings.cls_token",
        f"{_ENCODER}embeddings.position_embeddings",
        f"{_ENCODER}encoder.encoder_norm.weight",
        f"{_ENCODER}prompt_embeddings",
        "head.last_layer.weight",
    ),
    dict,
)
_DIMENSIONS = {
    "prompts.tokens": 3,
    "prompts.projection.weight": 2,
    "prompts.projection.bias": 1,
    "head.weight": 2,
    "head.bias": 1,
}


@dataclass(frozen=True)
class _Source:
    """The prompts of one pass; with dropout in training, each of ``batch`` images has its own mask."""

    prompts: Prompts
    backbone: VisionTransformer
    batch: int

    @property
    def plan(self) -> tuple[BlockPlan, ...]:
        return self.prompts.plan

    def fresh(self, block: int, name: str) -> Tensor:
        return self.prompts.fresh(self.backbone, block, self.batch)

    def guided(self, block: int, name: str, glimpse: Glimpse) -> Tensor:
        raise LookupError(f"VPT has no guided prompts {name!r}")


class Vpt(nn.Module):
    """Prompts over a frozen backbone, with joint attention; images are normalised floats (B, 3, H, W).

    ``initial`` (depth, p, D), if given, are the tokens that the prompts of each block start from. Raises ``InputError``
    for a backbone that cannot be prompted, for more prompted blocks than it has, and for fewer than one class.
    """

    def __init__(
        self,
        backbone: VisionTransformer,
        num_classes: int,
        config: VptConfig,
        *,
        deep: bool,
        initial: Tensor | None = None,
    ) -> None:
        super().__init__()
        refuse_unpromptable(backbone)
        self.backbone = frozen(backbone)
        self.stochastic_depth = StochasticDepth(backbone)
        self.pooling = config.pooling
        self.prompts = make_prompts(backbone, config, deep=deep, initial=initial)
        self.head = new_head(feature_width(backbone), whole_number("num_classes", num_classes, 1))

    @property
    def draws_on_device(self) -> bool:
        """Whether prompts have dropout; stochastic depth is drawn on the host."""
        return self.prompts.draws

    def train(self, mode: bool = True) -> Vpt:
        """Set the training mode of prompts and head; the backbone stays in evaluation mode, without dropout."""
        super().train(mode)
        self.backbone.eval()
        return self

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, classes); stochastic depth is drawn in training mode only."""
        factors = self._sample(images.shape[0])
        tokens = self.prompts.embed(self.backbone, images)
        source, rows = _Source(self.prompts, self.backbone, images.shape[0]), self._rows()
        return self.logits_of(prompted_forward(self.backbone, tokens, source, _JOINT, rows=rows, drop_factors=factors))

    @torch.no_grad()
    def traced(self, images: Tensor) -> Traced:
        """Run an evaluation pass and return its intermediate values, block by block."""
        trace, source = PassTrace(), _Source(self.prompts, self.backbone, len(images))
        tokens = self.prompts.embed(self.backbone, images)
        output = prompted_forward(self.backbone, tokens, source, _JOINT, rows=LastRows(image=True), trace=trace)
        assert output.image is not None
        return Traced(trace, _JOINT, output.image)

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return the cross-entropy, a scalar."""
        return F.cross_entropy(self(images), labels)

    def stack_input(self, images: int, *, match: bool) -> StackInput:
        """Return this model's input to a shared pass, with stochastic depth and dropout drawn in training mode.

        ``match`` has no effect: VPT's loss needs only the logits.
        """
        source, rows = _Source(self.prompts, self.backbone, images), self._rows()
        return draw_stack_input(source, _JOINT, 0, self._sample(images), rows)

    def logits_of(self, output: PassOutput) -> Tensor:
        """Return the logits (B, classes) of a pass."""
        if self.pooling == "original":
            return self.head(read_out(self.backbone, output))
        class_tokens = 0 if self.backbone.cls_token is None else 1
        first = class_tokens if self.pooling == "imgprompt_pool" else self.backbone.num_prefix_tokens
        read = [tokens for tokens in (_after(output.image, first), output.prompts) if tokens is not None]
        return self.head(self.backbone.fc_norm(self.backbone.norm(torch.cat(read, dim=1)).mean(dim=1)))

    def loss_of(self, output: PassOutput, labels: Tensor) -> Tensor:
        """Return the cross-entropy of a pass, a scalar."""
        return F.cross_entropy(self.logits_of(output), labels)

    def _rows(self) -> LastRows:
        return rows_to_read(self.backbone) if self.pooling == "original" else _READ[self.pooling]

    def _sample(self, images: int) -> DropFactors | None:
        return self.stochastic_depth.factors(images) if self.training else None


def _after(tokens: Tensor | None, first: int) -> Tensor | None:
    return None if tokens is None else tokens[:, first:]


def load_official_checkpoint(
    state_dict: Mapping[str, Tensor] | str | Path, *, num_heads: int, image_size: int = 224, patch_size: int = 16
) -> Vpt:
    """Return a ``Vpt`` in evaluation mode with the weights of an official checkpoint (a state dict or its file).

    The checkpoint's tensors decide whether it is deep and has a projection. Stochastic depth and prompt dropout are 0.
    Raises ``InputError`` that names every missing or unexpected key, a tensor of another shape, or one with values that
    are NaN or infinite, and for ``prompt_epN.pth``, in which the official training stores prompts alone.
    """
    where = where_of(state_dict)
    state = read_state_dict(state_dict, [_OFFICIAL])
    if state.keys() <= _PROMPTS_ALONE:
        raise InputError(
            f"there are only prompts{where or ' in the state dict'} ({', '.join(sorted(state))}); "
            "pass the state dict of the whole model, with its backbone and head"
        )
    trained, missing = _take_trained(state, where)
    pattern = f"{_ENCODER}encoder.layer.{{index}}.attn.{{part}}.{{kind}}"
    fused, unfused = fuse_qkv(state, pattern, ("query", "key", "value"))
    named = {_timm_name(key): value for key, value in fused.items()}
    backbone = build_vit(named, num_heads, image_size, patch_size, _WHAT, where, also_missing=missing + unfused)
    tokens = trained["prompts.tokens"]
    project = tokens.shape[-1] if "prompts.projection.weight" in trained else 0
    config = VptConfig(prompt_length=tokens.shape[1], project=project)
    model = Vpt(backbone, len(trained["head.bias"]), config, deep=len(tokens) > 1)
    if len(tokens) not in (1, len(backbone.blocks)):
        raise InputError(
            f"the checkpoint has prompts for {len(tokens)} blocks, but its backbone has {len(backbone.blocks)}; "
            "use one with prompts for the first block or for all"
        )
    refuse_shapes(_WHAT, trained, model.state_dict())
    model.load_state_dict(trained, strict=False)
    return model.eval()


def _take_trained(state: dict[str, Tensor], where: str) -> tuple[dict[str, Tensor], list[str]]:
    """Remove prompts, projection and head from ``state``; return them by the names of ``Vpt``, and missing keys."""
    names = {
        "prompts.tokens": f"{_ENCODER}prompt_embeddings",
        "head.weight": "head.last_layer.weight",
        "head.bias": "head.last_layer.bias",
    }
    if any(key.startswith(f"{_ENCODER}prompt_proj.") for key in state):
        names |= {f"prompts.projection.{kind}": f"{_ENCODER}prompt_proj.{kind}" for kind in ("weight", "bias")}
    missing = [official for official in names.values() if official not in state]
    trained = {name: state.pop(official) for name, official in names.items() if official in state}
    require_dimensions(trained, _DIMENSIONS, _WHAT, where)
    deep_name = f"{_ENCODER}deep_prompt_embeddings"
    deep = state.pop(deep_name, None)
    if deep is not None and "prompts.tokens" in trained:
        require_dimensions({deep_name: deep}, {deep_name: 3}, _WHAT, where)
        shallow = trained["prompts.tokens"]
        refuse_shapes(_WHAT, {deep_name: deep[:1]}, {deep_name: shallow})
        trained["prompts.tokens"] = torch.cat([shallow, deep])
    return trained, missing


def _timm_name(key: str) -> str:
    """Return timm's name for a backbone key; an unknown key keeps its name, by which it is refused later."""
    short = key.removeprefix(_ENCODER)
    renamed = timm_name_of_vpt(short)
    return key if renamed == short else renamed
