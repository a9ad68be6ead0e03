"""Loading a backbone by its timm name: from the hub, a checkpoint file, or a seeded random initialisation."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import timm
import torch
from timm.layers import to_2tuple
from timm.models import is_model_in_modules
from timm.models.vision_transformer import VisionTransformer

from shipbench.backbones.architecture import has_stochastic_depth, mlp_class, why_unpromptable
from shipbench.backbones.checkpoint_loading import BackboneCheckpoint, load_plain_vit, load_with_timm_names
from shipbench.backbones.features import input_size_of, normalisation_of, patch_grid_side
from shipbench.backbones.origin import Origin, Triple
from shipbench.backbones.pinned import DEMO_BACKBONE, RANDOM, check_image_size, no_stochastic_depth
from shipbench.backbones.state_dicts import load_strictly, read_state_dict, require_finite, weights_sha256
from shipbench.errors import InputError, did_you_mean, one_line
from shipbench.runtime.hub_output import as_silent_as_console

_DEMO_ARCHITECTURE = "vit_small_patch14_dinov2"


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
    if not isinstance(name, str):
        raise InputError(
            f"backbone is {name!r:.60}; give the name of a timm model, as 'shipbench list backbones' has it"
        )
    model = _create(name, checkpoint, drop_path, architecture or {})
    size = image_size or input_size_of(model)[0]
    if checkpoint is None or str(checkpoint) == RANDOM:
        if checkpoint is None:
            require_finite(model.state_dict(), f" in the weights of {name}")
        origin = _origin_by_name(model, name)
        _resize(model, size, name)
    elif type(model) is not VisionTransformer or model.pos_embed is None:
        origin = load_with_timm_names(BackboneCheckpoint(model, Path(checkpoint), name))
        _resize(model, size, name)
    else:
        # The file's position embeddings are resampled once, to the final size.
        _resize(model, size, name)
        origin = load_plain_vit(BackboneCheckpoint(model, Path(checkpoint), name))
    model.shipbench_origin = replace(_described(origin, model, name), image_size=size)
    model.shipbench_preprocessing = Preprocessing(size, origin.mean, origin.std)
    return model.eval()


def _described(origin: Origin, model: Any, name: str) -> Origin:
    """Return ``origin`` with what a method can use of the architecture."""
    return replace(
        origin,
        unpromptable=why_unpromptable(model),
        mlp=mlp_class(model),
        class_token=getattr(model, "cls_token", None) is not None,
        position_embeddings=type(model) is VisionTransformer and model.pos_embed is not None,
        blocks=len(getattr(model, "blocks", ())),
        stochastic_depth=type(model) is VisionTransformer or _accepts_drop_path(timm_name(name)),
    )


def _origin_by_name(model: VisionTransformer, name: str) -> Origin:
    """Return the origin of weights that belong to a name, or of random ones, at the native image size."""
    mean, std = normalisation_of(model)
    return Origin(name, weights_sha256(model.state_dict()), patch_grid_side(model), mean, std)


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
        with torch.random.fork_rng(devices=[]), as_silent_as_console("huggingface_hub"):
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


def _resize(model: Any, image_size: int, name: str) -> None:
    """Set the image size of a model; raise ``InputError`` for one that the architecture cannot have."""
    native = input_size_of(model)
    patches = getattr(model, "patch_embed", None)
    # Some of timm's patch embeddings keep one number for both sides.
    check_image_size(image_size, int(to_2tuple(getattr(patches, "patch_size", 1))[0]), name)
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
