"""Backbones of every architecture: what each method can use, by loading, training, exporting and refusing."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from shipbench_baselines.full import FullModel
from shipbench_baselines.linear import LinearModel
from shipbench_baselines.peft_layers import target_layers
from shipbench_baselines.settings import PAD_WITHOUT_EMBEDDINGS
from timm.models.vision_transformer import VisionTransformer
from timm.models.vitamin import GeGluMlp
from torch import nn

from shipbench import RunSpec, run
from shipbench.backbones import input_size_of, load_backbone, origin_of, pooled_features, preprocessing_of, sha256_of
from shipbench.bench.candidates import Candidate, build
from shipbench.bench.options import BenchOptions
from shipbench.engine import cost
from shipbench.errors import InputError
from shipbench.methods import BuildContext, get_method, list_methods
from shipbench.results.store import Store
from shipbench.runs.export import export_run, load_exported
from shipbench.runs.merged import export_merged
from shipbench.settings import configure
from tests.conftest import Outcome
from tests.data.builders import vtab_tree
from tests.parity.families import CLASSES, FAMILIES, tiny

SMALL = {"embed_dim": 32, "depth": 2, "num_heads": 2}
# A name for each kind of model, with sizes that make it small.
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "ResNet": ("resnet10t", {}),
    "ConvNeXt": ("test_convnext", {}),
    "Swin": ("swin_tiny_patch4_window7_224", {"embed_dim": 8, "depths": (1, 1, 1, 1), "num_heads": (1, 1, 2, 2)}),
    "SigLIP": ("vit_base_patch16_siglip_224", SMALL),
    "DINOv3": ("vit_small_patch16_dinov3", SMALL),
    "EVA-02": ("eva02_tiny_patch14_224", SMALL),
    "MAE, pooled": ("vit_base_patch16_224.mae", {**SMALL, "global_pool": "avg"}),
    "EfficientNet": ("test_efficientnet", {}),
}
EVERY = pytest.mark.parametrize("kind", KINDS)


def loaded(kind: str, **options: Any) -> Any:
    name, sizes = KINDS[kind]
    return load_backbone(name, checkpoint="random", architecture=sizes, **options)


def batch(model: Any) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(3, 3, *input_size_of(model), generator=generator), torch.tensor([0, 1, 2])


def step(model: Any, backbone: Any) -> None:
    """Take one optimiser step in training mode, in which every trained tensor gets a gradient."""
    images, labels = batch(backbone)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    model.train().loss(images, labels).backward()
    without = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert not without
    optimizer.step()
    model.eval()


@EVERY
def test_linear_full_and_peft_train_any_timm_model(kind: str) -> None:
    size = 64 if kind in ("ResNet", "ConvNeXt", "EfficientNet") else None
    for make in (LinearModel, FullModel):
        backbone = loaded(kind, image_size=size)
        step(make(backbone, CLASSES), backbone)
    for name in ("peft-lora", "peft-ln-tuning"):
        if name == "peft-ln-tuning" and kind in ("ResNet", "EfficientNet"):
            continue
        backbone, method = loaded(kind, image_size=size), get_method(name)
        settings = configure(method.settings, {})
        model: Any = method.build(BuildContext(backbone, CLASSES, settings, lambda _: torch.empty(0), print)).model
        step(model, backbone)
        plain: Any = timm.create_model(KINDS[kind][0], num_classes=CLASSES, **KINDS[kind][1])
        if hasattr(plain, "set_input_size"):
            plain.set_input_size(img_size=input_size_of(backbone))
        plain.load_state_dict(model.merged_state())
        images, _ = batch(backbone)
        with torch.no_grad():
            torch.testing.assert_close(plain.eval()(images), model(images), rtol=1e-4, atol=1e-4)


def test_a_tuner_skips_layers_whose_weights_timm_reads_itself() -> None:
    """BEiT adds the biases of q and v outside of its fused projection, which it therefore never calls."""
    backbone = load_backbone("beit_base_patch16_224", checkpoint="random", architecture=SMALL)
    with pytest.raises(InputError, match=r"timm computes blocks\.0\.attn\.qkv without calling it"):
        target_layers(backbone, "qkv", norms=False)
    method = get_method("peft-lora")
    context = BuildContext(backbone, CLASSES, configure(method.settings, {}), lambda _: torch.empty(0), print)
    fused = [name for name, _ in backbone.named_modules() if name.endswith("attn.qkv")]
    layers: Any = method.build(context).model.layers  # type: ignore[union-attr]
    assert fused
    assert layers
    assert not set(fused) & set(layers)


def test_a_tuner_leaves_the_attention_pool_as_it_is() -> None:
    layers = target_layers(loaded("SigLIP"), "auto", norms=False)
    assert {name.split(".")[0] for name in layers} == {"blocks"}
    norms = target_layers(loaded("SigLIP"), "auto", norms=True)
    assert {name.split(".")[0] for name in norms} == {"blocks", "norm", "attn_pool"}
    assert all("norm" in name for name in norms)


UNPROMPTABLE = {"ResNet", "ConvNeXt", "Swin", "EfficientNet"}


@EVERY
def test_methods_say_which_backbones_they_can_use(kind: str) -> None:
    origin = origin_of(loaded(kind))
    reasons = {name: get_method(name).why_unusable(origin, get_method(name).settings()) for name in list_methods()}
    assert not any(reasons[name] for name in ("linear", "full", "peft-lora"))
    assert bool(reasons["vpt-deep"]) == (kind in UNPROMPTABLE)
    assert bool(reasons["ship"]) == (kind in {*UNPROMPTABLE, "SigLIP"})
    assert bool(reasons["lora"]) == (kind in UNPROMPTABLE)
    if kind in UNPROMPTABLE:
        assert (
            reasons["vpt-deep"] == f"its class is {type(loaded(kind)).__name__}, not VisionTransformer or Eva of timm"
        )


def built(method: str, vit: nn.Module, **settings: Any) -> Any:
    """A model in evaluation mode, whose trained tensors are off their start."""
    draws = torch.Generator().manual_seed(0)
    context = BuildContext(vit, CLASSES, get_method(method).settings(**settings), lambda _: torch.empty(0), print)  # type: ignore[arg-type]
    model = get_method(method).build(context).model.eval()
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data.add_(torch.randn(parameter.shape, generator=draws), alpha=0.1)
    return model


UNKNOWN_LAYERS = "its MLP is GeGluMlp, but SSF acts after the layers of Mlp, GluMlp and SwiGLU alone"


def test_methods_inside_the_mlp_say_which_they_can_use() -> None:
    """The MLP of ViTamin has a norm in front, and other layers than timm's other gated MLPs."""
    gated = origin_of(loaded("EVA-02"))
    words = "its MLP is GluMlp, but FacT is defined for the weights of a plain one"
    for name in ("fact-tt", "fact-tk"):
        method: Any = get_method(name)
        assert method.why_unusable(gated, method.settings()) == f"{words}; add --set {name}.at_mlp=false"
        assert method.why_unusable(gated, method.settings(at_mlp=False)) == ""
        with pytest.raises(InputError, match=f"{words}; set at_mlp=false"):
            built(name, loaded("EVA-02"))
    vit = VisionTransformer(16, 4, num_classes=0, embed_dim=32, depth=2, num_heads=2, mlp_layer=GeGluMlp).eval()
    images = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        changed = built("partial", vit, blocks=2)
        torch.testing.assert_close(changed(images), changed.head(pooled_features(vit, images)))
    assert (
        get_method("ssf").why_unusable(replace(gated, mlp="GeGluMlp"), get_method("ssf").settings()) == UNKNOWN_LAYERS
    )
    with pytest.raises(InputError, match=UNKNOWN_LAYERS):
        built("ssf", vit)
    for name, part in (("repadapter", "fc1"), ("difffit", "fc2")):
        with pytest.raises(InputError, match=rf"needs a weight in blocks\.0\.mlp\.{part}, which this backbone"):
            built(name, vit).merged_state()


