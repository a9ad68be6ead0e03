"""How a command ends: with the natural next one, or with what to look at, on a line of standard error.

The line begins with "next:".
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from pathlib import Path

from shipbench.runtime.console import say

# The default folders of ``--results`` and of ``shipbench demo --results``.
_RESULTS, _DEMO_RESULTS = Path("results"), Path("results/demo")


def suggest(command: str, purpose: str) -> None:
    """Print one line with a command and its purpose, as a shell comment so that the line can be pasted."""
    say(f"next: {command}  # {purpose}")


def after_run(results: Path, *, dry_run: bool = False) -> None:
    """Suggest the report of finished runs, or the real run after a dry one."""
    purpose = f"or list the runs: shipbench list runs{_results(results)}"
    _after(dry_run, f"shipbench report{_results(results)}", purpose)


def look_at(what: str, path: Path) -> None:
    """Suggest in words to look at a file or a folder: not every machine has a command that opens it."""
    say(f"next: look at the {what} in {shlex.quote(str(path))}")


def after_list_runs(results: Path) -> None:
    """Suggest the export of a run."""
    suggest(f"shipbench export RUN run.safetensors{_results(results)}", "RUN is an id or its first characters")


def after_export(file: Path, checkpoint: str) -> None:
    """Suggest a prediction with the exported file; ``checkpoint`` are the weights that it needs, if not by name."""
    suggest(f"shipbench predict {shlex.quote(str(file))} IMAGE...{_checkpoint(checkpoint)}", "classify images")


def after_push(repo: str, checkpoint: str, *, dry_run: bool) -> None:
    """Suggest a prediction with the uploaded run, or the real upload after a dry one."""
    command = f"shipbench predict hf:{repo} IMAGE...{_checkpoint(checkpoint)}"
    _after(dry_run, command, "classify images, on any machine")


def after_evaluate(results: Path) -> None:
    """Suggest the report, which shows evaluations beside the runs, and stored features."""
    suggest(f"shipbench report{_results(results)}", "clean and shifted accuracies, and features as t-SNE")


def after_predict() -> None:
    """Suggest the list of runs, which shows how often an exported run is right."""
    suggest("shipbench list runs", "the test accuracy of each run")


def after_status(results: Path, *, failed: bool, coming: bool) -> None:
    """Suggest to watch while runs are to come, else to look at the failures or at the report."""
    if coming:
        suggest(f"shipbench status --watch{_results(results)}", "follow the runs until Ctrl-C")
    elif failed:
        suggest(f"shipbench list runs{_results(results)}", "the errors in full")
    else:
        suggest(f"shipbench report{_results(results)}", "tables and figures")


def after_diff(a: str, b: str, results: Path, output: Path | None) -> None:
    """Suggest to look at the figure of a comparison, or to draw it."""
    if output is None:
        line = f"shipbench diff {shlex.quote(a)} {shlex.quote(b)} --output DIR{_results(results)}"
        suggest(line, "tables, a figure and JSON")
    else:
        look_at("figure", output / "differences.svg")


def after_import(results: Path, *, dry_run: bool) -> None:
    """Suggest the report that shows imported results beside the runs, or the real import after a dry one."""
    _after(dry_run, f"shipbench report{_results(results)}", "imported results beside your runs")


def after_bench() -> None:
    """Suggest the accuracies that belong to the measured costs."""
    suggest("shipbench run --method all --tasks demo", "the accuracy that each method reaches")


def after_inspect(task: str, folder: Path | None) -> None:
    """Suggest a run on the inspected task."""
    suggest(f"shipbench run --method ship --tasks {shlex.quote(task)}{data(folder)}", "train and test on it")


def data(folder: Path | None) -> str:
    """Return the option that names the folder of the data sets, for the end of a command; empty without one."""
    return "" if folder is None else _option("data", folder)


def after_fetch(folder: Path) -> None:
    """Suggest a check of a copy of VTAB-1k that was fetched or imported."""
    suggest(f"shipbench data verify {shlex.quote(str(folder))}", "check counts, splits and images")


def after_import_fgvc(tasks: Sequence[str], folder: Path) -> None:
    """Suggest a first run on imported FGVC data sets."""
    suggest(
        f"shipbench run --method ship --tasks {','.join(tasks)} --data {shlex.quote(str(folder))}", "train and test"
    )


def after_verify(folder: Path) -> None:
    """Suggest a first run on a verified copy of VTAB-1k."""
    suggest(f"shipbench run --method ship --tasks all --data {shlex.quote(str(folder))}", "all 19 tasks")


def after_verify_own(place: str, folder: Path | None) -> None:
    """Suggest a first run on a verified source or task file."""
    suggest(f"shipbench run --method ship,linear --tasks {shlex.quote(place)}{data(folder)}", "train and test on it")


def after_demo(results: Path, output: Path | None, *, full: bool) -> None:
    """Suggest three commands to run after the demonstration; the first one shares the runs in ``results``.

    ``output`` is the folder of the report, if the user has named one.
    """
    if full:
        suggest(f"shipbench run --method all --tasks demo --seeds 0-2{_results(results)}", "the spread over seeds")
    else:
        folders = "" if results == _DEMO_RESULTS else _option("results", results)
        folders += "" if output is None else _option("output", output)
        suggest(f"shipbench demo --full{folders}", "five methods on the whole demo suite")
    suggest("shipbench data verify folder:PATH", "your own images, a folder for each class")
    suggest("shipbench data fetch --to data/vtab-1k", "VTAB-1k, the real benchmark (about 5 GB)")


def _after(dry_run: bool, command: str, purpose: str) -> None:
    """Suggest a command, or after a dry run the same command for real."""
    if dry_run:
        say("next: the same command without --dry-run")
    else:
        suggest(command, purpose)


def _checkpoint(name: str) -> str:
    return _option("checkpoint", name) if name else ""


def _results(folder: Path) -> str:
    # The environment variable replaces the default.
    is_default = folder == _RESULTS and not os.environ.get("SHIPBENCH_RESULTS")
    return "" if is_default else _option("results", folder)


def _option(name: str, value: object) -> str:
    return f" --{name} {shlex.quote(str(value))}"
