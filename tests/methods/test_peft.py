"""Every tuner of the peft library trains, resumes, exports, predicts and merges, on a real tiny ViT."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from shipbench_baselines import peft_library, peft_methods
from shipbench_baselines.peft_methods import PeftFamily
from timm.models.vision_transformer import VisionTransformer

from shipbench import RunSpec, run
from shipbench.backbones import Preprocessing
from shipbench.backbones.frozen_weights import cast_frozen_weights
from shipbench.errors import InputError
from shipbench.hardware.precision import ComputeContext
from shipbench.methods import BuildContext, get_method, list_methods, parse_methods
from shipbench.recipe import Recipe
from shipbench.results.loading import load_predictions
from shipbench.results.store import Store
from shipbench.runs.export import Exported, export_run, load_exported
from shipbench.runs.merged import export_merged
from shipbench.runs.program import _program
from shipbench.runtime.files import read_toml
from shipbench.settings import configure, field_names
from shipbench.training.snapshot import weights_to_keep
from tests.conftest import Outcome
from tests.methods.exports import images_of, probabilities_of
from tests.parity import golden
from tests.parity.comparing import adamw, assert_all_close, assert_close, take_steps
from tests.parity.test_golden_methods import LOGITS, STEPS, SUFFIX, batch, stored, tiny, values
from tests.training.interruptions import assert_same_results, interrupted

NAMES = PeftFamily().names()
# The width of the tiny ViT is 64.
FITTING: dict[str, dict[str, Any]] = {"peft-c3a": {"block_size": 32}, "peft-vblora": {"vector_length": 32}}
# One tuner of each kind goes through whole runs: low rank, norms, orthogonal, masks, shared vectors, ranks by step.
WHOLE_RUNS = ["peft-adalora", "peft-dora", "peft-ln-tuning", "peft-oft", "peft-shira", "peft-vblora"]
DEMO_STUDY = Path(__file__).parents[2] / "studies" / "demo.toml"
IMAGES = torch.randn(2, 3, 48, 48, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([0, 3])


def tiny_vit() -> Any:
    torch.manual_seed(1)
    return timm.create_model("test_vit", num_classes=0, img_size=48).eval()


def built(name: str, *, seed: int = 0, known: dict[str, Any] | None = None, **settings: Any) -> Any:
    method = get_method(name)
    chosen = configure(method.settings, {**FITTING.get(name, {}), **settings})
    vit = tiny_vit()
    torch.manual_seed(seed)
    return method.build(BuildContext(vit, 5, chosen, lambda kind: torch.empty(0), print, known or {}))


def after_two_steps(name: str) -> Any:
    result = built(name)
    model = result.model.train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.01)
    for step in range(2):
        optimizer.zero_grad()
        model.loss(IMAGES, LABELS).backward()
        optimizer.step()
        if hasattr(model, "after_step"):
            model.after_step(step, 4)
    model.eval()
    return result


@pytest.mark.filterwarnings("ignore:Sparse invariant checks")
@pytest.mark.parametrize("name", NAMES)
def test_a_tuner_trains_and_is_restored(name: str) -> None:
    start = built(name).model
    result = after_two_steps(name)
    model = result.model
    frozen = {key.replace(".base_layer", ""): p for key, p in model.backbone.named_parameters() if not p.requires_grad}
    for key, value in tiny_vit().named_parameters():
        # LN tuning keeps the layers that it trains as copies.
        assert torch.equal(frozen[key], value), key
    with torch.no_grad():
        logits = model(IMAGES)
        assert (logits - start.eval()(IMAGES)).abs().max() > 1e-4
    rebuilt = built(name, seed=5, known=result.facts)
    assert rebuilt.facts == result.facts
    again = rebuilt.model
    # With the seed, the library draws again what it does not train.
    torch.testing.assert_close(again.tuner.state_dict(), start.tuner.state_dict(), rtol=0, atol=0)
    assert weights_to_keep(again).keys() == weights_to_keep(model).keys()
    again.load_state_dict({key: value.clone() for key, value in weights_to_keep(model).items()}, strict=False)
    with torch.no_grad():
        torch.testing.assert_close(again.eval()(IMAGES), logits)


@pytest.mark.parametrize("name", [name for name in NAMES if get_method(name).mergeable])
def test_a_merged_tuner_is_a_plain_timm_model(name: str) -> None:
    model = after_two_steps(name).model
    plain, trained = timm.create_model("test_vit", num_classes=5, img_size=48), weights_to_keep(model).keys()
    plain.load_state_dict(model.merged_state())
    assert weights_to_keep(model).keys() == trained
    with torch.no_grad():
        torch.testing.assert_close(plain.eval()(IMAGES), model(IMAGES), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_a_tuner_trains_in_bf16_with_frozen_weights_cast(name: str) -> None:
    model = built(name).model.train()
    compute = ComputeContext(torch.device("cpu"), "bf16")
    cast_frozen_weights(model, compute)
    with compute.autocast():
        loss = model.loss(IMAGES, LABELS)
    loss.backward()
    trained = [p for p in model.parameters() if p.requires_grad]
    assert loss.isfinite()
    # Some tuners compute with the values of frozen weights.
    assert all(p.dtype == torch.float32 for p in model.parameters())
    assert any(p.grad is not None and p.grad.abs().max() > 0 for p in trained if p.ndim and p is not model.head.bias)


def spec_of(name: str, data: Path, **settings: Any) -> RunSpec:
    common = {"image_size": 48, "epochs": 2, "batch_size": 4, "drop_path": 0.3, "lr": 0.01}
    overrides = {**common, **FITTING.get(name, {}), **settings}
    chosen: dict[str, Any] = {"backbone": "test_vit", "checkpoint": "random", "precision": "fp32", "data": data}
    return RunSpec(name, "dtd", overrides=overrides, **chosen)


@pytest.mark.parametrize("name", WHOLE_RUNS)
def test_a_run_resumes_and_its_export_predicts(
    name: str, data: Path, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHIPBENCH_CHECKPOINT_SECONDS", "0")
    spec = spec_of(name, data)
    record = run(spec, results=tmp_path / "whole")
    assert record.peft_version == version("peft")
    assert record.trainable_params_without_head < record.total_params
    interrupted(spec, tmp_path / "resumed", 1)
    run(spec, results=tmp_path / "resumed")
    assert_same_results(tmp_path / "whole", tmp_path / "resumed")
    store, file, merged = Store(tmp_path / "whole"), tmp_path / "run.safetensors", tmp_path / "merged.safetensors"
    export_run(store, record.run_id, file)
    call = export_merged(store, record.run_id, merged, checkpoint="random").call(merged)
    plain: Any = eval(call, {"timm": timm})
    exported = load_exported(file, checkpoint="random")
    predicted = load_predictions(tmp_path / "whole", [record.run_id])["predicted"].tolist()
    assert probabilities_of(exported, images_of(data)).argmax(dim=1).tolist() == predicted
    with torch.no_grad():
        torch.testing.assert_close(plain.eval()(IMAGES), exported.model(IMAGES), rtol=1e-4, atol=1e-4)


def test_every_tuner_answers_an_image_alone_as_in_a_batch() -> None:
    for name in NAMES:
        model = after_two_steps(name).model.eval()
        with torch.no_grad():
            alone = torch.cat([model(image[None]) for image in IMAGES])
            torch.testing.assert_close(alone, model(IMAGES), rtol=1e-4, atol=1e-4, msg=name)


def test_a_tuner_becomes_a_program() -> None:
    name = "peft-lora"
    model = after_two_steps(name).model
    program = _program(Exported(model, Preprocessing(48, (0.5,) * 3, (0.25,) * 3), "", name, "")).module()
    with torch.no_grad():
        torch.testing.assert_close(program((IMAGES + 2) / 4), model(IMAGES), rtol=1e-4, atol=1e-4)


def test_adalora_shrinks_its_ranks_to_the_target() -> None:
    model = built("peft-adalora", init_r=4, target_r=2).model.train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.01)
    for step in range(6):
        optimizer.zero_grad()
        model.loss(IMAGES, LABELS).backward()
        optimizer.step()
        model.after_step(step, 6)
    ranks = [p for name, p in model.named_parameters() if "lora_E" in name]
    assert len(ranks) == 24
    left = sum(int((rank != 0).sum()) for rank in ranks)
    assert 24 * 2 <= left < 24 * 4
    assert len({int((rank != 0).sum()) for rank in ranks}) > 1


def test_adalora_shrinks_its_ranks_among_deterministic_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    kthvalue = torch.kthvalue

    def of_cuda(*arguments: Any, **options: Any) -> Any:
        if torch.are_deterministic_algorithms_enabled():
            raise RuntimeError("kthvalue CUDA does not have a deterministic implementation")
        return kthvalue(*arguments, **options)

    monkeypatch.setattr(torch, "kthvalue", of_cuda)
    model = built("peft-adalora", init_r=4, target_r=2).model.train()
    model.loss(IMAGES, LABELS).backward()
    torch.use_deterministic_algorithms(True)
    try:
        for step in range(6):
            model.after_step(step, 6)
        assert torch.are_deterministic_algorithms_enabled()
    finally:
        torch.use_deterministic_algorithms(False)
    left = sum(int((rank != 0).sum()) for name, rank in model.named_parameters() if "lora_E" in name)
    assert left < 24 * 4


def test_adalora_keeps_its_ranks_and_importances_between_steps() -> None:
    settings = {"init_r": 4, "target_r": 2, "tfinal": 3}
    result = built("peft-adalora", **settings)
    average = uncertainty = torch.zeros(())
    model = result.model.train()
    for step in range(7):
        # Before steps 2 and 6, the run is interrupted: while ranks shrink, and after they are final.
        if step in (2, 6):
            weights = {name: value.clone() for name, value in weights_to_keep(model).items()}
            model = built("peft-adalora", known=result.facts, **settings).model.train()
            model.load_state_dict(weights, strict=False)
        adapted = [p for name, p in model.backbone.named_parameters() if p.requires_grad]
        if step in (0, 2, 6):
            optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.01)
        optimizer.zero_grad()
        model.loss(IMAGES, LABELS).backward()
        optimizer.step()
        if step < 4:
            # beta1 and beta2 of the library (Zhang et al. 2023).
            importance = (adapted[0] * adapted[0].grad).abs().detach()
            average = 0.85 * average + 0.15 * importance
            uncertainty = 0.85 * uncertainty + 0.15 * (importance - average).abs()
        model.after_step(step, 7)
    torch.testing.assert_close(model.get_buffer("importance_0"), average)
    torch.testing.assert_close(model.get_buffer("uncertainty_0"), uncertainty)
    left = sum(int((p != 0).sum()) for name, p in model.named_parameters() if "lora_E" in name)
    assert left == 24 * 2


@pytest.mark.parametrize("bias", ["none", "all", "lora_only"])
def test_adalora_has_the_orthogonality_term_of_the_library(bias: str) -> None:
    model = built("peft-adalora", bias=bias).model

    class Output:
        loss = torch.zeros(())

    model.tuner.model.forward = lambda: Output()
    library = model.tuner.forward().loss
    cross_entropy = super(type(model), model).loss
    del model.tuner.model.forward
    torch.testing.assert_close(model.loss(IMAGES, LABELS) - cross_entropy(IMAGES, LABELS), library)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"init_r": 8, "target_r": 8}, "init_r is 8"),
        ({"tinit": 3, "tfinal": 3}, "leave none of the run's 6 steps"),
        ({"deltaT": 4}, "set tfinal to 1 or more"),
    ],
)
def test_adalora_that_cannot_shrink_its_ranks_to_the_target_is_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        built("peft-adalora", **settings).model.after_step(0, 6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_lora_equals_the_golden_numbers(dtype: torch.dtype) -> None:
    name, config = "lora_peft", golden.header("petl/lora_peft")["config"]
    settings = {"target_modules": "qkv", "r": config["rank"], "lora_alpha": config["alpha"]}
    method = get_method("peft-lora")
    chosen = configure(method.settings, settings)
    model: Any = method.build(BuildContext(tiny(name, dtype), 7, chosen, lambda kind: torch.empty(0), print)).model
    model = model.to(dtype).eval()
    ours = {official(name): p for name, p in model.named_parameters() if p.requires_grad}
    with torch.no_grad():
        for key, value in stored(name, "trained").items():
            ours[key].copy_(value)
    assert ours.keys() == stored(name, "trained").keys()
    (images, labels), suffix = batch(name, dtype), SUFFIX[dtype]
    assert_close(model(images), stored(name)[f"logits.{suffix}"], LOGITS[dtype])
    optimizer = adamw(ours, {"lr": 1e-3, "weight_decay": 1e-2})
    loss = model.loss(images, labels)
    assert_close(loss.reshape(1), stored(name)[f"loss.{suffix}"], LOGITS[dtype])
    loss.backward()
    assert_all_close({key: p.grad for key, p in ours.items()}, values(name, "grad", suffix), LOGITS[dtype])
    take_steps(optimizer, lambda: model.loss(images, labels), 3)
    assert_all_close(ours, values(name, "step3", suffix), STEPS[dtype])


def official(name: str) -> str:
    """Return the name in the golden file of a trained tensor of peft's LoRA on qkv."""
    for letter in "AB":
        name = name.replace(f".attn.qkv.lora_{letter}.default.weight", f".lora.{letter.lower()}")
    return name.removeprefix("tuner.model.")


