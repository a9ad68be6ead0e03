"""Checkpoints as other programs write them: each is read as the same ViT, or refused in one sentence."""

from __future__ import annotations

import argparse
import datetime
import os
import pathlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from shipbench.backbones import load_backbone, origin_of, preprocessing_of, sha256_of
from shipbench.errors import InputError
from tests.backbones import layouts

Weights = dict[str, Tensor]
NAME, HEADS = "test_vit", 2
CLIP_NAME = "vit_xsmall_patch16_clip_224"
NORMED_AFTER_POOLING = "vit_betwixt_patch16_reg4_gap_256"
IMAGENET = (0.485, 0.456, 0.406)


def vit_state(seed: int = 5, **options: Any) -> Weights:
    """Return the tensors of a small ViT without a head, all of them random."""
    torch.manual_seed(seed)
    state = timm.create_model(NAME, num_classes=0, **options).state_dict()
    return {key: torch.randn_like(value) / 8 for key, value in state.items()}


@pytest.fixture(scope="module")
def state() -> Weights:
    return vit_state()


def saved(path: Path, content: Any) -> Path:
    torch.save(content, path)
    return path


def loaded(path: Path, name: str = NAME, **options: Any) -> nn.Module:
    return load_backbone(name, checkpoint=path, **options)


def assert_same(model: nn.Module, state: Weights) -> None:
    loaded_state = model.state_dict()
    assert loaded_state.keys() == state.keys()
    for key, value in state.items():
        torch.testing.assert_close(loaded_state[key], value, rtol=0, atol=0, msg=key)


def refusal(path: Path, name: str = NAME, **options: Any) -> str:
    with pytest.raises(InputError) as caught:
        loaded(path, name, **options)
    message = str(caught.value)
    assert path.name in message
    assert "\n" not in message
    return message


# What lies around the weights


class Unknown:
    """A type that no reader knows."""


def training_state() -> dict[str, Any]:
    """Return what training scripts store beside the weights."""
    model = nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    return {
        "optimizer": optimizer.state_dict(),
        "lr_scheduler": {"base_values": [np.float64(0.1)], "last": np.int64(3)},
        "epoch": 99,
        "scaler": {"scale": 65536.0, "growth_tracker": 0},
        "args": argparse.Namespace(lr=0.1, output_dir=pathlib.Path("out"), device=torch.device("cpu"), tags={"a"}),
        "best": np.array([0.5, np.nan]),
        "when": datetime.datetime(2026, 1, 1, tzinfo=datetime.timezone.utc),
        "dtype": torch.float16,
        "names": np.array(["a", "b"]),
        "long": np.zeros(2, np.longdouble),
    }


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_a_training_checkpoint_with_harmless_types_is_read(tmp_path: Path, state: Weights, legacy: bool) -> None:
    path = tmp_path / "checkpoint.pth"
    torch.save({"model": state, **training_state()}, path, _use_new_zipfile_serialization=not legacy)
    assert_same(loaded(path), state)


def test_paths_of_another_system_are_read(tmp_path: Path, state: Weights) -> None:
    windows = argparse.Namespace(path=pathlib.PureWindowsPath("c:/x"))
    assert_same(loaded(saved(tmp_path / "w.pth", {"model": state, "args": windows})), state)


@pytest.mark.parametrize("value", [Unknown(), nn.Linear(2, 2), print], ids=["own type", "module", "function"])
def test_any_other_type_is_named_with_the_remedy(tmp_path: Path, state: Weights, value: object) -> None:
    message = refusal(saved(tmp_path / "w.pth", {"model": state, "extra": value}))
    kind = value if callable(value) and not isinstance(value, nn.Module) else type(value)
    assert kind.__name__ in message
    assert "torch.save(model.state_dict(), FILE)" in message


def test_nothing_in_a_file_runs(tmp_path: Path, state: Weights) -> None:
    class Touch:
        def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
            return pathlib.Path.touch, (tmp_path / "ran",)  # type: ignore[return-value]

    refusal(saved(tmp_path / "w.pth", {"model": state, "extra": Touch()}))
    assert not (tmp_path / "ran").exists()


