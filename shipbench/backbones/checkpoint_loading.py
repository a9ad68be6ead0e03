"""Load a checkpoint file into the model of a backbone: match its names, check its sizes, resample its positions."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import timm
import torch
from timm.layers import QuickGELU, resample_abs_pos_embed
from torch import Tensor

from shipbench.backbones.architecture import classifiers_of
from shipbench.backbones.checkpoint_files import flat_tensors, read_checkpoint
from shipbench.backbones.families import CLIP, Family
from shipbench.backbones.features import normalisation_of, patch_grid_side
from shipbench.backbones.layouts import Selection, grid_side, select_named
from shipbench.backbones.origin import Origin
from shipbench.backbones.state_dicts import (
    fills,
    load_strictly,
    read_selection,
    refuse_keys,
    refuse_unusable,
    weights_sha256,
)
from shipbench.errors import InputError, one_line

_PATCHES = "patch_embed.proj.weight"
_POOLED_NORM = "fc_norm."
_ATTENTION_POOL = "attn_pool."


@dataclass(frozen=True)
class BackboneCheckpoint:
    """The checkpoint file ``path`` and the model of backbone ``name`` into which it is loaded."""

    model: Any
    path: Path
    name: str

    @property
    def subject(self) -> str:
        """The weights that the model needs, for messages."""
        return f"backbone {self.name} (checkpoint {self.path})"

    def misfit(self, reason: str) -> InputError:
        """Return the error that the file does not fit the model."""
        return InputError(f"checkpoint {self.path} does not fit backbone {self.name}: {reason}")


def load_plain_vit(checkpoint: BackboneCheckpoint) -> Origin:
    """Load a checkpoint into a plain ViT of the final image size with position embeddings; return its origin.

    Raises ``InputError`` for a file in no known layout, and for weights of another model.
    """
    model, path = checkpoint.model, checkpoint.path
    expected = model.state_dict()
    selection = _without_other_pooling(read_selection(path), expected)
    if not selection.recognised:
        what = f"backbone {checkpoint.name}: checkpoint {path} does not fit any known layout{selection.hint()}"
        refuse_keys(what, list(expected), list(selection.weights))
    usable = {key: value for key, value in selection.weights.items() if fills(value, expected.get(key))}
    try:
        stored = replace(selection, weights=usable).in_timm_names()
    except (RuntimeError, IndexError) as error:
        raise checkpoint.misfit(one_line(error)) from error
    unusable = selection.of_backbone(selection.weights.keys() - usable.keys())
    missing = [key for key in expected if key not in stored]
    refuse_unusable(unusable, missing, f" in {path}")
    _refuse_other_depth(stored, checkpoint)
    _refuse_other_heads(selection.num_heads(), checkpoint)
    refuse_keys(f"{checkpoint.subject}{selection.hint()}", missing, [*(stored.keys() - expected), *unusable])
    # A stem of convolutions may need no projection of patches, as in MobileCLIP and ViTamin.
    if _PATCHES in stored:
        stored[_PATCHES] = _as_convolution(stored[_PATCHES])
        _refuse_other_patches(stored[_PATCHES], checkpoint)
    grid = _stored_grid(stored["pos_embed"], checkpoint)
    fitted = stored | {"pos_embed": _resampled(stored["pos_embed"], grid, model)}
    load_strictly(model, fitted, checkpoint.subject, f" in {path}")
    return _origin(checkpoint, selection, stored, selection.family(stored), grid)


def _without_other_pooling(selection: Selection, expected: Mapping[str, Tensor]) -> Selection:
    """Return the weights without those of pooling that the model does otherwise.

    That is a norm after pooling, as fine-tuning may leave one, or the attention pool of SigLIP, which timm's backbones
    named ``siglip_gap`` do without.
    """
    poolings = {_POOLED_NORM: (_POOLED_NORM,), _ATTENTION_POOL: selection.layout.pool}
    other = [starts for own, starts in poolings.items() if not any(key.startswith(own) for key in expected)]
    unread = tuple(start for starts in other for start in starts)
    kept = {key: value for key, value in selection.weights.items() if not key.startswith(unread)}
    return replace(selection, weights=kept)


def load_with_timm_names(checkpoint: BackboneCheckpoint) -> Origin:
    """Load a checkpoint with timm's names into any other model; return its origin. A classifier is ignored."""
    model, path = checkpoint.model, checkpoint.path
    classifiers = tuple(f"{name}." for name in classifiers_of(model))
    selection = select_named(flat_tensors(read_checkpoint(path)), list(model.state_dict()), f" in {path}")
    stored = {key: value for key, value in selection.weights.items() if not key.startswith(classifiers)}
    load_strictly(model, stored, f"{checkpoint.subject}{selection.hint()}", f" in {path}")
    return _origin(checkpoint, selection, stored, selection.family_of_prefix, patch_grid_side(model))


