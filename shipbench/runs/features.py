"""Features of the frozen backbone, computed once per data and weights and cached on disk."""

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

from shipbench.backbones import refuse_unpromptable
from shipbench.backbones.state_dicts import weights_sha256
from shipbench.errors import InputError
from shipbench.events import DISCARD, Emitter
from shipbench.methods import FrozenFeatures
from shipbench.prompting import block_outputs
from shipbench.runtime.cache import cache_dir
from shipbench.runtime.files import atomic_path
from shipbench.training.inputs import Inputs
from shipbench.training.micro_batches import MicroBatches, in_micro_batches, inference_batch


def cached_features(key: tuple[object, ...], compute: Callable[[], Tensor], emitter: Emitter = DISCARD) -> Tensor:
    """Return the tensor cached under a hash of ``key``; compute it if the file is missing or damaged."""
    name = hashlib.sha256(repr(key).encode()).hexdigest()[:32]
    path = cache_dir("features") / f"{name}.safetensors"
    cached = _read(path)
    if cached is not None:
        return cached
    if path.exists():
        emitter.note(f"the cached features in {path} are damaged; computing them again")
    features = compute().cpu().contiguous()
    # A failed write (a full disk) only makes the next run compute the features again.
    with contextlib.suppress(SafetensorError, OSError), atomic_path(path) as temporary:
        save_file({"features": features}, temporary, metadata={"sha256": weights_sha256({"features": features})})
    return features


def _read(path: Path) -> Tensor | None:
    """Return the tensor in a file, or None if the file is missing or any byte of it has changed."""
    try:
        with safe_open(path, framework="pt") as stream:
            features, expected = stream.get_tensor("features"), (stream.metadata() or {}).get("sha256")
    except (SafetensorError, OSError):
        return None
    return features if expected == weights_sha256({"features": features}) else None


@torch.no_grad()
def block_features(
    backbone: VisionTransformer, inputs: Inputs, kind: str, batch_size: int = 64, emitter: Emitter = DISCARD
) -> Tensor:
    """Return features (images, blocks, D), float32: each block's CLS token, or the mean over its image tokens.

    They are on the CPU, as a device may lack the memory for those of all images. ``kind`` is ``"cls"`` or ``"mean"``.
    Raises ``InputError`` for a backbone whose blocks do not pass tokens on, and for ``"cls"`` without a class token.
    """
    refuse_unpromptable(backbone)
    if kind == "cls" and backbone.cls_token is None:
        raise InputError("the backbone has no class token; use features of the mean of its tokens (feature=mean)")
    backbone.eval()
    micro_batches = MicroBatches(batch_size, "the features of every block", emitter.note)
    return in_micro_batches(inputs, micro_batches, lambda images: _all_blocks(backbone, images, kind))


def _all_blocks(backbone: VisionTransformer, images: Tensor, kind: str) -> Tensor:
    outputs = block_outputs(backbone, images)
    return torch.stack([tokens[:, 0] if kind == "cls" else tokens.mean(dim=1) for tokens in outputs], dim=1).float()


@torch.no_grad()
def frozen_features(model: FrozenFeatures, inputs: Inputs, emitter: Emitter = DISCARD) -> Tensor:
    """Return the features (images, D), float32 on the CPU, that a model's readout is trained on."""
    size = inference_batch(inputs.labels.device)
    micro_batches = MicroBatches(size, "the features of the frozen backbone", emitter.note)
    return in_micro_batches(inputs, micro_batches, lambda images: model.features(images).float())