GATED = ("DINOv2 with gated MLP", "AIMv2", "DINOv3 with gated MLP", "EVA-02", "EVA-02 CLIP")
WITHOUT_BIASES: list[tuple[str, dict[str, Any]]] = [
    ("difffit", {}),
    ("ssf", {"shifts": False, "at_norms": False}),
    ("repadapter", {"biases": False}),
]
MERGED = [
    *((name, "lora", {}) for name in FAMILIES),
    *((name, *case) for name in GATED for case in WITHOUT_BIASES),
    ("EVA-02 CLIP", "ssf", {"shifts": False}),
    ("AIMv2", "ssf", {"at_norms": False, "at_attention": False, "at_mlp": False}),
]


@pytest.mark.parametrize(("name", "method", "settings"), MERGED)
def test_adapters_and_merging_work_in_every_family(name: str, method: str, settings: dict[str, Any]) -> None:
    """EVA-02 CLIP has norms inside attention and MLP, AIMv2 one after the patch projection, and few have all biases."""
    vit = tiny(FAMILIES[name]).float()
    model = built(method, vit, **settings)
    changes = {"img_size": FAMILIES[name].image_size, "embed_dim": 32, "depth": 4, "num_heads": 2}
    plain: Any = timm.create_model(FAMILIES[name].name, num_classes=CLASSES, **{**changes, **FAMILIES[name].changes})
    plain.load_state_dict(model.merged_state())
    images, _ = batch(vit)
    with torch.no_grad():
        torch.testing.assert_close(plain.eval()(images), model(images), rtol=1e-4, atol=1e-4)


