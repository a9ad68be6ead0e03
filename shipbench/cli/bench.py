"""``shipbench bench``."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from shipbench.backbones import RANDOM
from shipbench.cli import completion, next_steps, options
from shipbench.cli.layout import make_table
from shipbench.cli.operations import counted_operations
from shipbench.cli.options import options_command
from shipbench.counts import counted
from shipbench.errors import InputError
from shipbench.runtime.console import out_console, say
from shipbench.runtime.files import check_output
from shipbench.runtime.interrupts import stopping
from shipbench.settings import field_names, parse_pairs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    import torch

    from shipbench.bench.end_to_end import EndToEnd
    from shipbench.bench.options import BenchOptions, EndToEndOptions
    from shipbench.bench.steps import Measurement
    from shipbench.bench.timing import Timing
    from shipbench.methods import Method


Methods = Annotated[
    str | None,
    typer.Option(
        help="Methods, comma-separated; default: all, the five main ones; with --all every method but the tuners of "
        "peft.",
        autocompletion=completion.methods,
    ),
]
Backbone = Annotated[str, typer.Option(help="Name of a timm model.", autocompletion=completion.backbones)]
Checkpoint = Annotated[str | None, typer.Option(help="Weights file, or 'random', which is enough for timing.")]
ImageSize = Annotated[int | None, typer.Option(min=1, help="Pixels; default: the backbone's image size.")]
DropPath = Annotated[
    float | None, typer.Option(min=0, max=0.99, help="Stochastic depth in training; default: 0.1, or 0 with --compile.")
]
Precisions = Annotated[
    str | None,
    typer.Option(
        help="Precisions, comma-separated: fp32, bf16 or auto; default: fp32, with --all bf16,fp32 (on mps fp32), "
        "with --operations bf16.",
        autocompletion=completion.one_of("fp32", "bf16", "auto"),
    ),
]
Compile = Annotated[
    bool, typer.Option("--compile", help="Also measure every model with torch.compile, without stochastic depth.")
]
Merged = Annotated[bool, typer.Option("--merged", help="Also measure inference with methods merged into the backbone.")]
JsonFile = Annotated[Path | None, typer.Option("--json", help="Also write all measurements to this file.")]
WholeRuns = Annotated[bool, typer.Option("--end-to-end", help="Time whole runs, from image files to stored records.")]
BatchSize = Annotated[
    int | None, typer.Option(min=1, max=1_000_000, help="Images per batch; default: 16, with --all or --operations 64.")
]
PromptLengths = Annotated[
    str | None, typer.Option(help="Prompt lengths, comma-separated; default: 50, with --all or --operations 10.")
]
AllParts = Annotated[
    bool,
    typer.Option(
        "--all",
        help="Measure all parts (steps, profile, repeats, whole runs, stacks) into one JSON file each.",
    ),
]
Parts = Annotated[str, typer.Option(help="With --all: only these parts, comma-separated.")]
Operations = Annotated[
    bool, typer.Option("--operations", help="Count the operations of a training step on a GPU; no GPU is needed.")
]
Output = Annotated[Path, typer.Option(help="With --all: the folder of the JSON files.")]
_REPORTS = Path("reports/bench")
Overrides: TypeAlias = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class BenchChoices:
    """The options of ``shipbench bench``."""

    method: Methods = None
    backbone: Backbone = "vit_base_patch16_224.orig_in21k"
    checkpoint: Checkpoint = RANDOM
    image_size: ImageSize = None
    batch_size: BatchSize = None
    prompt_lengths: PromptLengths = None
    levels: Annotated[
        str,
        typer.Option(
            help="First block of each semantic level, comma-separated; a backbone of fewer blocks uses those of the "
            "default that it has."
        ),
    ] = "0,2,4,6,8,11"
    drop_path: DropPath = None
    repeats: Annotated[int, typer.Option(min=1, help="Number of rounds; the table shows medians.")] = 5
    device: options.Device = "auto"
    precision: Precisions = None
    settings: options.Settings = None
    compiled: Compile = False
    merged: Merged = False
    json_file: JsonFile = None
    end_to_end: WholeRuns = False
    train_images: Annotated[int, typer.Option(min=8, help="With --end-to-end or --all: number of training images.")] = (
        1000
    )
    test_images: Annotated[int, typer.Option(min=8, help="With --end-to-end or --all: number of test images.")] = 1000
    epochs: Annotated[int, typer.Option(min=1, help="With --end-to-end: epochs per run in the estimate.")] = 100
    all_parts: AllParts = False
    parts: Parts = "all"
    output: Output = _REPORTS
    operations: Operations = False

    def check(self) -> None:
        """Raise ``InputError`` for files that cannot be written, and for options that cannot be combined."""
        if self.json_file is not None:
            check_output(self.json_file, "--json", folder=False)
        if self.operations and (self.all_parts or self.end_to_end or self.compiled or self.merged):
            raise InputError(
                "--operations counts instead of timing; use it without --all, --end-to-end, --compile and --merged"
            )
        if self.end_to_end and (self.all_parts or self.compiled or self.merged):
            raise InputError(
                "--end-to-end times runs as they are carried out; use it without --all, --compile and --merged"
            )
        if self.end_to_end and (self.prompt_lengths or self.drop_path is not None):
            raise InputError(
                "--end-to-end times runs with their settings; use --set prompt_length=N and --set drop_path=RATE in "
                "place of --prompt-lengths and --drop-path"
            )
        self._check_whole_runs()
        self._check_parts()

    def _check_whole_runs(self) -> None:
        """Raise ``InputError`` for options that --end-to-end ignores, and for options of it without it."""
        if self.end_to_end and self._changed("repeats", "levels"):
            raise InputError(
                "--end-to-end times each run once, with the levels that SHIP finds; leave out --repeats and --levels"
            )
        of_images = () if self.all_parts else ("train_images", "test_images")
        if not self.end_to_end and self._changed("epochs", *of_images):
            raise InputError(
                "--epochs belongs to --end-to-end, and --train-images and --test-images to --end-to-end or --all"
            )

    def _changed(self, *names: str) -> bool:
        """Return whether one of the options differs from its default."""
        return any(getattr(self, name) != getattr(BenchChoices, name) for name in names)

    def _check_parts(self) -> None:
        """Raise ``InputError`` for options of --all without it, and for what none of its parts measures."""
        if not self.all_parts:
            if self._changed("parts", "output"):
                raise InputError("--parts and --output belong to --all, which measures parts into files; add --all")
            return
        if self.json_file is not None:
            raise InputError("--all writes a JSON file for each part into the folder of --output; leave out --json")
        if self.compiled or self.merged or "," in (self.prompt_lengths or ""):
            raise InputError(
                "--all measures models with one prompt length, neither compiled nor merged; use it without --compile "
                "and --merged, and name one length in --prompt-lengths"
            )
        check_output(self.output, "--output")

    def chosen_methods(self) -> list[Method]:
        """Return the methods to measure."""
        from shipbench.methods import parse_methods
        from shipbench.methods.registry import MAIN_METHODS, registered_methods

        # Without the tuners of a library, whose steps are not recorded: they would use up the time limit.
        methods = parse_methods(self.method or (",".join(registered_methods()) if self.all_parts else "all"))
        if self.all_parts and self.method is None:
            # A time limit may cut a part off: the methods that matter most come first.
            methods.sort(key=lambda each: (each.name not in MAIN_METHODS, -each.order))
        return methods

    def precisions(self, place: torch.device) -> tuple[str, ...]:
        """Return the precisions to measure on a device, or to count a GPU's operations in."""
        import torch

        from shipbench.hardware.precision import resolve_precision

        # Counting emulates the GPU, so the one of a Mac, which has no bf16, does not matter.
        place = torch.device("cpu") if self.operations and place.type == "mps" else place
        all_of_device = "fp32" if place.type == "mps" else "bf16,fp32"
        default = all_of_device if self.all_parts else "bf16" if self.operations else "fp32"
        names = (self.precision or default).split(",")
        return tuple(dict.fromkeys(resolve_precision(name.strip(), place) for name in names))

    def whole_runs(self) -> EndToEndOptions:
        """Return what --end-to-end measures."""
        from shipbench.bench.options import EndToEndOptions

        counts: dict[str, Any] = {
            "train_images": self.train_images,
            "test_images": self.test_images,
            "epochs": self.epochs,
        }
        return EndToEndOptions(**self._shared, **counts, device=self.device)

    def steps(self) -> BenchOptions:
        """Return which steps are measured."""
        from shipbench.bench.options import BenchOptions

        lengths = self.prompt_lengths or ("10" if self.all_parts or self.operations else "50")
        return BenchOptions(
            **self._shared,
            repeats=self.repeats,
            drop_path=(0.0 if self.compiled else 0.1) if self.drop_path is None else self.drop_path,
            compiled=self.compiled,
            merged=self.merged,
            levels=_numbers("--levels", self.levels),
            prompt_lengths=_numbers("--prompt-lengths", lengths),
        )

    @property
    def _shared(self) -> dict[str, Any]:
        shared = {"backbone": self.backbone, "checkpoint": self.checkpoint, "image_size": self.image_size}
        return {**shared, "batch_size": self.batch_size or (64 if self.all_parts or self.operations else 16)}