def test_a_function_of_the_system_is_named(tmp_path: Path, state: Weights) -> None:
    class Shell:
        def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
            return os.system, (f"touch {tmp_path / 'ran'}",)

    assert "system" in refusal(saved(tmp_path / "w.pth", {"model": state, "extra": Shell()}))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "it is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12\n", "Git LFS pointer"),
    ],
)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".npz"])
def test_placeholders_are_called_by_their_name(tmp_path: Path, suffix: str, content: bytes, words: str) -> None:
    (tmp_path / f"w{suffix}").write_bytes(content)
    assert words in refusal(tmp_path / f"w{suffix}")


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_torchscript_is_refused_with_the_remedy(tmp_path: Path) -> None:
    torch.jit.trace(nn.Linear(2, 2), torch.ones(1, 2)).save(tmp_path / "w.pt")
    assert "torch.jit.load" in refusal(tmp_path / "w.pt")


# Nests and prefixes


@pytest.mark.parametrize(
    "prefix",
    [
        "",
        "module.",
        "model.",
        "backbone.",
        "_orig_mod.",
        "module.base_encoder.",
        "model.module._orig_mod.backbone.",
        "encoder.vit.net.",
    ],
)
@pytest.mark.parametrize("wrapper", [None, "model", "state_dict", "teacher", "anything"])
def test_prefixes_and_wrappers_in_any_nesting(tmp_path: Path, state: Weights, prefix: str, wrapper: str | None) -> None:
    flat = {f"{prefix}{key}": value for key, value in state.items()}
    flat[f"{prefix}head.weight"] = torch.zeros(10, 64)
    path = saved(tmp_path / "w.pth", flat if wrapper is None else {wrapper: flat, "epoch": 3})
    assert_same(loaded(path), state)


@pytest.mark.parametrize("wrapping", ["_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"])
def test_wrappers_around_each_block(tmp_path: Path, state: Weights, wrapping: str) -> None:
    wrapped = {key.replace("blocks.1.", f"blocks.1.{wrapping}."): value for key, value in state.items()}
    assert_same(loaded(saved(tmp_path / "w.pth", wrapped)), state)


def test_blocks_in_chunks_as_dinov2_trains_them(tmp_path: Path, state: Weights) -> None:
    chunked = {}
    for key, value in state.items():
        parts = key.split(".")
        chunked[f"blocks.{int(parts[1]) // 2}.{'.'.join(parts[1:])}" if parts[0] == "blocks" else key] = value
    backbone = {f"backbone.{key}": value for key, value in chunked.items()}
    path = saved(tmp_path / "w.pth", {"teacher": backbone | {"dino_head.last_layer.weight_v": torch.zeros(2, 2)}})
    assert_same(loaded(path), state)


def test_keys_of_no_known_layout_are_named_with_their_prefix(tmp_path: Path) -> None:
    path = saved(tmp_path / "w.pth", {"net.stem.weight": torch.zeros(2), "net.stem.bias": torch.zeros(2)})
    assert "all keys begin with 'net.stem.'" in refusal(path)


# Layouts


@pytest.mark.parametrize(
    "layout",
    [layouts.hugging_face, layouts.mae, layouts.ship, layouts.vpt],
    ids=lambda layout: layout.__name__,
)
def test_layouts_of_a_plain_vit(tmp_path: Path, state: Weights, layout: Callable[[Weights], Weights]) -> None:
    model = loaded(saved(tmp_path / "w.pth", {"model": layout(state)}))
    assert_same(model, state)
    assert sha256_of(model) == sha256_of(loaded(saved(tmp_path / "plain.pth", state)))


def test_prompts_beside_the_backbone_are_mentioned(tmp_path: Path, state: Weights) -> None:
    for layout in (layouts.ship, layouts.vpt):
        model = loaded(saved(tmp_path / "w.pth", layout(state)))
        assert "w.pth: its prompts are ignored; only its backbone is used" in origin_of(model).notes


# The plain DINOv2, the one with registers, and the largest, whose MLPs are gated.
DINOV2_NAMES = ["vit_small_patch14_dinov2", "vit_small_patch14_reg4_dinov2", "vit_giant_patch14_dinov2"]


@pytest.mark.parametrize("name", DINOV2_NAMES)
@pytest.mark.parametrize("layout", [layouts.dinov2, layouts.hugging_face_dinov2], ids=["meta", "transformers"])
def test_dinov2(tmp_path: Path, name: str, layout: Callable[[Weights], Weights]) -> None:
    sizes = {"embed_dim": 96, "depth": 2, "num_heads": 2, "img_size": 70}
    random = timm.create_model(name, num_classes=0, **sizes).state_dict()
    # Multiples of 1/256, so that moving a position to the class token rounds nothing.
    state = {key: torch.randint(-99, 99, value.shape) / 256 for key, value in random.items()}
    model = loaded(saved(tmp_path / "pytorch_model.bin", layout(state)), name, architecture=sizes)
    assert_same(model, state)
    assert preprocessing_of(model).mean == IMAGENET