QKV = "blocks.0.attn.qkv, which this backbone does not have"


@pytest.mark.parametrize(
    ("method", "settings", "changes", "lacking"),
    [
        ("lora", {"form": "qv"}, {}, ""),
        ("fact-tt", {}, {}, ""),
        ("bitfit", {}, {}, ""),
        ("difffit", {}, {}, ""),
        ("ssf", {"shifts": False}, {"qkv_bias": True}, ""),
        ("bitfit", {}, {"qkv_bias": True}, ""),
        ("ssf", {}, {}, f"a bias in {QKV}"),
        ("repadapter", {"at_attention": False}, {}, ""),
        ("repadapter", {}, {}, f"a bias in {QKV}"),
        ("lora", {}, {"qkv_fused": False}, ""),
        ("lora", {"form": "qv"}, {"qkv_fused": False}, ""),
        ("fact-tt", {}, {"qkv_fused": False}, ""),
        ("repadapter", {"biases": False}, {"qkv_fused": False}, ""),
        ("ssf", {"shifts": False}, {"qkv_fused": False, "qkv_bias": True}, ""),
        ("ssf", {}, {"qkv_fused": False, "qkv_bias": True}, r"a bias in blocks\.0\.attn\.k_proj, which"),
    ],
)
def test_adapters_of_dinov3_merge_where_it_has_the_tensors(
    method: str, settings: dict[str, Any], changes: dict[str, Any], lacking: str
) -> None:
    """If it has biases of queries and values, they lie apart from the fused layer; its keys have none."""
    family = FAMILIES["DINOv3"]
    vit = tiny(family, **changes).float()
    model = built(method, vit, **settings)
    if lacking:
        with pytest.raises(InputError, match=lacking):
            model.merged_state()
        return
    sizes = {"img_size": family.image_size, "embed_dim": 32, "depth": 4, "num_heads": 2}
    plain: Any = timm.create_model(family.name, num_classes=CLASSES, **sizes, **changes)
    plain.load_state_dict(model.merged_state())
    images, _ = batch(vit)
    with torch.no_grad():
        torch.testing.assert_close(plain.eval()(images), model(images), rtol=1e-4, atol=1e-4)


NORMED_AFTER_POOLING, POOLED_AFTER_NORM = "vit_betwixt_patch16_reg4_gap_256", "vit_base_patch16_siglip_gap_224"
NO_QKV_BIAS = "vit_base_patch16_224_miil"