@options_command(BenchChoices)
def bench(options: BenchChoices) -> None:
    """Measure the training step and inference of methods against the bare frozen backbone.

    With --end-to-end, measure whole runs, and estimate the time that the 19 tasks of VTAB-1k would take.
    With --all, measure training as runs execute it, in parts that each write a file.
    With --operations, count what a training step launches on a GPU.
    """
    from shipbench.hardware.device import resolve_device
    from shipbench.planning.grid import overrides_by_method

    methods, place = options.chosen_methods(), resolve_device(options.device)
    options.check()
    precisions = options.precisions(place)
    overrides = overrides_by_method(methods, parse_pairs(options.settings or []))
    if not (options.end_to_end or (options.all_parts and options.parts == "end-to-end")):
        _refuse_unmeasured(methods, overrides)
    if options.all_parts:
        _parts(options, methods, place, precisions, overrides)
    else:
        if options.end_to_end:
            content = _whole_runs(methods, options.whole_runs(), place, precisions, overrides)
        elif options.operations:
            content = counted_operations(methods, options.steps(), precisions, overrides)
        else:
            content = _steps(methods, options.steps(), place, precisions, overrides)
        if options.json_file is not None:
            options.json_file.parent.mkdir(parents=True, exist_ok=True)
            options.json_file.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    next_steps.after_bench()


