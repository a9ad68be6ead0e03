"""The command line: parses, prints, decides nothing. Nothing heavy is imported until a command needs it."""

from __future__ import annotations

import io
import os
import sys

import typer

from shipbench.cli import ablate, bench, data, export, listing, report, run, tune
from shipbench.errors import InputError, ShipbenchError, one_line

app = typer.Typer(
    name="shipbench",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Benchmark and ablation harness for SHIP and its baselines on VTAB-1k.",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("run")(run.run)
app.command("ablate")(ablate.ablate)
app.command("tune")(tune.tune)
app.command("report")(report.report)
app.command("bench")(bench.bench)
app.command("export")(export.export)
app.command("predict")(export.predict)
app.add_typer(listing.app, name="list")
app.add_typer(data.app, name="data")


@app.callback(invoke_without_command=True)
def _root(
    version: bool = typer.Option(False, "--version", help="Print the version."),
    debug: bool = typer.Option(False, "--debug", help="Show tracebacks; accepted anywhere on the line."),
) -> None:
    if version:
        from shipbench.runtime.version import VERSION

        print(VERSION)
        raise typer.Exit


def main() -> None:
    """Run the command line: one sentence for an error, a traceback only with ``--debug``."""
    _let_anything_be_printed()
    # The hub's client reports every retry; its last error is all that a person needs.
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    debug = "--debug" in sys.argv[1:]
    if debug:
        sys.argv[1:] = [argument for argument in sys.argv[1:] if argument != "--debug"]
        os.environ["SHIPBENCH_DEBUG"] = "1"
    try:
        app()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        if debug:
            raise
        _explain(error)


def _let_anything_be_printed() -> None:
    """Show letters that a stream cannot encode (file names may be any bytes) by number; a closed stream takes all."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: PTH123, SIM115
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _explain(error: Exception) -> None:
    from shipbench.runtime.console import say

    if isinstance(error, ShipbenchError):
        say(f"error: {error}")
        sys.exit(error.exit_code)
    if isinstance(error, OSError) and error.filename is not None:
        # Runs turn such errors into records, so that here it is a path of the command line that cannot be used.
        say(f"error: {error.filename2 or error.filename} cannot be used: {error.strerror}")
        sys.exit(InputError.exit_code)
    say(f"unexpected error: {type(error).__name__}: {one_line(error)}; run again with --debug for the traceback")
    sys.exit(1)
