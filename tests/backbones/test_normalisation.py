"""The normalisation of images that a checkpoint's layout asks for, and the line that says so."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
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


SMALL_CLIP = {"embed_dim": 64, "depth": 2, "num_heads": 2, "img_size": 112}


@pytest.mark.parametrize("layout", [layouts.openai_clip, layouts.hugging_face_clip, layouts.open_clip])
@pytest.mark.parametrize(
    ("name", "whose"),
    [
        ("vit_large_patch14_clip_224.laion2b", "vit_large_patch14_clip_224.laion2b in timm"),
        ("vit_large_patch14_clip_224.openai", "vit_large_patch14_clip_224.openai in timm"),
        # timm has weights of both normalisations for it.
        ("vit_large_patch14_clip_224", "CLIP"),
    ],
)
def test_a_name_of_one_clip_has_the_normalisation_of_that_clip(
    tmp_path: Path, layout: Callable[[Weights], Weights], name: str, whose: str
) -> None:
    torch.manual_seed(5)
    state = timm.create_model(name, num_classes=0, **SMALL_CLIP).state_dict()
    model = loaded(saved(tmp_path / "w.bin", layout(state)), name, architecture=SMALL_CLIP)
    expected = (constants.IMAGENET_INCEPTION_MEAN, constants.IMAGENET_INCEPTION_STD)
    if not name.endswith("laion2b"):
        expected = (constants.OPENAI_CLIP_MEAN, constants.OPENAI_CLIP_STD)
    assert (preprocessing_of(model).mean, preprocessing_of(model).std) == expected
    assert origin_of(model).lines(None, None)[0].endswith(f", those of {whose}")


TIPS = "vit_base_patch14_reg1_tipsv2"


@pytest.mark.skipif(not timm.is_model(TIPS), reason="this release of timm has no TIPS")
@pytest.mark.parametrize("tag", ["", ".webli"])
def test_tips_is_not_normalised_as_dinov2_whose_layout_it_has(tmp_path: Path, tag: str) -> None:
    state = timm.create_model(TIPS, num_classes=0, **SMALL_CLIP).state_dict()
    path = saved(tmp_path / "w.pth", layouts.dinov2(state))
    preprocessing = preprocessing_of(loaded(path, f"{TIPS}{tag}", architecture=SMALL_CLIP))
    assert (preprocessing.mean, preprocessing.std) == ((0.0,) * 3, (1.0,) * 3)


MOBILE: dict[str, Any] = {"layers": (1, 1, 1, 1), "embed_dims": (32, 32, 32, 32)}


@pytest.mark.parametrize(
    ("name", "sizes", "prefix"),
    [
        ("fastvit_mci0", MOBILE, "visual.trunk."),
        ("fastvit_mci0.apple_mclip", MOBILE, "visual.trunk."),
        ("vit_large_patch16_dinov3.sat493m", {"embed_dim": 32, "depth": 1, "num_heads": 2}, "teacher.backbone."),
    ],
)
def test_other_models_of_a_family_keep_their_own_normalisation(
    tmp_path: Path, name: str, sizes: dict[str, Any], prefix: str
) -> None:
    state = prefixed(prefix)(timm.create_model(name, num_classes=0, **sizes).state_dict())
    model = loaded(saved(tmp_path / "w.pt", state), name, architecture=sizes, image_size=64)
    assert origin_of(model).family == ""
    assert preprocessing_of(model).mean == timm.get_pretrained_cfg(name).mean
    assert preprocessing_of(model).mean not in (constants.OPENAI_CLIP_MEAN, constants.IMAGENET_DEFAULT_MEAN)


@pytest.mark.parametrize(
    ("prefix", "family"),
    [("visual.trunk.", "CLIP"), ("teacher.backbone.", "DINO"), ("module.base_encoder.", "MoCo"), ("model.", "")],
)
def test_a_prefix_shows_the_family_of_other_models_than_a_plain_vit(tmp_path: Path, prefix: str, family: str) -> None:
    # timm normalises its images with 0.5.
    name = "test_resnet"
    state = prefixed(prefix)(timm.create_model(name).state_dict())
    model = load_backbone(name, checkpoint=saved(tmp_path / "w.pth", state), image_size=64)
    assert origin_of(model).family == family


@pytest.mark.parametrize("prefix", ["teacher.", "base_encoder."])
def test_a_decoder_shows_mae_under_any_prefix(tmp_path: Path, state: Weights, prefix: str) -> None:
    origin = origin_of(loaded(saved(tmp_path / "w.pth", prefixed(prefix)(layouts.mae(state)))))
    assert origin.family == "MAE"


def test_the_first_line_follows_the_name_and_the_recipe(tmp_path: Path, state: Weights) -> None:
    name, sizes = "vit_base_patch16_224.mae", {"embed_dim": 64, "depth": 6, "num_heads": 2, "mlp_ratio": 3}
    origin = origin_of(loaded(saved(tmp_path / "w.pth", layouts.mae(state)), name, architecture=sizes))
    assert origin.lines(None, None)[0].endswith("0.225, those of vit_base_patch16_224.mae in timm")
    assert origin.lines(IMAGENET, IMAGENET)[0].endswith("as set by mean and std")
    assert "0.485" in origin.lines(IMAGENET, None)[0]


def test_a_random_backbone_has_nothing_to_say() -> None:
    assert origin_of(load_backbone(NAME, checkpoint="random")).lines(None, None) == ()