@pytest.mark.parametrize("layout", [layouts.openai_clip, layouts.hugging_face_clip], ids=["openai", "transformers"])
def test_clip_towers(tmp_path: Path, layout: Callable[[Weights], Weights]) -> None:
    sizes = {"embed_dim": 64, "depth": 2, "num_heads": 2, "img_size": 160}
    torch.manual_seed(5)
    random = timm.create_model(CLIP_NAME, num_classes=0, **sizes).state_dict()
    state = {key: (torch.randn_like(value) / 8).half().float() for key, value in random.items()}
    model = loaded(saved(tmp_path / "w.pt", layout(state)), CLIP_NAME, architecture=sizes)
    assert_same(model, state)
    assert "OpenAI trained CLIP with QuickGELU" in " ".join(origin_of(model).notes)
    assert preprocessing_of(model).mean == pytest.approx((0.4815, 0.4578, 0.4082), abs=1e-4)


@pytest.mark.parametrize("prefix", ["", "opt/target/", "params/", "params/img/"])
@pytest.mark.parametrize("kind", ["google", "big_vision", "scanned"])
def test_flax_layouts(tmp_path: Path, state: Weights, prefix: str, kind: str) -> None:
    arrays = layouts.google(state, HEADS, big_vision=kind != "google")
    arrays |= {"head/kernel": np.zeros((64, 10), np.float32), "head/bias": np.zeros(10, np.float32)}
    if kind == "scanned":
        arrays = layouts.scanned(arrays)
    np.savez(tmp_path / "w.npz", **{f"{prefix}{key}": value for key, value in arrays.items()})
    assert_same(loaded(tmp_path / "w.npz"), state)


def test_a_patch_embedding_may_be_a_matrix(tmp_path: Path, state: Weights) -> None:
    matrix = {"patch_embed.proj.weight": state["patch_embed.proj.weight"].flatten(1)}
    assert_same(loaded(saved(tmp_path / "w.pth", state | matrix)), state)


def test_arrays_of_another_byte_order(tmp_path: Path, state: Weights) -> None:
    arrays = layouts.google(state, HEADS)
    np.savez(tmp_path / "w.npz", **{key: value.astype(">f4") for key, value in arrays.items()})
    assert_same(loaded(tmp_path / "w.npz"), state)


def test_open_clip_with_a_timm_trunk(tmp_path: Path, state: Weights) -> None:
    model = loaded(saved(tmp_path / "w.pt", layouts.open_clip(state)))
    assert_same(model, state)
    assert origin_of(model).family == "CLIP"


def test_a_norm_after_pooling_is_loaded_where_the_backbone_has_one(tmp_path: Path, state: Weights) -> None:
    sizes = {"embed_dim": 64, "depth": 2, "num_heads": 2, "img_size": 64}
    pooled = timm.create_model(NORMED_AFTER_POOLING, num_classes=0, **sizes).state_dict()
    random = {key: torch.randn_like(value) / 8 for key, value in pooled.items()}
    norm = {key: value for key, value in random.items() if key.startswith("fc_norm.")}
    assert len(norm) == 2
    assert_same(loaded(saved(tmp_path / "pooled.pth", random), NORMED_AFTER_POOLING, architecture=sizes), random)
    assert "missing fc_norm.bias, fc_norm.weight" in refusal(
        saved(tmp_path / "other.pth", {key: value for key, value in random.items() if key not in norm}),
        NORMED_AFTER_POOLING,
        architecture=sizes,
    )
    # As fine-tuning with pooled tokens may leave one beside the norm of the backbone.
    assert_same(loaded(saved(tmp_path / "w.pth", state | norm)), state)


def test_bfloat16_arrays_of_jax(tmp_path: Path, state: Weights) -> None:
    rounded = {key: value.bfloat16().float() for key, value in state.items()}
    arrays = layouts.google(rounded, HEADS, big_vision=True)
    # JAX writes two opaque bytes: the upper half of a float32.
    halves = {key: (value.copy().view(np.uint32) >> 16).astype(np.uint16).view("V2") for key, value in arrays.items()}
    np.savez(tmp_path / "w.npz", **halves)
    assert_same(loaded(tmp_path / "w.npz"), rounded)