def test_the_seed_of_a_tuner_changes_no_later_draw() -> None:
    draws = []
    for facts in ({}, {"peft_seed": 1}):
        built("peft-lora", known=facts)
        draws.append(torch.rand(3))
    assert torch.equal(*draws)


def test_dora_is_lora_with_a_trained_magnitude() -> None:
    trained = {name for name, p in built("peft-dora").model.named_parameters() if p.requires_grad}
    assert trained >= {name for name, p in built("peft-lora").model.named_parameters() if p.requires_grad}
    assert sum("lora_magnitude_vector" in name for name in trained) == 24


def test_ia3_scales_the_input_of_the_second_layer_of_each_mlp_and_other_outputs() -> None:
    model = built("peft-ia3").model
    for name in model.layers:
        layer = model.backbone.get_submodule(name)
        scale = layer.ia3_l["default"]
        sides = (1, layer.in_features) if name.endswith("mlp.fc2") else (layer.out_features, 1)
        assert scale.shape == sides, name


def scaling_inputs(model: Any) -> set[str]:
    """The last names of the layers whose inputs IA3 scales."""
    layers = {name: model.backbone.get_submodule(name) for name in model.layers}
    return {name.rpartition(".")[2] for name, layer in layers.items() if layer.is_feedforward}


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"feedforward_modules": "fc1, fc2"}, {"fc1", "fc2"}),
        ({"feedforward_modules": "mlp.fc1"}, {"fc1"}),
        ({"target_modules": "qkv,fc1"}, set()),
    ],
)
def test_ia3_scales_the_inputs_of_the_layers_that_are_named(settings: dict[str, str], expected: set[str]) -> None:
    """The default names the second layer of an MLP, which need not be among the targets."""
    assert scaling_inputs(built("peft-ia3", **settings).model) == expected


