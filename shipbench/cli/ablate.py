"""``shipbench ablate``."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from shipbench.cli import completion, next_steps
from shipbench.cli.options import GridOptions, grid_command
from shipbench.cli.run import checked, execute

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shipbench.spec import RunSpec
    from shipbench.tasks import Task


@grid_command
def ablate(
    options: GridOptions,
    method: Annotated[
        str, typer.Option(help="The method whose parts or settings are varied.", autocompletion=completion.method)
    ] = "ship",
    switch: Annotated[
        str | None,
        typer.Option(
            help="Switches of the method, comma-separated; default: all of them.", autocompletion=completion.switches
        ),
    ] = None,
    mode: Annotated[
        str,
        typer.Option(
            help="leave-one-out: one switch at a time; add-one-in: from all switches to none; all: every combination.",
            autocompletion=completion.one_of("leave-one-out", "add-one-in", "all"),
        ),
    ] = "leave-one-out",
    sweep: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=V1,V2", help="Vary a setting of the method or the recipe instead of switches; repeatable."
        ),
    ] = None,
    product: Annotated[
        bool,
        typer.Option("--product", help="Combine the values of all sweeps, and the switches named by --switch."),
    ] = False,
) -> None:
    """Train a method with parts switched off or with settings varied; skip runs that are done already."""
    from shipbench.methods import get_method
    from shipbench.planning.ablation import make_variants
    from shipbench.planning.grid import make_grid, parse_seeds, parse_shots, seed_by_seed

    template = options.template()

    def make_specs(tasks: Sequence[Task]) -> list[RunSpec]:
        seeds, shots = parse_seeds(options.seeds), parse_shots(options.shots)
        ablated = get_method(method)
        variants = make_variants(ablated, options.values(), switch, mode, sweep or [], multiply=product)
        grids = (make_grid([ablated], tasks, seeds, template, values, shots) for values in variants)
        return seed_by_seed(spec for grid in grids for spec in grid)

    execute(checked(make_specs, template, options, partial(get_method, method)), options, "ablate")
    next_steps.after_run(options.results, dry_run=options.dry_run)
