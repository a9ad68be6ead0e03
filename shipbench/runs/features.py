"""Features of the frozen backbone, computed once per data and weights and kept on disk like the images."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from shipbench.backbones.state_dicts import weights_sha256
from shipbench.methods import FrozenFeatures
from shipbench.prompting import embed
from shipbench.runtime import console
from shipbench.runtime.cache import cache_dir
from shipbench.runtime.files import atomic_path
from shipbench.training.inputs import Inputs
from shipbench.training.micro_batches import MicroBatches, Say, in_portions, inference_batch
from shipbench.training.prefetch import Prefetcher


def _silent(_: str) -> None:
    return None


def cached_features(key: tuple[object, ...], compute: Callable[[], Tensor]) -> Tensor:
    """Return a tensor that is kept under a hash of ``key``; a damaged file is computed again."""
    name = hashlib.sha256(repr(key).encode()).hexdigest()[:32]
    path = cache_dir("features") / f"{name}.safetensors"
    known = _read(path)
    if known is not None:
        return known
    if path.exists():
        console.say(f"the cached features in {path} are damaged; computing them again")
    features = compute().cpu().contiguous()
    # What cannot be kept (a full disk) costs the next run some time and this one nothing.
    with contextlib.suppress(SafetensorError, OSError), atomic_path(path) as temporary:
        save_file({"features": features}, temporary, metadata={"sha256": weights_sha256({"features": features})})
    return features


def _read(path: Path) -> Tensor | None:
    """Return the tensor in a file, or None if there is no file or not every byte of it is as it was written."""
    try:
        with safe_open(path, framework="pt") as stream:
            features, expected = stream.get_tensor("features"), (stream.metadata() or {}).get("sha256")
    except (SafetensorError, OSError):
        return None
    return features if expected == weights_sha256({"features": features}) else None


@torch.no_grad()
def block_features(
    backbone: VisionTransformer, inputs: Inputs, kind: str, batch_size: int = 64, say: Say = _silent
) -> Tensor:
    """Return features (images, blocks, D), float32: every block's CLS token, or the mean of its image tokens."""
    backbone.eval()
    portions = MicroBatches(batch_size, "the features of every block", say)
    with Prefetcher(inputs) as ahead:
        return in_portions(len(inputs), portions, lambda chunk: _all_blocks(backbone, ahead.batch(chunk), kind))


def _all_blocks(backbone: VisionTransformer, images: Tensor, kind: str) -> Tensor:
    tokens = embed(backbone, images)
    features = []
    for block in backbone.blocks:
        tokens = block(tokens)
        features.append(tokens[:, 0] if kind == "cls" else tokens.mean(dim=1))
    return torch.stack(features, dim=1).float()


@torch.no_grad()
def frozen_features(model: FrozenFeatures, inputs: Inputs, say: Say = _silent) -> Tensor:
    """Return the features (images, D), float32, that a model's readout is trained on."""
    portions = MicroBatches(inference_batch(inputs.labels.device), "the features of the frozen backbone", say)
    with Prefetcher(inputs) as ahead:
        return in_portions(len(inputs), portions, lambda chunk: model.features(ahead.batch(chunk)).float())
