"""What methods of other packages may rely on: caches that tell them apart, and tensors that are stored."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any, Protocol

import pytest
import timm
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from shipbench import RunSpec
from shipbench.adapting import AdaptedModel, Adapter
from shipbench.errors import InputError
from shipbench.methods import BuildContext, Built, Learned, Method, package_of, registry
from shipbench.prompting import frozen, new_head
from shipbench.runs.preparation import Assembled, assemble, prepare
from shipbench.runs.recording import _learned, unprepared_record
from shipbench.settings import Settings
from shipbench.training.inputs import FeatureInputs
from shipbench.training.snapshot import weights_to_keep
from tests.data.builders import vtab_tree
from tests.plug_ins import install


@dataclass(frozen=True)
class PowerSettings(Settings):
    """Features are raised to ``power``, and multiplied by random numbers with ``draws``."""

    power: int = 1
    draws: bool = False


class Readout(nn.Module):
    """A linear readout."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.head = new_head(width, classes)

    def forward(self, features: Tensor) -> Tensor:
        return self.head(features)

    def loss(self, features: Tensor, labels: Tensor) -> Tensor:
        return nn.functional.cross_entropy(self(features), labels)


class PowerModel(nn.Module):
    """Fixed features that settings and a drawn buffer change."""

    def __init__(self, context: BuildContext) -> None:
        super().__init__()
        self.backbone, self.settings = frozen(context.backbone), context.settings
        width = context.backbone.embed_dim
        self.register_buffer("factors", torch.rand(width) if context.settings.draws else torch.ones(width))
        self.readout = Readout(width, context.num_classes)

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        pooled = self.backbone.forward_head(self.backbone.forward_features(images), pre_logits=True)
        return self.factors * pooled**self.settings.power


class Power(Method):
    """Powers of the features."""

    name = "power"
    summary = "powers of the features"
    settings = PowerSettings
    trains_on_features = True

    def build(self, context: BuildContext) -> Built:
        return Built(PowerModel(context))


class First(Power):
    """A method that caches a tensor."""

    name = "first"
    value = 1.0

    def build(self, context: BuildContext) -> Built:
        built = super().build(context)
        built.model.register_buffer("bank", context.cached(("bank", 3), lambda: torch.full((3,), self.value)))
        return built


class Second(First):
    """Another method that caches a tensor by the same name."""

    name = "second"
    value = 2.0


@pytest.fixture
def assembled(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cache: Path) -> Callable[..., Assembled]:
    """Prepare a run of a method of this module up to its first epoch."""
    classes = {"power": Power, "first": First, "second": Second}
    values = {name: f"{__name__}:{kind.__name__}" for name, kind in classes.items()}
    install(monkeypatch, *(EntryPoint(name, value, registry.GROUP) for name, value in values.items()))
    data = vtab_tree(tmp_path / "data", tasks=("dtd",))

    def make(method: str, **settings: Any) -> Assembled:
        overrides = {"image_size": 48, "epochs": 1, "batch_size": 4, **settings}
        spec = RunSpec(method, "dtd", backbone="test_vit", checkpoint="random", data=data, overrides=overrides)
        return assemble(prepare(spec))

    return make


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[], str]:
    """Install a package with the method ``power``; return the package that the record of a run of it names."""
    metadata = tmp_path / "power_methods-1.2.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: power-methods\nVersion: 1.2\n")
    (metadata / "entry_points.txt").write_text(f"[{registry.GROUP}]\npower = {__name__}:Power\n")
    monkeypatch.syspath_prepend(str(tmp_path))

    def recorded() -> str:
        known = {"data_fingerprint": "", "precision": "fp32"}
        return unprepared_record(RunSpec("power", "dtd", backbone="test_vit"), "a1", None, **known).method_package

    return recorded


def test_records_name_the_package_of_a_plug_in(installed: Callable[[], str]) -> None:
    assert installed() == "power-methods 1.2"
    assert [package_of(name) for name in ("ship", "lora", "gone")] == ["", "", ""]


def features_of(assembled: Assembled) -> Tensor:
    assert isinstance(assembled.train, FeatureInputs)
    return assembled.train.features


def test_cached_features_follow_the_settings_and_what_a_model_draws(assembled: Callable[..., Assembled]) -> None:
    plain = features_of(assembled("power"))
    torch.testing.assert_close(features_of(assembled("power", power=2)), plain**2)
    torch.manual_seed(0)
    first = features_of(assembled("power", draws=True))
    torch.manual_seed(1)
    assert not torch.equal(features_of(assembled("power", draws=True)), first)
    assert torch.equal(features_of(assembled("power")), plain)


def test_features_are_found_where_isinstance_sees_no_modules(
    assembled: Callable[..., Assembled], monkeypatch: pytest.MonkeyPatch
) -> None:
    meta = type(Protocol)
    original = meta.__instancecheck__

    def as_from_python_3_12_on(protocol: type, instance: object) -> bool:
        modules = instance._modules if isinstance(instance, nn.Module) else {}
        return original(protocol, instance) and modules.keys().isdisjoint(getattr(protocol, "__annotations__", {}))

    monkeypatch.setattr(meta, "__instancecheck__", as_from_python_3_12_on)
    assert isinstance(assembled("power").train, FeatureInputs)


def test_two_methods_may_cache_by_the_same_name(assembled: Callable[..., Assembled]) -> None:
    for method, value in (("first", 1.0), ("second", 2.0), ("first", 1.0)):
        assert assembled(method).built.model.get_buffer("bank").tolist() == [value] * 3


class Projected(nn.Module):
    """A model with a frozen projection of its own."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.add_module(name, nn.Linear(4, 4).requires_grad_(False))
        self.projection = nn.Parameter(torch.randn(4, 4), requires_grad=False)
        self.head = nn.Linear(4, 2)


def test_frozen_parameters_beside_the_backbone_are_kept() -> None:
    assert set(weights_to_keep(Projected("backbone"))) == {"projection", "head.weight", "head.bias"}
    # Without an attribute of this name, the backbone's parameters cannot be told from others.
    assert set(weights_to_keep(Projected("vit"))) == {"head.weight", "head.bias"}


class Gates(Adapter):
    """Adapters with one gate for each block."""

    def __init__(self, backbone: VisionTransformer) -> None:
        super().__init__()
        self.gates = nn.Parameter(torch.full((len(backbone.blocks),), 0.5))

    def learned(self) -> dict[str, Any]:
        return {"mean_gate": self.gates.mean(), "first_gate": self.gates[0]}


def test_an_adapter_has_learned_numbers_for_the_record() -> None:
    backbone = timm.create_model("test_vit", num_classes=0, img_size=48)
    model = AdaptedModel(backbone, 3, Gates(backbone))
    assert isinstance(model, Learned)
    assert _learned(model) == '{"mean_gate": 0.5, "first_gate": 0.5}'
    assert _learned(AdaptedModel(backbone, 3, Adapter())) == ""


def test_facts_that_cannot_be_stored_are_refused_before_training() -> None:
    model = nn.Linear(2, 2)
    assert Built(model, {"channels": torch.arange(2)}).facts == {"channels": (0, 1)}
    with pytest.raises(
        InputError, match=r"the fact 'channels' of the model cannot be stored: .*set.*; use plain values"
    ):
        Built(model, {"channels": {1, 2}})
