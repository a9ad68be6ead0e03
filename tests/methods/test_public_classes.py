"""Public classes and functions refuse what a command refuses, with the same sentence."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from shipbench_baselines.full import FullModel
from shipbench_baselines.linear import LinearModel
from shipbench_baselines.settings import VptConfig
from shipbench_baselines.vpt import Vpt
from timm.models import VisionTransformer
from torch import Tensor, nn

from shipbench.backbones import build_vit
from shipbench.errors import InputError
from shipbench.methods import BuildContext, Built, get_method
from shipbench.methods.ship import Ship, ShipConfig, affinity_matrix, attribute_prototypes, build_hierarchy
from tests.methods.shipped import SHIPPED

WIDTH, DEPTH = 16, 4
BANK = torch.randn(6, WIDTH, generator=torch.Generator().manual_seed(0))
Maker = Callable[[Any, Any], nn.Module]

MODELS: dict[str, Maker] = {
    "ship": lambda vit, classes: Ship(vit, classes, [0, 2], BANK),
    "vpt-shallow": lambda vit, classes: Vpt(vit, classes, VptConfig(), deep=False),
    "vpt-deep": lambda vit, classes: Vpt(vit, classes, VptConfig(), deep=True),
}
UNPROMPTABLE: dict[str, tuple[dict[str, Any], str]] = {
    "no pooling": ({"class_token": False, "global_pool": ""}, "it classifies from no pooling, which gives no features"),
}


def vit(**changes: Any) -> VisionTransformer:
    sizes = {"img_size": 16, "patch_size": 4, "embed_dim": WIDTH, "depth": DEPTH, "num_heads": 2, "num_classes": 0}
    return VisionTransformer(**sizes | changes)


def refuses(words: str, make: Callable[[], object]) -> None:
    with pytest.raises(InputError, match=re.escape(words)):
        make()


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("kind", UNPROMPTABLE)
def test_a_backbone_that_a_command_refuses_is_refused(model: str, kind: str) -> None:
    changes, reason = UNPROMPTABLE[kind]
    refuses(f"the backbone cannot be prompted: {reason}", lambda: MODELS[model](vit(**changes), 5))


def test_a_model_of_another_kind_is_refused() -> None:
    refuses("its class is Linear, not VisionTransformer or Eva of timm", lambda: MODELS["ship"](nn.Linear(2, 2), 5))


@pytest.mark.parametrize("model", [*MODELS, "full", "linear"])
def test_classes_are_a_whole_number_above_0(model: str) -> None:
    make = (MODELS | {"full": FullModel, "linear": LinearModel})[model]
    refuses("num_classes is 0; it must be 1 or more", lambda: make(vit(), 0))
    refuses("num_classes is 2.5; it must be a whole number", lambda: make(vit(), 2.5))
    assert make(vit(), np.int64(3))(torch.zeros(2, 3, 16, 16)).shape == (2, 3)


@pytest.mark.parametrize("name", [name for name in SHIPPED if name != "full"])
def test_a_frozen_backbone_stays_in_evaluation_mode(name: str) -> None:
    """One of the caller's own may have dropout."""
    method, backbone = get_method(name), vit(proj_drop_rate=0.5, attn_drop_rate=0.5)
    features = torch.randn(6, DEPTH, WIDTH, generator=torch.Generator().manual_seed(0))
    model = method.build(BuildContext(backbone, 5, method.settings(), lambda _: features, print)).model
    assert model.train().training
    assert not any(module.training for module in backbone.modules())
    model.eval()
    assert not any(module.training for module in model.modules())


@pytest.mark.parametrize("levels", [[0, 2], np.array([0, 2]), torch.tensor([0, 2])])
def test_levels_may_be_numbers_of_numpy_and_torch(levels: Any) -> None:
    model = Ship(vit(), 5, levels, BANK)
    assert (model.levels, [type(level) for level in model.levels]) == ([0, 2], [int, int])


