"""``shipbench bench``: every subject is measured against the bare backbone; no time is asserted."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from shipbench_baselines.linear import Readout
from torch import Tensor

from shipbench.backbones import load_backbone
from shipbench.bench import end_to_end, memory, steps
from shipbench.bench.candidates import Candidate, build, candidates, make_fixture, model_of
from shipbench.bench.memory import StepBytes, allocated_bytes, step_bytes_alone, tensor_bytes
from shipbench.bench.options import BenchOptions, EndToEndOptions
from shipbench.bench.shares import evaluation_shares, training_shares
from shipbench.bench.subjects import Batch, make_subject
from shipbench.bench.timing import Timing
from shipbench.errors import ShipbenchError
from shipbench.hardware.precision import ComputeContext
from shipbench.methods import Method, get_method
from shipbench.methods.ship import Ship, ShipConfig
from shipbench.recipe import Recipe
from shipbench.training.inputs import FeatureInputs
from tests.clock import Clock
from tests.conftest import Shipbench

CPU = ComputeContext(torch.device("cpu"), "fp32")
SMALL = ("--backbone", "test_vit", "--image-size", 64, "--batch-size", 2, "--repeats", 1, "--levels", "0,2,4")


@pytest.fixture
def no_memory_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """The memory of a step is a constant; tests of memory start the process that measures it."""
    monkeypatch.setattr(steps, "step_bytes_alone", lambda *_: StepBytes(1000, 500))


@pytest.mark.usefixtures("no_memory_process")
def test_every_method_is_measured(shipbench: Shipbench, tmp_path: Path) -> None:
    outcome = shipbench("bench", *SMALL, "--prompt-lengths", "5,10", "--json", tmp_path / "out" / "bench.json")
    assert outcome.code == 0, outcome.err
    content = json.loads((tmp_path / "out" / "bench.json").read_text())
    rows = {(row["subject"], row["prompt_length"]): row for row in content["measurements"]}
    prompted = [(name, length) for name in ("ship", "vpt-deep", "vpt-shallow") for length in (5, 10)]
    assert set(rows) == {("bare backbone", None), ("full", None), ("linear", None), *prompted}
    assert rows["bare backbone", None]["inference_ratio"] == rows["bare backbone", None]["training_ratio"] == 1.0
    assert rows["vpt-deep", 10]["inference_flops"] > rows["vpt-deep", 5]["inference_flops"]
    assert all(row["training_flops"] > 0 and row["training"]["low"] > 0 for row in rows.values())


def test_adapters_are_measured(shipbench: Shipbench, tmp_path: Path) -> None:
    line = ("--method", "lora,adaptformer,ssf,bitfit", "--json", tmp_path / "b.json")
    assert shipbench("bench", *SMALL, *line).code == 0
    bare, lora, *others = json.loads((tmp_path / "b.json").read_text())["measurements"]
    assert [row["subject"] for row in (lora, *others)] == ["lora", "adaptformer", "ssf", "bitfit"]
    # One pair of rank 8 in each block and the head; frozen weights have no gradients.
    assert bare["inference_flops"] < lora["inference_flops"] < 1.2 * bare["inference_flops"]
    assert lora["training_flops"] < 2.5 * lora["inference_flops"]


@pytest.mark.usefixtures("no_memory_process")
def test_a_merged_method_costs_what_the_bare_backbone_costs(shipbench: Shipbench, tmp_path: Path) -> None:
    line = ("--method", "lora,adaptformer", "--merged", "--json", tmp_path / "b.json")
    assert shipbench("bench", *SMALL, *line).code == 0
    rows = {row["subject"]: row for row in json.loads((tmp_path / "b.json").read_text())["measurements"]}
    assert list(rows) == ["bare backbone", "lora", "lora, merged", "adaptformer"]
    assert rows["lora, merged"]["inference_flops"] == rows["bare backbone"]["inference_flops"]


@pytest.mark.usefixtures("no_memory_process")
def test_ship_at_inference_needs_less_arithmetic_than_the_bare_backbone(shipbench: Shipbench, tmp_path: Path) -> None:
    line = ("--method", "ship", "--backbone", "vit_tiny_patch16_224", "--batch-size", 1, "--repeats", 1)
    assert shipbench("bench", *line, "--prompt-lengths", 10, "--json", tmp_path / "b.json").code == 0
    bare, ship = json.loads((tmp_path / "b.json").read_text())["measurements"]
    assert ship["inference_flops"] < bare["inference_flops"]


def test_wrong_input(shipbench: Shipbench) -> None:
    assert "blocks" in shipbench("bench", *SMALL, "--levels", "0,9").err
    assert shipbench("bench", *SMALL, "--prompt-lengths", "five").code == 2
    assert "unknown precision 'fp8'" in shipbench("bench", *SMALL, "--precision", "fp32,fp8").err


@pytest.mark.usefixtures("no_memory_process")
def test_every_precision_is_measured_against_its_own_backbone(shipbench: Shipbench, tmp_path: Path) -> None:
    line = ("--method", "vpt-deep", "--precision", "fp32,bf16", "--prompt-lengths", 5, "--json", tmp_path / "b.json")
    assert shipbench("bench", *SMALL, *line).code == 0
    rows = json.loads((tmp_path / "b.json").read_text())["measurements"]
    assert [(row["subject"], row["precision"]) for row in rows] == [
        ("bare backbone", "fp32"),
        ("vpt-deep", "fp32"),
        ("bare backbone", "bf16"),
        ("vpt-deep", "bf16"),
    ]


def test_whole_runs_are_measured_and_leave_no_files(shipbench: Shipbench, tmp_path: Path, cache: Path) -> None:
    line = ("--method", "vpt-deep,linear", "--train-images", 16, "--test-images", 12, "--batch-size", 8)
    outcome = shipbench(
        "bench", "--end-to-end", "--backbone", "test_vit", "--image-size", 64, *line, "--json", tmp_path / "b.json"
    )
    assert outcome.code == 0, outcome.err
    prompted, linear = json.loads((tmp_path / "b.json").read_text())["measurements"]
    for row in (prompted, linear):
        assert sum(row["training_shares"].values()) == pytest.approx(1)
        assert set(row["training_shares"]) == {"data", "optimiser", "model"}
        assert sum(row["estimates"].values()) == pytest.approx(row["benchmark_seconds"])
        assert row["estimates"]["decoding"] == pytest.approx((19_000 + 387_904) / row["decoding_rate"])
        of_a_run = row["loading_seconds"] + row["storing_seconds"]
        assert row["estimates"]["loading and storing"] == pytest.approx(19 * of_a_run)
    # 100 epochs of 19,000 images, then every test image of VTAB-1k once; a linear probe computes features once.
    assert prompted["estimates"]["training"] == pytest.approx(1_900_000 / prompted["training_rate"])
    assert prompted["estimates"]["evaluation"] == pytest.approx(387_904 / prompted["evaluation_rate"])
    assert prompted["estimates"]["building"] == pytest.approx(prompted["building_seconds"] * 19_000 / 16)
    assert linear["estimates"]["evaluation"] == 0
    assert linear["estimates"]["building"] == pytest.approx(linear["building_seconds"] * (19_000 + 387_904) / 28)
    assert not cache.exists()


@pytest.mark.usefixtures("no_memory_process")
def test_tensor_bytes_are_deterministic(shipbench: Shipbench, tmp_path: Path) -> None:
    line = ("--method", "ship,full", "--drop-path", 0.5, "--prompt-lengths", 5, "--json", tmp_path / "b.json")
    rows = []
    for repeats in (1, 2):
        assert shipbench("bench", *SMALL, *line, "--repeats", repeats).code == 0
        rows.append(json.loads((tmp_path / "b.json").read_text())["measurements"])
    for name in ("training_tensor_bytes", "training_flops"):
        assert [row[name] for row in rows[0]] == [row[name] for row in rows[1]]
    bare, _, full = rows[0]
    assert bare["tensor_ratio"] == 1.0
    # Full fine-tuning keeps the input of every layer for the gradients of its weights.
    assert full["training_tensor_bytes"] > bare["training_tensor_bytes"]


def test_tensors_kept_for_the_backward_pass_are_counted_once() -> None:
    layer = torch.nn.Linear(8, 8, bias=False)
    inputs = torch.zeros(5, 8)

    def step() -> None:
        # The layer keeps its input for the weight's gradient, the product keeps its factor, the sine keeps nothing.
        hidden = layer(inputs.sin())
        (hidden * hidden).sum().backward()

    assert tensor_bytes(layer, step) == 4 * (8 * 8 + 5 * 8 + 5 * 8)


def test_the_most_bytes_allocated_at_a_time_include_temporary_tensors() -> None:
    kept = torch.ones(1000)

    def work() -> None:
        nonlocal kept
        for _ in range(3):
            # Two of these tensors exist at a time, beside the one that was there before.
            kept = torch.ones(5000).add(1)[:10].clone()

    assert allocated_bytes(lambda: None) == 0
    # Scalars take a few bytes more.
    assert 4 * 2 * 5000 <= allocated_bytes(work) < 4 * 2 * 5000 + 200


def test_the_profiler_says_nothing() -> None:
    """It would tell of each start and stop, and that there is no GPU, between the lines of the command."""
    code = "import torch; from shipbench.bench import memory; print(memory.allocated_bytes(lambda: torch.ones(9)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("36\n", "")


class Fatal:
    """A method that kills the process that builds it."""

    name, settings = "fatal", ShipConfig

    def build(self, context: Any) -> Any:
        """Exit as a process that the system kills for lack of memory."""
        os._exit(9)


def test_memory_is_measured_in_a_process_with_only_the_model() -> None:
    options = BenchOptions("test_vit", "random", 64, batch_size=64, levels=(0, 2, 4))
    compute = ComputeContext(torch.device("cpu"), "fp32")
    ship, other = candidates([get_method("ship")], options, {})[1], Candidate(cast("Method", Fatal()), 3, {})
    before = step_bytes_alone(ship, options, compute)
    assert before.added is not None
    assert before.allocated is not None
    # Memory that this process allocates and frees in the meantime does not count.
    ballast = torch.ones(30_000_000)
    del ballast
    again, larger = (step_bytes_alone(ship, replace(options, batch_size=size), compute) for size in (64, 256))
    assert again == StepBytes(pytest.approx(before.added, rel=0.2), before.allocated)  # type: ignore[arg-type]
    assert larger.added is not None
    assert larger.added > 2 * before.added
    assert larger.allocated is not None
    assert 3 * before.allocated < larger.allocated < 4 * before.allocated
    with pytest.raises(ShipbenchError, match="no memory of fatal"):
        step_bytes_alone(other, options, compute)


@pytest.mark.parametrize(("system", "method"), [("linux", "forkserver"), ("darwin", "spawn"), ("win32", "spawn")])
def test_only_linux_measures_memory_in_a_forked_process(
    monkeypatch: pytest.MonkeyPatch, system: str, method: str
) -> None:
    """On a Mac, the libraries of its CPU and of its GPU fail in one; Windows cannot fork."""
    monkeypatch.setattr(memory, "sys", SimpleNamespace(platform=system))
    assert memory.processes().get_start_method() == method


def test_a_temporary_folder_that_cannot_be_removed_costs_no_measurement(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network file system keeps files that are mapped, and Windows removes none."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.ENOTEMPTY, "Directory not empty")

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(end_to_end, "write_images", lambda folder, _: folder.mkdir(parents=True))
    monkeypatch.setattr(end_to_end, "_measure", lambda *_: "measured")
    monkeypatch.setattr(os, "rmdir", refuse)
    assert end_to_end.run_end_to_end(get_method("linear"), EndToEndOptions("test_vit", device="cpu")) == "measured"


def test_other_measurements_survive_a_failed_memory_measurement(
    shipbench: Shipbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(candidate: Candidate, *_: object) -> StepBytes:
        if candidate.method:
            raise ShipbenchError(f"no memory of {candidate.name}")
        return StepBytes(1000, 500)

    monkeypatch.setattr(steps, "step_bytes_alone", fail)
    outcome = shipbench("bench", *SMALL, "--method", "linear", "--json", tmp_path / "b.json")
    assert outcome.code == 0
    assert "no memory of linear" in outcome.err
    bare, linear = json.loads((tmp_path / "b.json").read_text())["measurements"]
    assert (bare["training_bytes"], bare["memory_ratio"]) == (1000, 1.0)
    assert (bare["training_allocated_bytes"], bare["allocated_ratio"]) == (500, 1.0)
    assert linear["training_bytes"] is linear["memory_ratio"] is None
    assert linear["training_allocated_bytes"] is linear["allocated_ratio"] is None
    assert linear["inference_ratio"] > 0


@pytest.mark.usefixtures("no_memory_process")
def test_compiled_models_are_measured_next_to_the_others(
    shipbench: Shipbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    functions = []
    # Compiling takes minutes; the test of one graph below covers its effect on a model.
    monkeypatch.setattr(torch, "compile", lambda function: functions.append(function) or function)
    outcome = shipbench("bench", *SMALL, "--method", "vpt-deep", "--compile", "--json", tmp_path / "b.json")
    assert outcome.code == 0, outcome.err
    content = json.loads((tmp_path / "b.json").read_text())
    rows = [(row["subject"], row["compiled"]) for row in content["measurements"]]
    assert rows == [("bare backbone", False), ("vpt-deep", False), ("bare backbone", True), ("vpt-deep", True)]
    assert len(functions) == 4
    assert content["options"]["drop_path"] == 0
    assert all(row["training"]["low"] > 0 for row in content["measurements"])
    assert [row["training_bytes"] is None for row in content["measurements"]] == [False, False, True, True]


@pytest.mark.usefixtures("no_memory_process")
def test_a_model_that_cannot_be_compiled_is_measured_uncompiled(
    shipbench: Shipbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("no C++ compiler\nand more")

    monkeypatch.setattr(torch, "compile", lambda _: refuse)
    outcome = shipbench("bench", *SMALL, "--method", "vpt-deep", "--compile", "--json", tmp_path / "b.json")
    assert outcome.code == 0
    assert "vpt-deep is measured only without torch.compile, which failed: no C++ compiler and more\n" in outcome.err
    assert not any(row["compiled"] for row in json.loads((tmp_path / "b.json").read_text())["measurements"])


def test_stochastic_depth_is_not_compiled(shipbench: Shipbench) -> None:
    outcome = shipbench("bench", *SMALL, "--compile", "--drop-path", 0.1)
    assert outcome.code == 2
    assert "use --drop-path 0 with --compile" in outcome.err


def test_ship_is_one_graph_to_the_compiler_and_gives_the_same_logits() -> None:
    torch.manual_seed(0)
    backbone = load_backbone("test_vit", checkpoint="random", image_size=32)
    config = ShipConfig(prompt_length=2, prototypes=3, attribute_length=2)
    model = Ship(backbone, 4, [0, 2, 4], torch.randn(3, backbone.embed_dim), config).eval()
    # With fullgraph, code that the compiler cannot trace is an error.
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    with torch.no_grad():
        images = torch.randn(2, 3, 32, 32)
        torch.testing.assert_close(compiled(images), model(images))
        model.prompts.shared.add_(1.0)
        torch.testing.assert_close(compiled(images), model(images))


def test_a_ratio_is_to_the_bare_backbone_of_the_same_round(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fake clock slows down with every step, as on a machine with other load."""
    clock, pace = 0.0, 1.0
    drawn: list[list[float]] = []
    kinds: list[str] = []

    def work(kind: str, cost: float) -> None:
        nonlocal clock, pace
        kinds.append(kind)
        clock += cost * pace
        pace *= 1.01

    def timed(infer: float, train: float) -> SimpleNamespace:
        draws: list[float] = []
        drawn.append(draws)

        def step() -> None:
            work("training", train)
            draws.append(float(torch.rand(())))

        return SimpleNamespace(evaluation=lambda: nullcontext(lambda: work("inference", infer)), train=step)

    monkeypatch.setattr("time.perf_counter", lambda: clock)
    subjects: Any = [timed(1, 2), timed(3, 4), timed(0.5, 8)]
    pairs = steps._time(subjects, 3, ComputeContext(torch.device("cpu"), "fp32"))
    ratios = [tuple(map(steps._ratio, both)) for both in pairs]
    assert ratios == [(1, 1), pytest.approx((3.03, 2.02)), pytest.approx((0.505, 4.04))]
    # All subjects of a round drop the same branches; the next round drops others.
    assert drawn[1] == drawn[2]
    assert len(set(drawn[1])) == 4
    # A training step in between would change the prompts, whose states one evaluation computes once for all batches.
    assert kinds == sorted(kinds)


