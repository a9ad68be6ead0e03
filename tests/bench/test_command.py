"""``shipbench bench``: what its options ask for, and what it prints. Nothing is measured."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from shipbench.bench import parts
from shipbench.bench.end_to_end import EndToEnd
from shipbench.bench.operations import StepOperations
from shipbench.bench.options import BenchOptions, EndToEndOptions, PartOptions
from shipbench.bench.steps import Measurement
from shipbench.bench.timing import Timing
from shipbench.cli import bench, operations
from shipbench.cli.bench import BenchChoices
from shipbench.errors import InputError
from shipbench.methods import Method
from tests.conftest import Shipbench

VIT_B = "vit_base_patch16_224.orig_in21k"
SHARES = {"data": 0.25, "optimiser": 0.125, "model": 0.625}
CPU = torch.device("cpu")


def whole_run(method: str = "ship", precision: str = "fp32") -> EndToEnd:
    """Return measurements that are all different."""
    return EndToEnd(
        method=method,
        precision=precision,
        decoding_rate=900.0,
        training_rate=50.5,
        evaluation_rate=200.0,
        loading_seconds=1.0,
        building_seconds=2.0,
        storing_seconds=3.0,
        training_shares=SHARES,
        evaluation_shares={"model": 0.9, "data": 0.1},
        matrix_rate=2e12,
        training_fraction=0.5,
        evaluation_fraction=0.75,
        estimates={"decoding": 60.0, "training": 600.0},
    )


def cells(printed: str) -> list[list[str]]:
    """Return the cells of the rows of a table."""
    rows = [line.strip("│").split("│") for line in printed.splitlines() if line.startswith("│")]
    return [[cell.strip() for cell in row] for row in rows]


def test_every_option_reaches_what_is_measured() -> None:
    shared: dict[str, Any] = {"backbone": "vit", "checkpoint": "x.pth", "image_size": 64, "batch_size": 8}
    steps: dict[str, Any] = {"repeats": 3, "drop_path": 0.3, "compiled": True, "merged": True}
    runs = {"train_images": 16, "test_images": 12, "epochs": 7}
    choices = BenchChoices(**shared, **steps, **runs, levels="0,2", prompt_lengths="2,4", device="mps")
    assert choices.whole_runs() == EndToEndOptions(**shared, **runs, device="mps")
    assert choices.steps() == BenchOptions(**shared, **steps, levels=(0, 2), prompt_lengths=(2, 4))


@pytest.mark.parametrize(
    ("choices", "batch_size", "prompt_lengths", "precisions", "on_mps"),
    [
        (BenchChoices(), 16, (50,), ("fp32",), ("fp32",)),
        (BenchChoices(operations=True), 64, (10,), ("bf16",), ("bf16",)),
        (BenchChoices(all_parts=True), 64, (10,), ("bf16", "fp32"), ("fp32",)),
    ],
)
def test_the_defaults_of_each_kind_of_measurement(
    choices: BenchChoices,
    batch_size: int,
    prompt_lengths: tuple[int, ...],
    precisions: tuple[str, ...],
    on_mps: tuple[str, ...],
) -> None:
    steps = choices.steps()
    assert (steps.batch_size, steps.prompt_lengths, choices.precisions(CPU)) == (batch_size, prompt_lengths, precisions)
    assert choices.precisions(torch.device("mps")) == on_mps


def test_auto_counts_operations_in_the_precision_of_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shipbench.hardware.precision._has_bf16", lambda device: device.type == "cuda")
    choices = BenchChoices(operations=True, precision="auto")
    places = {name: choices.precisions(torch.device(name)) for name in ("cuda", "cpu", "mps")}
    assert places == {"cuda": ("bf16",), "cpu": ("fp32",), "mps": ("fp32",)}


def test_a_folder_of_parts_is_checked_only_where_parts_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "reports").touch()
    BenchChoices().check()
    with pytest.raises(InputError, match="--output: reports/bench cannot be written to"):
        BenchChoices(all_parts=True).check()


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, EndToEndOptions]]:
    """Collect the whole runs that are asked for, in place of executing them."""
    collected: list[tuple[str, EndToEndOptions]] = []

    def run(method: Method, options: EndToEndOptions) -> EndToEnd:
        collected.append((method.name, options))
        return whole_run(method.name, options.precision)

    monkeypatch.setattr("shipbench.bench.end_to_end.run_end_to_end", run)
    monkeypatch.setattr(parts, "run_end_to_end", run)
    return collected


def test_whole_runs_have_their_settings_and_one_column_for_each_method_and_precision(
    shipbench: Shipbench, tmp_path: Path, asked: list[tuple[str, EndToEndOptions]]
) -> None:
    line = ("--method", "ship,linear", "--precision", "fp32,bf16", "--set", "ship.prompt_length=3", "--epochs", 7)
    outcome = shipbench("bench", "--end-to-end", "--device", "cpu", *line, "--json", tmp_path / "b.json")
    assert outcome.code == 0, outcome.err
    assert [(name, options.precision, options.epochs, options.overrides) for name, options in asked] == [
        (name, precision, 7, {"prompt_length": "3"} if name == "ship" else {})
        for precision in ("fp32", "bf16")
        for name in ("ship", "linear")
    ]
    content = json.loads((tmp_path / "b.json").read_text())
    assert [(row["method"], row["benchmark_seconds"]) for row in content["measurements"]] == [
        ("ship", 660.0), ("linear", 660.0),
    ] * 2  # fmt: skip
    rows = {name: [values[0], values[-1]] for name, *values in cells(outcome.out)}
    assert rows == {
        name: [text] * 2
        for name, text in {
            "decoding, images/s": "900",
            "training, images/s": "50.5",
            "evaluation, images/s": "200.0",
            "training: data, model, optimiser": "25.0%, 62.5%, 12.5%",
            "evaluation: data, model": "10.0%, 90.0%",
            "loading, building, storing, s": "1.00, 2.00, 3.00",
            "matrix product, TFLOP/s": "2.00",
            "of which training, evaluation": "50%, 75%",
            "19 tasks: decoding, min": "1.0",
            "19 tasks: training, min": "10.0",
            "19 tasks, min": "11.0",
        }.items()
    }


def test_whole_runs_among_the_parts_are_those_of_the_options(
    tmp_path: Path, asked: list[tuple[str, EndToEndOptions]]
) -> None:
    model = BenchOptions("vit", "x.pth", 64, batch_size=8)
    settings = {"ship": {"prompt_length": 3}}
    options = PartOptions(model, CPU, tmp_path, ("lora", "ship"), settings, ("bf16", "fp32"), end_to_end=(16, 12))
    (row,) = parts.measure_whole_runs(options)
    shared = {"train_images": 16, "test_images": 12, "precision": "bf16", "device": "cpu"}
    assert asked == [("ship", EndToEndOptions("vit", "x.pth", 64, 8, **shared, overrides=settings["ship"]))]  # type: ignore[arg-type]
    assert (row["method"], row["precision"], row["benchmark_seconds"]) == ("ship", "bf16", 660.0)


def test_parts_with_an_error_are_named_and_end_with_1(
    shipbench: Shipbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    received: list[PartOptions] = []

    def run(names: tuple[str, ...], options: PartOptions, say: Callable[[str], None]) -> list[str]:
        received.append(options)
        say(f"{', '.join(names)}: done")
        return ["steps"]

    monkeypatch.setattr(parts, "run_parts", run)
    line = ("--method", "ship", "--set", "shared_length=3", "--train-images", 16, "--test-images", 12)
    outcome = shipbench("bench", "--all", "--device", "cpu", *line, "--parts", "steps, stacks", "--output", tmp_path)
    assert outcome.code == 1
    assert outcome.err.splitlines() == [
        "steps, stacks: done",
        f"these parts hold errors: steps; see the files in {tmp_path}",
    ]
    (options,) = received
    assert (options.methods, options.settings) == (("ship",), {"ship": {"shared_length": "3"}})
    assert (options.end_to_end, options.precisions) == ((16, 12), ("bf16", "fp32"))


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("prompt_length=5", "--set prompt_length: name the numbers of prompts with --prompt-lengths"),
        ("batch_size=8", "steps are measured without one; use --batch-size"),
        ("capture=off", "--set capture: only runs have a recipe, and steps are measured without one; measure runs"),
    ],
)
@pytest.mark.parametrize("mode", [(), ("--all",), ("--operations",)])
def test_settings_that_no_step_has_are_refused(
    shipbench: Shipbench, mode: tuple[str, ...], setting: str, words: str
) -> None:
    outcome = shipbench("bench", "--method", "ship", "--device", "cpu", *mode, "--set", setting)
    assert (outcome.code, words in outcome.err) == (2, True), outcome.err


def test_a_part_tells_its_options_and_every_row_in_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def measure(_: PartOptions) -> Iterator[Mapping[str, Any]]:
        yield {"method": "ship", "captured": False, "rate": 1234.5678, "training": {"median": 1.0}, "gaps": [1]}

    monkeypatch.setattr(parts, "PARTS", {"steps": measure})
    settings = {"ship": {"prompt_length": 3}}
    lines: list[str] = []
    options = PartOptions(BenchOptions("vit", "random", 64), CPU, tmp_path, ("ship",), settings)
    assert parts.run_parts(["steps"], options, lines.append) == []
    assert lines == ["steps: method ship, captured False, rate 1235"]
    written = json.loads((tmp_path / "cpu-steps.json").read_text())
    assert (written["options"]["settings"], written["options"]["model"]["image_size"]) == (settings, 64)
    assert not written["options"].keys() & {"output", "device"}


def test_the_table_of_steps(capsys: pytest.CaptureFixture[str]) -> None:
    bare = Measurement(
        subject="bare backbone",
        prompt_length=None,
        precision="fp32",
        compiled=False,
        inference=Timing(1.0, 0.5, 1.5),
        training=Timing(4.0, 3.0, 5.0),
        inference_ratio=1.0,
        training_ratio=1.25,
        training_bytes=20_000_000,
        memory_ratio=1.5,
        training_allocated_bytes=25_000_000,
        allocated_ratio=1.25,
        training_tensor_bytes=30_000_000,
        tensor_ratio=1.75,
        inference_flops=7e9,
        training_flops=21e9,
    )
    ship = Measurement(
        **{**vars(bare), "subject": "ship", "prompt_length": 5, "compiled": True, "training_bytes": None}
    )
    bench._print_steps([bare, ship], "a machine")
    shown = cells(capsys.readouterr().out)
    times = ["1.000 (0.500-1.500) 1.00 x", "4.000 (3.000-5.000) 1.25 x"]
    assert shown[0] == ["bare backbone", *times, "20 1.50 x", "25 1.25 x", "30 1.75 x", "7.0, 21.0"]
    assert [row[0] for row in shown[2:]] == ["ship", "5 prompts", "fp32, compiled"]
    assert shown[2][3] == "-"


def test_the_table_of_operations(capsys: pytest.CaptureFixture[str]) -> None:
    ship = StepOperations("ship", 10, "bf16", 100, 200, 300, 1.25, 2, 3, 4, 5)
    linear = StepOperations("linear", None, "fp32", 10, 20, 30, None, 1, 0, 0, 0)
    operations._print([ship, linear], "one training step")
    assert cells(capsys.readouterr().out) == [
        ["ship, 10 prompts, bf16", "100", "200", "300 (1.25 x)", "2", "3", "4", "5"],
        ["linear, fp32", "10", "20", "30", "1", "0", "0", "0"],
    ]
