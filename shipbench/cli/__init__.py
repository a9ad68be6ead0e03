"""The command line: parse options, call the library, print results. Each command imports what it needs."""

from __future__ import annotations

import io
import os
import sys

import typer

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
from shipbench.runtime import exits

app = typer.Typer(
    name="shipbench",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Benchmark and ablation harness for SHIP and its baselines on VTAB-1k. Start with: shipbench demo",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("demo")(demo.demo)
app.command("run")(run.run)
app.command("ablate")(ablate.ablate)
app.command("tune")(tune.tune)
app.command("study")(study.study)
app.command("report")(report.report)
app.command("status")(status.status)
app.command("diff")(diff.diff)
app.command("import")(import_.import_results)
app.command("bench")(bench.bench)
app.command("evaluate")(evaluate.evaluate)
app.command("explain")(explain.explain)
app.command("export")(export.export)
app.command("predict")(export.predict)
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
    _accept_any_text()
    # The hub client logs every retry; its last error says enough.
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    debug = "--debug" in sys.argv[1:]
    if debug:
        sys.argv[1:] = [argument for argument in sys.argv[1:] if argument != "--debug"]
        os.environ["SHIPBENCH_DEBUG"] = "1"
    try:
        _run_app(debug=debug)
    except SystemExit as stop:
        exits.leave(stop)
        raise


def _run_app(*, debug: bool) -> None:
    try:
        app()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        if debug:
            raise
        _explain(error)


def _accept_any_text() -> None:
    """Let streams escape what they cannot encode, such as bytes in file names, and replace closed streams by a sink."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: PTH123, SIM115
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _explain(error: Exception) -> None:
    from shipbench.cli.failures import describe_failure
    from shipbench.runtime.console import say

    text, code = describe_failure(error)
    say(text)
    sys.exit(code)