@pytest.mark.parametrize(
    ("levels", "words"),
    [
        ([], "levels [] must start with 0"),
        ([1, 2], "levels [1, 2] must start with 0"),
        ([0, 2, 2], "levels [0, 2, 2] must start with 0, rise"),
        ([0, 4], "levels [0, 4] must start with 0, rise, and stay below the backbone's 4 blocks"),
        ([0, 1.5], "a level is 1.5; it must be a whole number"),
        ([0, True], "a level is True; it must be a whole number"),
    ],
)
def test_levels_that_do_not_fit_are_refused(levels: list[Any], words: str) -> None:
    refuses(words, lambda: Ship(vit(), 5, levels, BANK))


def test_the_last_block_may_be_a_level() -> None:
    assert Ship(vit(), 5, [0, 3], BANK).levels == [0, 3]


@pytest.mark.parametrize(
    ("bank", "words"),
    [
        (None, "attribute prompts need a bank of prototypes"),
        (torch.zeros(6, WIDTH + 1), "the bank of prototypes is (6, 17), but the backbone's width is 16"),
        (torch.zeros(WIDTH), "the bank of prototypes is (16,)"),
        (torch.zeros(0, WIDTH), "the bank of prototypes is empty"),
        (torch.full((6, WIDTH), torch.nan), "has values that are not finite"),
    ],
)
def test_a_bank_that_does_not_fit_is_refused(bank: Any, words: str) -> None:
    refuses(words, lambda: Ship(vit(), 5, [0, 2], bank))


def test_attributes_need_as_many_image_tokens() -> None:
    # 16 patches and the class token.
    assert Ship(vit(), 5, [0, 2], BANK, ShipConfig(attribute_length=17)).config.attribute_length == 17
    words = "attribute_length=18 needs as many image tokens, but this image size gives only 17"
    refuses(words, lambda: Ship(vit(), 5, [0, 2], BANK, ShipConfig(attribute_length=18)))


@pytest.mark.parametrize(
    ("affinity", "words"),
    [
        (torch.full((4, 4), torch.nan), "the affinity has values that are not finite"),
        (torch.full((4, 4), torch.inf), "the affinity has values that are not finite"),
        (torch.ones(4, 6), "the affinity is (4, 6); it must be a square matrix"),
        (torch.ones(4), "the affinity is (4,); it must be a square matrix"),
        (torch.ones(2, 4, 4), "the affinity is (2, 4, 4); it must be a square matrix"),
        (torch.ones(0, 0), "the affinity is (0, 0); it must be a square matrix"),
    ],
)
@pytest.mark.parametrize("threshold", [0.9, 1.0])
def test_an_affinity_that_is_no_matrix_is_refused(affinity: torch.Tensor, words: str, threshold: float) -> None:
    refuses(words, lambda: build_hierarchy(affinity, threshold))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"threshold": float("nan")}, "threshold=nan is not a number that is finite"),
        ({"threshold": -1.5}, "threshold is -1.5; it must be -1 or more"),
        ({"threshold": 0.9, "end_layer": 0}, "end_layer is 0; it must be 1 or more"),
        ({"threshold": 0.9, "end_layer": 1.5}, "end_layer=1.5 is not a whole number below 2**31 or none"),
    ],
)
def test_settings_of_the_hierarchy_have_the_bounds_of_the_method(settings: dict[str, Any], words: str) -> None:
    for make in (lambda: build_hierarchy(torch.ones(4, 4), **settings), lambda: ShipConfig(**settings)):
        with pytest.raises(InputError, match=f"^{re.escape(words)}$"):
            make()


@pytest.mark.parametrize(
    ("features", "words"),
    [
        (torch.zeros(0, 4, 8), "the features are (0, 4, 8); they must be (images, blocks, D)"),
        (torch.zeros(4, 8), "the features are (4, 8); they must be (images, blocks, D)"),
        (torch.tensor([[[1.0]], [[torch.nan]], [[torch.inf]]]), "the features of 2 of 3 images are not finite"),
    ],
)
def test_features_without_an_affinity_are_refused(features: torch.Tensor, words: str) -> None:
    refuses(words, lambda: affinity_matrix(features))


