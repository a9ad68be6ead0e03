"""Loading backbones: accepted and refused inputs, preprocessing, and a hash that is the same in every file format."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file

from shipbench.backbones import load_backbone, preprocessing_of, sha256_of
from shipbench.errors import InputError
from tests.parity.golden import golden_file


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    torch.manual_seed(5)
    return timm.create_model("test_vit", num_classes=10).state_dict()


def test_random_weights_are_seeded() -> None:
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    one, other = (load_backbone("test_vit", checkpoint="random") for _ in range(2))
    assert sha256_of(one) == sha256_of(other)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_equal_weights_have_one_hash_in_every_format(tmp_path: Path, state: dict[str, torch.Tensor]) -> None:
    save_file(state, tmp_path / "w.safetensors")
    torch.save(state, tmp_path / "w.pth")
    torch.save({"model": {f"module.{key}": value for key, value in state.items()}}, tmp_path / "wrapped.pt")
    names = ("w.safetensors", "w.pth", "wrapped.pt")
    hashes = {sha256_of(load_backbone("test_vit", checkpoint=tmp_path / name)) for name in names}
    assert len(hashes) == 1
    changed = dict(state) | {"norm.bias": state["norm.bias"] + 1e-6}
    save_file(changed, tmp_path / "changed.safetensors")
    assert sha256_of(load_backbone("test_vit", checkpoint=tmp_path / "changed.safetensors")) not in hashes


def test_the_hash_is_that_of_the_weights_before_resampling() -> None:
    native = load_backbone("test_vit", checkpoint="random")
    small = load_backbone("test_vit", checkpoint="random", image_size=64)
    assert small.pos_embed.shape != native.pos_embed.shape
    assert sha256_of(small) == sha256_of(native)
    assert preprocessing_of(small).image_size == 64
    assert small(torch.zeros(1, 3, 64, 64)).shape == (1, 64)


def test_preprocessing_comes_with_the_weights() -> None:
    half = preprocessing_of(load_backbone("vit_tiny_patch16_224", checkpoint="random"))
    assert half.mean == half.std == (0.5, 0.5, 0.5)
    clip = preprocessing_of(load_backbone("vit_xsmall_patch16_clip_224", checkpoint="random"))
    assert clip.mean != half.mean


@pytest.mark.parametrize("damage", ["missing", "unexpected", "shape"])
def test_keys_that_do_not_fit_are_named(tmp_path: Path, state: dict[str, torch.Tensor], damage: str) -> None:
    broken = dict(state)
    if damage == "missing":
        del broken["blocks.1.mlp.fc1.bias"]
    elif damage == "unexpected":
        broken["blocks.9.mlp.fc1.bias"] = torch.zeros(3)
    else:
        broken["blocks.1.mlp.fc1.bias"] = torch.zeros(3)
    save_file(broken, tmp_path / "w.safetensors")
    with pytest.raises(InputError, match=r"blocks\.[19]\.mlp\.fc1\.bias"):
        load_backbone("test_vit", checkpoint=tmp_path / "w.safetensors")


# The stem of MobileCLIP has batch norms; the largest ViTamin has no position embeddings.
STEMS: list[tuple[str, dict[str, Any]]] = [
    ("vit_base_mci_224.apple_mclip", {"depth": 1}),
    ("vitamin_small_224", {"depth": 1}),
    ("vitamin_small_224", {"depth": 1, "pos_embed": "none"}),
]


@pytest.mark.parametrize(("name", "sizes"), STEMS)
def test_a_vit_whose_patches_come_from_convolutions(tmp_path: Path, name: str, sizes: dict[str, Any]) -> None:
    state = timm.create_model(name, **sizes).state_dict()
    state |= {key: torch.full_like(value, 7) for key, value in state.items() if not value.is_floating_point()}
    torch.save({"state_dict": {f"visual.trunk.{key}": value for key, value in state.items()}}, tmp_path / "w.pt")
    model = load_backbone(name, checkpoint=tmp_path / "w.pt", architecture=sizes)
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert preprocessing_of(model).mean == model.pretrained_cfg["mean"]
    small = load_backbone(name, checkpoint=tmp_path / "w.pt", architecture=sizes, image_size=64)
    assert sha256_of(small) == sha256_of(model)
    assert small(torch.zeros(1, 3, 64, 64)).isfinite().all()


def test_googles_naming() -> None:
    import numpy as np
    from safetensors.torch import load_file

    sizes = {"embed_dim": 48, "num_heads": 4, "depth": 12}
    path = golden_file("google_npz_tiny.npz")
    model = load_backbone("vit_tiny_patch16_224", checkpoint=path, architecture=sizes)
    images = load_file(golden_file("ship_tiny.safetensors"))["images"].float()
    expected = np.load(golden_file("google_npz_tiny_expected.npz"))["final_norm_cls"]
    with torch.no_grad():
        features = model.forward_features(images)[:, 0]
    torch.testing.assert_close(features, torch.from_numpy(expected), rtol=0, atol=2e-5)
    with pytest.raises(InputError, match="12 encoder blocks"):
        load_backbone("vit_tiny_patch16_224", checkpoint=path, architecture=sizes | {"depth": 6})
