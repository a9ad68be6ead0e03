"""The pages about methods say what the code does."""

from __future__ import annotations

import re
import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import timm
import torch
from timm.models.vision_transformer import VisionTransformer

from shipbench import RunSpec, run
from shipbench.adapting import AdaptedModel
from shipbench.methods import AdaptedMethod, BuildContext, get_method, registry
from shipbench.planning.ablation import make_variants
from shipbench.report.wording.names import component_name
from shipbench.results.store import Store
from shipbench.runs.merged import export_merged
from shipbench.runs.recording import _learned
from shipbench.settings import configure
from tests.data.builders import vtab_tree
from tests.methods.shipped import SHIPPED
from tests.plug_ins import install

DOCS = Path(__file__).resolve().parents[2] / "docs"


def rows() -> dict[str, tuple[str, bool]]:
    """The count and whether it merges, by method, as the reference page prints them."""
    table = (DOCS / "reference" / "methods.md").read_text().partition("## The methods")[2].partition('\n\n"Merges"')[0]
    documented = {}
    for line in table.splitlines():
        if line.startswith("| `"):
            names, _, counts, merges = (cell.strip() for cell in line.strip("|").split("|"))
            listed = re.findall(r"`([^`]+)`", names)
            for name, count in zip(listed, counts.split("; ") * len(listed), strict=False):
                documented[name] = (count, merges == "yes")
    return documented


def test_every_method_has_a_row() -> None:
    assert sorted(rows()) == SHIPPED
    assert {name: merges for name, (_, merges) in rows().items()} == {
        name: get_method(name).mergeable for name in SHIPPED
    }


@pytest.fixture(scope="module")
def base() -> VisionTransformer:
    with torch.device("meta"):
        return VisionTransformer(num_classes=0)


@pytest.mark.parametrize("name", [name for name in SHIPPED if name != "ship"])
def test_documented_counts(base: VisionTransformer, name: str) -> None:
    def no_images(kind: str) -> Any:
        raise AssertionError(kind)

    method = get_method(name)
    with torch.device("meta"):
        context = BuildContext(base.requires_grad_(True), 10, method.settings(), no_images, lambda line: None)
        model = method.build(context).model
    trained = {name: p.numel() for name, p in model.named_parameters() if p.requires_grad}
    head = sum(count for name, count in trained.items() if name.startswith(("head.", "readout.head.")))
    assert head == 7690
    assert f"{sum(trained.values()) - head:,}" == rows()[name][0]


def documented_switches() -> dict[tuple[str, str], dict[str, str]]:
    """The settings of every switch by method and switch, as the reference page prints them."""
    page = (DOCS / "reference" / "methods.md").read_text()
    table = page.partition("## Ablation switches")[2].partition("\n## ")[0]
    documented: dict[tuple[str, str], dict[str, str]] = {}
    methods: list[str] = []
    for line in table.splitlines():
        if line.startswith("| `") or line.startswith("| |"):
            cells = [re.findall(r"`([^`]+)`", cell) for cell in line.strip("|").split("|")[:3]]
            methods = cells[0] or methods
            for switch, pair in zip(cells[1], cells[2], strict=True):
                documented |= {(method, switch): dict([pair.split("=")]) for method in methods}
    return documented


def test_documented_switches() -> None:
    documented = documented_switches()
    expected = {(name, switch) for name in SHIPPED for switch in get_method(name).all_switches}
    assert set(documented) == expected
    for (name, switch), values in documented.items():
        method = get_method(name)
        changes = dict(method.all_switches[switch])
        assert configure(method.settings, values) == configure(method.settings, changes), (name, switch)


@pytest.fixture
def documented_package(monkeypatch: pytest.MonkeyPatch) -> dict[str, ModuleType]:
    """The modules that the guide writes, importable, by name."""
    page = (DOCS / "how-to" / "own-method.md").read_text()
    blocks = dict(re.findall(r'```python title="my_package/(\w+)\.py"\n(.*?)```', page, re.DOTALL))
    assert set(blocks) == {"method", "head_scale", "prefix", "gated_prompts"}
    package = ModuleType("my_package")
    package.__path__ = []
    monkeypatch.setitem(sys.modules, "my_package", package)
    modules = {name: ModuleType(f"my_package.{name}") for name in blocks}
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, module.__name__, module)
        exec(blocks[name], module.__dict__)
    return modules


@pytest.fixture
def documented_method(monkeypatch: pytest.MonkeyPatch, documented_package: dict[str, ModuleType]) -> str:
    """The method that the guide writes, installed as a plug-in."""
    point = EntryPoint("head-scale", "my_package.method:HeadScale", registry.GROUP)
    install(monkeypatch, point)
    return "head-scale"


def test_the_method_of_the_guide_runs_and_merges(documented_method: str, tmp_path: Path, cache: Path) -> None:
    data = vtab_tree(tmp_path / "data", tasks=("dtd",))
    overrides = {"image_size": 48, "epochs": 1, "batch_size": 4}
    spec = RunSpec(documented_method, "dtd", backbone="test_vit", checkpoint="random", data=data, overrides=overrides)
    record = run(spec, results=tmp_path / "r")
    assert record.trainable_params_without_head == 6 * 2
    merged = export_merged(Store(tmp_path / "r"), record.run_id, tmp_path / "m.safetensors", checkpoint="random")
    assert merged.architecture == "test_vit"
    ablated = make_variants(get_method(documented_method), {}, None, "leave-one-out", [])
    switched = [RunSpec(documented_method, "dtd", overrides=values).resolved for values in ablated]
    assert [resolved.switches for resolved in switched] == ["", "shared-factors"]
    assert component_name("shared-factors", documented_method) == "factors per block"
    method = switched[1].method
    assert isinstance(method, AdaptedMethod)
    adapter = method.adapter(timm.create_model("test_vit", num_classes=0), switched[1].settings)
    assert sum(parameter.numel() for parameter in adapter.parameters()) == 2


def trained(model: Any) -> set[str]:
    """Return the names of the parameters that a training step of a model of the guide changes."""
    model.train().loss(torch.randn(4, 3, 48, 48), torch.arange(4)).backward()
    return {name for name, p in model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}


def test_the_prompts_of_the_guide_train(documented_package: dict[str, ModuleType]) -> None:
    backbone = timm.create_model("test_vit", num_classes=0, img_size=48, drop_path_rate=0.3)
    model = documented_package["gated_prompts"].GatedPrompts(backbone, 5, SimpleNamespace(length=3))
    assert trained(model) == {"prompts", "gates", "head.weight", "head.bias"}
    assert _learned(model) == '{"mean_gate": 0.5}'


def test_the_prefix_of_the_guide_trains(documented_package: dict[str, ModuleType]) -> None:
    backbone = timm.create_model("test_vit", num_classes=0, img_size=48, drop_path_rate=0.3)
    model = AdaptedModel(backbone, 5, documented_package["prefix"].Prefix(backbone, 3))
    assert trained(model) == {"adapter.keys", "adapter.values", "head.weight", "head.bias"}