def test_flax_attention_with_another_number_of_heads_is_refused(tmp_path: Path, state: Weights) -> None:
    np.savez(tmp_path / "w.npz", **layouts.google(state, 2 * HEADS))
    assert "4 attention heads" in refusal(tmp_path / "w.npz")


def test_whole_numbers_beside_the_backbone_are_unexpected_not_damaged(tmp_path: Path, state: Weights) -> None:
    path = saved(tmp_path / "w.pth", state | {"norm.num_batches_tracked": torch.tensor(3)})
    assert "unexpected norm.num_batches_tracked" in refusal(path)


# Another model


def test_patches_of_another_size_are_refused_naming_both(tmp_path: Path) -> None:
    model = timm.models.VisionTransformer(patch_size=32, embed_dim=192, depth=12, num_heads=3, num_classes=0)
    message = refusal(saved(tmp_path / "w.pth", model.state_dict()), "vit_tiny_patch16_224")
    assert "patches of 32 x 32" in message
    assert "vit_tiny_patch16_224 has patches of 16 x 16" in message


def test_google_patches_of_another_size_are_refused_with_the_right_name(tmp_path: Path) -> None:
    sizes = {"embed_dim": 64, "depth": 2, "num_heads": 2}
    wide = timm.create_model("vit_base_patch32_224", num_classes=0, **sizes).state_dict()
    np.savez(tmp_path / "ViT-B_32.npz", **layouts.google(wide, 2))
    message = refusal(tmp_path / "ViT-B_32.npz", "vit_base_patch16_224", architecture=sizes)
    assert "patches of 32 x 32" in message
    assert "try --backbone vit_base_patch32_224" in message


@pytest.mark.parametrize(
    "change",
    [lambda positions: positions[:, 1:], lambda positions: positions[:, :-1], lambda positions: positions[0]],
    ids=["no class position", "no square", "two dimensions"],
)
def test_positions_that_form_no_square_grid(tmp_path: Path, state: Weights, change: Callable[[Tensor], Tensor]) -> None:
    path = saved(tmp_path / "w.pth", state | {"pos_embed": change(state["pos_embed"])})
    assert "position embeddings are" in refusal(path)


def test_positions_are_resampled_once_and_the_origin_says_from_which(tmp_path: Path) -> None:
    state = vit_state(img_size=224)
    path = saved(tmp_path / "w.pth", state)
    model = loaded(path, image_size=224)
    assert_same(model, state)
    assert origin_of(model).notes == ()
    small = loaded(path)
    assert origin_of(small).grid == 14
    assert "w.pth: position embeddings are resampled from 14 x 14 to 10 x 10" in origin_of(small).notes
    expected = timm.layers.resample_abs_pos_embed(state["pos_embed"], [10, 10], num_prefix_tokens=1)
    torch.testing.assert_close(small.pos_embed, expected, rtol=0, atol=0)


def test_the_hash_is_that_of_the_file_whatever_the_size_of_images(tmp_path: Path) -> None:
    sizes = {"embed_dim": 32, "depth": 1, "num_heads": 2}
    state = timm.create_model("vit_base_patch16_384", num_classes=0, **sizes).state_dict()
    path = saved(tmp_path / "w.pth", state)
    native = loaded(path, "vit_base_patch16_384", architecture=sizes)
    small = loaded(path, "vit_base_patch16_384", architecture=sizes, image_size=224)
    other = loaded(path, "vit_base_patch16_224", architecture=sizes)
    assert sha256_of(native) == sha256_of(small) == sha256_of(other)
    torch.testing.assert_close(small.pos_embed, other.pos_embed, rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_has_the_hash_of_the_same_numbers_in_float32(
    tmp_path: Path, state: Weights, dtype: torch.dtype
) -> None:
    half = {key: value.to(dtype) for key, value in state.items()}
    save_file(half, tmp_path / "half.safetensors")
    save_file({key: value.float() for key, value in half.items()}, tmp_path / "full.safetensors")
    assert sha256_of(loaded(tmp_path / "half.safetensors")) == sha256_of(loaded(tmp_path / "full.safetensors"))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_refused(tmp_path: Path, state: Weights, value: float) -> None:
    damaged = state["blocks.3.mlp.fc1.weight"].clone()
    damaged[5, 7] = value
    path = saved(tmp_path / "w.pth", state | {"blocks.3.mlp.fc1.weight": damaged})
    assert "blocks.3.mlp.fc1.weight in " in refusal(path)
    assert "1 of 12288 values that are NaN or infinite" in refusal(path)
