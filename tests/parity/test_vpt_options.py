"""The options of VPT's paper equal a literal computation, and train as many parameters as the paper's code."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from shipbench_baselines.settings import VptConfig, VptDeepConfig
from shipbench_baselines.vpt import Vpt
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from shipbench.errors import InputError
from shipbench.methods import BuildContext, get_method
from shipbench.prompting import stacked_forward, static
from tests.parity.adapters import drawn_factors, trained
from tests.parity.comparing import assert_all_close, assert_close, gradients, leaves
from tests.reference import tiny, vpt_options
from tests.reference.tiny import TinyVit
from tests.reference.vpt import projected_prompts
from tests.reference.vpt_options import Options

TOLERANCE = 1e-9
SHAPE = TinyVit(image_size=20, patch_size=4, width=24, depth=4, registers=1, layer_scale=True)
LENGTH, BATCH, CLASSES = 3, 4, 3
POOLS = ["original", "img_pool", "prompt_pool", "imgprompt_pool"]
SHALLOW: list[dict[str, Any]] = [
    *({"pooling": pooling} for pooling in POOLS),
    *({"location": location} for location in ("add", "add-1", "below", "pad")),
    *({"location": location, "pooling": "img_pool"} for location in ("add", "below", "pad")),
    {"location": "prepend-pixel"},
    {"location": "prepend-pixel", "pooling": "imgprompt_pool"},
    {"location": "add", "project": 5},
    {"location": "pad", "prompt_length": 1},
]
DEEP: list[dict[str, Any]] = [
    *({"pooling": pooling} for pooling in POOLS),
    *({"deep_layers": count} for count in (1, 3, 4)),
    *({"deep_layers": 2, "deep_order": order} for order in ("forward-noexpand", "reverse")),
    {"deep_layers": 1, "deep_order": "reverse", "pooling": "prompt_pool"},
    {"deep_layers": 2, "pooling": "imgprompt_pool"},
    *({"deep_shared": True, "location": location} for location in ("prepend", "add", "add-1")),
    {"deep_shared": True, "project": 5, "deep_layers": 3},
    *({"location": location} for location in ("add", "add-1")),
    {"location": "add", "deep_layers": 2, "deep_order": "reverse", "pooling": "img_pool"},
]
CASES = [(False, settings) for settings in SHALLOW] + [(True, settings) for settings in DEEP]


def named(case: object) -> str:
    return "-".join(map(str, case.values())) if isinstance(case, dict) else "deep" if case else "shallow"


every_case = pytest.mark.parametrize(("deep", "settings"), CASES, ids=named)


def backbone(shape: TinyVit = SHAPE) -> VisionTransformer:
    return tiny.tiny_vit(shape, torch.Generator().manual_seed(3))


def build(deep: bool, settings: dict[str, Any], vit: VisionTransformer) -> Vpt:
    """A model whose trained tensors are all random."""
    config = (VptDeepConfig if deep else VptConfig)(**{"prompt_length": LENGTH, **settings})
    model = Vpt(deepcopy(vit), CLASSES, config, deep=deep).double()
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in trained(model).values():
            parameter.copy_(tiny.uniform(generator, *parameter.shape, bound=0.5))
    return model


def options(deep: bool, settings: dict[str, Any]) -> Options:
    layers = settings.get("deep_layers", SHAPE.depth) if deep else 1
    names = {"location": "location", "order": "deep_order", "shared": "deep_shared", "pooling": "pooling"}
    return Options(layers, **{name: settings[key] for name, key in names.items() if key in settings})


def batch() -> tuple[Tensor, Tensor]:
    return tiny.batch(SHAPE, BATCH, CLASSES, torch.Generator().manual_seed(7))


@every_case
def test_every_option_equals_the_literal_pass(deep: bool, settings: dict[str, Any]) -> None:
    vit, (images, labels) = backbone(), batch()
    model = build(deep, settings, vit).eval()
    parameters = leaves({name: value.detach() for name, value in trained(model).items()})
    expected = vpt_options.forward(vit, parameters, options(deep, settings), images)
    with torch.no_grad():
        assert_close(model(images), expected, TOLERANCE, "logits without gradients")
    loss = model.loss(images, labels)
    assert_close(loss, F.cross_entropy(expected, labels), TOLERANCE, "loss")
    assert_all_close(
        gradients(loss, trained(model)), gradients(F.cross_entropy(expected, labels), parameters), TOLERANCE
    )


@pytest.mark.parametrize("is_static", [False, True], ids=["skipping", "static"])
@every_case
def test_stochastic_depth_of_every_option(
    monkeypatch: pytest.MonkeyPatch, deep: bool, settings: dict[str, Any], is_static: bool
) -> None:
    monkeypatch.setattr(static, "is_static", lambda device: is_static)
    vit, (images, _) = backbone(TinyVit(**{**vars(SHAPE), "drop_path": 0.7})), batch()
    model = build(deep, settings, vit).train()
    factors = drawn_factors(vit, BATCH, seed=11)
    assert not factors.all()
    expected = vpt_options.forward(vit, trained(model), options(deep, settings), images, factors.double())
    torch.manual_seed(11)
    assert_close(model(images), expected, TOLERANCE, "logits")


@pytest.mark.parametrize("project", [0, 5], ids=["plain", "projected"])
@pytest.mark.parametrize("deep", [False, True], ids=["shallow", "deep"])
def test_dropout_acts_on_the_projected_prompts_of_each_image(deep: bool, project: int) -> None:
    vit, (images, labels) = backbone(), batch()
    model = build(deep, {"dropout": 0.3, "project": project}, vit).train()
    parameters = trained(model)
    torch.manual_seed(1)
    loss = model.loss(images, labels)
    torch.manual_seed(1)
    row = torch.ones(BATCH, LENGTH, SHAPE.width, dtype=torch.float64)
    factors = torch.stack([F.dropout(row, 0.3) for _ in range(SHAPE.depth if deep else 1)], dim=1)
    assert factors.unique().tolist() == pytest.approx([0, 1 / 0.7])
    prompts, head = projected_prompts(parameters), {name: parameters[name] for name in ("head.weight", "head.bias")}
    logits = [
        vpt_options.forward(vit, {"prompts.tokens": prompts * factor, **head}, options(deep, {}), image[None])
        for factor, image in zip(factors, images, strict=True)
    ]
    expected = F.cross_entropy(torch.cat(logits), labels)
    assert_close(loss, expected, TOLERANCE, "loss")
    assert_all_close(gradients(loss, parameters), gradients(expected, parameters), TOLERANCE)


@every_case
def test_counts_are_those_of_the_papers_code(deep: bool, settings: dict[str, Any]) -> None:
    model = build(deep, settings, backbone())
    count = sum(parameter.numel() for name, parameter in trained(model).items() if name.startswith("prompts."))
    blocks = 1 if settings.get("deep_shared") else options(deep, settings).layers
    width = settings.get("project", SHAPE.width)
    projection = 0 if width == SHAPE.width else (width + 1) * SHAPE.width
    assert count == projection + vpt_options.counted(
        settings.get("location", "prepend"),
        blocks=blocks,
        length=settings.get("prompt_length", LENGTH),
        tokens=SHAPE.image_tokens,
        width=width,
        side=SHAPE.image_size,
        patch=SHAPE.patch_size,
    )


def test_the_backbone_stays_frozen_and_below_trains_its_own_patch_embedding() -> None:
    vit = backbone()
    model = Vpt(deepcopy(vit), CLASSES, VptConfig(prompt_length=2, location="below"), deep=False).double()
    assert not any(parameter.requires_grad for parameter in model.backbone.parameters())
    weight = model.get_parameter("prompts.weight")
    assert torch.equal(weight[:, :3], vit.patch_embed.proj.weight)
    assert torch.equal(model.get_parameter("prompts.bias"), vit.patch_embed.proj.bias)
    bound = (6 / (3 * 16 + 24)) ** 0.5
    for drawn in (weight[:, 3:], model.get_parameter("prompts.channels")):
        assert 0.9 * bound < drawn.abs().max() <= bound


def test_reverse_prompts_send_no_gradient_through_the_first_blocks() -> None:
    images, labels = batch()
    model = build(True, {"deep_layers": 1, "deep_order": "reverse"}, backbone())
    reached = list[bool]()
    for block in model.backbone.blocks:
        block.mlp.register_forward_hook(lambda module, inputs, output: reached.append(output.requires_grad))
    model.loss(images, labels).backward()
    assert reached[:3] == [False] * 3
    assert reached[3]


def test_starts_of_pixels() -> None:
    def pixels(initiation: str) -> Tensor:
        torch.manual_seed(0)
        config = VptConfig(prompt_length=50, location="prepend-pixel", initiation=initiation)  # type: ignore[arg-type]
        return Vpt(backbone(), CLASSES, config, deep=False).get_parameter("prompts.pixels").detach()

    bound = (6 / (3 * 16 + 24)) ** 0.5
    assert 0.95 * bound < pixels("random").abs().max() <= bound
    assert pixels("gaussian").std() == pytest.approx(1, abs=0.05)
    mean, std = vpt_options.MEAN[:, None, None].float(), vpt_options.STD[:, None, None].float()
    unit = pixels("imgnettransform") * std + mean
    assert (unit.min(), unit.max()) == (pytest.approx(0, abs=0.01), pytest.approx(1, abs=0.01))
    torch.manual_seed(0)
    frame = Vpt(backbone(), CLASSES, VptConfig(location="pad"), deep=False)
    for name in ("prompts.rows", "prompts.columns"):
        unit = frame.get_parameter(name).detach() * std + mean
        assert (unit.min(), unit.max()) == (pytest.approx(0, abs=0.01), pytest.approx(1, abs=0.01))


def context(deep: bool, features: Tensor, vit: VisionTransformer, **settings: Any) -> BuildContext:
    config = (VptDeepConfig if deep else VptConfig)(**{"prompt_length": LENGTH, **settings})
    return BuildContext(vit, CLASSES, config, lambda kind: {"cls": features}[kind], print)


@pytest.mark.parametrize(
    ("deep", "settings", "entries"),
    [
        (True, {"initiation": "final-cls"}, [4, 4, 4, 4]),
        (True, {"initiation": "cls-nolastl"}, [0, 1, 2, 3]),
        (True, {"initiation": "cls-nofirstl"}, [1, 2, 3, 4]),
        (True, {"initiation": "cls-nolastl", "deep_layers": 2, "deep_order": "reverse"}, [2, 3]),
        (True, {"initiation": "cls-nofirstl", "deep_layers": 2}, [1, 2]),
        (True, {"initiation": "final-cls", "deep_shared": True}, [4]),
        (False, {"initiation": "final-cls"}, [4]),
        (False, {"initiation": "cls-nofirstl"}, [1]),
    ],
)
def test_prompts_start_at_the_cls_tokens_of_clusters(deep: bool, settings: dict[str, Any], entries: list[int]) -> None:
    """Three well separated clusters, so the literal clustering is known."""
    vit = backbone().float()
    generator = torch.Generator().manual_seed(1)
    cluster = torch.tensor([0, 1, 2, 0, 1, 2, 0, 0])
    centres = 100 * torch.randn(LENGTH, SHAPE.depth, SHAPE.width, generator=generator)
    features = centres[cluster] + torch.randn(8, SHAPE.depth, SHAPE.width, generator=generator)
    method = get_method("vpt-deep" if deep else "vpt-shallow")
    built = method.build(context(deep, features, vit, **settings))
    tokens = trained(built.model)["prompts.tokens"].detach()
    images = torch.rand(1, 3, SHAPE.image_size, SHAPE.image_size)
    entering = vpt_options.embed(vit, {}, "prepend", images)[0, 0].expand(LENGTH, -1)
    means = torch.stack([features[cluster == number].mean(dim=0) for number in range(LENGTH)])
    expected = torch.stack([entering, *means.unbind(dim=1)])[entries]
    # The numbering of clusters is free, but it is one numbering for all blocks.
    order = [int((expected[-1] - row).norm(dim=-1).argmin()) for row in tokens[-1]]
    if entries[-1] > 0:
        assert sorted(order) == [0, 1, 2]
        expected = expected[:, order]
    torch.testing.assert_close(tokens, expected, rtol=1e-4, atol=1e-4)
    assert built.facts == {"initiation": settings["initiation"]}


def test_too_few_images_for_the_prompts_are_refused() -> None:
    features = torch.ones(6, SHAPE.depth, SHAPE.width)
    features[0] = 2
    with pytest.raises(InputError, match="prompt_length=3 needs as many different training images"):
        get_method("vpt-deep").build(context(True, features, backbone().float(), initiation="final-cls"))


def test_more_prompted_blocks_than_blocks_are_refused() -> None:
    with pytest.raises(InputError, match="deep_layers is 5, but the backbone has 4 blocks"):
        build(True, {"deep_layers": 5}, backbone())


@pytest.mark.parametrize(
    ("method", "settings", "words"),
    [
        ("vpt-shallow", {"location": "pad", "dropout": 0.1}, "has neither project nor dropout"),
        ("vpt-shallow", {"location": "below", "pooling": "prompt_pool"}, "location=below has none"),
        ("vpt-shallow", {"initiation": "gaussian"}, "is for location=prepend-pixel"),
        ("vpt-shallow", {"initiation": "final-cls", "project": 4}, "use it with location=prepend and project=0"),
        ("vpt-shallow", {"deep_layers": 2}, "unknown setting 'deep_layers'"),
        ("vpt-deep", {"location": "pad"}, "is not one of prepend, add, add-1"),
        ("vpt-deep", {"deep_order": "forward-noexpand", "location": "add"}, "use it with location=prepend"),
        ("vpt-deep", {"deep_order": "forward-noexpand", "pooling": "prompt_pool"}, "removes prompt tokens"),
    ],
)
def test_options_that_exclude_each_other_are_refused_before_anything_runs(
    method: str, settings: dict[str, Any], words: str
) -> None:
    from shipbench import RunSpec

    with pytest.raises(InputError, match=words):
        RunSpec(method, "dtd", overrides=settings).resolved  # noqa: B018


@pytest.mark.parametrize("settings", [{"location": "add"}, {"location": "add-1"}, {"deep_layers": 2}], ids=named)
def test_a_stack_equals_separate_models(settings: dict[str, Any]) -> None:
    vit, (images, labels) = backbone(), batch()
    models = [build(True, settings, vit) for _ in range(3)]
    for model, scale in zip(models, (1.0, 1.5, 2.0), strict=True):
        model.backbone = vit
        model.get_parameter("prompts.tokens").data *= scale
    assert get_method("vpt-deep").stacks(VptDeepConfig(**settings))
    inputs = [model.stack_input(BATCH, match=True) for model in models]
    tokens = models[0].prompts.embed(vit, images).repeat(3, 1, 1)
    for model, output in zip(models, stacked_forward(vit, tokens, inputs), strict=True):
        assert_close(model.loss_of(output, labels), model.loss(images, labels), TOLERANCE, "loss")


@pytest.mark.parametrize("settings", [{"location": "below"}, {"location": "pad"}, {"pooling": "img_pool"}], ids=named)
def test_options_that_change_the_tokens_of_a_run_are_not_stacked(settings: dict[str, Any]) -> None:
    assert not get_method("vpt-shallow").stacks(VptConfig(**settings))