@pytest.mark.parametrize("text", ["fc2,", "", " , fc1"])
def test_ia3_refuses_an_empty_name_before_anything_runs(text: str) -> None:
    with pytest.raises(InputError, match=r"feedforward_modules .* has an empty name"):
        RunSpec("peft-ia3", "dtd", overrides={"feedforward_modules": text}).resolved  # noqa: B018


@pytest.mark.parametrize(("text", "missing"), [("fc3", "fc3"), ("c1", "c1"), ("fc1,fc3", "fc3"), ("fc2,fc1", "fc2")])
def test_ia3_refuses_a_name_that_no_target_has(text: str, missing: str) -> None:
    with pytest.raises(InputError, match=f"feedforward_modules: none of target_modules is called '{missing}'"):
        built("peft-ia3", target_modules="qkv,fc1", feedforward_modules=text)


def test_stochastic_depth_and_dropout_act_in_training_alone() -> None:
    settings = configure(get_method("peft-lora").settings, {"lora_dropout": 0.5})
    vit = timm.create_model("test_vit", num_classes=0, img_size=48, drop_path_rate=0.5, proj_drop_rate=0.5)
    model = get_method("peft-lora").build(BuildContext(vit, 5, settings, lambda kind: torch.empty(0), print)).model
    training = {type(module).__name__ for module in model.train().modules() if module.training}
    assert {"DropPath", "Dropout", "Head"} <= training
    assert not {"Mlp", "LayerNorm", "Attention", "Block"} & training
    assert not model.backbone.blocks[0].attn.proj_drop.training
    assert not model.backbone.blocks[0].attn.qkv.base_layer.training
    assert not any(module.training for module in model.eval().modules())


