"""Every method equals its literal computation, merges where it can, and satisfies the identities of its equations."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import pytest
import torch
from shipbench_baselines import OfficialModel, load_official
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from shipbench.adapting import AdaptedModel, Noise
from shipbench.backbones.frozen_weights import cast_frozen_weights
from shipbench.errors import InputError
from shipbench.hardware.precision import ComputeContext
from shipbench.methods import AdaptedMethod, get_method
from shipbench.settings import configure
from shipbench.training.micro_batches import PartOfBatch
from tests.parity.comparing import assert_all_close, assert_close, gradients, leaves
from tests.reference import methods as literal
from tests.reference.tiny import TinyVit, batch, tiny_vit, uniform

PLAIN = TinyVit()
FULL = TinyVit(registers=2, layer_scale=True, qk_norm=True, pre_norm=True, depth=3)
TOLERANCE = 1e-11
CLASSES = 3
MERGEABLE = ["bitfit", "difffit", "fact_tk", "fact_tt", "ln_tuning", "lora_noah", "lora_peft", "lora_qv", "partial"]
MERGEABLE += ["repadapter", "repadapter_attn", "ssf"]


def random_tensors(method: str, vit: VisionTransformer) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(5)
    config = literal.CONFIGS[method]
    shapes = literal.shapes(method, vit, config, CLASSES)
    return {name: uniform(generator, *shape, bound=0.6) for name, shape in shapes.items()}


def make(method: str, shape: TinyVit) -> tuple[VisionTransformer, dict[str, Tensor], Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    vit = tiny_vit(shape, generator)
    return vit, random_tensors(method, vit), *batch(shape, 4, CLASSES, generator)


def load(method: str, vit: VisionTransformer, tensors: dict[str, Tensor], **noise: Any) -> OfficialModel:
    return load_official(method, copy.deepcopy(vit), tensors, literal.CONFIGS[method], **noise)


@pytest.mark.parametrize("shape", [PLAIN, FULL], ids=["plain", "full"])
@pytest.mark.parametrize("method", literal.BLOCKS)
def test_logits_and_gradients(method: str, shape: TinyVit) -> None:
    vit, tensors, images, labels = make(method, shape)
    model = load(method, vit, tensors)
    parameters = leaves(tensors)
    logits = literal.logits(method, vit, parameters, literal.CONFIGS[method], images)
    assert_close(model(images), logits, TOLERANCE, "logits")
    expected = gradients(torch.nn.functional.cross_entropy(logits, labels), parameters)
    model.loss(images, labels).backward()
    assert_all_close(model.official_gradients(), expected, TOLERANCE)
    frozen = [name for name, parameter in model.named_parameters() if not parameter.requires_grad]
    assert all(model.get_parameter(name).grad is None for name in frozen)


@pytest.mark.parametrize("method", literal.BLOCKS)
def test_merged_weights_compute_the_same(method: str) -> None:
    vit, tensors, images, _ = make(method, FULL)
    model = load(method, vit, tensors)
    if method not in MERGEABLE:
        with pytest.raises(InputError, match="cannot be merged"):
            model.merged_state()
        return
    before = {name: value.clone() for name, value in model.state_dict().items()}
    plain = copy.deepcopy(vit)
    plain.reset_classifier(CLASSES)
    plain.double().load_state_dict(model.merged_state())
    assert_close(plain(images), model(images), TOLERANCE, "merged logits")
    assert_all_close(dict(model.state_dict()), before, 0)


@pytest.mark.parametrize("method", literal.BLOCKS)
def test_parts_of_a_batch_draw_the_masks_of_the_whole(method: str) -> None:
    vit, tensors, images, _ = make(method, PLAIN)
    model = load(method, vit, tensors, dropout=0.2, drop_path=0.5).train()
    torch.manual_seed(1)
    whole = model(images)
    for start in (0, 2):
        torch.manual_seed(1)
        with PartOfBatch(start, 2, 4):
            part = model(images[start : start + 2])
        assert_close(part, whole[start : start + 2], TOLERANCE, "logits of a part")
    torch.manual_seed(2)
    assert not torch.equal(model(images), whole)
    torch.manual_seed(1)
    assert torch.equal(model.eval()(images), model(images))


# The masks of one block in the order of the authors' codes: P of a path, the others of the hidden values of an adapter.
P, RANK, WIDE, BOTTLENECK, CHANNELS_FIRST, WIDTH = (
    (4, 1, 1),
    (4, 17, 3),
    (4, 17, 6),
    (4, 17, 5),
    (4, 4, 17),
    (4, 17, 24),
)
CONVOLVED = (4, 17, 3)
MASKS: dict[str, list[tuple[int, ...]]] = {
    "adapter_houlsby": [P, P, P, P],
    "adapter_noah": [P, P, BOTTLENECK],
    "adapter_pfeiffer": [P, P, P],
    "adapter_plus": [P, P, P],
    "adapter_vpt": [P, P],
    "adaptformer": [P, BOTTLENECK, P],
    "bitfit": [P, P],
    "convpass": [P, CONVOLVED, P, P, CONVOLVED, P],
    "convpass_attn": [P, CONVOLVED, P, P],
    "difffit": [P, P],
    "fact_tk": [RANK, RANK, RANK, RANK, P, WIDE, RANK, P],
    "fact_tt": [RANK, RANK, RANK, RANK, P, WIDE, RANK, P],
    "ln_tuning": [P, P],
    "lora_noah": [WIDTH, P, P],
    "lora_peft": [WIDTH, P, P],
    "lora_qv": [RANK, RANK, P, P],
    "partial": [P, P],
    "repadapter": [CHANNELS_FIRST, P, CHANNELS_FIRST, P],
    "repadapter_attn": [CHANNELS_FIRST, P, P],
    "ssf": [P, P],
}


@pytest.mark.parametrize("method", literal.BLOCKS)
def test_order_of_the_masks(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, ...]] = []

    def record(noise: Noise, shape: tuple[int, ...], like: Tensor) -> Tensor:
        asked.append(tuple(shape))
        return torch.ones(shape, dtype=like.dtype)

    monkeypatch.setattr(Noise, "_next_mask", record)
    vit, tensors, images, _ = make(method, PLAIN)
    model = load(method, vit, tensors, dropout=0.1, drop_path=[0.0, 0.1, 0.1, 0.1]).train()
    model.masks = iter([])
    model(images)
    paths = MASKS[method].count(P) - 2 * ("adapter_h" in method) - ("adapter_p" in method)
    assert len(asked) == 4 * len(MASKS[method]) - paths, "the first block has no stochastic depth"
    assert asked[-len(MASKS[method]) :] == MASKS[method]


# What these methods add lies on the paths that stochastic depth drops; the others act on what is left.
DROPPED_ALONG = ["adapter_vpt", "convpass", "convpass_attn", "fact_tk", "fact_tt", "ssf"]


@pytest.mark.parametrize("method", literal.BLOCKS)
def test_what_an_image_computes_that_drops_all_paths(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    vit, tensors, images, _ = make(method, PLAIN)
    config = {**literal.CONFIGS[method], "drop_path": 0.0}
    model = load_official(method, copy.deepcopy(vit), tensors, config, drop_path=[0.5] * len(vit.blocks)).train()
    model.masks = itertools.repeat(torch.zeros(P))
    if method in DROPPED_ALONG:
        monkeypatch.setitem(literal.BLOCKS, method, lambda at, x: x)
    weights = {name: value for name, value in tensors.items() if not name.endswith(("proj.bias", "fc2.bias"))}
    for block in vit.blocks:
        for layer in (block.attn.proj, block.mlp.fc2):
            torch.nn.init.zeros_(layer.weight)
            torch.nn.init.zeros_(layer.bias)
    if method == "partial":
        weights = {name: value for name, value in weights.items() if not name.endswith(("proj.weight", "fc2.weight"))}
    expected = literal.logits(method, vit, weights, config, images)
    assert_close(model(images), expected, TOLERANCE, "logits")


def fresh(name: str, **settings: Any) -> tuple[AdaptedModel, VisionTransformer, Tensor]:
    """A method at its start, the backbone with the head of the model, and images."""
    method = get_method(name)
    assert isinstance(method, AdaptedMethod)
    generator = torch.Generator().manual_seed(3)
    shape = TinyVit(layer_scale=True)
    vit = tiny_vit(shape, generator)
    torch.manual_seed(0)
    adapter = method.adapter(vit, configure(method.settings, settings))
    model = AdaptedModel(copy.deepcopy(vit), CLASSES, adapter).double().eval()
    vit.reset_classifier(CLASSES)
    vit.double().head.load_state_dict(model.head.state_dict())
    return model, vit, batch(shape, 4, CLASSES, generator)[0]


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("lora", {}),
        ("lora", {"form": "peft"}),
        ("lora", {"form": "qv"}),
        ("adaptformer", {}),
        ("ssf", {"init": "identity"}),
        ("convpass", {}),
        ("convpass", {"conv_init": "identity"}),
        ("convpass-attn", {}),
        ("fact-tt", {}),
        ("fact-tk", {}),
        ("repadapter", {}),
        ("repadapter-attn", {}),
        ("adapter", {"init": "zero_up"}),
        ("adapter", {"form": "vpt", "init": "zero"}),
        ("bitfit", {}),
        ("ln-tuning", {}),
        ("difffit", {}),
        ("partial", {}),
    ],
)
def test_methods_that_start_at_the_pretrained_function(name: str, settings: dict[str, Any]) -> None:
    model, vit, images = fresh(name, **settings)
    assert_close(model(images), vit(images), 1e-13, "logits at the start")


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("lora", {"init": "noah"}),
        ("adapter", {}),
        ("adapter-plus", {}),
        ("adapter-houlsby", {}),
        ("adapter-pfeiffer", {}),
        ("ssf", {}),
    ],
)
def test_methods_that_start_elsewhere(name: str, settings: dict[str, Any]) -> None:
    model, vit, images = fresh(name, **settings)
    assert (model(images) - vit(images)).abs().max() > 1e-5


@pytest.mark.parametrize(
    ("name", "settings", "deviations"),
    [
        ("lora", {"rank": 24}, {"lora.0.a": 24**-0.5 / 3**0.5, "lora.0.b": 0}),
        ("lora", {"rank": 24, "init": "noah"}, {"lora.0.a": 0.02, "lora.0.b": 0.02}),
        ("adaptformer", {"dim": 24}, {"adaptformer.0.down.weight": 24**-0.5 / 3**0.5, "adaptformer.0.up.weight": 0}),
        ("ssf", {}, {"ssf_qkv.0.scale": 0.02, "ssf_fc1.1.shift": 0.02}),
        ("convpass", {"dim": 24}, {"convpass_mlp.0.down.weight": (2 / 48) ** 0.5}),
        ("convpass", {"dim": 24}, {"convpass_mlp.0.conv.weight": (2 / (2 * 24 * 9)) ** 0.5}),
        ("fact-tt", {}, {"u": 24**-0.5 / 3**0.5, "v": 0, "core_q.0": 0.25 / 3**0.5, "core_fc2.0": 32**-0.5 / 3**0.5}),
        ("fact-tk", {"rank": 16}, {"u": 24**-0.5 / 3**0.5, "c": (2 / 512) ** 0.5, "p": (2 / 48) ** 0.5}),
        ("repadapter", {"dim": 24}, {"repadapter_mlp.0.a.weight": (2 / 48) ** 0.5, "repadapter_mlp.0.b.weight": 0}),
        ("adapter", {"dim": 24}, {"adapter.0.down.weight": 0.02, "adapter.0.up.weight": 0.02, "adapter.0.up.bias": 0}),
        # A normal distribution that is cut at two deviations has 0.88 of its deviation.
        ("adapter-plus", {"dim": 24}, {"adapter.0.down.weight": 0.0088, "adapter.0.scale": 0}),
        ("adapter-houlsby", {"dim": 24}, {"adapter_attn.0.up.weight": 0.0088}),
        ("adapter-pfeiffer", {"dim": 24}, {"adapter.0.down.weight": 0.02, "adapter.0.up.weight": 0.02}),
    ],
)
def test_deviations_at_the_start(name: str, settings: dict[str, Any], deviations: dict[str, float]) -> None:
    model, _, _ = fresh(name, **settings)
    for parameter, expected in deviations.items():
        values = model.adapter.get_parameter(parameter)
        assert values.std(correction=0).item() == pytest.approx(expected, rel=0.15), parameter


def test_vpts_adapter_never_leaves_its_start() -> None:
    model, _, images = fresh("adapter", form="vpt", init="zero")
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(5):
        optimizer.zero_grad()
        model.loss(images, torch.zeros(len(images), dtype=torch.long)).backward()
        optimizer.step()
    moved = {name.split(".", 2)[2] for name, value in model.adapter.named_parameters() if value.abs().max() > 0}
    assert moved == {"up.bias"}


def test_fused_lora_is_that_of_peft_with_alpha_equal_to_the_rank() -> None:
    vit, tensors, images, _ = make("lora_noah", PLAIN)
    noah = load("lora_noah", vit, tensors)
    peft = load_official("lora_peft", copy.deepcopy(vit), tensors, {"rank": 3, "alpha": 3})
    assert torch.equal(noah(images), peft(images))


def own_model(vit: VisionTransformer, name: str, settings: dict[str, Any]) -> OfficialModel:
    """A model with random tensors, as our settings make it."""
    method, generator = get_method(name), torch.Generator().manual_seed(7)
    assert isinstance(method, AdaptedMethod)
    adapter = method.adapter(vit, configure(method.settings, settings))
    model = OfficialModel(copy.deepcopy(vit), CLASSES, adapter).to(torch.float64)
    for parameter in filter(lambda parameter: parameter.requires_grad, model.parameters()):
        parameter.data.copy_(uniform(generator, *parameter.shape, bound=0.6))
    return model.eval()


@pytest.mark.parametrize(
    ("method", "config", "name", "settings"),
    [
        ("lora_peft", {"rank": 3, "alpha": 6, "scale": 2.0}, "lora", {"form": "peft", "rank": 3, "alpha": 6.0}),
        ("repadapter", {"dim": 8, "groups": 4}, "repadapter", {"dim": 8, "groups": 4}),
        ("repadapter_attn", {"dim": 3, "groups": 1}, "repadapter-attn", {"dim": 3, "groups": 1}),
        (
            "adapter_plus",
            {"scaling": "layer", "act_layer": False},
            "adapter-plus",
            {"scaling": "layer", "activation": False},
        ),
        ("adapter_plus", {"scaling": 1.0}, "adapter-plus", {"scaling": "none"}),
        ("adapter_houlsby", {"attn_adapter": False}, "adapter-houlsby", {"at_attention": False}),
        ("adapter_pfeiffer", {"norm_layer": False}, "adapter-pfeiffer", {"norm": False}),
    ],
)
def test_the_authors_configuration_decides_the_variant(
    method: str, config: dict[str, Any], name: str, settings: dict[str, Any]
) -> None:
    vit, _, images, _ = make(method, PLAIN)
    own = own_model(vit, name, settings)
    loaded = load_official(method, copy.deepcopy(vit), own.official_tensors(), config)
    assert_close(loaded(images), own(images), TOLERANCE, "logits")


@pytest.mark.parametrize(("method", "part"), [("adapter_plus", "norm_layer"), ("adapter_pfeiffer", "attn_adapter")])
def test_parts_that_an_adapter_does_not_have_are_refused(method: str, part: str) -> None:
    vit, tensors, _, _ = make(method, PLAIN)
    with pytest.raises(InputError, match=f"{part} is True; this adapter has only {part}=False"):
        load_official(method, vit, tensors, {**literal.CONFIGS[method], part: True})


def test_official_tensors_fit_a_backbone_without_class_token() -> None:
    vit = VisionTransformer(
        32, 8, num_classes=0, embed_dim=24, depth=2, num_heads=4, class_token=False, global_pool="avg"
    )
    own = own_model(vit.double().eval(), "lora", {"rank": 3})
    loaded = load_official("lora_noah", vit, own.official_tensors(), {"rank": 3})
    images = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    assert_close(loaded(images), own(images), TOLERANCE, "logits")


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("lora", {"form": "peft", "scale": 2.0}, "scale changes nothing with form=peft"),
        ("lora", {"form": "qv", "alpha": 16.0}, "alpha changes nothing with form=qv"),
        ("adaptformer", {"learned_scale": True, "scale": 1.0}, "scale changes nothing with learned_scale=true"),
        ("adapter", {"form": "vpt", "dropout": 0.3}, "dropout changes nothing with form=vpt"),
    ],
)
def test_settings_without_effect_are_refused(name: str, settings: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        configure(get_method(name).settings, settings)


def test_separate_lora_is_fused_lora_of_twice_the_rank_in_blocks() -> None:
    vit, tensors, images, _ = make("lora_qv", PLAIN)
    fused = {name: value for name, value in tensors.items() if name.startswith("head.")}
    for block in range(len(vit.blocks)):
        q, v = (f"blocks.{block}.lora_{letter}" for letter in "qv")
        zero = torch.zeros_like(tensors[f"{q}.b"])
        rows = [(tensors[f"{q}.b"], zero), (zero, zero), (zero, tensors[f"{v}.b"])]
        fused[f"blocks.{block}.lora.a"] = torch.cat([tensors[f"{q}.a"], tensors[f"{v}.a"]])
        fused[f"blocks.{block}.lora.b"] = torch.cat([torch.cat(row, dim=1) for row in rows])
    separate = load("lora_qv", vit, tensors)
    joint = load_official("lora_noah", copy.deepcopy(vit), fused, {"rank": 6, "scale": 0.4})
    assert_close(joint(images), separate(images), TOLERANCE, "logits")


def test_off_centre_taps_of_the_last_block_have_no_gradient() -> None:
    vit, tensors, images, labels = make("convpass", PLAIN)
    model = load("convpass", vit, tensors)
    model.loss(images, labels).backward()
    last = len(vit.blocks) - 1
    taps = model.official_gradients()[f"blocks.{last}.convpass_mlp.conv.weight"].flatten(2)
    assert taps[..., 4].abs().min() > 0
    assert taps[..., [0, 1, 2, 3, 5, 6, 7, 8]].abs().max() == 0


def test_a_mask_that_does_not_fit_is_refused() -> None:
    vit, tensors, images, _ = make("adaptformer", PLAIN)
    model = load("adaptformer", vit, tensors, dropout=0.1).train()
    model.masks = iter([torch.ones(4, 17, 4)])
    with pytest.raises(InputError, match=r"asks for a mask \(4, 17, 5\), but the next mask is \(4, 17, 4\)"):
        model(images)
    model.masks = iter([])
    with pytest.raises(InputError, match="there is no further mask"):
        model(images)


@pytest.mark.parametrize("method", literal.BLOCKS)
def test_a_step_in_bf16_is_near_that_in_fp32(method: str) -> None:
    vit, tensors, images, labels = make(method, FULL)
    images = images.float()
    model = load(method, vit.float(), tensors)
    model.loss(images, labels).backward()
    exact = model.official_gradients()["head.weight"].clone()
    model.zero_grad(set_to_none=True)
    cast_frozen_weights(model, ComputeContext(torch.device("cpu"), "bf16"))
    with torch.autocast("cpu", torch.bfloat16):
        model.loss(images, labels).backward()
    gradients = model.official_gradients()
    assert all(value.dtype == torch.float32 and value.isfinite().all() for value in gradients.values())
    torch.testing.assert_close(gradients["head.weight"], exact, rtol=0.2, atol=0.05)


# Without the head, for ViT-B/16: what the papers or the authors' logs state, exactly.
COUNTS = [
    ("lora", {}, 294_912),
    ("lora", {"form": "qv"}, 294_912),
    ("lora", {"form": "peft"}, 294_912),
    ("adaptformer", {}, 156_768),
    ("adaptformer", {"dim": 64}, 1_189_632),
    ("ssf", {}, 205_824),
    ("convpass", {}, 327_552),
    ("convpass-attn", {}, 163_776),
    ("fact-tt", {"rank": 16}, 61_440),
    ("fact-tt", {"rank": 4}, 8_448),
    ("fact-tk", {"rank": 32}, 86_528),
    ("fact-tk", {"rank": 16}, 30_976),
    ("repadapter", {}, 239_808),
    ("repadapter-attn", {}, 119_904),
    ("bitfit", {}, 102_912),
    ("adapter", {}, 156_768),
    ("adapter", {"form": "vpt", "dim": 96}, 1_779_840),
    ("adapter-plus", {"dim": 8}, 165_984),
    ("adapter-plus", {"dim": 16}, 313_536),
    ("adapter-houlsby", {"dim": 8, "train_norms": False}, 313_536),
    ("adapter-houlsby", {"dim": 8}, 351_936),
    ("adapter-pfeiffer", {"dim": 8}, 175_200),
    ("ln-tuning", {}, 38_400),
    ("difffit", {}, 140_544),
    ("partial", {}, 7_089_408),
    ("partial", {"blocks": 4}, 28_353_024),
]


@pytest.fixture(scope="module")
def base() -> VisionTransformer:
    """ViT-B/16 without memory for its weights."""
    with torch.device("meta"):
        return VisionTransformer(num_classes=0)


@pytest.mark.parametrize(("name", "settings", "expected"), COUNTS)
def test_trained_parameters_of_vit_b16(
    base: VisionTransformer, name: str, settings: dict[str, Any], expected: int
) -> None:
    method = get_method(name)
    assert isinstance(method, AdaptedMethod)
    with torch.device("meta"):
        model = AdaptedModel(base, 100, method.adapter(base, configure(method.settings, settings)))
    trained = {name: p.numel() for name, p in model.named_parameters() if p.requires_grad}
    assert sum(count for name, count in trained.items() if not name.startswith("head.")) == expected
    assert sum(count for name, count in trained.items() if name.startswith("head.")) == 76_900
