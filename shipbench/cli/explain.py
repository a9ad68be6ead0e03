"""``shipbench explain``."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from shipbench.cli import next_steps, options
from shipbench.cli.documents import print_document
from shipbench.cli.evaluate import one_task, say_warning
from shipbench.cli.failures import exit_if_unreadable
from shipbench.errors import InputError, value_of
from shipbench.runtime.files import check_output

if TYPE_CHECKING:
    from shipbench.explaining.explain import Explanation


def explain(
    run: options.Run,
    images: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="IMAGE",
            help="Image files; default: test images that the run classifies correctly and wrongly.",
            show_default=False,
        ),
    ] = None,
    features: Annotated[
        bool,
        typer.Option(
            "--features", help="Store the final features of all test images, from which a report draws t-SNE, and stop."
        ),
    ] = False,
    on: Annotated[
        str | None,
        typer.Option(metavar="SOURCE", help="Where the run's test images are, if they are not those of the catalogue."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the choice of test images.")] = 0,
    data: options.Data = None,
    results: options.Results = Path("results"),
    checkpoint: options.Checkpoint = None,
    device: options.Device = "auto",
    output: Annotated[
        Path | None, typer.Option(help="Folder for the figures; default: explanations/RUN.", show_default=False)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print what the figures show as JSON.")] = False,
) -> None:
    """Draw what each block of a finished run attends to, beside the frozen backbone, and what guides its prompts."""
    from shipbench.results.lookup import find_run
    from shipbench.results.store import Store

    conflicts = _conflicts(images or [], on, output, features=features)
    problems = list(conflicts)
    if output is not None:
        value_of(partial(check_output, output, "--output"), None, problems)
    run_id = value_of(partial(find_run, results, run), None, problems)
    task = None if on is None else value_of(partial(one_task, on), None, problems)
    opened = None
    # What else is needed follows from the run, its source, and options that do not exclude each other.
    if run_id is not None and (on is None or task is not None) and not conflicts:
        from shipbench.explaining.explain import ExplainOptions, open_explanation

        chosen = ExplainOptions(tuple(images or ()), task, data, checkpoint, device, seed)
        opened = value_of(partial(open_explanation, Store(results), run_id, chosen, features=features), None, problems)
    if run_id is None or opened is None or problems:
        raise InputError(*problems)
    from shipbench.explaining.explain import explain as draw
    from shipbench.explaining.explain import store_features

    planned = opened.planned()
    say_warning(planned.test_images)
    if features:
        files, facts = [store_features(planned)], _facts(planned)
    else:
        files, facts = draw(planned, output or Path("explanations") / run_id)
    if as_json:
        print_document("explain/1", **facts, files=files)
    else:
        typer.echo("\n".join(map(str, files)))
    exit_if_unreadable([each["error"] for each in facts["unreadable"]])
    if features:
        next_steps.after_evaluate(results)
    else:
        next_steps.look_at("figure", files[0])


def _conflicts(images: Sequence[Path], on: str | None, output: Path | None, *, features: bool) -> list[str]:
    """Return a sentence for each pair of options that exclude each other."""
    conflicts = {
        "--features stores the features of the run's test images; leave out the images": features and bool(images),
        "--features stores them in the results folder and draws no figures; leave out --output": (
            features and output is not None
        ),
        "--on names the source of the run's test images; leave it out, or leave out the images": (
            bool(images) and on is not None
        ),
    }
    return [sentence for sentence, holds in conflicts.items() if holds]


def _facts(planned: Explanation) -> dict[str, Any]:
    """Return what ``--json`` says of a run whose features are stored: there are no figures."""
    record = planned.record
    names = {"run_id": record.run_id, "method": record.method, "task": record.task}
    return {**names, "seed": None, "levels": planned.levels, "images": [], "unreadable": []}
