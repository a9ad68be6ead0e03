"""``shipbench bench``."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from shipbench.cli import options
from shipbench.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    import torch

    from shipbench.bench import BenchOptions, EndToEnd, EndToEndOptions, Measurement
    from shipbench.methods import Method


def bench(
    method: Annotated[str, typer.Option(help="Methods, comma-separated, or all.")] = "all",
    backbone: Annotated[str, typer.Option(help="A timm ViT by name.")] = "vit_base_patch16_224.orig_in21k",
    checkpoint: Annotated[
        str | None, typer.Option(help="Weights; 'random' will do for timing, and is the default.")
    ] = "random",
    image_size: Annotated[int | None, typer.Option(help="Pixels; the backbone's own if not given.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, max=1_000_000, help="Images in a batch.")] = 16,
    prompt_lengths: Annotated[str, typer.Option(help="Prompt lengths, comma-separated.")] = "50",
    levels: Annotated[str, typer.Option(help="First blocks of the semantic levels.")] = "0,2,4,6,8,11",
    drop_path: Annotated[
        float | None, typer.Option(min=0, max=0.99, help="Stochastic depth in training: 0.1, or 0 with --compile.")
    ] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Rounds; medians are shown.")] = 5,
    device: options.Device = "auto",
    precision: Annotated[str, typer.Option(help="Precisions, comma-separated: fp32, bf16 or auto.")] = "fp32",
    settings: options.Settings = None,
    compiled: Annotated[
        bool,
        typer.Option("--compile", help="Measure every model with torch.compile as well, without stochastic depth."),
    ] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write everything here.")] = None,
    end_to_end: Annotated[
        bool, typer.Option("--end-to-end", help="Time whole runs, from image files to the stored record.")
    ] = False,
    train_images: Annotated[int, typer.Option(min=8, help="With --end-to-end: images to train on.")] = 1000,
    test_images: Annotated[int, typer.Option(min=8, help="With --end-to-end: images to test on.")] = 1000,
    epochs: Annotated[int, typer.Option(min=1, help="With --end-to-end: epochs that the estimate counts.")] = 100,
) -> None:
    """Measure every method's training step and inference against the bare frozen backbone.

    With --end-to-end, measure whole runs instead, and estimate what the 19 tasks of VTAB-1k would take.
    """
    from shipbench.bench import BenchOptions, EndToEndOptions
    from shipbench.hardware.device import resolve_device
    from shipbench.hardware.precision import resolve_precision
    from shipbench.methods import parse_methods
    from shipbench.planning.grid import overrides_by_method
    from shipbench.settings import parse_pairs

    chosen = parse_methods(method)
    place = resolve_device(device)
    precisions = dict.fromkeys(resolve_precision(name.strip(), place) for name in precision.split(","))
    overrides = overrides_by_method(chosen, parse_pairs(settings or []))
    about: dict[str, Any] = {"backbone": backbone, "checkpoint": checkpoint}
    about |= {"image_size": image_size, "batch_size": batch_size}
    if end_to_end:
        counts: dict[str, Any] = {"train_images": train_images, "test_images": test_images, "epochs": epochs}
        _whole_runs(chosen, EndToEndOptions(**about, **counts, device=device), precisions, overrides, json_file)
        return
    wanted = BenchOptions(
        **about,
        repeats=repeats,
        drop_path=(0.0 if compiled else 0.1) if drop_path is None else drop_path,
        compiled=compiled,
        levels=_numbers("--levels", levels),
        prompt_lengths=_numbers("--prompt-lengths", prompt_lengths),
    )
    _steps(chosen, wanted, place, precisions, overrides, json_file)


def _steps(
    methods: list[Method],
    wanted: BenchOptions,
    place: torch.device,
    precisions: Iterable[str],
    overrides: dict[str, dict[str, Any]],
    json_file: Path | None,
) -> None:
    from shipbench.bench import as_json, run_bench
    from shipbench.hardware.precision import ComputeContext
    from shipbench.runtime.console import say

    ways = [ComputeContext(place, name) for name in precisions]
    measured = [row for way in ways for row in run_bench(methods, wanted, way, overrides, say)]
    content = as_json(measured, wanted, place)
    batch = f"batch {wanted.batch_size}, stochastic depth {wanted.drop_path:g}"
    _print(measured, f"{content['device']}, {content['threads']} threads, {batch}")
    _write(json_file, content)


def _whole_runs(
    methods: list[Method],
    options: EndToEndOptions,
    precisions: Iterable[str],
    overrides: dict[str, dict[str, Any]],
    json_file: Path | None,
) -> None:
    from dataclasses import asdict, replace

    from shipbench.bench import environment, run_end_to_end
    from shipbench.hardware.device import resolve_device

    measured = [
        run_end_to_end(method, replace(options, precision=name, overrides=overrides.get(method.name, {})))
        for name in precisions
        for method in methods
    ]
    about = environment(resolve_device(options.device))
    _print_whole(measured, f"{about['device']}, {about['threads']} threads, batch {options.batch_size}")
    rows = [asdict(row) | {"benchmark_seconds": row.benchmark_seconds} for row in measured]
    _write(json_file, {"options": asdict(options), **about, "measurements": rows})


def _write(json_file: Path | None, content: dict[str, Any]) -> None:
    if json_file is not None:
        json_file.parent.mkdir(parents=True, exist_ok=True)
        json_file.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _numbers(name: str, text: str) -> tuple[int, ...]:
    parts = [part.strip() for part in text.split(",")]
    if not all(re.fullmatch(r"\d{1,9}", part) for part in parts):
        raise InputError(f"{name} {text!r} is not a list of whole numbers, as in 10,50,200")
    return tuple(int(part) for part in parts)


def _print(measured: list[Measurement], title: str) -> None:
    from rich.table import Table

    from shipbench.runtime.console import out_console

    table = Table(
        "subject",
        "prompts",
        "precision",
        "compiled",
        "inference s (range)",
        "x bare",
        "training s (range)",
        "x bare",
        "step memory MB",
        "x bare",
        "tensors MB",
        "x bare",
        "GFLOPs / image",
        title=title,
    )
    for row in measured:
        table.add_row(
            row.subject,
            "-" if row.prompt_length is None else str(row.prompt_length),
            row.precision,
            "yes" if row.compiled else "no",
            f"{row.inference.median:.3f} ({row.inference.low:.3f}-{row.inference.high:.3f})",
            f"{row.inference_ratio:.2f}",
            f"{row.training.median:.3f} ({row.training.low:.3f}-{row.training.high:.3f})",
            f"{row.training_ratio:.2f}",
            "-" if row.training_bytes is None else f"{row.training_bytes / 1e6:.0f}",
            "-" if row.memory_ratio is None else f"{row.memory_ratio:.2f}",
            f"{row.training_tensor_bytes / 1e6:.0f}",
            f"{row.tensor_ratio:.2f}",
            f"{row.inference_flops / 1e9:.1f}, {row.training_flops / 1e9:.1f}",
        )
    out_console().print(table)


def _print_whole(measured: list[EndToEnd], title: str) -> None:
    from rich.table import Table

    from shipbench.runtime.console import out_console

    table = Table("", *(f"{row.method}, {row.precision}" for row in measured), title=title)
    lines: list[tuple[str, Callable[[EndToEnd], str]]] = [
        ("decoding, images/s", lambda row: f"{row.decoding_rate:.0f}"),
        ("training, images/s", lambda row: f"{row.training_rate:.1f}"),
        ("evaluation, images/s", lambda row: f"{row.evaluation_rate:.1f}"),
        ("training: data, model, optimiser", lambda row: _percents(row.training_shares)),
        ("evaluation: data, model", lambda row: _percents(row.evaluation_shares)),
        ("loading, building, storing, s", _fixed),
        ("matrix product, TFLOP/s", lambda row: f"{row.matrix_rate / 1e12:.2f}"),
        ("of which training, evaluation", lambda row: f"{row.training_fraction:.0%}, {row.evaluation_fraction:.0%}"),
        *((f"19 tasks: {part}, min", _estimate(part)) for part in measured[0].estimates),
        ("19 tasks, min", lambda row: f"{row.benchmark_seconds / 60:.1f}"),
    ]
    for name, cell in lines:
        table.add_row(name, *(cell(row) for row in measured))
    out_console().print(table)


def _estimate(part: str) -> Callable[[EndToEnd], str]:
    return lambda row: f"{row.estimates[part] / 60:.1f}"


def _fixed(row: EndToEnd) -> str:
    return f"{row.loading_seconds:.2f}, {row.building_seconds:.2f}, {row.storing_seconds:.2f}"


def _percents(shares: Mapping[str, float]) -> str:
    order = [part for part in ("data", "model", "optimiser") if part in shares]
    return ", ".join(f"{shares[part]:.1%}" for part in order)
