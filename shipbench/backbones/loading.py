"""Loading a backbone by its timm name: from the hub, a checkpoint file, or a seeded random initialisation."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import timm
import torch
from timm.layers import QuickGELU, resample_abs_pos_embed
from timm.models import is_model_in_modules
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from shipbench.backbones.architecture import classifiers_of, has_stochastic_depth, why_unadaptable, why_unpromptable
from shipbench.backbones.checkpoint_files import flat_tensors, read_checkpoint
from shipbench.backbones.families import CLIP
from shipbench.backbones.features import input_size_of
from shipbench.backbones.layouts import Selection, grid_side
from shipbench.backbones.origin import Origin, Triple
from shipbench.backbones.pinned import DEMO_BACKBONE, RANDOM, check_image_size, no_stochastic_depth
from shipbench.backbones.state_dicts import (
    holds_weights,
    load_strictly,
    read_selection,
    read_state_dict,
    refuse_keys,
    refuse_unusable,
    require_finite,
    weights_sha256,
)
from shipbench.errors import InputError, did_you_mean, one_line

_DEMO_ARCHITECTURE = "vit_small_patch14_dinov2"
_PATCHES = "patch_embed.proj.weight"


@dataclass(frozen=True)
class Preprocessing:
    """The input of a backbone: square images of ``image_size`` pixels, scaled to [0, 1], then (x - mean) / std."""

    image_size: int
    mean: Triple
    std: Triple


def load_backbone(
    name: str,
    *,
    checkpoint: str | Path | None = None,
    image_size: int | None = None,
    drop_path: float = 0.0,
    architecture: dict[str, int] | None = None,
) -> Any:
    """Return a timm model without a classifier, mostly a ``VisionTransformer``.

    ``checkpoint`` is a file (``.npz``, ``.safetensors``, ``.pth``) in one of the layouts of
    ``shipbench.backbones.layouts`` (of other models than ``VisionTransformer``, with timm's names), ``"random"`` for a
    seeded random initialisation, or None for the pretrained weights of ``name``. Position embeddings for another grid
    are resampled as timm does (bicubic, antialiased). ``architecture`` overrides sizes of a timm model.
    ``preprocessing_of``, ``origin_of`` and ``sha256_of`` accept the result. Raises ``InputError`` for an unknown name,
    an image size or stochastic depth that the model cannot have, a checkpoint of another model, and weights that are
    NaN or infinite.
    """
    model = _create(name, checkpoint, drop_path, architecture or {})
    size = image_size or input_size_of(model)[0]
    if checkpoint is None or str(checkpoint) == RANDOM:
        if checkpoint is None:
            require_finite(model.state_dict(), f" in the weights of {name}")
        origin = _origin_by_name(model, name)
        _resize(model, size, name)
    elif type(model) is not VisionTransformer:
        origin = _load_other_file(model, Path(checkpoint), name)
        _resize(model, size, name)
    else:
        # The file's position embeddings are resampled once, to the final size.
        _resize(model, size, name)
        origin = _load_file(model, Path(checkpoint), name)
    model.shipbench_origin = replace(_described(origin, model, name), image_size=size)
    model.shipbench_preprocessing = Preprocessing(size, origin.mean, origin.std)
    return model.eval()


def _described(origin: Origin, model: Any, name: str) -> Origin:
    """Return ``origin`` with what a method can use of the architecture."""
    return replace(
        origin,
        unpromptable=why_unpromptable(model),
        unadaptable=why_unadaptable(model),
        class_token=getattr(model, "cls_token", None) is not None,
        position_embeddings=type(model) is VisionTransformer and model.pos_embed is not None,
        blocks=len(getattr(model, "blocks", ())),
        stochastic_depth=type(model) is VisionTransformer or _accepts_drop_path(timm_name(name)),
    )


def _origin_by_name(model: VisionTransformer, name: str) -> Origin:
    """Return the origin of weights that belong to a name, or of random ones, at the native image size."""
    mean, std = _normalisation(model)
    return Origin(name, weights_sha256(model.state_dict()), _grid_side(model), mean, std)


def _grid_side(model: Any) -> int:
    """Return the side of the grid of patches, 0 for an architecture without one."""
    grid = getattr(getattr(model, "patch_embed", None), "grid_size", None)
    return int(grid[0]) if grid else 0


def _normalisation(model: VisionTransformer) -> tuple[Triple, Triple]:
    config = model.pretrained_cfg
    return tuple(config["mean"]), tuple(config["std"])


def preprocessing_of(backbone: VisionTransformer) -> Preprocessing:
    """Return the preprocessing of a backbone from ``load_backbone``."""
    return backbone.shipbench_preprocessing


def origin_of(backbone: VisionTransformer) -> Origin:
    """Return where the weights of a backbone from ``load_backbone`` come from."""
    return backbone.shipbench_origin


def sha256_of(backbone: VisionTransformer) -> str:
    """Return the hash of the weights of a backbone from ``load_backbone``, before position embeddings are resampled."""
    return origin_of(backbone).sha256


def timm_name(name: str) -> str:
    """Return the name by which ``timm.create_model`` creates the architecture of backbone ``name``."""
    return _DEMO_ARCHITECTURE if name == DEMO_BACKBONE else name


def _create(
    name: str, checkpoint: str | Path | None, drop_path: float, architecture: dict[str, int]
) -> VisionTransformer:
    from_hub = checkpoint is None and name != DEMO_BACKBONE
    arch = timm_name(name)
    if not timm.is_model(arch):
        names = [DEMO_BACKBONE, *timm.list_models("*vit*")]
        raise InputError(f"unknown backbone {name!r}{did_you_mean(name, names)}; see 'shipbench list backbones'")
    _refuse_unknown_tag(arch)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            options = {**_stochastic_depth(arch, drop_path, name), **_fixed_size(arch), **architecture}
            model = timm.create_model(arch, pretrained=from_hub, num_classes=0, **options)
    except (TypeError, AssertionError) as error:
        raise InputError(f"backbone {name!r} cannot be created: {one_line(error)}") from error
    except (OSError, RuntimeError) as error:
        if not from_hub:
            raise
        raise InputError(_hub_message(name, error)) from error
    if name == DEMO_BACKBONE and checkpoint is None:
        from shipbench.backbones.demo import demo_weights_path

        load_strictly(model, read_state_dict(demo_weights_path()), f"backbone {name}")
    return model


def _stochastic_depth(arch: str, rate: float, name: str) -> dict[str, float]:
    """Return timm's argument for stochastic depth; raise ``InputError`` for a rate above 0 in a model without any."""
    if not rate:
        return {}
    if not is_model_in_modules(arch, ["vision_transformer"]) and not _accepts_drop_path(arch):
        raise InputError(no_stochastic_depth(name, rate))
    return {"drop_path_rate": rate}


def _fixed_size(arch: str) -> dict[str, bool]:
    """Return timm's argument with which an ``Eva`` keeps its rotary positions: all images of a run have one size.

    For images of any size, it would compute them in every pass, on the host for DINOv3; a GPU would wait for their
    copy, and no CUDA graph could hold the pass.
    """
    return {"dynamic_img_size": False} if is_model_in_modules(arch, ["eva"]) else {}


@cache
def _accepts_drop_path(arch: str) -> bool:
    """Return whether timm builds the architecture with stochastic depth; building it once is the only way to know."""
    try:
        with torch.random.fork_rng(devices=[]):
            return has_stochastic_depth(timm.create_model(arch, pretrained=False, num_classes=0, drop_path_rate=0.1))
    except (TypeError, AssertionError, RuntimeError):
        return False


def _refuse_unknown_tag(name: str) -> None:
    try:
        timm.get_pretrained_cfg(name)
    except RuntimeError as error:
        tags = timm.list_pretrained(f"{name.split('.')[0]}.*")
        raise InputError(
            f"unknown backbone {name!r}{did_you_mean(name, tags)}; see 'shipbench list backbones'"
        ) from error


def _hub_message(name: str, error: Exception) -> str:
    reason = one_line(error).rstrip(".")
    offline = " (HF_HUB_OFFLINE is set)" if os.environ.get("HF_HUB_OFFLINE") else ""
    return (
        f"could not fetch the weights of {name} from the model hub{offline}: {reason}; "
        "pass --checkpoint FILE with local weights, or --checkpoint random to try the harness"
    )


def _load_file(model: VisionTransformer, path: Path, name: str) -> Origin:
    """Load a checkpoint into a model of the final image size; return where its weights come from."""
    selection = read_selection(path)
    what, where = f"backbone {name}", f" in {path}"
    if not selection.recognised:
        what = f"{what}: checkpoint {path} does not fit any known layout{selection.hint()}"
        refuse_keys(what, list(model.state_dict()), list(selection.weights))
    usable = {key: value for key, value in selection.weights.items() if holds_weights(value)}
    try:
        stored = replace(selection, weights=usable).in_timm_names()
    except (RuntimeError, IndexError) as error:
        raise InputError(f"checkpoint {path} does not fit {what}: {one_line(error)}") from error
    expected = model.state_dict()
    unusable = selection.of_backbone(selection.weights.keys() - usable.keys())
    missing = [key for key in expected if key not in stored]
    refuse_unusable(unusable, missing, where)
    _refuse_other_depth(stored, model, path, name)
    _refuse_other_heads(selection.num_heads(), model, path, name)
    refuse_keys(f"{what} (checkpoint {path}){selection.hint()}", missing, [*(stored.keys() - expected), *unusable])
    stored = {key: _as_convolution(value) if key == _PATCHES else value for key, value in stored.items()}
    _refuse_other_patches(stored[_PATCHES], model, path, name)
    grid = _stored_grid(stored["pos_embed"], model, path, name)
    fitted = stored | {"pos_embed": _resampled(stored["pos_embed"], grid, model)}
    load_strictly(model, fitted, f"{what} (checkpoint {path})", where)
    return _origin_of_file(model, selection, stored, grid, path, name)


def _load_other_file(model: Any, path: Path, name: str) -> Origin:
    """Load a checkpoint with timm's names into a model that is no plain ViT; a classifier in it is left aside."""
    classifiers = tuple(f"{name}." for name in classifiers_of(model))
    tensors = _unwrapped(flat_tensors(read_checkpoint(path)), next(iter(model.state_dict())), path)
    stored = {key: value for key, value in tensors.items() if not key.startswith(classifiers)}
    load_strictly(model, stored, f"backbone {name} (checkpoint {path})", f" in {path}")
    mean, std = _normalisation(model)
    sha256 = weights_sha256({key: _widened(value) for key, value in stored.items()})
    return Origin(name, sha256, _grid_side(model), mean, std, file=path.name)


def _unwrapped(tensors: dict[str, Tensor], first: str, path: Path) -> dict[str, Tensor]:
    """Return the tensors beside the one called ``first``, without the prefix of a wrapper such as ``model.``."""
    prefixes = sorted({key.removesuffix(first) for key in tensors if f".{key}".endswith(f".{first}")})
    if len(prefixes) > 1:
        sets = ", ".join(prefix.rstrip(".") or "at its top" for prefix in prefixes)
        raise InputError(f"there are several sets of weights in {path}: {sets}; save the one that you mean alone")
    if not prefixes:
        return tensors
    return {key.removeprefix(prefixes[0]): value for key, value in tensors.items() if key.startswith(prefixes[0])}


def _origin_of_file(
    model: VisionTransformer, selection: Selection, stored: dict[str, Tensor], grid: int, path: Path, name: str
) -> Origin:
    family, (mean, std) = selection.family(stored["pos_embed"]), _normalisation(model)
    if family is not None and (family.mean, family.std) == (mean, std):
        family = None
    return Origin(
        backbone=name,
        sha256=weights_sha256({key: _widened(value) for key, value in stored.items()}),
        grid=grid,
        mean=family.mean if family else mean,
        std=family.std if family else std,
        file=path.name,
        part=selection.part,
        family=family.name if family else "",
        notes=tuple(_notes(model, selection, grid, path)),
    )


def _notes(model: VisionTransformer, selection: Selection, grid: int, path: Path) -> Iterator[str]:
    if selection.others:
        yield selection.choice(path.name)
    used = int(model.patch_embed.grid_size[0])
    if grid != used:
        yield f"{path.name}: position embeddings are resampled from {grid} x {grid} to {used} x {used}"
    if selection.layout.family is CLIP and not isinstance(model.blocks[0].mlp.act, QuickGELU):
        yield f"{path.name}: OpenAI trained CLIP with QuickGELU, which only backbones named clip_quickgelu have"
    if selection.prompts():
        yield f"{path.name}: its prompts are left aside; only its backbone is used"


def _widened(value: Tensor) -> Tensor:
    """Return half-precision weights in float32, which loses nothing: the model computes with the same numbers."""
    return value.float() if value.dtype in (torch.float16, torch.bfloat16) else value


def _as_convolution(value: Tensor) -> Tensor:
    """Return the kernel (D, 3, P, P) of a patch embedding; a matrix (D, 3 P P) is how old files store it."""
    if value.ndim != 2:
        return value
    side = grid_side(value.shape[1] // 3)
    if side is None or value.shape[1] != 3 * side * side:
        return value
    return value.reshape(len(value), 3, side, side)


def _refuse_other_patches(kernel: Tensor, model: VisionTransformer, path: Path, name: str) -> None:
    """Raise ``InputError`` for patches of another size: timm would resample them into a model that nobody trained."""
    sizes = tuple(kernel.shape[2:]), tuple(model.patch_embed.patch_size)
    if kernel.ndim == 4 and sizes[0] != sizes[1]:
        (height, width), (expected_height, expected_width) = sizes
        other = name.split(".")[0].replace(f"patch{expected_height}", f"patch{height}")
        hint = f"; try --backbone {other}" if other != name and timm.is_model(other) else ""
        raise InputError(
            f"checkpoint {path} has patches of {height} x {width} pixels, but backbone {name} has patches of "
            f"{expected_height} x {expected_width}{hint}"
        )


def _refuse_other_depth(stored: dict[str, Tensor], model: VisionTransformer, path: Path, name: str) -> None:
    blocks = {int(key.split(".")[1]) for key in stored if re.match(r"blocks\.\d+\.", key)}
    if blocks and blocks == set(range(len(blocks))) and len(blocks) != len(model.blocks):
        raise InputError(
            f"checkpoint {path} does not fit backbone {name}: it has {len(blocks)} encoder blocks, "
            f"the backbone {len(model.blocks)}"
        )


def _refuse_other_heads(num_heads: int | None, model: VisionTransformer, path: Path, name: str) -> None:
    expected = int(model.blocks[0].attn.num_heads)
    if num_heads not in (None, expected):
        raise InputError(
            f"checkpoint {path} does not fit backbone {name}: it has {num_heads} attention heads, "
            f"the backbone {expected}"
        )


def _stored_grid(positions: Tensor, model: VisionTransformer, path: Path, name: str) -> int:
    """Return the side of the grid of position embeddings (1, prefix + side^2, D).

    Raises ``InputError`` for a grid that is not square, and for embeddings without those of the class token.
    """
    prefix = _tokens_before_grid(model)
    side = grid_side(positions.shape[1] - prefix) if positions.ndim == 3 else None
    if side is None:
        expected = f"{prefix} for the class token and others before a square grid" if prefix else "a square grid"
        raise InputError(
            f"checkpoint {path} does not fit backbone {name}: its position embeddings are {tuple(positions.shape)}, "
            f"expected (1, N, D) with N positions: {expected}"
        )
    return side


def _tokens_before_grid(model: VisionTransformer) -> int:
    return 0 if model.no_embed_class else int(model.num_prefix_tokens)


def _resampled(positions: Tensor, grid: int, model: VisionTransformer) -> Tensor:
    new_size = list(model.patch_embed.grid_size)
    if new_size == [grid, grid]:
        return positions
    return resample_abs_pos_embed(
        positions, new_size, old_size=[grid, grid], num_prefix_tokens=_tokens_before_grid(model)
    )


def _resize(model: Any, image_size: int, name: str) -> None:
    """Set the image size of a model; raise ``InputError`` for one that the architecture cannot have."""
    native = input_size_of(model)
    patches = getattr(model, "patch_embed", None)
    check_image_size(image_size, int(getattr(patches, "patch_size", (1,))[0]), name)
    if (image_size, image_size) == native:
        return
    if not hasattr(model, "set_input_size"):
        if model.pretrained_cfg.get("fixed_input_size"):
            raise InputError(f"image_size={image_size} does not fit {name}, whose images are {native[0]} pixels wide")
        return
    try:
        model.set_input_size(img_size=(image_size, image_size))
    except (AssertionError, RuntimeError, ValueError) as error:
        raise InputError(f"image_size={image_size} does not fit {name}: {one_line(error)}") from error