def _origin(
    checkpoint: BackboneCheckpoint, selection: Selection, stored: dict[str, Tensor], family: Family | None, grid: int
) -> Origin:
    other, (mean, std) = "", normalisation_of(checkpoint.model)
    if (
        family is not None
        and (family.mean, family.std) != (mean, std)
        and not _has_own_normalisation(checkpoint.name, family)
    ):
        other, mean, std = family.name, family.mean, family.std
    return Origin(
        backbone=checkpoint.name,
        sha256=_hash_of(stored),
        grid=grid,
        mean=mean,
        std=std,
        file=checkpoint.path.name,
        part=selection.part,
        family=other,
        notes=tuple(_notes(checkpoint, selection, family, grid)),
    )


def _has_own_normalisation(name: str, family: Family) -> bool:
    """Return whether a name of timm stands for weights of the family and says how their images are normalised.

    A name without a tag may stand for any weights of its architecture, so all of them must agree.
    """
    names = [name] if "." in name else timm.list_pretrained(f"{name}.*")
    normalisations = {(config.mean, config.std) for config in map(timm.get_pretrained_cfg, names)}
    return len(normalisations) == 1 and any(mark in each for mark in family.marks for each in names)


def _notes(checkpoint: BackboneCheckpoint, selection: Selection, family: Family | None, grid: int) -> Iterator[str]:
    model, file = checkpoint.model, checkpoint.path.name
    if selection.others:
        yield selection.choice(file)
    used = patch_grid_side(model)
    if grid != used:
        yield f"{file}: position embeddings are resampled from {grid} x {grid} to {used} x {used}"
    if selection.layout.family is family is CLIP and not isinstance(model.blocks[0].mlp.act, QuickGELU):
        yield f"{file}: OpenAI trained CLIP with QuickGELU, which only backbones named clip_quickgelu have"
    if selection.prompts():
        yield f"{file}: its prompts are ignored; only its backbone is used"


def _hash_of(stored: dict[str, Tensor]) -> str:
    """Return the hash of weights in float32, as the model computes with them; half precision loses nothing by it."""
    half = (torch.float16, torch.bfloat16)
    return weights_sha256({key: value.float() if value.dtype in half else value for key, value in stored.items()})


def _as_convolution(value: Tensor) -> Tensor:
    """Return the kernel (D, 3, P, P) of a patch embedding; a matrix (D, 3 P P) is how old files store it."""
    if value.ndim != 2:
        return value
    side = grid_side(value.shape[1] // 3)
    if side is None or value.shape[1] != 3 * side * side:
        return value
    return value.reshape(len(value), 3, side, side)


def _refuse_other_patches(kernel: Tensor, checkpoint: BackboneCheckpoint) -> None:
    """Raise ``InputError`` for patches of another size: timm would resample them into a model that nobody trained."""
    name = checkpoint.name
    sizes = tuple(kernel.shape[2:]), tuple(checkpoint.model.patch_embed.patch_size)
    if kernel.ndim == 4 and sizes[0] != sizes[1]:
        (height, width), (expected_height, expected_width) = sizes
        other = name.split(".")[0].replace(f"patch{expected_height}", f"patch{height}")
        hint = f"; try --backbone {other}" if other != name and timm.is_model(other) else ""
        raise InputError(
            f"checkpoint {checkpoint.path} has patches of {height} x {width} pixels, but backbone {name} has patches "
            f"of {expected_height} x {expected_width}{hint}"
        )


def _refuse_other_depth(stored: dict[str, Tensor], checkpoint: BackboneCheckpoint) -> None:
    blocks = {int(key.split(".")[1]) for key in stored if re.match(r"blocks\.\d+\.", key)}
    expected = len(checkpoint.model.blocks)
    if blocks and blocks == set(range(len(blocks))) and len(blocks) != expected:
        raise checkpoint.misfit(f"it has {len(blocks)} encoder blocks, the backbone {expected}")


def _refuse_other_heads(num_heads: int | None, checkpoint: BackboneCheckpoint) -> None:
    expected = int(checkpoint.model.blocks[0].attn.num_heads)
    if num_heads not in (None, expected):
        raise checkpoint.misfit(f"it has {num_heads} attention heads, the backbone {expected}")


def _stored_grid(positions: Tensor, checkpoint: BackboneCheckpoint) -> int:
    """Return the side of the grid of position embeddings (1, prefix + side^2, D).

    Raises ``InputError`` for a grid that is not square, and for embeddings without those of the class token.
    """
    prefix = _tokens_before_grid(checkpoint.model)
    side = grid_side(positions.shape[1] - prefix) if positions.ndim == 3 else None
    if side is None:
        expected = f"{prefix} for the class token and others before a square grid" if prefix else "a square grid"
        shape = tuple(positions.shape)
        raise checkpoint.misfit(f"its position embeddings are {shape}, expected (1, N, D) with N positions: {expected}")
    return side


def _tokens_before_grid(model: Any) -> int:
    return 0 if model.no_embed_class else int(model.num_prefix_tokens)


def _resampled(positions: Tensor, grid: int, model: Any) -> Tensor:
    new_size = list(model.patch_embed.grid_size)
    if new_size == [grid, grid]:
        return positions
    return resample_abs_pos_embed(
        positions, new_size, old_size=[grid, grid], num_prefix_tokens=_tokens_before_grid(model)
    )