def _refuse_unmeasured(methods: Sequence[Method], overrides: Overrides) -> None:
    """Raise ``InputError`` for settings that steps are not measured with."""
    for method in methods:
        for key in overrides[method.name]:
            if key == "prompt_length":
                raise InputError("--set prompt_length: name the numbers of prompts with --prompt-lengths, as in 5,50")
            if key not in field_names(method.settings):
                own = ("batch_size", "image_size", "drop_path")
                instead = f"use --{key.replace('_', '-')}" if key in own else "measure runs (--end-to-end)"
                raise InputError(f"--set {key}: only runs have a recipe, and steps are measured without one; {instead}")


def _parts(
    options: BenchChoices, methods: list[Method], place: torch.device, precisions: tuple[str, ...], overrides: Overrides
) -> None:
    """Run the parts of --all; exit with 1 if one of them holds an error."""
    from shipbench.bench.options import PartOptions
    from shipbench.bench.parts import parse_parts, run_parts

    names, counts = tuple(method.name for method in methods), (options.train_images, options.test_images)
    part_options = PartOptions(options.steps(), place, options.output, names, overrides, precisions, end_to_end=counts)
    chosen = parse_parts(options.parts)
    with stopping(f"what was measured is kept in {options.output}"):
        failed = run_parts(chosen, part_options, say)
    if failed:
        say(f"these parts hold errors: {', '.join(failed)}; see the files in {options.output}")
        raise typer.Exit(1)


def _steps(
    methods: list[Method], options: BenchOptions, place: torch.device, precisions: Iterable[str], overrides: Overrides
) -> dict[str, Any]:
    """Measure steps and print them; return the measurements, ready for JSON."""
    from shipbench.bench.steps import as_json, run_bench
    from shipbench.hardware.precision import ComputeContext

    contexts = [ComputeContext(place, name) for name in precisions]
    measurements = [row for compute in contexts for row in run_bench(methods, options, compute, overrides, say)]
    content = as_json(measurements, options, place)
    batch = f"batch {options.batch_size}, stochastic depth {options.drop_path:g}"
    machine = f"{content['device']}, {counted(content['threads'], 'thread')}"
    _print_steps(measurements, f"{machine}, {batch}; x: ratio to bare backbone")
    return content


