"""Attention in bf16 on a CPU: which kernel computes it, and that both compute the equation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shipbench.backbones import load_backbone
from shipbench.hardware.flops import count_flops
from shipbench.hardware.precision import ComputeContext
from shipbench.methods import BuildContext, get_method
from shipbench.prompting import kernels, written_out
from shipbench.prompting.attention import attend_decoupled
from shipbench.prompting.kernels import attend, attention_of_modules
from shipbench.prompting.written_out import attend_apart_in_products, attend_with_gradient_in_products

CPU = torch.device("cpu")
IMAGES, HEADS, TOKENS, PROMPTS, WIDTH, SCALE = 6, 3, 9, 7, 8, 0.3
SHARES = [1, 2, 3, 6]
CHUNKS = [1, 2, 4, 1000]


@pytest.fixture(autouse=True)
def without_amx(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "_HAS_AMX", False)


@pytest.fixture(params=CHUNKS)
def chunks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(written_out, "_CHUNK_SIZE", request.param * HEADS * TOKENS * TOKENS)


def drawn(states: int, dtype: torch.dtype, queries: int = TOKENS) -> list[Tensor]:
    """Queries, keys and values of images in the layout of their projection, and keys and values of prompts."""
    generator = torch.Generator().manual_seed(states)
    image = torch.randn(IMAGES, TOKENS, 3, HEADS, WIDTH, generator=generator, dtype=torch.float64)
    prompts = torch.randn(states, PROMPTS, 2, HEADS, WIDTH, generator=generator, dtype=torch.float64)
    query, *keys_and_values = (*image.unbind(2), *prompts.unbind(2))
    return [part.transpose(1, 2).to(dtype).detach().requires_grad_() for part in (query[:, :queries], *keys_and_values)]


def literal(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    key, value = (states.repeat_interleave(IMAGES // len(states), dim=0) for states in (key, value))
    return torch.softmax(query @ key.transpose(2, 3) * WIDTH**-0.5, dim=-1) @ value


def literally_apart(query: Tensor, key: Tensor, value: Tensor, of_prompts: Tensor, values: Tensor) -> Tensor:
    return (1 - SCALE) * literal(query, key, value) + SCALE * literal(query, of_prompts, values)


def apart(query: Tensor, key: Tensor, value: Tensor, of_prompts: Tensor, values: Tensor) -> Tensor:
    return attend_apart_in_products(query, (key, value), (of_prompts, values), SCALE)


def decoupled(query: Tensor, key: Tensor, value: Tensor, of_prompts: Tensor, values: Tensor) -> Tensor:
    return attend_decoupled(query, (key, value), (of_prompts, values), SCALE)


def slopes(out: Tensor, inputs: Sequence[Tensor]) -> list[Tensor]:
    upstream = torch.randn(out.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).bfloat16()
    return list(torch.autograd.grad(out, list(inputs), upstream.to(out.dtype), retain_graph=True))


def keeping_only(inputs: Sequence[Tensor], compute: Callable[[], Tensor]) -> Tensor:
    """Return the result of ``compute``, which keeps ``inputs`` and nothing else for its gradient."""
    kept: set[int] = set()

    def keep(tensor: Tensor) -> Tensor:
        kept.add(tensor.data_ptr())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        out = compute()
    assert kept == {tensor.data_ptr() for tensor in inputs}
    return out


@pytest.mark.usefixtures("chunks")
@pytest.mark.parametrize("queries", [TOKENS, 1])
@pytest.mark.parametrize("states", SHARES)
def test_images_and_prompts_in_the_same_products_equal_the_formula(states: int, queries: int) -> None:
    inputs = drawn(states, torch.float64, queries)
    ours, formula = apart(*inputs), literally_apart(*inputs)
    torch.testing.assert_close(ours, formula, rtol=1e-12, atol=1e-12)
    for slope, expected in zip(slopes(ours, inputs), slopes(formula, inputs), strict=True):
        torch.testing.assert_close(slope, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.usefixtures("chunks")
@pytest.mark.parametrize("states", SHARES)
def test_gradients_that_nothing_needs_are_left_out(states: int) -> None:
    inputs = drawn(states, torch.float64)
    frozen = [tensor.detach() for tensor in inputs[:3]]
    out, formula = apart(*frozen, *inputs[3:]), literally_apart(*inputs)
    for slope, expected in zip(slopes(out, inputs[3:]), slopes(formula, inputs[3:]), strict=True):
        torch.testing.assert_close(slope, expected, rtol=1e-12, atol=1e-12)
    # Forward: two products for each part; backward: the probabilities, and three gradients, of the prompts alone.
    products = 2 * IMAGES * HEADS * TOKENS * WIDTH
    flops = count_flops(lambda: apart(*frozen, *inputs[3:]).sum().backward())
    assert flops == products * (2 * (TOKENS + PROMPTS) + 4 * PROMPTS)


@pytest.mark.parametrize("states", SHARES)
def test_its_flops_are_those_of_fused_attention(states: int, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = drawn(states, torch.bfloat16)
    together = count_flops(lambda: decoupled(*inputs).sum().backward())
    alone = count_flops(lambda: attend(*inputs[:3]).sum().backward())
    monkeypatch.setattr(kernels, "_FEW_IN_BF16", 0)
    assert together == count_flops(lambda: decoupled(*inputs).sum().backward())
    assert alone == count_flops(lambda: attend(*inputs[:3]).sum().backward())


@pytest.mark.usefixtures("chunks")
@pytest.mark.parametrize("states", SHARES)
def test_decoupled_attention_in_bf16_is_rounded_once_and_keeps_only_its_operands(states: int) -> None:
    inputs = drawn(states, torch.bfloat16)
    exact = [tensor.detach().float().requires_grad_() for tensor in inputs]
    with ComputeContext(CPU, "bf16").autocast():
        rounded = keeping_only(inputs, lambda: decoupled(*inputs))
    whole = apart(*exact)
    assert torch.equal(rounded, whole.bfloat16())
    expected = [slope.bfloat16() for slope in slopes(whole, exact)]
    assert all(map(torch.equal, slopes(rounded, inputs), expected))
    # Gradients may be computed under autocast, too.
    with ComputeContext(CPU, "bf16").autocast():
        assert all(map(torch.equal, slopes(rounded, inputs), expected))


@pytest.mark.usefixtures("chunks")
@pytest.mark.parametrize("queries", [TOKENS, 1])
def test_attention_in_bf16_is_the_fused_one_with_a_gradient_that_is_rounded_once(queries: int) -> None:
    inputs = drawn(1, torch.bfloat16, queries)[:3]
    exact = [tensor.detach().float().requires_grad_() for tensor in inputs]
    query, key, value = inputs
    out = keeping_only(inputs, lambda: attend(query, key, value))
    assert torch.equal(out, F.scaled_dot_product_attention(query, key, value))
    for slope, expected in zip(slopes(out, inputs), slopes(literal(*exact), exact), strict=True):
        torch.testing.assert_close(slope, expected.bfloat16(), rtol=0.008, atol=1e-6)


@pytest.mark.parametrize("trained", ["query", "key", "value"])
def test_each_operand_alone_gets_its_gradient(trained: str) -> None:
    inputs = dict(zip(("query", "key", "value"), drawn(1, torch.bfloat16), strict=False))
    operands = {name: tensor.detach().requires_grad_(name == trained) for name, tensor in inputs.items()}
    out = attend(**operands)
    assert in_products(lambda: out)
    exact = {name: tensor.detach().float().requires_grad_() for name, tensor in inputs.items()}
    (slope,), (expected,) = slopes(out, [operands[trained]]), slopes(literal(**exact), [exact[trained]])
    torch.testing.assert_close(slope, expected.bfloat16(), rtol=0.008, atol=1e-6)


def test_an_empty_batch_has_empty_gradients() -> None:
    inputs = [tensor.detach()[:0].requires_grad_() for tensor in drawn(1, torch.bfloat16)[:3]]
    out = attend(*inputs)
    assert in_products(lambda: out)
    assert [slope.shape for slope in slopes(out, inputs)] == 3 * [(0, HEADS, TOKENS, WIDTH)]


@pytest.mark.parametrize("wide", [0, 1, 2])
def test_operands_that_autocast_casts_count_as_bf16(wide: int) -> None:
    inputs = drawn(1, torch.bfloat16)
    with ComputeContext(CPU, "bf16").products():
        expected, apart = attend(*inputs[:3]), decoupled(*inputs)
    mixed = list(inputs)
    mixed[wide] = inputs[wide].detach().float().requires_grad_()
    assert not kernels.gains_in_bf16(*mixed[:3])
    with ComputeContext(CPU, "bf16").autocast():
        out = attend(*mixed[:3])
        assert in_products(lambda: out)
        assert torch.equal(out, expected)
        assert torch.equal(decoupled(*mixed), apart)
    assert slopes(out, mixed[:3])[wide].dtype == torch.float32


def test_an_evaluation_computes_what_training_computes() -> None:
    inputs = drawn(2, torch.bfloat16)
    with torch.no_grad():
        evaluated = attend(*inputs[:3]), decoupled(*inputs)
    assert torch.equal(evaluated[0], attend(*inputs[:3]))
    assert torch.equal(evaluated[1], decoupled(*inputs))


def built(name: str, backbone: Any) -> Any:
    def no_features(kind: str) -> Tensor:
        raise AssertionError(kind)

    method = get_method(name)
    return method.build(BuildContext(backbone, 2, method.settings(), no_features, print)).model.train()


def in_products(compute: Callable[[], Tensor]) -> bool:
    """Return whether the result of ``compute`` has the gradient of matrix products."""
    out = compute()
    return out.grad_fn is not None and "FusedAlone" in type(out.grad_fn).__name__


def test_the_rule_follows_from_precision_keys_and_hardware(monkeypatch: pytest.MonkeyPatch) -> None:
    bf16, fp32 = (drawn(1, dtype)[:3] for dtype in (torch.bfloat16, torch.float32))
    assert in_products(lambda: attend(*bf16))
    assert not in_products(lambda: attend(*fp32))
    assert not in_products(lambda: attend(*(tensor.detach() for tensor in bf16)))
    with torch.no_grad():
        assert not in_products(lambda: attend(*bf16))
    monkeypatch.setattr(kernels, "_FEW_IN_BF16", TOKENS - 1)
    assert not in_products(lambda: attend(*bf16))
    monkeypatch.setattr(kernels, "_FEW_IN_BF16", TOKENS)
    assert in_products(lambda: attend(*bf16))
    assert not in_products(lambda: attend(*(tensor.to("meta") for tensor in bf16)))
    with monkeypatch.context() as patch:
        patch.setattr(kernels, "_HAS_AMX", True)
        assert not in_products(lambda: attend(*bf16))
    monkeypatch.setattr(torch.compiler, "is_exporting", lambda: True)
    assert not in_products(lambda: attend(*bf16))


def test_modules_are_left_alone_where_nothing_is_gained() -> None:
    def attending(device: torch.device = CPU) -> bool:
        return not isinstance(attention_of_modules(nn.Identity(), device), nullcontext)

    assert not attending()
    with ComputeContext(CPU, "bf16").autocast():
        assert attending()
        assert not attending(torch.device("meta"))
        with torch.no_grad():
            assert not attending()


def test_full_fine_tuning_in_bf16_can_checkpoint_its_activations() -> None:
    backbone = load_backbone("test_vit", checkpoint="random", image_size=32)
    backbone.set_grad_checkpointing(True)
    model: Any = built("full", backbone)
    with ComputeContext(CPU, "bf16").autocast():
        model.loss(torch.randn(2, 3, 32, 32), torch.tensor([0, 1])).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_decoupled_attention_leaves_long_sequences_and_trained_scales_to_other_kernels(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    inputs = drawn(1, torch.bfloat16)
    query, image, prompts = inputs[0], (inputs[1], inputs[2]), (inputs[3], inputs[4])
    expected = decoupled(*inputs)
    trained = torch.tensor(SCALE, requires_grad=True)
    of_trained = attend_decoupled(query, image, prompts, trained)
    torch.testing.assert_close(of_trained, expected, rtol=0.02, atol=0.02)
    assert torch.autograd.grad(of_trained.sum(), trained)[0] != 0
    monkeypatch.delattr("shipbench.prompting.attention.attend_apart_in_products")
    with monkeypatch.context() as patch:
        patch.setattr(kernels, "_FEW_KEYS", PROMPTS - 1)
        torch.testing.assert_close(decoupled(*inputs), expected, rtol=0.02, atol=0.02)
    monkeypatch.setattr(kernels, "_FEW_IN_BF16", TOKENS - 1)
    torch.testing.assert_close(decoupled(*inputs), expected, rtol=0.02, atol=0.02)


@pytest.mark.parametrize(
    ("options", "changed"),
    [
        ({"dropout_p": 0.0, "attn_mask": None, "is_causal": False, "scale": None}, True),
        ({"attn_mask": torch.ones(TOKENS, TOKENS, dtype=torch.bool).tril()}, False),
        ({"is_causal": True}, False),
        ({"scale": 0.5}, False),
        ({"scale": 0.0}, False),
        ({"dropout_p": 0.5}, False),
    ],
)
def test_modules_that_only_give_queries_keys_and_values_get_the_fast_gradient(
    options: dict[str, Any], changed: bool
) -> None:
    query, key, value = drawn(1, torch.bfloat16)[:3]
    torch.manual_seed(0)
    with ComputeContext(CPU, "bf16").products():
        expected = F.scaled_dot_product_attention(query, key, value, **options)
    torch.manual_seed(0)
    with ComputeContext(CPU, "bf16").autocast(), attention_of_modules(nn.Identity(), CPU):
        out = F.scaled_dot_product_attention(query, key, value, **options)
    assert torch.equal(out, expected)
    assert in_products(lambda: out) == changed


@pytest.mark.parametrize("shape", [(IMAGES, 1, TOKENS, WIDTH), (IMAGES, HEADS, TOKENS, 2 * WIDTH), (TOKENS, WIDTH)])
def test_modules_keep_attention_of_other_shapes(shape: tuple[int, ...]) -> None:
    query, key, _ = drawn(1, torch.bfloat16)[:3]
    value = torch.randn(shape).bfloat16()
    call = (query[0, 0], key[0, 0], value) if len(shape) == 2 else (query, key, value)
    with ComputeContext(CPU, "bf16").products():
        expected = F.scaled_dot_product_attention(*call)
    with ComputeContext(CPU, "bf16").autocast(), attention_of_modules(nn.Identity(), CPU):
        out = F.scaled_dot_product_attention(*call)
    assert torch.equal(out, expected)
    assert not in_products(lambda: out)


@pytest.mark.parametrize("name", ["full", "peft-lora", "peft-vera", "lora", "ssf", "vpt-deep"])
def test_methods_train_with_the_fast_gradient_in_bf16(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def counted(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        calls.append(key.shape[2])
        return attend_with_gradient_in_products(query, key, value)

    monkeypatch.setattr(kernels, "attend_with_gradient_in_products", counted)
    backbone = load_backbone("test_vit", checkpoint="random", image_size=32)
    depth, model = len(backbone.blocks), built(name, backbone)
    images, labels = torch.randn(2, 3, 32, 32), torch.tensor([0, 1])
    with ComputeContext(CPU, "bf16").autocast():
        model.loss(images, labels).backward()
        trained = len(calls)
        with torch.no_grad():
            model.eval()(images)
    assert trained == depth
    # Nothing has a gradient in an evaluation.
    assert len(calls) == trained
