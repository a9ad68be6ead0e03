"""Loading a backbone by its timm name: from the hub, a checkpoint file, or a seeded random initialisation."""

from __future__ import annotations

import os
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from timm.models.vision_transformer import Attention, Block, VisionTransformer, checkpoint_filter_fn

from shipbench.backbones.pinned import DEMO_BACKBONE, check_image_size
from shipbench.backbones.state_dicts import load_strictly, members_of_zip, read_state_dict, weights_sha256
from shipbench.errors import InputError, did_you_mean, one_line

_DEMO_ARCHITECTURE = "vit_small_patch14_dinov2"
RANDOM = "random"


@dataclass(frozen=True)
class Preprocessing:
    """The input of a backbone: square images of ``image_size`` pixels, scaled to [0, 1], then (x - mean) / std."""

    image_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


def load_backbone(
    name: str,
    *,
    checkpoint: str | Path | None = None,
    image_size: int | None = None,
    drop_path: float = 0.0,
    architecture: dict[str, int] | None = None,
) -> VisionTransformer:
    """Return a plain timm ``VisionTransformer`` without a head.

    ``checkpoint`` is a file (``.npz`` in Google's naming, ``.safetensors``, ``.pth``), ``"random"`` for a seeded
    random initialisation, or None for the pretrained weights of ``name``. An ``image_size`` other than the native one
    resamples position embeddings as timm does (bicubic, antialiased). ``architecture`` overrides sizes of a timm model.
    ``preprocessing_of`` and ``sha256_of`` accept the result. Raises ``InputError`` for an unknown name, a model that
    cannot be prompted, or a checkpoint of another model.
    """
    model = _create(name, checkpoint, drop_path, architecture or {})
    refuse_unpromptable(model, name)
    if checkpoint is not None and str(checkpoint) != RANDOM:
        _load_file(model, Path(checkpoint), name)
    model.shipbench_sha256 = weights_sha256(model.state_dict())
    native = int(model.patch_embed.img_size[0])
    _resize(model, image_size or native, name)
    config = model.pretrained_cfg
    model.shipbench_preprocessing = Preprocessing(image_size or native, tuple(config["mean"]), tuple(config["std"]))
    return model.eval()


def preprocessing_of(backbone: VisionTransformer) -> Preprocessing:
    """Return the preprocessing of a backbone from ``load_backbone``."""
    return backbone.shipbench_preprocessing


def sha256_of(backbone: VisionTransformer) -> str:
    """Return the hash of the weights of a backbone from ``load_backbone``, before position embeddings are resampled."""
    return backbone.shipbench_sha256


def loaded_sha256(name: str, checkpoint: str | Path | None, image_size: int | None) -> str:
    """Load a backbone, fetching its weights if necessary, and return the SHA-256 (hex) of its weights."""
    return sha256_of(load_backbone(name, checkpoint=checkpoint, image_size=image_size))


def _create(
    name: str, checkpoint: str | Path | None, drop_path: float, architecture: dict[str, int]
) -> VisionTransformer:
    from_hub = checkpoint is None and name != DEMO_BACKBONE
    arch = _DEMO_ARCHITECTURE if name == DEMO_BACKBONE else name
    if not timm.is_model(arch):
        names = [DEMO_BACKBONE, *timm.list_models("*vit*")]
        raise InputError(f"unknown backbone {name!r}{did_you_mean(name, names)}; see 'shipbench list backbones'")
    _refuse_unknown_tag(arch)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = timm.create_model(
                arch, pretrained=from_hub, num_classes=0, drop_path_rate=drop_path, **architecture
            )
    except (TypeError, AssertionError) as error:
        raise InputError(f"backbone {name!r} cannot be prompted: it is not a plain ViT ({error})") from error
    except (OSError, RuntimeError) as error:
        if not from_hub:
            raise
        raise InputError(_hub_message(name, error)) from error
    if name == DEMO_BACKBONE and checkpoint is None:
        from shipbench.backbones.demo import demo_weights_path

        load_strictly(model, read_state_dict(demo_weights_path()), f"backbone {name}")
    return model


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


def refuse_unpromptable(model: Any, name: str = "") -> None:
    """Raise ``InputError`` unless ``model`` is a plain pre-norm ViT that classifies from its class token."""
    reason = _unpromptable(model)
    if reason:
        raise InputError(f"{f'backbone {name!r}' if name else 'the backbone'} cannot be prompted: {reason}")


def _unpromptable(model: Any) -> str:
    if type(model) is not VisionTransformer:
        return f"it is a {type(model).__name__}, not a plain timm VisionTransformer"
    if model.cls_token is None:
        return "it has no class token"
    if model.global_pool != "token":
        return f"it classifies from {model.global_pool or 'no'} pooling, not from its class token"
    for block in model.blocks:
        if type(block) is not Block:
            return f"its blocks are {type(block).__name__}, not plain pre-norm blocks"
        if type(block.attn) is not Attention or getattr(block.attn, "gate", None) is not None:
            return f"its attention is {type(block.attn).__name__}, not plain self-attention"
    return ""


def _load_file(model: VisionTransformer, path: Path, name: str) -> None:
    if not path.is_file():
        raise InputError(f"checkpoint {path} does not exist or is not a file")
    if path.suffix.lower() == ".npz":
        _load_npz(model, path, name)
        return
    try:
        state = checkpoint_filter_fn(read_state_dict(path), model)
    except (KeyError, RuntimeError, AttributeError, IndexError) as error:
        raise InputError(f"checkpoint {path} does not fit backbone {name}: {one_line(error)}") from error
    heads = ("head.", "fc_norm.", "pre_logits.", "head_dist.")
    state = {key: value for key, value in state.items() if not key.startswith(heads)}
    load_strictly(model, state, f"backbone {name} (checkpoint {path})")


def _load_npz(model: VisionTransformer, path: Path, name: str) -> None:
    """Load a file in Google's naming with timm's reader, after checks that the reader would silently skip."""
    try:
        names = {member.removesuffix(".npy") for member in members_of_zip(path)}
    except (OSError, zipfile.BadZipFile) as error:
        raise InputError(f"checkpoint {path} cannot be read as .npz: {error}") from error
    prefix = "opt/target/" if any(n.startswith("opt/target/") for n in names) else ""
    blocks = {n.split("encoderblock_")[1].split("/")[0] for n in names if "encoderblock_" in n}
    if f"{prefix}embedding/kernel" not in names or len(blocks) != len(model.blocks):
        raise InputError(
            f"checkpoint {path} does not fit backbone {name}: it has {len(blocks)} encoder blocks in Google's naming, "
            f"the backbone {len(model.blocks)}"
        )
    try:
        model.load_pretrained(str(path))
    except Exception as error:
        raise InputError(f"checkpoint {path} does not fit backbone {name}: {one_line(error)}") from error


def _resize(model: VisionTransformer, image_size: int, name: str) -> None:
    patch = int(model.patch_embed.patch_size[0])
    check_image_size(image_size, patch, name)
    if (image_size, image_size) != tuple(model.patch_embed.img_size):
        model.set_input_size(img_size=(image_size, image_size))
