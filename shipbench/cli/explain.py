"""``shipbench explain``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from shipbench.cli import next_steps, options
from shipbench.cli.documents import print_document
from shipbench.cli.evaluate import one_task, say_warning
from shipbench.cli.failures import exit_if_unreadable
from shipbench.errors import InputError
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

    if output is not None:
        check_output(output, "--output")
    store, run_id = Store(results), find_run(results, run)
    if features and images:
        raise InputError("--features stores the features of the run's test images; leave out the images")
    if features and output is not None:
        raise InputError("--features stores them in the results folder and draws no figures; leave out --output")
    if images and on is not None:
        raise InputError("--on names the source of the run's test images; leave it out, or leave out the images")
    task = None if on is None else one_task(on)
    from shipbench.explaining.explain import ExplainOptions, plan_explanation, store_features
    from shipbench.explaining.explain import explain as draw

    chosen = ExplainOptions(tuple(images or ()), task, data, checkpoint, device, seed)
    planned = plan_explanation(store, run_id, chosen, features=features)
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


def _facts(planned: Explanation) -> dict[str, Any]:
    """Return what ``--json`` says of a run whose features are stored: there are no figures."""
    record = planned.record
    names = {"run_id": record.run_id, "method": record.method, "task": record.task}
    return {**names, "seed": None, "levels": planned.levels, "images": [], "unreadable": []}
