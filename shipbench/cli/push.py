"""``shipbench push``: upload a run to the Hugging Face hub."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from shipbench.cli import next_steps, options
from shipbench.counts import file_size

if TYPE_CHECKING:
    from shipbench.runs.hub import Upload


class PushCommand(TyperCommand):
    """The command, in which ``--results`` without a folder means ``--with-results``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the command line."""
        following = [*args, "--"][1:]
        bare = [word == "--results" and after.startswith("-") for word, after in zip(args, following, strict=True)]
        words = ["--with-results" if flag else word for word, flag in zip(args, bare, strict=True)]
        return super().parse_args(ctx, words)


def push(
    run: options.Run,
    repo: Annotated[str, typer.Argument(metavar="USER/REPO", help="The repository; it is created if need be.")],
    results: options.Results = Path("results"),
    with_results: Annotated[
        bool,
        typer.Option(
            "--with-results",
            help="Upload the whole results folder too, as the data set USER/REPO; --results without a folder is short "
            "for it.",
        ),
    ] = False,
    private: Annotated[bool, typer.Option("--private", help="Make new repositories private.")] = False,
    checkpoint: options.Checkpoint = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the files and the model card; contact no hub.")
    ] = False,
) -> None:
    """Upload an exported run to the Hugging Face hub, with a model card that its record fills."""
    from shipbench.results.lookup import find_run
    from shipbench.results.store import Store
    from shipbench.runs import hub
    from shipbench.runs.finished import checkpoint_to_predict, checkpoint_to_rebuild, tested_record, weights_of

    hub.check_name(repo)
    store, run_id = Store(results), find_run(results, run)
    # Before the hub is asked, what the records tell.
    record = tested_record(store, run_id)
    weights_of(store, record)
    checkpoint = checkpoint_to_rebuild(record, checkpoint)
    if not dry_run:
        hub.check_may_write(repo, ("model", "dataset") if with_results else ("model",))
    with tempfile.TemporaryDirectory(prefix="shipbench-push-") as folder:
        from shipbench.runs.publication import model_upload, results_upload

        uploads = [model_upload(store, run_id, repo, Path(folder), checkpoint=checkpoint)]
        uploads += [results_upload(store, repo)] if with_results else []
        for commit in uploads:
            _print_files(commit)
            if not dry_run:
                hub.upload(commit, private=private)
        if dry_run:
            card = uploads[0].files["README.md"]
            assert isinstance(card, bytes)
            typer.echo(f"\n{card.decode()}")
    next_steps.after_push(repo, checkpoint_to_predict(record), dry_run=dry_run)


def _print_files(commit: Upload) -> None:
    """Print what a commit holds: every file of a model, the folders of a data set."""
    from shipbench.runs.hub import size_of

    typer.echo(f"{commit.address}: {len(commit.files)} files, {file_size(commit.size)}")
    totals: dict[str, int] = {}
    for name, content in commit.files.items():
        place = f"{name.split('/')[0]}/" if "/" in name else name
        totals[place] = totals.get(place, 0) + size_of(content)
    for place, size in totals.items():
        typer.echo(f"  {place}: {file_size(size)}")
