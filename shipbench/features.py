"""Features of the frozen backbone, computed once per data and weights and kept on disk like the images."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from shipbench.cache import atomic_path, cache_dir
from shipbench.methods import FrozenFeatures
from shipbench.prompting import embed
from shipbench.training.inputs import Inputs


def cached_features(key: tuple[object, ...], compute: Callable[[], Tensor]) -> Tensor:
    """Return a tensor that is kept under a hash of ``key``; a damaged file is computed again."""
    name = hashlib.sha256(repr(key).encode()).hexdigest()[:32]
    path = cache_dir("features") / f"{name}.safetensors"
    if path.exists():
        try:
            return load_file(path)["features"]
        except (SafetensorError, KeyError, OSError):
            path.unlink(missing_ok=True)
    features = compute().cpu().contiguous()
    with atomic_path(path) as temporary:
        save_file({"features": features}, temporary)
    return features


@torch.no_grad()
def block_features(backbone: VisionTransformer, inputs: Inputs, kind: str, batch_size: int = 64) -> Tensor:
    """Return features (images, blocks, D), float32: every block's CLS token, or the mean of its image tokens."""
    backbone.eval()
    rows = [_all_blocks(backbone, inputs.batch(c), kind) for c in torch.arange(len(inputs)).split(batch_size)]
    return torch.cat(rows)


def _all_blocks(backbone: VisionTransformer, images: Tensor, kind: str) -> Tensor:
    tokens = embed(backbone, images)
    features = []
    for block in backbone.blocks:
        tokens = block(tokens)
        features.append(tokens[:, 0] if kind == "cls" else tokens.mean(dim=1))
    return torch.stack(features, dim=1).float()


@torch.no_grad()
def frozen_features(model: FrozenFeatures, inputs: Inputs, batch_size: int = 128) -> Tensor:
    """Return the features (images, D), float32, that a model's readout is trained on."""
    return torch.cat([model.features(inputs.batch(c)).float() for c in torch.arange(len(inputs)).split(batch_size)])