def test_whole_features_count_as_numbers() -> None:
    features = np.array([[[1, 0], [0, 1]]])
    assert affinity_matrix(features).tolist() == [[1.0, 0.0], [0.0, 1.0]]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("features", "clusters", "words"),
    [
        (torch.zeros(0, 8), 2, "the features are (0, 8); they must be (images, D)"),
        (torch.zeros(8), 2, "the features are (8,); they must be (images, D)"),
        (torch.tensor([[1.0], [torch.nan]]), 2, "the features of 1 of 2 images are not finite"),
        (torch.zeros(3, 8), 0, "clusters is 0; it must be 1 or more"),
        (torch.zeros(3, 8), 1.5, "clusters is 1.5; it must be a whole number"),
    ],
)
def test_features_without_a_bank_are_refused(features: torch.Tensor, clusters: Any, words: str) -> None:
    refuses(words, lambda: attribute_prototypes(features, clusters))


@pytest.mark.filterwarnings("error")
def test_equal_features_give_one_prototype_without_a_warning() -> None:
    assert attribute_prototypes(torch.ones(5, 3), np.int64(4)).tolist() == [[1.0, 1.0, 1.0]]


def test_facts_of_a_model_are_python_values() -> None:
    built = Built(nn.Identity(), {"levels": np.array([0, 2]), "affinity": torch.eye(2), "prototypes": np.int64(3)})
    assert built.facts == {"levels": (0, 2), "affinity": ((1.0, 0.0), (0.0, 1.0)), "prototypes": 3}
    assert type(built.facts["levels"][1]) is int


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        ({"num_heads": 0}, "num_heads is 0; it must be 1 or more"),
        ({"num_heads": -2}, "num_heads is -2; it must be 1 or more"),
        ({"num_heads": 2.0}, "num_heads is 2.0; it must be a whole number"),
        ({"num_heads": 3}, "the checkpoint's width 16 does not divide into num_heads=3"),
        ({"patch_size": 0}, "patch_size is 0; it must be 1 or more"),
        ({"image_size": 3}, "image_size is 3; it must be 4 or more"),
    ],
)
def test_sizes_of_an_official_checkpoint_are_whole_numbers(sizes: dict[str, Any], words: str) -> None:
    fitting = {"num_heads": 2, "image_size": 16, "patch_size": 4}
    refuses(words, lambda: build_vit(vit().state_dict(), **fitting | sizes, what="a checkpoint"))
    assert build_vit(vit().state_dict(), np.int64(2), 16, 4, "a checkpoint").embed_dim == WIDTH  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "first", "second"),
    [
        ("ship", {"prototypes": 4}, {"prototypes": 5}),
        ("ship", {"feature": "mean"}, {"feature": "cls"}),
        ("vpt-deep", {"initiation": "final-cls", "prompt_length": 2}, {"initiation": "final-cls", "prompt_length": 3}),
    ],
)
def test_settings_that_decide_a_cached_tensor_are_in_its_name(
    name: str, first: dict[str, Any], second: dict[str, Any]
) -> None:
    kept: dict[tuple[object, ...], Tensor] = {}
    method, cls = get_method(name), torch.randn(20, DEPTH, WIDTH, generator=torch.Generator().manual_seed(0))

    def cached(key: tuple[object, ...], compute: Callable[[], Tensor]) -> Tensor:
        if key not in kept:
            kept[key] = compute()
        return kept[key]

    def build(settings: dict[str, Any], **changes: Any) -> dict[str, Tensor]:
        torch.manual_seed(0)
        backbone, features = vit(), {"cls": cls, "mean": cls.flip(0) + 1}
        context = BuildContext(backbone, 5, method.settings(**settings), features.__getitem__, print, **changes)
        return method.build(context).model.state_dict()

    alone, _ = build(second), build(first, cached=cached)
    beside = build(second, cached=cached)
    assert alone.keys() == beside.keys()
    assert all(torch.equal(value, beside[key]) for key, value in alone.items())


@pytest.mark.parametrize(("weight", "top"), [(0.0, 0), (1e-9, 10)])
def test_matching_is_computed_only_with_a_weight_above_0(weight: float, top: int) -> None:
    model = Ship(vit(), 5, [0, 2], BANK, ShipConfig(matching_weight=weight))
    assert model.stack_input(2, match=True).match_top == top
    terms = model.loss_terms(torch.randn(2, 3, 16, 16), torch.tensor([0, 1]))
    assert (terms.matching.item() > 0) == (weight > 0)