@pytest.mark.parametrize(
    ("settings", "layers"),
    [
        ({"target_modules": "qkv"}, {"attn.qkv"}),
        ({"target_modules": "qkv, fc2"}, {"attn.qkv", "mlp.fc2"}),
        ({"target_modules": "blocks.0.attn.qkv"}, {"attn.qkv"}),
        ({}, {"attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2"}),
    ],
)
def test_target_modules(settings: dict[str, str], layers: set[str]) -> None:
    model = built("peft-lora", **settings).model
    assert {name.split(".", 2)[2] for name in model.layers} == layers
    assert all(name.startswith("blocks.") for name in model.layers)
    wrapped = {name for name, module in model.backbone.named_modules() if hasattr(module, "base_layer")}
    assert wrapped == set(model.layers)


@pytest.mark.parametrize("name", NAMES)
def test_the_demo_study_gives_every_tuner_sizes_that_fit_its_backbone(name: str) -> None:
    parts = read_toml(DEMO_STUDY, "study")["tune"]
    settings = next(part["set"] for part in parts if part["name"] == "peft").get(name, {})
    method = get_method(name)
    # A block of its ViT-S/14.
    vit = VisionTransformer(img_size=28, patch_size=14, num_classes=0, embed_dim=384, depth=1, num_heads=6)
    chosen = configure(method.settings, settings)
    model = method.build(BuildContext(vit, 5, chosen, lambda kind: torch.empty(0), print)).model
    assert torch.isfinite(model(torch.zeros(1, 3, 28, 28))).all()


