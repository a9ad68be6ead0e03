"""``shipbench bench --operations``: the table of counts."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from shipbench.cli.layout import make_table
from shipbench.runtime.console import out_console

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from shipbench.bench.operations import StepOperations
    from shipbench.bench.options import BenchOptions
    from shipbench.methods import Method


def counted_operations(
    methods: Sequence[Method],
    options: BenchOptions,
    precisions: Iterable[str],
    overrides: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    """Print the operations of a training step of every method and return them, with the options, ready for JSON."""
    import torch

    from shipbench.bench.operations import DRAWS, count_operations

    rows = [row for name in precisions for row in count_operations(methods, options, name, overrides)]
    _print(
        rows, f"one training step, batch {options.batch_size}, stochastic depth {options.drop_path:g}, {DRAWS} draws"
    )
    return {
        "options": asdict(options),
        "torch": torch.__version__,
        "draws": DRAWS,
        "operations": list(map(asdict, rows)),
    }


def _print(rows: Iterable[StepOperations], title: str) -> None:
    columns = ("launches (of VPT-deep's)", "sequences", "uploads", "weight casts", "indexed sums")
    table = make_table("method", "forward", "backward", *columns, title=title)
    for row in rows:
        prompts = "" if row.prompt_length is None else f", {row.prompt_length} prompts"
        ratio = "" if row.ratio is None else f" ({row.ratio:.2f} x)"
        counts = (row.forward, row.backward, f"{row.launches}{ratio}", row.sequences, row.uploads)
        name = f"{row.method}{prompts}, {row.precision}"
        table.add_row(name, *map(str, (*counts, row.weight_casts, row.indexed_sums)))
    out_console().print(table)
