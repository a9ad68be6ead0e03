"""The normalisation of images that a checkpoint's layout asks for, and the line that says so."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from timm.data import constants

from shipbench.backbones import families, load_backbone, origin_of, preprocessing_of
from tests.backbones import layouts
from tests.backbones.test_layouts import IMAGENET, NAME, Weights, loaded, saved, vit_state


@pytest.fixture(scope="module")
def state() -> Weights:
    return vit_state()


def sine_cosine(state: Weights) -> Weights:
    """Return the tensors with the fixed position embeddings of MAE and MoCo v3."""
    angles = torch.arange(100)[:, None] * 0.9 ** torch.arange(32)
    positions = torch.cat([angles.sin(), angles.cos()], dim=1)
    return state | {"pos_embed": torch.cat([torch.zeros(1, 64), positions])[None]}


def test_families_have_the_normalisation_that_timm_gives_them() -> None:
    assert (families.CLIP.mean, families.CLIP.std) == (constants.OPENAI_CLIP_MEAN, constants.OPENAI_CLIP_STD)
    google = (constants.IMAGENET_INCEPTION_MEAN, constants.IMAGENET_INCEPTION_STD)
    assert (families.GOOGLE.mean, families.GOOGLE.std) == google
    for family in (families.MAE, families.DINO, families.DINOV2, families.MOCO, families.SINE_COSINE):
        assert (family.mean, family.std) == (constants.IMAGENET_DEFAULT_MEAN, constants.IMAGENET_DEFAULT_STD)


def prefixed(prefix: str) -> Callable[[Weights], Weights]:
    return lambda state: {f"{prefix}{key}": value for key, value in state.items()}


@pytest.mark.parametrize(
    ("layout", "family"),
    [
        (layouts.mae, "MAE"),
        (sine_cosine, "MAE or MoCo v3"),
        (prefixed("teacher.module.backbone."), "DINO"),
        (lambda state: state | {"head.last_layer.weight_v": torch.zeros(2, 2)}, "DINO"),
        (lambda state: state | {"dino_head.mlp.0.weight": torch.zeros(2, 2)}, "DINO"),
        (lambda state: state | {"mask_token": torch.zeros(1, 64)}, "DINOv2"),
        (prefixed("module.base_encoder."), "MoCo"),
        (prefixed("momentum_encoder."), "MoCo"),
    ],
    ids=["mae", "mae encoder", "dino", "dino head", "dino head by name", "dinov2", "moco", "moco momentum"],
)
def test_a_layout_that_betrays_its_family_gets_the_familys_normalisation(
    tmp_path: Path, state: Weights, layout: Callable[[Weights], Weights], family: str
) -> None:
    name, sizes = "vit_tiny_patch16_224", {"embed_dim": 64, "depth": 6, "num_heads": 2, "mlp_ratio": 3}
    plain = loaded(saved(tmp_path / "plain.pth", state), name, architecture=sizes)
    assert preprocessing_of(plain).mean == (0.5, 0.5, 0.5)
    model = loaded(saved(tmp_path / "w.pth", {"model": layout(state)}), name, architecture=sizes)
    assert preprocessing_of(model).mean == IMAGENET
    (line, *_) = origin_of(model).lines(None, None)
    assert line == (
        "w.pth: images are normalised with mean 0.485, 0.456, 0.406 and deviation 0.229, 0.224, 0.225, "
        f"those of {family}"
    )


def test_the_first_line_follows_the_name_and_the_recipe(tmp_path: Path, state: Weights) -> None:
    name, sizes = "vit_base_patch16_224.mae", {"embed_dim": 64, "depth": 6, "num_heads": 2, "mlp_ratio": 3}
    origin = origin_of(loaded(saved(tmp_path / "w.pth", layouts.mae(state)), name, architecture=sizes))
    assert origin.lines(None, None)[0].endswith("0.225, those of vit_base_patch16_224.mae in timm")
    assert origin.lines(IMAGENET, IMAGENET)[0].endswith("as set by mean and std")
    assert "0.485" in origin.lines(IMAGENET, None)[0]


def test_a_random_backbone_has_nothing_to_say() -> None:
    assert origin_of(load_backbone(NAME, checkpoint="random")).lines(None, None) == ()
