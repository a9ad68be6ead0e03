"""``shipbench ablate``."""

from __future__ import annotations

from typing import Annotated

import typer

from shipbench.cli import completion, next_steps
from shipbench.cli.options import GridOptions, grid_command
from shipbench.errors import InputError


@grid_command
def ablate(
    options: GridOptions,
    switch: Annotated[
        str | None,
        typer.Option(help="Switches, comma-separated; all of them if not given.", autocompletion=completion.switches),
    ] = None,
    mode: Annotated[
        str,
        typer.Option(
            help="leave-one-out, add-one-in or all.",
            autocompletion=completion.one_of("leave-one-out", "add-one-in", "all"),
        ),
    ] = "leave-one-out",
    sweep: Annotated[
        list[str] | None, typer.Option(metavar="KEY=V1,V2", help="Vary one setting of SHIP instead of switches.")
    ] = None,
) -> None:
    """Train SHIP with parts of it switched off, or with one setting varied; runs that exist are shared."""
    from shipbench.cli.run import execute
    from shipbench.methods import get_method
    from shipbench.planning.ablation import parse_sweep, parse_switches, switch_sets, variant_settings
    from shipbench.planning.grid import make_grid, overrides_by_method, parse_seeds
    from shipbench.tasks import parse_tasks

    ship = get_method("ship")
    values = overrides_by_method([ship], options.values())[ship.name]
    swept = [variant for text in sweep or [] for variant in parse_sweep(text)]
    variants = [overrides_by_method([ship], variant, "--sweep")[ship.name] for variant in swept]
    for key in (key for variant in variants for key in variant if key in values):
        raise InputError(f"{key} is given twice: by --sweep and by --set or --epochs")
    if not variants or switch is not None:
        variants += [variant_settings(names) for names in switch_sets(parse_switches(switch), mode)]
    tasks, seeds = parse_tasks(options.tasks), parse_seeds(options.seeds)
    specs = [
        spec for variant in variants for spec in make_grid([ship], tasks, seeds, options.template(), values | variant)
    ]
    execute(specs, options)
    next_steps.after_run(options.results, dry_run=options.dry_run)