@pytest.mark.parametrize(
    ("method", "name", "settings", "lacking"),
    [
        ("ssf", NORMED_AFTER_POOLING, {}, ""),
        ("ssf", NORMED_AFTER_POOLING, {"scales": False}, ""),
        ("ssf", POOLED_AFTER_NORM, {}, ""),
        ("ssf", NO_QKV_BIAS, {}, "a bias in blocks.0.attn.qkv"),
        ("ssf", NO_QKV_BIAS, {"shifts": False}, ""),
        ("repadapter", NORMED_AFTER_POOLING, {}, ""),
        ("repadapter", NO_QKV_BIAS, {}, "a bias in blocks.0.attn.qkv"),
        ("repadapter", NO_QKV_BIAS, {"biases": False}, ""),
    ],
)
def test_what_a_backbone_has_no_tensor_for_is_not_merged(
    method: str, name: str, settings: dict[str, Any], lacking: str
) -> None:
    backbone = load_backbone(name, checkpoint="random", architecture=SMALL, image_size=64)
    model = built(method, backbone, **settings)
    if lacking:
        with pytest.raises(InputError, match=f"needs {re.escape(lacking)}, which this backbone does not have"):
            model.merged_state()
        return
    plain: Any = timm.create_model(name, num_classes=CLASSES, **SMALL)
    plain.set_input_size(img_size=(64, 64))
    plain.load_state_dict(model.merged_state())
    images, _ = batch(backbone)
    with torch.no_grad():
        torch.testing.assert_close(plain.eval()(images), model(images), rtol=1e-4, atol=1e-4)


def test_ssf_scales_no_final_norm_that_a_backbone_lacks() -> None:
    """InternViT and RADIO have none."""
    sizes = {**SMALL, "final_norm": False}
    backbone = load_backbone("vit_tiny_patch16_224", checkpoint="random", architecture=sizes, image_size=32)
    model = built("ssf", backbone)
    assert not [name for name, _ in model.named_parameters() if name.startswith("adapter.ssf_norm.")]
    plain: Any = timm.create_model("vit_tiny_patch16_224", num_classes=CLASSES, img_size=32, **sizes)
    plain.load_state_dict(model.merged_state())
    images, _ = batch(backbone)
    with torch.no_grad():
        torch.testing.assert_close(plain.eval()(images), model(images), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("vit_small_patch16_18x2_224", "its blocks are ParallelThingsBlock, not plain pre-norm blocks"),
        ("vit_small_patch16_rope_mixed_224", "its rotary positions differ from block to block"),
    ],
)
def test_vits_that_cannot_be_prompted_say_why(name: str, reason: str) -> None:
    assert origin_of(load_backbone(name, checkpoint="random", architecture=SMALL)).unpromptable == reason


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return vtab_tree(tmp_path / "data", tasks=("dtd",))


def refusal(shipbench: Callable[..., Outcome], data: Path, method: str, backbone: str, *options: str) -> str:
    common = ("--tasks", "dtd", "--checkpoint", "random", "--data", data, "--dry-run")
    outcome = shipbench("run", "--method", method, "--backbone", backbone, *common, *options)
    assert outcome.code == 2
    return outcome.err


def test_a_plan_refuses_what_a_method_cannot_use(shipbench: Callable[..., Outcome], data: Path, cache: Path) -> None:
    words = "ship cannot use backbone 'test_convnext': its class is ConvNeXt, not VisionTransformer or Eva of timm"
    for _ in ("loaded", "remembered"):
        assert words in refusal(shipbench, data, "ship", "test_convnext")
    assert "lora cannot use backbone" in refusal(shipbench, data, "lora", "test_convnext")
    several = refusal(shipbench, data, "zoo", "test_convnext", "--exclude", "linear,peft-*")
    assert "error: adapter, adapter-houlsby, " in several
    assert ", vpt-shallow cannot use backbone 'test_convnext': its class is ConvNeXt" in several
    assert "; or leave them out with --exclude 'linear,peft-*,adapter,adapter-houlsby," in several
    assert "--exclude" not in refusal(shipbench, data, "ship,lora", "test_convnext")
    words = "partial cannot use backbone 'test_vit': blocks is 7, but the backbone has 6 blocks; use 6 or fewer"
    assert words in refusal(shipbench, data, "partial", "test_vit", "--set", "blocks=7")
    words = "backbone 'vgg11' has no stochastic depth, but drop_path is 0.1; add --set drop_path=0"
    assert words in refusal(shipbench, data, "full", "vgg11")
    words = "image_size=100 is not a multiple of vit_tiny_patch16_224's patch size 16; try 96"
    assert words in refusal(shipbench, data, "full", "vit_tiny_patch16_224", "--set", "image_size=100")
    words = "image_size=64 does not fit mixer_s32_224, whose images are 224 pixels wide"
    assert words in refusal(shipbench, data, "full", "mixer_s32_224", "--set", "image_size=64")