def _whole_runs(
    methods: list[Method],
    options: EndToEndOptions,
    place: torch.device,
    precisions: Iterable[str],
    overrides: Overrides,
) -> dict[str, Any]:
    """Measure whole runs and print them; return the measurements, ready for JSON."""
    from shipbench.bench.end_to_end import run_end_to_end
    from shipbench.bench.steps import environment

    measurements = [
        run_end_to_end(method, replace(options, precision=name, overrides=overrides.get(method.name, {})))
        for name in precisions
        for method in methods
    ]
    machine = environment(place)
    threads = counted(machine["threads"], "thread")
    _print_whole_runs(measurements, f"{machine['device']}, {threads}, batch {options.batch_size}")
    return {"options": asdict(options), **machine, "measurements": [row.as_json() for row in measurements]}


def _numbers(name: str, text: str) -> tuple[int, ...]:
    parts = [part.strip() for part in text.split(",")]
    if not all(re.fullmatch(r"\d{1,9}", part) for part in parts):
        raise InputError(f"{name} {text!r} is not a list of whole numbers, as in 10,50,200")
    return tuple(int(part) for part in parts)


def _print_steps(measurements: Iterable[Measurement], title: str) -> None:
    table = make_table(
        "subject",
        "inference s (range)",
        "training step s (range)",
        "memory of a step, MB",
        "allocated, MB",
        "tensors, MB",
        "GFLOPs per image: inference, training",
        title=title,
    )
    for row in measurements:
        table.add_row(
            _subject(row),
            _seconds(row.inference, row.inference_ratio),
            _seconds(row.training, row.training_ratio),
            _megabytes(row.training_bytes, row.memory_ratio),
            _megabytes(row.training_allocated_bytes, row.allocated_ratio),
            _megabytes(row.training_tensor_bytes, row.tensor_ratio),
            f"{row.inference_flops / 1e9:.1f}, {row.training_flops / 1e9:.1f}",
        )
    out_console().print(table)


def _subject(row: Measurement) -> str:
    """Return the name of what was measured, on lines that fit into a narrow column."""
    prompts = [] if row.prompt_length is None else [f"{row.prompt_length} prompts"]
    return "\n".join([row.subject, *prompts, f"{row.precision}{', compiled' if row.compiled else ''}"])


def _seconds(timing: Timing, ratio: float) -> str:
    return f"{timing.median:.3f} ({timing.low:.3f}-{timing.high:.3f}) {ratio:.2f} x"


def _megabytes(count: float | None, ratio: float | None) -> str:
    """Return megabytes and their ratio; a memory that could not be measured is a dash."""
    return "-" if count is None else f"{count / 1e6:.0f}" + ("" if ratio is None else f" {ratio:.2f} x")


def _print_whole_runs(measurements: Sequence[EndToEnd], title: str) -> None:
    table = make_table("", *(f"{row.method}, {row.precision}" for row in measurements), title=title)
    lines: list[tuple[str, Callable[[EndToEnd], str]]] = [
        ("decoding, images/s", lambda row: f"{row.decoding_rate:.0f}"),
        ("training, images/s", lambda row: f"{row.training_rate:.1f}"),
        ("evaluation, images/s", lambda row: f"{row.evaluation_rate:.1f}"),
        ("training: data, model, optimiser", lambda row: _percents(row.training_shares)),
        ("evaluation: data, model", lambda row: _percents(row.evaluation_shares)),
        ("loading, building, storing, s", _fixed_seconds),
        ("matrix product, TFLOP/s", lambda row: f"{row.matrix_rate / 1e12:.2f}"),
        ("of which training, evaluation", lambda row: f"{row.training_fraction:.0%}, {row.evaluation_fraction:.0%}"),
        *((f"19 tasks: {part}, min", _estimate(part)) for part in measurements[0].estimates),
        ("19 tasks, min", lambda row: f"{row.benchmark_seconds / 60:.1f}"),
    ]
    for name, cell in lines:
        table.add_row(name, *(cell(row) for row in measurements))
    out_console().print(table)


def _estimate(part: str) -> Callable[[EndToEnd], str]:
    return lambda row: f"{row.estimates[part] / 60:.1f}"


def _fixed_seconds(row: EndToEnd) -> str:
    return f"{row.loading_seconds:.2f}, {row.building_seconds:.2f}, {row.storing_seconds:.2f}"


def _percents(shares: Mapping[str, float]) -> str:
    order = [part for part in ("data", "model", "optimiser") if part in shares]
    return ", ".join(f"{shares[part]:.1%}" for part in order)
