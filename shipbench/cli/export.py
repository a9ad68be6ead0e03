"""``shipbench export`` and ``shipbench predict``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from shipbench.cli import completion, next_steps, options
from shipbench.errors import InputError

if TYPE_CHECKING:
    from shipbench.results.store import Store


def export(
    run: Annotated[
        str,
        typer.Argument(
            metavar="RUN", help="A run id or a unique prefix of one; see 'list runs'.", autocompletion=completion.runs
        ),
    ],
    file: Annotated[Path, typer.Argument(help="The .safetensors file to write.")],
    results: options.Results = Path("results"),
    merged: Annotated[
        bool, typer.Option("--merged", help="Write a plain timm model, with the trained part merged into its weights.")
    ] = False,
    checkpoint: options.Checkpoint = None,
) -> None:
    """Save the trained weights of a run in one file, with everything that 'predict' needs."""
    from shipbench.results.lookup import find_run
    from shipbench.results.store import Store

    store, run_id = Store(results), find_run(results, run)
    if merged:
        _export_merged(store, run_id, file, checkpoint)
        return
    if checkpoint is not None:
        raise InputError("--checkpoint is for --merged, which needs the backbone; export alone reads no backbone")
    from shipbench.runs.export import export_run

    export_run(store, run_id, file)
    typer.echo(f"{file}: {file.stat().st_size / 1e6:.1f} MB")
    next_steps.after_export(file)


def _export_merged(store: Store, run_id: str, file: Path, checkpoint: str | None) -> None:
    from shipbench.runs.merged import export_merged

    model = export_merged(store, run_id, file, checkpoint=checkpoint)
    typer.echo(f"{file}: {file.stat().st_size / 1e6:.1f} MB")
    typer.echo(f"load it with {model.call(file)}")


def predict(
    file: Annotated[Path, typer.Argument(help="A file written by 'shipbench export'.")],
    images: Annotated[list[Path], typer.Argument(help="Images to classify.")],
    checkpoint: options.Checkpoint = None,
    top: Annotated[int, typer.Option(min=1, help="Number of classes to show for each image.")] = 5,
) -> None:
    """Classify images with an exported run: print the most probable classes of each by number."""
    from shipbench.runs.export import load_exported
    from shipbench.runs.export import predict as classify

    exported = load_exported(file, checkpoint=checkpoint)
    probabilities = classify(exported, images)
    values, classes = probabilities.topk(min(top, probabilities.shape[1]), dim=1)
    for path, row, numbers in zip(images, values.tolist(), classes.tolist(), strict=True):
        ranking = ", ".join(f"{number} ({100 * value:.1f} %)" for number, value in zip(numbers, row, strict=True))
        typer.echo(f"{path}: {ranking}")
    next_steps.after_predict()
