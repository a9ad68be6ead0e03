"""The command line: parse options, call the library, print results. Each command imports what it needs."""

from __future__ import annotations

import os
import sys
from typing import Any

import typer
from typer.core import TyperGroup

from shipbench.cli import (
    ablate,
    bench,
    data,
    demo,
    diff,
    evaluate,
    explain,
    export,
    import_,
    listing,
    push,
    report,
    run,
    status,
    study,
    tune,
)
from shipbench.cli.documents import json_command
from shipbench.cli.failures import describe_failure
from shipbench.runtime import exits
from shipbench.runtime.console import say
from shipbench.runtime.interrupts import stopping
from shipbench.runtime.streams import flush_streams, prepare_streams


class _Commands(TyperGroup):
    """The commands; one that does not handle an interruption itself ends with a sentence too."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that the line names."""
        with stopping("the same command starts again"):
            return super().invoke(ctx)


app = typer.Typer(
    name="shipbench",
    cls=_Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    # typer prints bold letters on a terminal without colours too.
    rich_markup_mode=None if os.environ.get("NO_COLOR") else "rich",
    help="Benchmark and ablation harness for SHIP and its baselines on VTAB-1k. Start with: shipbench demo",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("demo")(demo.demo)
app.command("run")(run.run)
app.command("ablate")(ablate.ablate)
app.command("tune")(tune.tune)
app.command("study")(json_command(study.study))
app.command("report")(json_command(report.report))
app.command("status")(json_command(status.status))
app.command("diff")(json_command(diff.diff))
app.command("import")(json_command(import_.import_results))
app.command("bench")(bench.bench)
app.command("evaluate")(json_command(evaluate.evaluate))
app.command("explain")(json_command(explain.explain))
app.command("export")(export.export)
app.command("predict")(json_command(export.predict))
app.command("push", cls=push.PushCommand)(push.push)
app.add_typer(listing.app, name="list")
app.add_typer(data.app, name="data")


@app.callback(invoke_without_command=True)
def _root(
    version: bool = typer.Option(False, "--version", help="Print the version."),
    debug: bool = typer.Option(False, "--debug", help="Print tracebacks of errors; accepted anywhere on the line."),
) -> None:
    if version:
        from shipbench.runtime.version import VERSION

        print(VERSION)
        raise typer.Exit


def main() -> None:
    """Run the command line; print an error as one sentence, with ``--debug`` as a traceback."""
    prepare_streams()
    # The hub client logs every retry; its last error says enough.
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    debug = "--debug" in sys.argv[1:]
    if debug:
        sys.argv[1:] = [argument for argument in sys.argv[1:] if argument != "--debug"]
        os.environ["SHIPBENCH_DEBUG"] = "1"
    try:
        _run_app(debug=debug)
    except SystemExit as stop:
        flush_streams()
        exits.leave(stop)
        raise


def _invoke() -> None:
    """Run the command that the line names, and write what it has buffered."""
    try:
        app()
    finally:
        flush_streams()


def _run_app(*, debug: bool) -> None:
    try:
        _invoke()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        if debug:
            raise
        text, code = describe_failure(error)
        say(text)
        sys.exit(code)
