"""What commands print for programs: one JSON document on standard output, and events as JSON lines.

docs/reference/json.md describes every schema. A change that removes or redefines a key raises the schema's version.
"""

from __future__ import annotations

import json
import math
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from shipbench.cli.failures import describe_failure
from shipbench.record import RunRecord
from shipbench.runtime.console import redirected
from shipbench.runtime.streams import results_apart
from shipbench.settings import plain

if TYPE_CHECKING:
    from shipbench.planning.plan import Plan, PlannedRun

JSON_LINES = "json"
_stdout: ContextVar[TextIO | None] = ContextVar("stdout", default=None)


@contextmanager
def machine_readable(*, document: bool, lines: bool) -> Iterator[None]:
    """Keep everything but documents off standard output within the block if the command prints a ``document``.

    With ``lines``, messages become JSON lines on standard error, and so does an error, which exits.
    """
    with ExitStack() as stack:
        if document:
            token = _stdout.set(stack.enter_context(results_apart()))
            stack.callback(_stdout.reset, token)
        if lines:
            stack.enter_context(redirected(lambda text: print_event("note", run_id=None, text=text)))
            stack.enter_context(_warnings_as_events())
            stack.enter_context(_failures_as_events())
        yield


@contextmanager
def _warnings_as_events() -> Iterator[None]:
    def show(message: Warning | str, *_: object, **__: object) -> None:
        print_event("note", run_id=None, text=" ".join(str(message).split()))

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield


def json_command(command: Callable[..., None]) -> Callable[..., None]:
    """Keep everything but the document of ``command(..., as_json)`` off standard output."""

    @wraps(command)
    def run_command(*arguments: Any, **values: Any) -> None:
        with machine_readable(document=values.get("as_json", False), lines=False):
            command(*arguments, **values)

    return run_command


@contextmanager
def _failures_as_events() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        if os.environ.get("SHIPBENCH_DEBUG"):
            raise
        text, code = describe_failure(error)
        print_end(text.removeprefix("error: "), code)
        sys.exit(code)


def print_end(text: str, exit_code: int) -> None:
    """Print the event of a command that ends early: refused, failed or stopped."""
    print_event("error", text=text, exit_code=exit_code)


def print_event(event: str, **values: Any) -> None:
    """Print an event as one JSON line on standard error."""
    # In one call, so that lines of several threads do not mix.
    sys.stderr.write(json.dumps({"event": event, **_finite(values)}) + "\n")
    sys.stderr.flush()


def print_document(schema: str, **body: Any) -> None:
    """Print a document of ``schema``, such as "run/1", on standard output."""
    print_text(document(schema, **body))


def print_rows(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print a list, which has no schema, as a JSON array on standard output."""
    print_text(json.dumps(rows, indent=1) + "\n")


def print_text(text: str) -> None:
    """Print a text for programs on standard output, which ``machine_readable`` keeps free of all else."""
    stream = _stdout.get() or sys.stdout
    stream.write(text)
    stream.flush()


def document(schema: str, **body: Any) -> str:
    """Return a document of ``schema`` as text; null stands for NaN and infinity."""
    content = {"schema": f"shipbench.{schema}", **_finite(body)}
    return json.dumps(content, indent=1, allow_nan=False, default=str) + "\n"


def _finite(value: Any) -> Any:
    value = plain(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, (list, tuple)) else value


def run_rows(plan: Plan, results: Path) -> list[dict[str, Any]]:
    """Return the runs of a plan as a document shows them."""
    from shipbench.results.store import Store

    store, chosen = Store(results), {run.run_id for run in plan.chosen}
    return [_run_row(run, store.read(run.run_id), chosen=run.run_id in chosen) for run in plan.runs]


def _run_row(run: PlannedRun, record: RunRecord | None, *, chosen: bool) -> dict[str, Any]:
    resolved = run.spec.resolved
    return {
        "run_id": run.run_id,
        "method": resolved.method.name,
        "switches": resolved.switches,
        "task": resolved.task.name,
        "suite": resolved.task.suite,
        "shots": run.spec.shots or 0,
        "seed": run.spec.seed,
        "protocol": run.spec.protocol,
        "overrides": {key: resolved.config.get(key, value) for key, value in dict(run.spec.overrides).items()},
        "status": "to do" if record is None else record.status,
        "chosen": chosen,
        "record": None if record is None else record_row(record),
    }


def record_row(record: RunRecord) -> dict[str, Any]:
    """Return a record by column, with its settings as one object instead of ``config`` and ``cfg.*``."""
    row = {key: value for key, value in record.to_row().items() if key != "config" and not key.startswith("cfg.")}
    return {**row, "settings": dict(record.settings)}
