"""``shipbench bench --all``: parts that write their files row by row. No time is asserted."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from shipbench.backbones import load_backbone
from shipbench.bench import parts, rates, repeats, workloads
from shipbench.bench.candidates import Candidate, model_of
from shipbench.bench.launch_gaps import launch_figures
from shipbench.bench.options import BenchOptions, PartOptions
from shipbench.bench.parts import PARTS, run_parts
from shipbench.bench.rates import step_timing
from shipbench.bench.timing import Timing
from shipbench.bench.workloads import Workload, cases
from shipbench.cli.bench import BenchChoices
from shipbench.errors import InputError, ShipbenchError
from shipbench.methods import get_method
from shipbench.training import loop
from shipbench.training.history import EpochReport, Fit
from shipbench.training.inputs import FeatureInputs
from shipbench.training.loop import evaluate
from tests.conftest import Shipbench
from tests.tapes import Tapes

MODEL = BenchOptions("test_vit", "random", 64, batch_size=2, levels=(0, 2, 4), repeats=1, prompt_lengths=(2,))


@pytest.fixture
def options(tmp_path: Path) -> PartOptions:
    methods = ("ship", "linear")
    return PartOptions(MODEL, torch.device("cpu"), tmp_path, methods, {}, ("fp32",), 4, (10, 8), (1, 2))


def content(options: PartOptions, name: str) -> dict[str, Any]:
    return json.loads((options.output / f"cpu-{name}.json").read_text())


def test_every_part_measures_its_methods(options: PartOptions, cache: Path) -> None:
    assert run_parts(list(PARTS), options, lambda _: None) == []
    files = {name: content(options, name) for name in PARTS}
    assert all(file["finished"] and file["torch"] == torch.__version__ for file in files.values())
    assert [row["equal"] for row in files["repeats"]["rows"]] == [True, True]
    assert [row["method"] for row in files["steps"]["rows"]] == ["ship", "linear"]
    assert all(row["training"]["low"] > 0 and row["evaluation_rate"] > 0 for row in files["steps"]["rows"])
    assert [row["runs"] for row in files["stacks"]["rows"]] == [1, 2]
    for row in (*files["steps"]["rows"], *files["stacks"]["rows"]):
        # Every run takes a step on two images.
        assert row["training_rate"] == pytest.approx(2 * row.get("runs", 1) / row["training"]["median"])
    assert files["profile"]["rows"][0]["kernels"] > 100
    assert [row["benchmark_seconds"] > 0 for row in files["end-to-end"]["rows"]] == [True, True]
    assert not cache.exists()


def test_the_memory_of_training_is_not_that_of_an_evaluation(
    options: PartOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    events, looks = ["start"], list[int]()

    class Peak:
        def __init__(self, device: torch.device) -> None: ...

        def bytes(self) -> int:
            looks.append(events.count("step"))
            return max({"start": 5, "step": 30, "evaluation": 700}[event] for event in events)

    def note(event: str, work: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *args: (events.append(event), work(*args))[1]

    monkeypatch.setattr(rates, "PeakMemory", Peak)
    monkeypatch.setattr(loop, "_evaluate", note("evaluation", loop._evaluate))
    monkeypatch.setattr(loop.Trainer, "_step", note("step", loop.Trainer._step))
    (row,) = rates.measure_rates(replace(options, methods=("linear",)))
    assert row["training_bytes"] == 25
    # Not in the epochs that are timed.
    assert max(looks) < options.steps < events.count("step")


def reports(*seconds: float) -> Fit:
    """A fit whose epochs and evaluations took so long."""
    return Fit([EpochReport(epoch, 3, 1.0, 0.1, each, 8, eval_seconds=2 * each) for epoch, each in enumerate(seconds)])


def test_steps_are_timed_after_the_first_epoch() -> None:
    """It sets up and records; a run of a stack reports its share of an epoch of four steps."""
    assert step_timing(reports(50.0, 2.0, 4.0), 4, runs=2) == Timing(1.5, 1.0, 2.0)


def test_the_rate_of_an_evaluation_is_that_of_the_last_one() -> None:
    nothing: Any = None
    model, images = torch.nn.Linear(1, 1), FeatureInputs(torch.zeros(8, 1), torch.zeros(8))
    work = Workload(model, model, images, images, nothing, nothing, nothing)
    assert work.evaluation_rate(reports(50.0, 2.0)) == 2.0


EQUAL, OTHER = {"losses": torch.ones(2), "head.weight": torch.ones(3)}, torch.tensor([1.0, 1.0, 1.0 + 2**-20])


@pytest.mark.parametrize(
    ("captured", "trained", "different"),
    [
        (True, [EQUAL] * 3, []),
        (True, [EQUAL, EQUAL, EQUAL | {"head.weight": OTHER}], ["head.weight, not recorded"]),
        (True, [EQUAL, EQUAL | {"losses": OTHER[:2] - 1}, EQUAL], ["losses, repeated"]),
        (False, [EQUAL, EQUAL | {"head.weight": OTHER}], ["head.weight, repeated"]),
    ],
)
def test_what_a_repeated_training_changes_is_named(
    captured: bool, trained: list[dict[str, Any]], different: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    case: Any = None
    captures, rest = list[str](), iter(trained)
    monkeypatch.setattr(repeats, "_trained", lambda _, capture: (captured, (captures.append(capture), next(rest))[1]))
    row = repeats._compared(case)
    assert (row["captured"], row["equal"], row["different"]) == (captured, not different, different)
    assert captures == ["auto", "auto", *(["off"] if captured else [])]


def test_a_time_limit_leaves_out_the_methods_that_matter_least(options: PartOptions) -> None:
    chosen = [method.name for method in BenchChoices(all_parts=True).chosen_methods()]
    assert chosen[:5] == ["ship", "vpt-deep", "vpt-shallow", "linear", "full"]
    assert "lora" in chosen
    assert not any(name.startswith("peft-") for name in chosen)
    options = replace(options, methods=("ship", "lora", "ssf"), precisions=("bf16", "fp32"))
    measured = [f"{case.method} {case.compute.precision}" for case in cases(options)]
    assert measured == ["ship bf16", "ship fp32", "lora bf16", "ssf bf16", "lora fp32", "ssf fp32"]


@pytest.mark.usefixtures("tapes")
def test_steps_that_can_be_recorded_are_measured_both_ways(options: PartOptions) -> None:
    model = replace(MODEL, batch_size=4, drop_path=0.3)
    options = replace(options, model=model, methods=("ship", "full"), stacks=(2,))
    assert run_parts(["repeats", "steps", "profile", "stacks"], options, lambda _: None) == []
    assert [row["captured"] for row in content(options, "repeats")["rows"]] == [True, True]
    for name, methods in (("steps", ("ship", "full")), ("profile", ("ship",)), ("stacks", ("ship",))):
        measured = [(row["method"], row["captured"]) for row in content(options, name)["rows"]]
        assert measured == [(method, captured) for method in methods for captured in (True, False)]


@pytest.mark.usefixtures("tapes")
def test_the_rate_of_a_linear_probe_is_that_of_computing_features(
    options: PartOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    captures = list[str]()

    def noting(*arguments: Any, capture: str = "auto") -> Any:
        captures.append(capture)
        return evaluate(*arguments)

    monkeypatch.setattr(workloads, "evaluate", noting)
    run_parts(["steps"], replace(options, methods=("linear",)), lambda _: None)
    # A run computes features without recording, so the time of a recording is no part of them.
    assert set(captures) == {"off"}


@pytest.mark.usefixtures("tapes")
@pytest.mark.parametrize("name", ["steps", "stacks"])
def test_steps_that_could_not_be_recorded_are_an_error(
    name: str, options: PartOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(recorder: Tapes, work: Callable[[], object]) -> None:
        raise ShipbenchError("operation not permitted")

    monkeypatch.setattr(Tapes, "record", refuse)
    options = replace(options, methods=("ship",), stacks=(2,))
    assert run_parts([name], options, lambda _: None) == [name]
    recorded, other = content(options, name)["rows"]
    assert recorded["error"] == "ShipbenchError: training steps are not recorded: operation not permitted"
    assert other["training_rate"] > 0


def test_a_stop_keeps_the_rows_that_were_measured(options: PartOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: PartOptions) -> Iterator[dict[str, Any]]:
        yield {"method": "ship", "equal": True}
        raise KeyboardInterrupt

    monkeypatch.setattr(parts, "PARTS", {"repeats": interrupted})
    with pytest.raises(KeyboardInterrupt):
        run_parts(["repeats"], options, lambda _: None)
    assert content(options, "repeats")["rows"] == [{"method": "ship", "equal": True}]
    assert not content(options, "repeats")["finished"]


def test_a_part_that_fails_names_its_error_and_the_next_one_runs(
    options: PartOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(_: PartOptions) -> Iterator[dict[str, Any]]:
        yield {"method": "ship", "equal": True}
        raise RuntimeError("no kernel\nfor this device")

    monkeypatch.setattr(parts, "PARTS", {"repeats": failing, "steps": lambda _: iter([{"method": "ship"}])})
    assert run_parts(["repeats", "steps"], options, lambda _: None) == ["repeats"]
    assert content(options, "repeats")["error"] == "RuntimeError: no kernel for this device"
    assert content(options, "steps")["rows"] == [{"method": "ship"}]


def test_a_method_that_fails_ends_no_other(options: PartOptions) -> None:
    settings = {"ship": {"attribute_length": 100}}
    assert run_parts(["steps"], replace(options, settings=settings), lambda _: None) == ["steps"]
    ship, linear = content(options, "steps")["rows"]
    assert "attribute_length=100" in ship["error"]
    assert linear["training_rate"] > 0


def test_a_training_that_does_not_repeat_is_an_error(options: PartOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    row = {"method": "ship", "precision": "fp32", "equal": False, "different": ["head.weight"]}
    monkeypatch.setattr(parts, "PARTS", {"repeats": lambda _: iter([row])})
    assert run_parts(["repeats"], options, lambda _: None) == ["repeats"]


def test_the_command_runs_the_named_parts(shipbench: Shipbench, tmp_path: Path) -> None:
    small = ("--backbone", "test_vit", "--image-size", 64, "--batch-size", 2, "--repeats", 1, "--levels", "0,2,4")
    line = ("--device", "cpu", "--all", "--parts", "repeats", "--method", "linear", "--output", tmp_path)
    outcome = shipbench("bench", *small, *line)
    assert outcome.code == 0, outcome.err
    rows = json.loads((tmp_path / "cpu-repeats.json").read_text())["rows"]
    assert [(row["precision"], row["equal"]) for row in rows] == [("bf16", True), ("fp32", True)]
    assert [file.name for file in tmp_path.iterdir()] == ["cpu-repeats.json"]
    wrong = shipbench("bench", *small, "--all", "--parts", "stack", "--output", tmp_path)
    assert wrong.code == 2
    assert "unknown part 'stack' (did you mean 'stacks'?)" in wrong.err


def test_levels_matter_to_methods_alone_that_read_the_features_of_blocks() -> None:
    """test_vit has six blocks."""
    options = BenchOptions("test_vit", "random", 64, batch_size=2, levels=(0, 2, 6))
    backbone = load_backbone("test_vit", checkpoint="random", image_size=64)
    assert model_of(Candidate(get_method("vpt-deep"), 2, {}), options, backbone)
    words = "--levels 0,2,6 must start with 0, rise, and stay below the backbone's 6 blocks"
    with pytest.raises(InputError, match=words):
        model_of(Candidate(get_method("ship"), 2, {}), options, backbone)


def event(name: str, start: float, duration: float, kind: str = "kernel") -> dict[str, Any]:
    return {"name": name, "cat": kind, "ts": start, "dur": duration}


def test_gaps_are_the_times_in_which_nothing_runs_on_the_device() -> None:
    trace = [
        event("gemm", 100, 40),
        # Runs beside the first kernel, and ends before it.
        event("Memcpy HtoD (Pinned -> Device)", 110, 10, "gpu_memcpy"),
        event("gemm", 150, 20),
        event("softmax", 200, 30),
        event("cuLaunchKernelEx", 90, 5, "cuda_driver"),
        event("cudaGraphLaunch", 95, 5, "cuda_runtime"),
        event("cudaEventRecord", 96, 1, "cuda_runtime"),
        event("aten::mm", 80, 300, "cpu_op"),
        {"name": "process_name", "ph": "M"},
    ]
    figures = launch_figures(trace, 2)
    assert figures["span"] == pytest.approx(0.130 / 2)
    assert figures["busy"] == pytest.approx(0.090 / 2)
    assert figures["idle"] == pytest.approx(40 / 130)
    assert figures["longest_gaps"] == [30, 10]
    assert (figures["kernels"], figures["copies_from_host"], figures["launches"]) == (2, 0.5, 1)
    assert figures["longest_kernels"][0] == {"name": "gemm", "ms": pytest.approx(0.03), "count": 1}


def test_a_trace_without_the_kernels_of_the_gpu_has_no_figures() -> None:
    trace = [event("aten::mm", 80, 300, "cpu_op"), event("cudaLaunchKernel", 90, 5, "cuda_runtime")]
    assert launch_figures(trace, 1)["kernels"] == 1
    assert launch_figures(trace, 1, on_gpu=True) == {
        "error": "the trace holds no kernel of the GPU: the profiler cannot trace it"
    }
