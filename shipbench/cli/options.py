"""Options that several commands share, and the configuration file that can stand in for them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from shipbench.cli import completion
from shipbench.cli.config_file import read_config
from shipbench.errors import InputError

if TYPE_CHECKING:
    from shipbench.planning.stacks import Stacking
    from shipbench.spec import RunSpec


def _number_of_jobs(text: str) -> int | None:
    """Return N, or None for ``auto``."""
    if text == "auto":
        return None
    if not (text.isdecimal() and int(text)):
        raise InputError(f"--jobs {text!r} is neither auto nor a whole number of 1 or more")
    return int(text)


Tasks = Annotated[
    str,
    typer.Option(
        help="Suites (all, demo, demo-tiny), groups (natural, specialized, structured) or task names, comma-separated.",
        autocompletion=completion.tasks,
    ),
]
Seeds = Annotated[str, typer.Option(help="Seeds, as in 0, 0-4 or 0,2,5.")]
Backbone = Annotated[
    str | None,
    typer.Option(help="A timm ViT by name; the suite's own if not given.", autocompletion=completion.backbones),
]
Checkpoint = Annotated[
    str | None, typer.Option(help="Weights: a .npz, .safetensors or .pth file, or 'random' (seeded, for timing).")
]
Data = Annotated[Path | None, typer.Option(envvar="SHIPBENCH_DATA", help="The folder of VTAB-1k.")]
Results = Annotated[Path, typer.Option(envvar="SHIPBENCH_RESULTS", help="The folder where records are kept.")]
Epochs = Annotated[int | None, typer.Option(help="Train for so many epochs, whatever the recipe says.")]
Device = Annotated[
    str, typer.Option(help="auto, cpu, cuda or cuda:i.", autocompletion=completion.one_of("auto", "cpu", "cuda"))
]
Jobs = Annotated[
    int | None,
    typer.Option(
        parser=_number_of_jobs,
        metavar="N|auto",
        help="Runs at a time; auto, the default, is one per GPU, or as many as the CPU does best.",
    ),
]
Stack = Annotated[
    str,
    typer.Option(
        help="Train runs that differ in seed, lr or weight decay in one pass over the frozen backbone: auto (on a GPU, "
        "if a measurement shows it to be faster), off, or up to N runs."
    ),
]
Engine = Annotated[
    str, typer.Option(help="local, or dask for the workers of a Dask cluster.", autocompletion=completion.engines)
]
Scheduler = Annotated[str | None, typer.Option(help="The Dask scheduler's address, as in tcp://HOST:8786.")]
Precision = Annotated[
    str,
    typer.Option(
        help="auto, fp32 or bf16; auto is bf16 where the device is made for it, fp32 with --recipe published.",
        autocompletion=completion.one_of("auto", "fp32", "bf16"),
    ),
]
RecipeName = Annotated[
    str,
    typer.Option(
        "--recipe",
        help="default (common to all methods) or published (per task).",
        autocompletion=completion.one_of("default", "published"),
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change a setting; METHOD.KEY=VALUE for one method only."),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the plan and stop.")]
Force = Annotated[bool, typer.Option("--force", help="Run again what is done already.")]
RetryFailed = Annotated[bool, typer.Option("--retry-failed", help="Run again what failed before.")]
Config = Annotated[
    Path | None,
    typer.Option(
        "--config", is_eager=True, callback=read_config, help="A TOML file with these options; the line above wins."
    ),
]


@dataclass(frozen=True)
class GridOptions:
    """The options that every command over a grid has; see ``grid_command``."""

    tasks: Tasks
    seeds: Seeds = "0"
    backbone: Backbone = None
    checkpoint: Checkpoint = None
    data: Data = None
    results: Results = Path("results")
    epochs: Epochs = None
    device: Device = "auto"
    jobs: Jobs = None
    stack: Stack = "auto"
    engine: Engine = "local"
    scheduler: Scheduler = None
    precision: Precision = "auto"
    recipe: RecipeName = "default"
    settings: Settings = None
    dry_run: DryRun = False
    force: Force = False
    retry_failed: RetryFailed = False

    def values(self) -> dict[str, Any]:
        """Return the settings that were given, ``--epochs`` among them."""
        from shipbench.settings import parse_pairs

        found: dict[str, Any] = dict(parse_pairs(self.settings or []))
        if self.epochs is not None:
            if "epochs" in found:
                raise InputError("epochs is given twice: by --epochs and by --set")
            found["epochs"] = self.epochs
        return found

    def cluster(self) -> str | None:
        """Return the address of the Dask scheduler, or None for this machine; refuses what does not fit together."""
        if self.engine not in ("local", "dask"):
            raise InputError(f"unknown engine {self.engine!r}; choose local or dask")
        if (self.engine == "dask") != (self.scheduler is not None):
            raise InputError("--engine dask and --scheduler ADDRESS belong together; give both or none")
        return self.scheduler

    def stacking(self) -> Stacking:
        """Return which runs may be trained together; refuses what cannot be."""
        from shipbench.planning.stacks import parse_stacking

        stacking = parse_stacking(self.stack)
        if self.engine == "dask" and stacking.most > 1 and not stacking.measured:
            raise InputError(
                "--stack N and --engine dask do not go together: a cluster's worker does one run at a time"
            )
        return stacking

    def template(self) -> RunSpec:
        """Return a spec with everything that is the same for all runs."""
        from shipbench.spec import RunSpec

        return RunSpec(
            method="ship",
            task="demo-tiny",
            recipe=self.recipe,
            backbone=self.backbone,
            checkpoint=self.checkpoint,
            precision=self.precision,  # type: ignore[arg-type]
            data=self.data,
            device=self.device,
        )


def grid_command(command: Callable[..., None]) -> Callable[..., None]:
    """Give ``command(options: GridOptions, ...)`` the options of a grid and ``--config`` beside its own."""
    own = inspect.signature(command, eval_str=True).parameters.values()
    hints = get_type_hints(GridOptions, include_extras=True)
    empty = inspect.Parameter.empty
    shared = [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=empty if field.default is MISSING else field.default,
            annotation=hints[field.name],
        )
        for field in fields(GridOptions)
    ]
    config = inspect.Parameter("config", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Config)
    special = [
        parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own if parameter.name != "options"
    ]

    def run_command(**values: Any) -> None:
        options = GridOptions(**{field.name: values[field.name] for field in fields(GridOptions)})
        command(options, **{parameter.name: values[parameter.name] for parameter in special})

    parameters = [*special, *shared, config]
    run_command.__doc__ = command.__doc__
    run_command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    run_command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return run_command
