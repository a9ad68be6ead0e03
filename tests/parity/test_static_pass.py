"""The static pass of a GPU, run on the CPU in float64: it computes what the CPU's pass computes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, example, given
from hypothesis import settings as hypothesis_settings
from shipbench_baselines.settings import VptConfig
from shipbench_baselines.vpt import Vpt
from torch import Tensor
from torch._dynamo.testing import CompileCounter

from shipbench.backbones import load_backbone
from shipbench.methods.ship import Ship, ShipConfig
from shipbench.prompting import StepBuffer, embed, joined, stacked_forward, static
from shipbench.prompting.static import one_hot, select_rows
from tests.parity import adapters, golden
from tests.parity.adapters import load_ship, trained
from tests.parity.comparing import assert_all_close, assert_close, gradients
from tests.parity.strategies import PAPER, ShipShape, ship_problem, ship_shapes

TOLERANCE = 1e-12
BATCH, SIZE, CLASSES = 12, 32, 5
LAYOUTS = ([0, 2, 4, 6, 7], [0, 1, 4, 7], [0, 5, 7], [0])


@dataclass(frozen=True)
class Numbers:
    """The numbers of a training step."""

    loss: Tensor
    logits: Tensor
    gradients: dict[str, Tensor]


@pytest.fixture(params=["joined", "apart"])
def static_passes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """A function that makes passes on the CPU static, or not, with prompts as rows of the images or apart."""
    tokens_per_prompt = {"joined": 0, "apart": SIZE**2}[request.param]
    monkeypatch.setattr(joined, "_IMAGE_TOKENS_PER_PROMPT", tokens_per_prompt)
    return lambda on: monkeypatch.setattr(static, "is_static", lambda device: on)


def ship(levels: list[int], depth: int = 8, **settings: Any) -> Ship:
    torch.manual_seed(0)
    shape = {"depth": depth}
    vit = load_backbone("test_vit", checkpoint="random", image_size=SIZE, drop_path=0.5, architecture=shape)
    lengths = {"prompt_length": 3, "shared_length": 4, "attribute_length": 3, "prototypes": 7, "top_k": 5}
    return Ship(vit, CLASSES, levels, torch.randn(7, vit.embed_dim), ShipConfig(**lengths | settings)).double().train()


def vpt(deep: bool) -> Vpt:
    torch.manual_seed(0)
    vit = load_backbone("test_vit", checkpoint="random", image_size=SIZE, drop_path=0.5)
    return Vpt(vit, CLASSES, VptConfig(prompt_length=3), deep=deep).double().train()


def batch(seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(BATCH, 3, SIZE, SIZE, generator=generator, dtype=torch.float64)
    return images, torch.randint(CLASSES, (BATCH,), generator=generator)


def step(model: Any, seed: int) -> Numbers:
    """A step on a batch with the factors that follow a seed."""
    images, labels = batch(seed)
    torch.manual_seed(seed)
    loss = model.loss(images, labels)
    slopes = gradients(loss, trained(model))
    torch.manual_seed(seed)
    return Numbers(loss.detach(), model(images).detach(), slopes)


def assert_same(ours: Numbers, theirs: Numbers) -> None:
    assert_close(ours.loss, theirs.loss, TOLERANCE, "loss")
    assert_close(ours.logits, theirs.logits, TOLERANCE, "logits")
    assert_all_close(ours.gradients, theirs.gradients, TOLERANCE)


MODELS: dict[str, Callable[[], Any]] = {
    **{f"ship-{levels}": lambda levels=levels: ship(levels) for levels in LAYOUTS},
    "ship-coupled": lambda: ship([0, 2, 5], attention="coupled"),
    "ship-learned-scale": lambda: ship([0, 2, 5], learn_scale=True),
    "ship-prompts-attend": lambda: ship([0, 2, 5], prompt_attention="all"),
    "vpt-deep": lambda: vpt(deep=True),
    "vpt-shallow": lambda: vpt(deep=False),
}


@pytest.mark.parametrize("name", list(MODELS))
def test_a_step_equals_that_of_the_cpu(name: str, static_passes: Callable[[bool], None]) -> None:
    model = MODELS[name]()
    for seed in range(2):
        static_passes(False)
        expected = step(model, seed)
        static_passes(True)
        assert_same(step(model, seed), expected)


@hypothesis_settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ship_shapes())
@example(PAPER)
def test_every_configuration_equals_that_of_the_cpu(static_passes: Callable[[bool], None], shape: ShipShape) -> None:
    problem = ship_problem(shape)
    config = adapters.config_of(shape)
    levels = shape.settings.levels
    model = adapters.build_ship(problem.vit, problem.parameters, levels, problem.bank, config).train()
    terms, slopes = [], []
    for on in (False, True):
        static_passes(on)
        terms.append(model.loss_terms(problem.images, problem.labels, drop_factors=problem.drop_factors))
        slopes.append(gradients(terms[-1].total, trained(model)))
    assert_close(terms[1].logits, terms[0].logits, TOLERANCE, "logits")
    assert_close(terms[1].total, terms[0].total, TOLERANCE, "loss")
    assert_all_close(slopes[1], slopes[0], TOLERANCE)


def stacked_losses(models: Sequence[Any], seed: int) -> list[Tensor]:
    images, labels = batch(seed)
    inputs = []
    for run, model in enumerate(models):
        torch.manual_seed(run)
        inputs.append(model.stack_input(BATCH, match=True))
    backbone = models[0].backbone
    outputs = stacked_forward(backbone, embed(backbone, images).repeat(len(models), 1, 1), inputs)
    return [model.loss_of(output, labels) for model, output in zip(models, outputs, strict=True)]


@pytest.mark.parametrize("name", ["ship-[0, 5, 7]", "ship-[0]", "ship-coupled", "ship-learned-scale", "vpt-shallow"])
def test_a_stack_equals_separate_runs(name: str, static_passes: Callable[[bool], None]) -> None:
    static_passes(True)
    models = [MODELS[name]() for _ in range(3)]
    for run, model in enumerate(models):
        generator = torch.Generator().manual_seed(run)
        for parameter in trained(model).values():
            parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    losses = stacked_losses(models, 4)
    together = torch.stack(losses).sum()
    images, labels = batch(4)
    for run, (model, loss) in enumerate(zip(models, losses, strict=True)):
        torch.manual_seed(run)
        alone = model.loss(images, labels)
        assert_close(loss, alone, TOLERANCE, "loss")
        parameters = trained(model)
        assert_all_close(gradients(together, parameters), gradients(alone, parameters), TOLERANCE)


def test_a_run_that_is_not_finite_affects_no_other(static_passes: Callable[[bool], None]) -> None:
    static_passes(True)
    models = [MODELS["ship-[0, 5, 7]"]() for _ in range(3)]
    with torch.no_grad():
        models[1].prompts.independent[0].fill_(float("nan"))
    losses = stacked_losses(models, 4)
    torch.stack(losses).sum().backward()
    finite = [all(bool(p.grad.isfinite().all()) for p in trained(model).values()) for model in models]
    assert [bool(loss.isfinite()) for loss in losses] == finite == [True, False, True]


@pytest.mark.parametrize("name", ["ship_tiny", "ship_tiny_c"])
def test_golden_numbers(name: str, static_passes: Callable[[bool], None]) -> None:
    static_passes(True)
    stored = golden.tensors(name)
    expected = golden.under("f64", stored)
    model, images = load_ship(name, torch.float64), stored["images"].double()
    terms = model.loss_terms(images, stored["labels"])
    assert_close(model(images), expected["logits"], TOLERANCE, "logits")
    assert_close(terms.total, expected["loss"], TOLERANCE, "loss")
    slopes = golden.ship_parameters(golden.under("f64.grad", stored))
    assert_all_close(gradients(terms.total, trained(model)), slopes, TOLERANCE)


def test_golden_masks(static_passes: Callable[[bool], None]) -> None:
    static_passes(True)
    everything = golden.tensors("ship_tiny")
    stored = golden.under("droppath", everything)
    model = load_ship("ship_tiny").train()
    factors = stored["factors_block_branch_sample"]
    terms = model.loss_terms(everything["images"].float(), everything["labels"], drop_factors=factors)
    assert_close(terms.logits, stored["logits"], 2e-5, "logits")
    assert_close(terms.matching, stored["matching_loss"], 2e-5, "matching")
    assert_close(terms.total, stored["loss"], 2e-5, "loss")


def test_a_step_reads_its_factors_from_a_buffer(static_passes: Callable[[bool], None]) -> None:
    static_passes(True)
    model = ship([0, 2, 5]).float()
    depth, device = model.stochastic_depth, torch.device("cpu")
    images, labels = (tensor.float() if tensor.is_floating_point() else tensor for tensor in batch(1))
    buffer = StepBuffer(BATCH, depth.scales, device)
    assert buffer.factors is not None
    for seed in range(3):
        torch.manual_seed(seed)
        expected = model.loss(images.flip(0), labels.flip(0))
        torch.manual_seed(seed)
        address = buffer.factors.values.data_ptr()
        buffer.fill(torch.arange(BATCH).flip(0), depth.draw(BATCH))
        assert buffer.factors.values.data_ptr() == address
        state = torch.get_rng_state()
        with depth.reading(buffer.factors):
            loss = model.loss(images[buffer.indices], labels[buffer.indices])
        assert torch.equal(loss, expected)
        assert torch.equal(torch.get_rng_state(), state), "a step that reads its factors draws nothing"


def test_a_buffer_holds_the_runs_of_a_stack_one_after_another() -> None:
    buffer = StepBuffer(6, (None, 1.25), torch.device("cpu"))
    values = torch.arange(24.0).view(2, 2, 6)
    buffer.fill(torch.arange(6), values)
    indices, factors = buffer.of_run(1, 3)
    assert factors is not None
    assert indices.tolist() == [2, 3]
    assert torch.equal(factors.values, values[:, :, 2:4])
    assert StepBuffer(6, (None, None), torch.device("cpu")).factors is None


def test_selected_rows_are_exact_also_under_autocast() -> None:
    rows = torch.randn(2, 9, 4, 5, generator=torch.Generator().manual_seed(0)) * torch.logspace(-6, 6, 5)
    indices = torch.tensor([[3, 0, 3], [8, 1, 2]])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        chosen = select_rows(one_hot(indices, 9), rows)
    assert torch.equal(chosen, torch.stack([rows[0, indices[0]], rows[1, indices[1]]]))


def test_one_graph_serves_every_draw(static_passes: Callable[[bool], None]) -> None:
    static_passes(True)
    torch._dynamo.reset()
    counter = CompileCounter()
    model = ship([0, 2], depth=4)
    images, labels = batch(0)
    depth = model.stochastic_depth
    buffer = StepBuffer(BATCH, depth.scales, torch.device("cpu"))

    def loss(pixels: Tensor, answers: Tensor) -> Tensor:
        return model.loss(pixels, answers)

    compiled = torch.compile(loss, backend=counter, fullgraph=True, dynamic=False)
    with depth.reading(buffer.factors):
        for seed in range(4):
            torch.manual_seed(seed)
            buffer.fill(torch.arange(BATCH), depth.draw(BATCH))
            once = compiled(images, labels)
            assert_close(once, model.loss(images, labels), TOLERANCE, "loss")
            once.backward()
    assert counter.frame_count == 1
    torch._dynamo.reset()


def test_every_device_but_the_cpu_is_static() -> None:
    assert [static.is_static(torch.device(kind)) for kind in ("cpu", "cuda", "mps", "meta")] == [
        False,
        True,
        True,
        True,
    ]


def test_a_batch_of_one_image(static_passes: Callable[[bool], None]) -> None:
    shape = replace(PAPER, batch=1)
    problem = ship_problem(shape)
    config = adapters.ship_config(shape.settings, length=3, shared=10, attribute=10)
    model = adapters.build_ship(problem.vit, problem.parameters, shape.settings.levels, problem.bank, config)
    totals = []
    for on in (False, True):
        static_passes(on)
        totals.append(model.train().loss_terms(problem.images, problem.labels, problem.drop_factors).total)
    assert_close(totals[1], totals[0], TOLERANCE)