def test_a_measurement_is_that_of_its_subject(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = {"bare backbone": (40, (1.0, 2.0)), "other": (100, (3.0, 4.0))}
    subjects: Any = [SimpleNamespace(name=name, prompt_length=None, compiled=False) for name in counts]
    monkeypatch.setattr(steps, "_counts", lambda subject: counts[subject.name])
    pairs, bare = [(1.0, 3.0), (2.0, 8.0), (4.0, 4.0)], [(1.0, 1.0)]
    times = [(bare, bare), (pairs, pairs[1:])]
    _, other = steps._measure(subjects, times, [StepBytes(50, 20), StepBytes(200, 30)], CPU)
    assert (other.inference, other.training) == (Timing(4.0, 3.0, 8.0), Timing(6.0, 4.0, 8.0))
    assert (other.inference_ratio, other.training_ratio) == (3.0, 2.5)
    assert (other.training_bytes, other.memory_ratio) == (200, 4.0)
    assert (other.training_allocated_bytes, other.allocated_ratio) == (30, 1.5)
    assert (other.training_tensor_bytes, other.tensor_ratio) == (100, 2.5)
    assert (other.inference_flops, other.training_flops) == (3.0, 4.0)


def test_the_rate_of_a_matrix_product_leaves_out_the_first_one(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter([100.0, 2.0, 1.0, 4.0, 1.0, 8.0])
    monkeypatch.setattr(end_to_end, "_MATRIX_SIZE", 4)
    monkeypatch.setattr(end_to_end, "timed", lambda work, compute: (next(seconds), work()))
    assert end_to_end._matrix_rate(CPU) == 2 * 4**3 / 2.0


def readout_on_features(count: int) -> SimpleNamespace:
    """What a run of a linear probe has assembled: a readout of five features and three classes."""
    torch.manual_seed(0)
    model, inputs = Readout(5, 3), FeatureInputs(torch.randn(count, 5), torch.arange(count) % 3)
    return SimpleNamespace(
        trained=model, built=SimpleNamespace(model=model), train=inputs, evaluation=inputs, images=inputs
    )


def test_shares_are_those_of_data_model_and_optimiser(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, ready = Clock(monkeypatch), readout_on_features(8)
    monkeypatch.setattr(FeatureInputs, "batch", clock.spending(1, FeatureInputs.batch))
    monkeypatch.setattr(Readout, "forward", clock.spending(2, Readout.forward))
    # torch.optim hides the module, whose function a step calls for the weights and for the biases.
    module: Any = sys.modules[torch.optim.SGD.__module__]
    monkeypatch.setattr(module, "sgd", clock.spending(1.5, module.sgd))
    recipe = Recipe(batch_size=4, optimizer="sgd", warmup_epochs=0)
    shares: Any = training_shares(ready, recipe, CPU)  # type: ignore[arg-type]
    assert shares == {"data": pytest.approx(1 / 6), "model": pytest.approx(2 / 6), "optimiser": pytest.approx(3 / 6)}
    shares = evaluation_shares(ready, CPU)  # type: ignore[arg-type]
    assert shares == {"data": pytest.approx(1 / 3), "model": pytest.approx(2 / 3)}


def test_flops_of_a_step_and_of_an_evaluation_are_those_of_one_image() -> None:
    ready: Any = readout_on_features(8)
    flops = end_to_end._step_flops(ready, EndToEndOptions("test_vit", batch_size=4), CPU)
    # A product of five features with three rows, and in training the gradient of these rows.
    assert flops == {"training": 2 * 2 * 5 * 3, "evaluation": 2 * 5 * 3}


class SquaredReadout(Readout):
    """A readout of five features and three classes, followed by a matrix that all batches of an evaluation share."""

    square: Tensor | None = None

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        self.square = self._squared()
        yield
        self.square = None

    def _squared(self) -> Tensor:
        return self.head.weight @ self.head.weight.T

    def forward(self, features: Tensor) -> Tensor:
        return super().forward(features) @ (self._squared() if self.square is None else self.square)


def test_an_evaluation_counts_what_its_images_share_once() -> None:
    ready: Any = readout_on_features(8)
    ready.built.model = SquaredReadout(5, 3)
    flops = end_to_end._step_flops(ready, EndToEndOptions("test_vit", batch_size=4), CPU)
    assert flops["evaluation"] == 2 * 5 * 3 + 2 * 3 * 3 + 2 * 3 * 5 * 3 / 8
    assert ready.built.model.head.weight.requires_grad


def test_a_subject_counts_the_flops_of_one_image_and_trains_in_training_mode() -> None:
    model = Readout(5, 3)
    subject = make_subject("linear", None, model, Batch(torch.randn(4, 5), torch.arange(4) % 3, CPU))
    assert subject.flops() == (2 * 5 * 3, 2 * 2 * 5 * 3)
    before = model.head.weight.clone()
    with subject.evaluation() as infer:
        infer()
        assert not model.training
    assert torch.equal(model.head.weight, before)
    subject.train()
    assert model.training
    assert not torch.equal(model.head.weight, before)


def test_a_shallow_backbone_has_those_default_levels_that_it_can() -> None:
    options = BenchOptions("test_vit", "random", 64, batch_size=2)
    backbone = load_backbone("test_vit", checkpoint="random", image_size=64)
    model = model_of(Candidate(get_method("ship"), 2, {}), options, backbone)
    assert isinstance(model, Ship)
    assert model.levels == [0, 2, 4]


@pytest.mark.parametrize("levels", [(0,), (0, 1, 5), (0, 2, 3, 4)])
def test_subjects_have_the_levels_and_the_weights_of_a_run(levels: tuple[int, ...]) -> None:
    options = BenchOptions("test_vit", "random", 64, batch_size=2, levels=levels)
    backbone, batch = make_fixture(options, ComputeContext(torch.device("cpu"), "bf16"))
    measured = candidates([get_method("ship")], options, {})
    bare, ship = (build(candidate, options, backbone, batch) for candidate in measured)
    model: Any = ship.model
    assert model.levels == list(levels)
    for subject in (bare, ship):
        weights = {name: p.dtype for name, p in subject.model.named_parameters() if name.endswith("attn.qkv.weight")}
        assert set(weights.values()) == {torch.bfloat16}