@pytest.mark.parametrize(
    ("method", "backbone", "settings", "reason"),
    [
        ("vpt-deep", "test_vit", {"deep_layers": 7}, "deep_layers is 7, but the backbone has 6 blocks; use 6 or fewer"),
        ("vpt-deep", "test_vit", {"deep_layers": 6}, ""),
        ("vpt-shallow", "test_vit", {"location": "pad"}, ""),
        ("vpt-shallow", "vit_small_patch16_dinov3", {"location": "pad"}, PAD_WITHOUT_EMBEDDINGS),
        ("vpt-shallow", "vit_small_patch16_dinov3", {}, ""),
        (
            "vpt-deep",
            "vit_base_patch16_siglip_224",
            {"initiation": "final-cls"},
            "it has no class token, from which initiation=final-cls starts; use initiation=random",
        ),
    ],
)
def test_vpt_names_the_setting_that_a_backbone_lacks(
    method: str, backbone: str, settings: dict[str, object], reason: str
) -> None:
    origin = origin_of(load_backbone(backbone, checkpoint="random", architecture=SMALL if "dinov3" in backbone else {}))
    assert get_method(method).why_unusable(origin, get_method(method).settings(**settings)) == reason


def test_ship_names_the_settings_that_need_no_class_token() -> None:
    backbone, settings = loaded("SigLIP"), {"feature": "mean", "attribute_length": 0, "matching_weight": 0}
    method = get_method("ship")
    words = "; add --set ship.feature=mean --set ship.attribute_length=0 --set ship.matching_weight=0"
    assert words in method.why_unusable(origin_of(backbone), method.settings())
    assert method.why_unusable(origin_of(backbone), method.settings(**settings)) == ""


@pytest.mark.parametrize(
    ("name", "method", "settings"),
    [
        ("test_convnext", "peft-lora", {}),
        ("test_convnext", "linear", {}),
        ("deit_tiny_distilled_patch16_224", "linear", {}),
        ("resnet10t", "full", {}),
        ("test_vit4", "vpt-deep", {"prompt_length": 2}),
    ],
)
def test_runs_export_merge_and_predict(
    data: Path, tmp_path: Path, cache: Path, name: str, method: str, settings: dict[str, Any]
) -> None:
    common = {"image_size": 64, "epochs": 1, "batch_size": 4}
    options: dict[str, Any] = {"backbone": name, "checkpoint": "random", "precision": "fp32", "data": data}
    spec = RunSpec(method, "dtd", overrides={**common, **settings}, keep_weights="full", **options)
    record, store, file = run(spec, results=tmp_path / "r"), Store(tmp_path / "r"), tmp_path / "run.safetensors"
    assert record.done
    export_run(store, record.run_id, file)
    exported = load_exported(file, checkpoint="random")
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    if not get_method(method).mergeable:
        return
    merged = tmp_path / "merged.safetensors"
    plain: Any = eval(export_merged(store, record.run_id, merged, checkpoint="random").call(merged), {"timm": timm})
    with torch.no_grad():
        torch.testing.assert_close(plain.eval()(images), exported.model(images), rtol=1e-4, atol=1e-4)