def test_ln_tuning_trains_the_norms_alone() -> None:
    model = built("peft-ln-tuning").model
    trained = {name.split(".ln_tuning_layers")[0] for name, p in model.backbone.named_parameters() if p.requires_grad}
    assert trained == {*(f"blocks.{block}.norm{number}" for block in range(6) for number in (1, 2)), "norm"}


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("peft-lora", {"target_modules": "query"}, "no layer of the backbone is called 'query'; it has fc1, fc2"),
        ("peft-lora", {"target_modules": "kv"}, "no layer of the backbone is called 'kv'"),
        ("peft-c3a", {"block_size": 256}, "peft-c3a does not fit these layers: The block size should be a factor"),
        ("peft-lora", {"r": 0}, "`r` should be a positive integer"),
        ("peft-randlora", {"r": 0}, "peft-randlora does not fit these layers: division by zero"),
        ("peft-lora", {"bias": "some"}, "bias='some' is not one of none, all, lora_only"),
        ("peft-lora", {"rank": 4}, "unknown setting 'rank'"),
        ("peft-dora", {"init_lora_weights": "eva"}, "peft-dora has no activations from which init_lora_weights=eva"),
        ("peft-adalora", {"init_lora_weights": "pissa"}, "peft-adalora ignores init_lora_weights=pissa; it takes true"),
        ("peft-tinylora", {"init_weights": False}, "peft-tinylora leaves its vectors unset with init_weights=false"),
        ("peft-tinylora", {"init_weights": "false"}, "peft-tinylora leaves its vectors unset with init_weights=false"),
        ("peft-tinylora", {"init_weights": "normal"}, "init_weights"),
        # The library has these settings, and they would change nothing here, or undo what the name says.
        ("peft-lora", {"fan_in_fan_out": True}, "unknown setting 'fan_in_fan_out'"),
        ("peft-adalora", {"r": 4}, "unknown setting 'r'"),
        ("peft-adalora", {"use_rslora": True}, "unknown setting 'use_rslora'"),
        ("peft-adalora", {"lora_bias": True}, "unknown setting 'lora_bias'"),
        ("peft-pvera", {"generator_seed": 1}, "unknown setting 'generator_seed'"),
        ("peft-pvera", {"sample_at_inference": True}, "unknown setting 'sample_at_inference'"),
        ("peft-dora", {"use_dora": False}, "unknown setting 'use_dora'"),
    ],
)
def test_settings_that_do_not_fit_are_refused(name: str, settings: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        built(name, **settings)


@pytest.mark.parametrize(
    ("name", "setting", "value"),
    [
        ("peft-lora", "init_lora_weights", "eva"),
        ("peft-adalora", "init_lora_weights", "olora"),
        ("peft-adalora", "init_r", 8),
        ("peft-road", "variant", "road_3"),
        ("peft-tinylora", "init_weights", False),
    ],
)
def test_misleading_settings_are_refused_before_anything_runs(name: str, setting: str, value: Any) -> None:
    with pytest.raises(InputError, match=setting):
        RunSpec(name, "dtd", overrides={setting: value}).resolved  # noqa: B018


def test_boft_is_refused_where_the_library_would_use_fewer_factors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("peft.tuners.boft.layer.get_fbd_cuda", lambda: None)
    assert len(built("peft-boft").model.backbone.blocks[0].attn.proj.boft_R["default"]) == 1
    with pytest.raises(InputError, match="peft-boft takes boft_n_butterfly_factor=2 only with a GPU"):
        built("peft-boft", boft_n_butterfly_factor=2)


def test_boft_has_the_factors_of_its_settings_with_the_extension(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("peft.tuners.boft.layer.get_fbd_cuda", object)
    model = built("peft-boft", boft_n_butterfly_factor=2).model
    assert len(model.backbone.blocks[0].attn.proj.boft_R["default"]) == 2


@pytest.mark.parametrize("name", NAMES)
def test_building_a_tuner_prints_nothing(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    built(name)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("peft-prefix-tuning", "peft-prefix-tuning cannot adapt a model of images: it adds learned tokens"),
        ("peft-p-tuning", "learned tokens to the input of a language model"),
        ("peft-adaption-prompt", "it adds prompts to the attention of LLaMA"),
        ("peft-xlora", "LoRA adapters that were trained before"),
        ("peft-lorra", "did you mean 'peft-lora'"),
    ],
)
def test_what_cannot_work_on_images_is_refused_by_name(name: str, words: str) -> None:
    assert name not in list_methods()
    with pytest.raises(InputError, match=words):
        get_method(name)


@pytest.mark.parametrize(("torch_version", "usable"), [("2.9.1+cpu", False), ("2.10.0", True)])
def test_pvera_is_refused_where_torch_lacks_its_noise(
    monkeypatch: pytest.MonkeyPatch, torch_version: str, usable: bool
) -> None:
    monkeypatch.setattr(peft_methods, "version", {"torch": torch_version}.__getitem__)
    assert ("peft-pvera" in PeftFamily().names()) == usable


def test_every_tuner_of_the_library_is_a_method_or_refused_with_a_reason() -> None:
    import peft

    registered = {kind.value.lower() for kind in peft.PEFT_TYPE_TO_CONFIG_MAPPING}
    assert registered == peft_library.tuners().keys()
    for tuner in registered:
        name = f"peft-{tuner.replace('_', '-')}"
        if name not in NAMES:
            with pytest.raises(InputError, match=r"cannot adapt a model of images: .{20}"):
                get_method(name)
    assert {"peft-lora", "peft-dora", "peft-adalora", "peft-ia3", "peft-boft", "peft-hra", "peft-lokr"} <= {*NAMES}
    assert {*NAMES} <= {method.name for method in parse_methods("zoo")}


@pytest.mark.parametrize("tuner", sorted(peft_library.tuners()))
def test_settings_are_the_fields_of_the_librarys_configuration(tuner: str) -> None:
    import peft

    fields = peft.PEFT_TYPE_TO_CONFIG_MAPPING[peft.PeftType(tuner.upper())].__dataclass_fields__
    for setting in peft_library.tuners()[tuner].settings.values():
        assert setting.default == fields[setting.name].default, setting
    for name, field in fields.items():
        if field.type in (int, float, bool) and name != "inference_mode":
            assert name in peft_library.tuners()[tuner].settings, name


def test_choices_that_a_configuration_names_outside_its_class_are_settings() -> None:
    sizes = [
        built("peft-road", variant=name).model.backbone.blocks[0].mlp.fc1 for name in ("road_1", "road_2", "road_4")
    ]
    numbers = [sum(p.numel() for p in layer.parameters() if p.requires_grad) for layer in sizes]
    assert [number // numbers[0] for number in numbers] == [1, 2, 4]


@pytest.mark.parametrize("name", NAMES)
def test_no_setting_of_a_tuner_has_the_name_of_one_of_the_recipe(name: str) -> None:
    assert not {*field_names(get_method(name).settings)} & {*field_names(Recipe)}
    assert get_method(name).summary
    assert get_method(name).title.endswith(" (peft)")


def test_a_resolved_spec_can_be_sent_to_another_process() -> None:
    spec = RunSpec("peft-lora", "dtd", overrides={"r": 3, "target_modules": "qkv"})
    assert spec.resolved.settings.r == 3
    again = pickle.loads(pickle.dumps(spec))
    assert again.resolved == spec.resolved


def test_planning_and_listing_import_neither_torch_nor_the_library() -> None:
    code = (
        "import sys; from shipbench import RunSpec; from shipbench.methods import get_method, list_methods;"
        "[get_method(name).settings for name in list_methods()]; RunSpec('peft-lora', 'dtd').resolved;"
        "assert not {'torch', 'peft', 'transformers'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_without_the_library_the_extra_is_named(
    monkeypatch: pytest.MonkeyPatch, shipbench: Callable[..., Outcome], data: Path
) -> None:
    monkeypatch.setattr(peft_methods, "tuners", dict)
    monkeypatch.setattr(peft_methods, "variants", dict)
    outcome = shipbench("run", "--method", "peft-lora", "--tasks", "dtd", "--data", data, "--dry-run")
    assert outcome.code == 2
    assert "peft-lora needs the peft library; install it with pip install 'shipbench[peft]'" in outcome.err
    assert not any(name.startswith("peft-") for name in list_methods())
