"""SigLIP in the layouts of other libraries, with its attention pool and without."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn import functional

from shipbench.backbones import origin_of, preprocessing_of
from tests.backbones import layouts
from tests.backbones.test_layouts import Weights, assert_same, loaded, refusal, saved

POOLED, AVERAGED = "vit_base_patch16_siglip_224.webli", "vit_base_patch16_siglip_gap_224"
WIDTH, HEADS = 64, 2
SIZES = {"embed_dim": WIDTH, "depth": 2, "num_heads": HEADS, "img_size": 160}
Write = Callable[[Path, Weights], Path]


def big_vision(path: Path, state: Weights) -> Path:
    """Write the image tower of big_vision's SigLIP beside a tensor of its text tower."""
    arrays = {f"params/img/{key}": value for key, value in layouts.google(state, HEADS, big_vision=True).items()}
    np.savez(path.with_suffix(".npz"), **arrays, **{"params/txt/pos_embedding": np.zeros((1, 64, 32), np.float32)})
    return path.with_suffix(".npz")


def scanned(path: Path, state: Weights) -> Path:
    """Write what ``big_vision`` writes of an encoder whose blocks are scanned."""
    np.savez(path.with_suffix(".npz"), **layouts.scanned(layouts.google(state, HEADS, big_vision=True)))
    return path.with_suffix(".npz")


def transformers(path: Path, state: Weights) -> Path:
    text = {"text_model.head.weight": torch.zeros(WIDTH, WIDTH), "logit_scale": torch.zeros(1)}
    return saved(path, layouts.hugging_face_siglip(state) | text)


def open_clip(path: Path, state: Weights) -> Path:
    return saved(path, layouts.open_clip(state))


def fine_tuned(path: Path, state: Weights) -> Path:
    return saved(path, state | {"head.weight": torch.zeros(10, WIDTH), "head.bias": torch.zeros(10)})


EVERY = pytest.mark.parametrize("write", [big_vision, scanned, transformers, open_clip, fine_tuned])


def random_state(name: str) -> Weights:
    torch.manual_seed(5)
    state = timm.create_model(name, num_classes=0, **SIZES).state_dict()
    return {key: torch.randn_like(value) / 8 for key, value in state.items()}


@EVERY
@pytest.mark.parametrize("name", [POOLED, AVERAGED])
def test_siglip_is_read_and_not_normalised_as_clip(tmp_path: Path, write: Write, name: str) -> None:
    state = random_state(name)
    model = loaded(write(tmp_path / "w.pt", state), name, architecture=SIZES)
    assert_same(model, state)
    assert (origin_of(model).family, origin_of(model).notes) == ("", ())
    assert (preprocessing_of(model).mean, preprocessing_of(model).std) == ((0.5,) * 3, (0.5,) * 3)


def test_patches_of_naflex_end_with_the_channels(tmp_path: Path) -> None:
    """In transformers' ``Siglip2VisionModel``, a linear layer embeds patches that are flattened as (P, P, 3)."""
    state = random_state(POOLED)
    weights = layouts.hugging_face_siglip(state)
    name = "vision_model.embeddings.patch_embedding.weight"
    weights[name] = weights[name].permute(0, 2, 3, 1).flatten(1)
    assert_same(loaded(saved(tmp_path / "w.pt", weights), POOLED, architecture=SIZES), state)


@EVERY
def test_backbones_that_average_do_without_the_attention_pool(tmp_path: Path, write: Write) -> None:
    state = random_state(POOLED)
    model = loaded(write(tmp_path / "w.pt", state), AVERAGED, architecture=SIZES)
    assert_same(model, {key: value for key, value in state.items() if not key.startswith("attn_pool.")})


@EVERY
def test_a_missing_attention_pool_is_named(tmp_path: Path, write: Write) -> None:
    path = write(tmp_path / "w.pt", random_state(AVERAGED))
    assert "missing attn_pool.kv.bias" in refusal(path, POOLED, architecture=SIZES)


# The pools of both libraries, computed from the tensors in their files


def pooled_by_transformers(path: Path, tokens: Tensor) -> Tensor:
    stored = torch.load(path, weights_only=True)
    start = "vision_model.head."
    head = {key[len(start) :]: value for key, value in stored.items() if key.startswith(start)}
    attention = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)
    attention.load_state_dict({key[10:]: value for key, value in head.items() if key.startswith("attention.")})
    pooled = attention(head["probe"].expand(len(tokens), -1, -1), tokens, tokens)[0]
    normed = functional.layer_norm(pooled, [WIDTH], head["layernorm.weight"], head["layernorm.bias"], 1e-6)
    hidden = functional.gelu(functional.linear(normed, head["mlp.fc1.weight"], head["mlp.fc1.bias"]))
    return (pooled + functional.linear(hidden, head["mlp.fc2.weight"], head["mlp.fc2.bias"]))[:, 0]


def pooled_by_big_vision(path: Path, tokens: Tensor) -> Tensor:
    start = "params/img/MAPHead_0/"
    head = {key[len(start) :]: torch.from_numpy(value) for key, value in np.load(path).items() if key.startswith(start)}
    attention = "MultiHeadDotProductAttention_0"

    def projected(name: str, inputs: Tensor) -> Tensor:
        kernel, bias = (head[f"{attention}/{name}/{kind}"] for kind in ("kernel", "bias"))
        return torch.einsum("bnd,dhk->bnhk", inputs, kernel) + bias

    query = projected("query", head["probe"].expand(len(tokens), -1, -1))
    scores = torch.einsum("bqhk,bnhk->bhqn", query, projected("key", tokens)) / (WIDTH / HEADS) ** 0.5
    mixed = torch.einsum("bhqn,bnhk->bqhk", scores.softmax(-1), projected("value", tokens))
    pooled = torch.einsum("bqhk,hkd->bqd", mixed, head[f"{attention}/out/kernel"]) + head[f"{attention}/out/bias"]
    normed = functional.layer_norm(pooled, [WIDTH], head["LayerNorm_0/scale"], head["LayerNorm_0/bias"], 1e-6)
    hidden = functional.gelu(normed @ head["MlpBlock_0/Dense_0/kernel"] + head["MlpBlock_0/Dense_0/bias"])
    return (pooled + hidden @ head["MlpBlock_0/Dense_1/kernel"] + head["MlpBlock_0/Dense_1/bias"])[:, 0]


@pytest.mark.parametrize(
    ("write", "pooled"), [(transformers, pooled_by_transformers), (big_vision, pooled_by_big_vision)]
)
def test_the_attention_pool_computes_what_its_library_does(
    tmp_path: Path, write: Write, pooled: Callable[[Path, Tensor], Tensor]
) -> None:
    path = write(tmp_path / "w.pt", random_state(POOLED))
    model = loaded(path, POOLED, architecture=SIZES)
    tokens = torch.randn(3, 100, WIDTH)
    with torch.no_grad():
        torch.testing.assert_close(model.attn_pool(tokens), pooled(path, tokens), rtol=1e-4, atol=1e-5)
