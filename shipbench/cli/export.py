"""``shipbench export`` and ``shipbench predict``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from shipbench.cli import next_steps, options
from shipbench.cli.failures import exit_if_unreadable
from shipbench.cli.layout import printable
from shipbench.counts import file_size
from shipbench.errors import InputError
from shipbench.runtime.files import check_output

if TYPE_CHECKING:
    from torch import Tensor

    from shipbench.results.store import Store


def export(
    run: options.Run,
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="The file to write: .safetensors, or .pt2 with --program.")
    ],
    results: options.Results = Path("results"),
    merged: Annotated[
        bool, typer.Option("--merged", help="Write a plain timm model, with the trained part merged into its weights.")
    ] = False,
    program: Annotated[
        bool,
        typer.Option("--program", help="Write a torch.export program (.pt2): torch alone runs it."),
    ] = False,
    checkpoint: options.Checkpoint = None,
) -> None:
    """Save the trained weights of a run in one file, with everything that 'predict' needs."""
    from shipbench.results.lookup import find_run
    from shipbench.results.store import Store

    if merged and program:
        raise InputError("--merged and --program are two forms of one model; give one of them")
    if checkpoint is not None and not (merged or program):
        raise InputError(
            "--checkpoint is for --merged and --program, which need the backbone; export alone reads no backbone"
        )
    check_output(file, "FILE", folder=False)
    _check_suffix(file, merged=merged, program=program)
    store, run_id = Store(results), find_run(results, run)
    if merged:
        _export_merged(store, run_id, file, checkpoint)
        return
    if program:
        _export_program(store, run_id, file, checkpoint)
        return
    from shipbench.runs.export import export_run
    from shipbench.runs.finished import checkpoint_to_predict, trained_record

    export_run(store, run_id, file)
    typer.echo(f"{file}: {file_size(file.stat().st_size)}")
    next_steps.after_export(file, checkpoint_to_predict(trained_record(store, run_id)))


def _check_suffix(file: Path, *, merged: bool, program: bool) -> None:
    """Raise ``InputError`` for a name by which the file would be taken for another kind."""
    if program and file.suffix != ".pt2":
        raise InputError(f"--program writes a .pt2 file; name {file} {file.with_suffix('.pt2')}")
    if merged and file.suffix != ".safetensors":
        raise InputError(
            f"--merged writes a .safetensors file, and timm reads no other as one; name {file} "
            f"{file.with_suffix('.safetensors')}"
        )
    if file.suffix == ".pt2" and not program:
        raise InputError(f"{file} would not be a program; add --program, or name it {file.with_suffix('.safetensors')}")


def _export_merged(store: Store, run_id: str, file: Path, checkpoint: str | None) -> None:
    from shipbench.runs.merged import export_merged

    model = export_merged(store, run_id, file, checkpoint=checkpoint)
    typer.echo(f"{file}: {file_size(file.stat().st_size)}")
    typer.echo(f"load it with {model.call(file)}")


def _export_program(store: Store, run_id: str, file: Path, checkpoint: str | None) -> None:
    from shipbench.runs.merged import quoted
    from shipbench.runs.program import export_program

    size = export_program(store, run_id, file, checkpoint=checkpoint).preprocessing.image_size
    typer.echo(f"{file}: {file_size(file.stat().st_size)}")
    typer.echo(f"load it with torch.export.load({quoted(file)}).module()")
    typer.echo(f"it takes pixels (images, 3, {size}, {size}) in [0, 1]")


def predict(
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE|hf:USER/REPO", help="A file written by 'shipbench export', or a run that 'push' has uploaded."
        ),
    ],
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE", help="Images to classify.")],
    checkpoint: options.Checkpoint = None,
    top: Annotated[int, typer.Option(min=1, help="Number of classes to show for each image.")] = 5,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON; probabilities are fractions.")] = False,
) -> None:
    """Classify images with an exported run: print the most probable classes of each, by name if they have names."""
    from shipbench.runs.export import load_exported
    from shipbench.runs.export import predict as classify
    from shipbench.runs.photographs import refuse_all_unreadable, require_a_file

    # Before the backbone is loaded, or a run is downloaded.
    require_a_file(images)
    exported = load_exported(_local(file), checkpoint=checkpoint)
    answers, unreadable = classify(exported, images)
    refuse_all_unreadable(images, unreadable)
    rankings = [(path, _ranking(exported.class_names, probabilities, top)) for path, probabilities in answers]
    if as_json:
        from shipbench.cli.documents import print_document

        rows = [{"image": str(path), "classes": [guess._asdict() for guess in ranking]} for path, ranking in rankings]
        print_document("predict/1", images=rows, unreadable=[each.row() for each in unreadable])
    else:
        _print_rankings(rankings)
    exit_if_unreadable([each.error for each in unreadable])
    if not as_json:
        next_steps.after_predict()


def _local(file: str) -> Path:
    """Return the path of an exported file, downloading one on the hub."""
    from shipbench.runs import hub

    return hub.download(file) if file.startswith(hub.PREFIX) else Path(file)


class _Guess(NamedTuple):
    """A class with its probability, in [0, 1]; ``name`` is empty if the task has no class names."""

    number: int
    name: str
    probability: float


def _ranking(names: Sequence[str], probabilities: Tensor, top: int) -> list[_Guess]:
    values, classes = probabilities.topk(min(top, len(probabilities)))
    pairs = zip(classes.tolist(), values.tolist(), strict=True)
    return [_Guess(number, names[number] if names else "", value) for number, value in pairs]


def _print_rankings(rankings: Sequence[tuple[Path, Sequence[_Guess]]]) -> None:
    for path, ranking in rankings:
        guesses = ", ".join(f"{guess.name or guess.number} ({100 * guess.probability:.1f} %)" for guess in ranking)
        typer.echo(printable(f"{path}: {guesses}"))