def test_checkpoints_of_other_models_have_timms_names(tmp_path: Path) -> None:
    torch.manual_seed(3)
    state = timm.create_model("test_convnext", num_classes=10).state_dict()
    save_file(state, tmp_path / "w.safetensors")
    torch.save({"model": {f"module.{key}": value for key, value in state.items()}}, tmp_path / "wrapped.pt")
    wrapped = load_backbone("test_convnext", checkpoint=tmp_path / "wrapped.pt")
    model = load_backbone("test_convnext", checkpoint=tmp_path / "w.safetensors", image_size=64)
    assert sha256_of(wrapped) == sha256_of(model)
    assert torch.equal(model.stem[0].weight, state["stem.0.weight"])
    assert sha256_of(model) == sha256_of(load_backbone("test_convnext", checkpoint=tmp_path / "w.safetensors"))
    assert preprocessing_of(model).image_size == 64
    del state["stem.0.weight"]
    save_file(state, tmp_path / "broken.safetensors")
    with pytest.raises(InputError, match=r"missing stem\.0\.weight"):
        load_backbone("test_convnext", checkpoint=tmp_path / "broken.safetensors")


def test_a_checkpoint_with_batch_norms_counts_their_batches(tmp_path: Path) -> None:
    state = timm.create_model("resnet10t").state_dict() | {"bn1.num_batches_tracked": torch.tensor(7)}
    save_file(state, tmp_path / "w.safetensors")
    model = load_backbone("resnet10t", checkpoint=tmp_path / "w.safetensors", image_size=64)
    assert model.bn1.num_batches_tracked == 7
    assert torch.equal(model.layer1[0].bn1.weight, state["layer1.0.bn1.weight"])
    save_file(state | {"bn1.running_mean": torch.zeros(64, dtype=torch.int64)}, tmp_path / "broken.safetensors")
    with pytest.raises(InputError, match=r"bn1\.running_mean in .* is not a dense tensor of floating-point numbers"):
        load_backbone("resnet10t", checkpoint=tmp_path / "broken.safetensors")


@EVERY
def test_costs_are_estimated_and_measured(kind: str) -> None:
    backbone = loaded(kind, image_size=64 if kind in ("ResNet", "ConvNeXt", "EfficientNet") else None)
    assert cost._numbers_kept(backbone, torch.zeros(1, 3, *input_size_of(backbone))) > 1000
    assert pooled_features(backbone, batch(backbone)[0]).shape == (3, backbone.head_hidden_size)


def test_bench_measures_convolutional_backbones_and_refuses_prompts() -> None:
    options = BenchOptions(backbone="test_convnext", checkpoint="random", image_size=64, batch_size=2, num_classes=5)
    from shipbench.bench.candidates import make_fixture
    from shipbench.hardware.precision import ComputeContext

    backbone, images = make_fixture(options, ComputeContext(torch.device("cpu"), "fp32"))
    for method in (None, get_method("linear"), get_method("full")):
        assert build(Candidate(method, None, {}), options, backbone, images)
    with pytest.raises(InputError, match="vpt-deep cannot use backbone 'test_convnext'"):
        build(Candidate(get_method("vpt-deep"), 4, {}), options, backbone, images)


def test_frozen_batch_norms_keep_their_statistics() -> None:
    backbone = loaded("ResNet", image_size=64)
    before = {name: value.clone() for name, value in backbone.named_buffers()}
    model = LinearModel(backbone, CLASSES).train()
    model(batch(backbone)[0])
    assert all(torch.equal(value, before[name]) for name, value in backbone.named_buffers())
    assert any(isinstance(module, nn.BatchNorm2d) for module in backbone.modules())


@pytest.mark.parametrize("method", ["linear", "lora", "vpt-deep"])
def test_images_of_another_size_are_refused(method: str) -> None:
    backbone, chosen = VisionTransformer(img_size=64, num_classes=0, **SMALL), get_method(method)
    context = BuildContext(backbone, 3, configure(chosen.settings, {}), lambda: torch.zeros(0), lambda _: None)
    with pytest.raises(InputError, match="the images have 64 x 48 pixels, but the backbone takes 64 x 64"):
        chosen.build(context).model(torch.zeros(1, 3, 64, 48))
