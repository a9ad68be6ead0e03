"""The parts of ``shipbench bench --all``: each writes its own JSON file, row by row, so that a stop loses no row."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeAlias

from shipbench.bench.end_to_end import run_end_to_end
from shipbench.bench.launch_gaps import profile_launches
from shipbench.bench.options import EndToEndOptions, PartOptions
from shipbench.bench.rates import measure_rates
from shipbench.bench.repeats import compare_repeats
from shipbench.bench.stacks import measure_stacks
from shipbench.bench.steps import environment
from shipbench.bench.table import is_failure
from shipbench.bench.workloads import with_errors
from shipbench.errors import InputError, one_line
from shipbench.hardware.device import as_current
from shipbench.methods import get_method
from shipbench.runtime.files import atomic_path
from shipbench.runtime.version import VERSION, git_commit
from shipbench.settings import comma_list, one_of

Part: TypeAlias = Callable[[PartOptions], Iterator[dict[str, Any]]]
# Whole runs take longest and say most about these.
_WHOLE_RUNS = ("ship", "linear")


def measure_whole_runs(options: PartOptions) -> Iterator[dict[str, Any]]:
    """Yield a row for a whole run of SHIP and of the linear probe, in the first precision of ``options``."""
    model, (train, test) = options.model, options.end_to_end
    shared = EndToEndOptions(model.backbone, model.checkpoint, model.image_size, model.batch_size, train, test)
    shared = replace(shared, device=str(options.device), precision=options.precisions[0])
    for name in (name for name in _WHOLE_RUNS if name in options.methods):
        identity = {"method": name, "precision": shared.precision}
        run = replace(shared, overrides=options.settings.get(name, {}))
        yield identity | with_errors(lambda name=name, run=run: run_end_to_end(get_method(name), run).as_json())  # type: ignore[misc]


PARTS: Mapping[str, Part] = {
    "steps": measure_rates,
    "profile": profile_launches,
    "repeats": compare_repeats,
    "end-to-end": measure_whole_runs,
    "stacks": measure_stacks,
}
"""The parts by name, in the order in which they run."""


def parse_parts(text: str) -> tuple[str, ...]:
    """Read a comma list of parts, or ``all``; raise ``InputError`` for an unknown name or an empty list."""
    names = list(PARTS) if text == "all" else comma_list(text)
    if not names:
        raise InputError(f"--parts is empty; name one or more of {', '.join(PARTS)}, or all")
    return tuple(one_of(name, PARTS, "--parts", "part") for name in names)


def run_parts(names: Sequence[str], options: PartOptions, say: Callable[[str], None]) -> list[str]:
    """Run parts one after another, each into its file; return the names of those with an error in them."""
    return [name for name in names if not run_part(name, options, say)]


def run_part(name: str, options: PartOptions, say: Callable[[str], None]) -> bool:
    """Write the rows of a part to its file as they come; return whether all were measured without an error."""
    rows: list[dict[str, Any]] = []
    error = ""
    try:
        with as_current(options.device):
            for row in PARTS[name](options):
                rows.append(row)
                write_part(name, options, rows)
                say(f"{name}: {_summary(row)}")
    # A part that fails leaves the rows that it has, and the other parts follow.
    except Exception as failure:
        error = f"{type(failure).__name__}: {one_line(failure)}"
        say(f"{name}: {error}")
    write_part(name, options, rows, finished=True, error=error)
    return not error and not any(map(is_failure, rows))


def write_part(
    name: str, options: PartOptions, rows: Sequence[Mapping[str, Any]], *, finished: bool = False, error: str = ""
) -> None:
    """Write the rows of a part so far, with the options and the machine, in place of its file."""
    content = {
        "part": name,
        "finished": finished,
        "error": error,
        "options": _plain(options),
        **environment(options.device),
        "shipbench": VERSION,
        "commit": git_commit(),
        "rows": rows,
    }
    options.output.mkdir(parents=True, exist_ok=True)
    with atomic_path(part_file(name, options)) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def part_file(name: str, options: PartOptions) -> Path:
    """Return the file of a part: ``gpu-NAME.json`` for a CUDA device, else with the type of the device."""
    kind = "gpu" if options.device.type == "cuda" else options.device.type
    return options.output / f"{kind}-{name}.json"


def _plain(options: PartOptions) -> dict[str, Any]:
    """Return the options without the device and the folder, ready for JSON."""
    return {name: value for name, value in asdict(options).items() if name not in ("device", "output")}


def _summary(row: Mapping[str, Any]) -> str:
    """Return a row in one line: its names, and its numbers and texts without tables and lists."""
    figures = {key: value for key, value in row.items() if isinstance(value, (str, int, float))}
    return ", ".join(f"{key} {f'{value:.4g}' if isinstance(value, float) else value}" for key, value in figures.items())
