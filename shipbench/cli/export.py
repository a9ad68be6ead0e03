"""``shipbench export`` and ``shipbench predict``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from shipbench.cli import completion, next_steps, options


def export(
    run: Annotated[
        str,
        typer.Argument(
            metavar="RUN", help="A run id or a unique prefix of one; see 'list runs'.", autocompletion=completion.runs
        ),
    ],
    file: Annotated[Path, typer.Argument(help="The .safetensors file to write.")],
    results: options.Results = Path("results"),
) -> None:
    """Save the trained weights of a run in one file, with everything that 'predict' needs."""
    from shipbench.results.lookup import find_run
    from shipbench.results.store import Store
    from shipbench.runs.export import export_run

    export_run(Store(results), find_run(results, run), file)
    typer.echo(f"{file}: {file.stat().st_size / 1e6:.1f} MB")
    next_steps.after_export(file)


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
