"""Every ablation switch changes what its method computes or trains, alone and together with the others."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from functools import cache
from typing import Any, NamedTuple

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from shipbench import RunSpec
from shipbench.errors import InputError
from shipbench.methods import BuildContext, Mergeable, Method, get_method
from shipbench.planning.ablation import variant_settings
from shipbench.report.wording.names import component_name
from shipbench.settings import configure
from shipbench.tasks import parse_tasks
from tests.methods.shipped import SHIPPED
from tests.reference.tiny import TinyVit, batch, tiny_vit

# They have no part to switch off: every weight trains, or none but the head's.
WITHOUT_SWITCHES = ["full", "linear"]
ABLATED = [name for name in SHIPPED if name not in WITHOUT_SWITCHES]
SWITCHES = [(name, switch) for name in ABLATED for switch in get_method(name).all_switches]
SHAPE = TinyVit(depth=3)
CLASSES = 3
IMAGES, LABELS = batch(SHAPE, 4, CLASSES, torch.Generator().manual_seed(2))


class Trained(NamedTuple):
    """A model after one training step: the shapes of its trained tensors, and its logits."""

    model: nn.Module
    shapes: dict[str, tuple[int, ...]]
    logits: Tensor


def build(method: Method, settings: Mapping[str, Any]) -> nn.Module:
    vit = tiny_vit(SHAPE, torch.Generator().manual_seed(1)).requires_grad_(True)

    def features(kind: str) -> Tensor:
        # The last block differs from those before, which are equal: two of SHIP's levels.
        first, last = torch.randn(2, 8, SHAPE.width, generator=torch.Generator().manual_seed(3))
        return torch.stack([first] * (SHAPE.depth - 1) + [last], dim=1)

    torch.manual_seed(0)
    chosen = configure(method.settings, settings)
    return method.build(BuildContext(vit, CLASSES, chosen, features, lambda line: None)).model.double()


def test_bitfit_counts_biases_of_attention_pooling_as_those_of_attention() -> None:
    vit = VisionTransformer(
        32, 8, embed_dim=16, depth=1, num_heads=2, num_classes=0, class_token=False, global_pool="map"
    )
    biases = {name for name, _ in vit.named_parameters() if "bias" in name}
    settings = {"at_norms": False, "at_mlp": False, "at_attention": False}
    context = BuildContext(vit, CLASSES, configure(get_method("bitfit").settings, settings), lambda _: IMAGES, print)
    get_method("bitfit").build(context)
    assert "attn_pool.q.bias" in biases
    assert {name for name, p in vit.named_parameters() if p.requires_grad} == {"patch_embed.proj.bias"}


@cache
def after_a_step(name: str, switches: tuple[str, ...] = ()) -> Trained:
    method = get_method(name)
    model = build(method, variant_settings(switches, method)).train()
    trained = {key: parameter for key, parameter in model.named_parameters() if parameter.requires_grad}
    torch.manual_seed(0)
    model.loss(IMAGES, LABELS).backward()
    torch.optim.SGD(trained.values(), lr=0.5).step()
    with torch.no_grad():
        return Trained(model, {key: tuple(value.shape) for key, value in trained.items()}, model.eval()(IMAGES))


@pytest.mark.parametrize(("name", "switch"), SWITCHES)
def test_a_switch_changes_the_model(name: str, switch: str) -> None:
    full, ablated = after_a_step(name), after_a_step(name, (switch,))
    assert ablated.shapes != full.shapes or (ablated.logits - full.logits).abs().max() > 1e-6
    gradients = {key: ablated.model.get_parameter(key).grad for key in ablated.shapes}
    assert [key for key, gradient in gradients.items() if gradient is None] == []
    assert RunSpec(name, "dtd", overrides=variant_settings((switch,), get_method(name))).resolved.switches == switch


@pytest.mark.parametrize(
    ("name", "switches"),
    [(name, (switch,)) for name, switch in SWITCHES if get_method(name).mergeable]
    + [(name, tuple(get_method(name).switches)) for name in ABLATED],
)
def test_ablated_models_merge_and_may_lose_every_part(name: str, switches: tuple[str, ...]) -> None:
    model = after_a_step(name, switches).model
    if get_method(name).mergeable:
        assert isinstance(model, Mergeable)
        plain: VisionTransformer = copy.deepcopy(model.backbone)
        plain.reset_classifier(CLASSES)
        plain.double().load_state_dict(model.merged_state())
        with torch.no_grad():
            torch.testing.assert_close(plain(IMAGES), model(IMAGES), rtol=1e-9, atol=1e-9)


# Models that their equations make the same: their trained tensors have the same shapes.
SAME = [
    ("convpass", ("no-mlp",), "convpass-attn", ()),
    ("repadapter", ("no-mlp",), "repadapter-attn", ()),
    ("difffit", ("no-gammas", "no-biases"), "ln-tuning", ()),
    ("difffit", ("no-gammas", "no-norms"), "bitfit", ()),
    ("adapter-houlsby", ("no-attention", "no-mlp"), "ln-tuning", ()),
    ("ssf", ("no-scales", "no-shifts"), "lora", ("no-query", "no-key", "no-value")),
    ("fact-tk", ("no-attention", "no-mlp"), "convpass", ("no-attention", "no-mlp")),
]


@pytest.mark.parametrize(("name", "switches", "other", "others"), SAME)
def test_ablations_that_leave_the_same_parts_are_equal(
    name: str, switches: tuple[str, ...], other: str, others: tuple[str, ...]
) -> None:
    one, two = after_a_step(name, switches), after_a_step(other, others)
    assert {key: shape for key, shape in one.shapes.items() if 0 not in shape} == two.shapes
    start = build(get_method(name), variant_settings(switches, get_method(name))).eval()
    same = build(get_method(other), variant_settings(others, get_method(other))).eval()
    same.load_state_dict(start.state_dict(), strict=False)
    with torch.no_grad():
        torch.testing.assert_close(start(IMAGES), same(IMAGES), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ABLATED)
def test_parts_have_different_names_and_no_recipe_switches_one_off(name: str) -> None:
    method = get_method(name)
    components = [component_name(switch, name) for switch in method.all_switches]
    assert len(set(components)) == len(components)
    for task in parse_tasks("all,demo"):
        for recipe in ("default", "published"):
            try:
                resolved = RunSpec(name, task, recipe=recipe).resolved
            except InputError:
                assert recipe == "published"
                continue
            assert resolved.switches == ""


def test_a_switch_without_an_effect_is_refused() -> None:
    with pytest.raises(InputError, match="at_key=false changes nothing with form=qv"):
        RunSpec("lora", "dtd", overrides={"form": "qv", "at_key": False}).resolved  # noqa: B018
    with pytest.raises(InputError, match="dim is 6; it must be a multiple of groups, which is 4"):
        RunSpec("repadapter", "dtd", overrides={"dim": 6, "groups": 4}).resolved  # noqa: B018
    with pytest.raises(InputError, match="groups is 5, which does not divide the backbone's width of 24"):
        build(get_method("repadapter"), {"dim": 10, "groups": 5})
